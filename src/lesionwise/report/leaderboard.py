"""The leaderboard: recipes side by side on one data set, as tables and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lesionwise.io.checked import read_checked
from lesionwise.io.files import read_table, write_json, write_table
from lesionwise.metrics.evaluation import LOWER_IS_BETTER, SIGNED
from lesionwise.metrics.statistics import RankComparison
from lesionwise.report import figures
from lesionwise.report.contents import Cell, free_table, heading
from lesionwise.report.render import number, safe_link, shown, write_page
from lesionwise.types import EMPTY, InputError

LEADERBOARD = "leaderboard.json"
"""In the folder of a benchmark: what the tables beside it do not say."""

MAX_CHOICES = 8
"""A text column with more different words than this is searched, not chosen from."""
LARGEST_MATRIX = 12
"""Recipes that are compared in a matrix; more are compared in the table alone."""

TABLES = ("recipes", "scores", "costs", "comparisons", "failures")


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """What a benchmark found.

    Attributes:
        title: heading.
        scores: a row a recipe and case: ``recipe``, ``case`` and one column per metric, NaN where
            a metric is undefined.
        metrics: the columns to show, in order; by the mean of the first one recipes are ranked.
        recipes: a row a recipe, also of one that gave no scores: ``recipe``, then columns of text
            to tell them by (``task``, ``visits``, ``source`` …); a column ``page`` is a relative
            path that the name leads to. Left out, it is made from the scores.
        costs: a row a recipe: ``recipe``, then numbers with their unit at the end of the name
            (``train_s``, ``predict_s``, ``peak_gb``, ``parameters``).
        comparisons: as in ``comparison.tsv`` of an evaluation: metric, first, second, n,
            difference (first - second), ci_low, ci_high, wilcoxon_p, p_holm, better.
        failures: ``recipe``, and as far as known ``case``, ``error``.
        ranks: mean ranks by the first metric.
        lead: a line below the heading.
        provenance: what made it: data set, folds, seed, machine, versions.
        warnings: what the reader should know before believing the result.
    """

    title: str
    scores: pd.DataFrame
    metrics: tuple[str, ...]
    recipes: pd.DataFrame = field(default_factory=pd.DataFrame)
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    ranks: RankComparison | None = None
    lead: str = ""
    provenance: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _About:
    """What ``leaderboard.json`` holds; the names are its keys."""

    Title: str
    Metrics: tuple[str, ...]
    Ranks: RankComparison | None = None
    Lead: str = ""
    Provenance: dict[str, Any] = field(default_factory=dict)
    Warnings: tuple[str, ...] = ()


def write_leaderboard(board: Leaderboard, folder: str | Path) -> Path:
    """Write ``leaderboard.html`` with the tables it is made from, and return the page's path.

    Beside it ``recipes.tsv``, ``scores.tsv``, ``costs.tsv``, ``comparisons.tsv``,
    ``failures.tsv`` (a table without rows is left out) and ``leaderboard.json``, from which
    ``read_leaderboard`` makes the same leaderboard again.

    Raises:
        InputError: If a file cannot be written.
        ValueError: If a table lacks the column ``recipe``, or scores lack a metric.
    """
    _check(board)
    folder = Path(folder)
    for name in TABLES:
        table: pd.DataFrame = getattr(board, name)
        path = folder / f"{name}.tsv"
        if len(table):
            write_table(path, table)
        else:
            path.unlink(missing_ok=True)
    write_json(
        folder / LEADERBOARD,
        {
            "Title": board.title,
            "Lead": board.lead,
            "Metrics": list(board.metrics),
            "Ranks": None if board.ranks is None else asdict(board.ranks),
            "Provenance": dict(board.provenance),
            "Warnings": list(board.warnings),
        },
    )
    # from the files, whose numbers are rounded: so the page made again later is the same
    return write_leaderboard_page(read_leaderboard(folder), folder / "leaderboard.html")


def read_leaderboard(folder: str | Path) -> Leaderboard:
    """The leaderboard that ``write_leaderboard`` wrote into a folder.

    Raises:
        InputError: If the folder holds none, or a file of it cannot be read.
    """
    folder = Path(folder)
    about = read_checked(folder / LEADERBOARD, _About)
    metrics = about.Metrics
    tables = {}
    for name in TABLES:
        path = folder / f"{name}.tsv"
        table = read_table(path) if path.exists() else pd.DataFrame()
        tables[name] = _with_numbers(name, table, metrics)
    board = Leaderboard(
        title=about.Title,
        metrics=metrics,
        ranks=about.Ranks,
        lead=about.Lead,
        provenance=about.Provenance,
        warnings=about.Warnings,
        **tables,
    )
    try:
        _check(board)
    except ValueError as error:
        raise InputError(f"{folder}: not a leaderboard that can be read ({error})") from error
    return board


def write_leaderboard_page(board: Leaderboard, path: str | Path) -> Path:
    """Write the page of a leaderboard, and return where it lies.

    Recipes stand by the mean of the first metric, the best first; those without scores last.

    Raises:
        InputError: If the page cannot be written.
        ValueError: If a table lacks the column ``recipe``, or scores lack a metric.
    """
    _check(board)
    summary = _summary(board)
    order = _order(board, summary)
    main = board.metrics[0] if board.metrics else ""
    table, choices = _table(board, summary, order)
    charts = []
    if main:
        values = {
            name: board.scores.loc[board.scores["recipe"] == name, main]
            for name in order
            if name in summary.index
        }
        if values:
            spread = figures.strips(
                values,
                label=heading(main),
                limits=(0.0, 1.0) if _is_fraction(board, main) else None,
            )
            charts.append((Markup(figures.to_svg(spread)), f"{heading(main)} of every case"))
        if board.ranks is not None:
            ranked = figures.critical_difference(
                board.ranks.mean_ranks, board.ranks.critical_difference, board.ranks.groups
            )
            charts.append(
                (
                    Markup(figures.to_svg(ranked)),
                    f"Mean ranks by {heading(main)} (bars: no difference by Nemenyi's test)",
                )
            )
        charts += _against_cost(board, summary, main)
    return write_page(
        path,
        "leaderboard.html",
        title=board.title,
        board=board,
        table=table,
        choices=choices,
        main=heading(main),
        charts=charts,
        matrix=_matrix(board, order, main),
        comparisons=free_table(board.comparisons, by="metric") if len(board.comparisons) else None,
        compared=_words(board.comparisons, "metric"),
        metric_at=list(board.comparisons).index("metric") if "metric" in board.comparisons else 0,
        failures=free_table(board.failures) if len(board.failures) else None,
        cases=int(board.scores["case"].nunique()) if "case" in board.scores else 0,
        count=len(order),
    )


def _check(board: Leaderboard) -> None:
    for name in ("recipes", "scores", "costs", "failures"):
        table = getattr(board, name)
        if len(table) and "recipe" not in table:
            raise ValueError(f"{name} need a column recipe, they have {list(table)}")
        # a subject that is left out for every recipe is listed without one
        if len(table) and name != "failures" and table["recipe"].isna().any():
            raise ValueError(f"a row of {name} has no recipe")
    if {"recipe", "case"} & set(board.metrics):
        raise ValueError("recipe and case are no metrics")
    if board.ranks is not None:
        listed = [name for group in board.ranks.groups for name in group]
        unknown = [name for name in listed if name not in board.ranks.mean_ranks]
        if unknown or not board.ranks.mean_ranks:
            raise ValueError(f"no mean rank of {unknown or 'any recipe'}")
    missing = [name for name in board.metrics if len(board.scores) and name not in board.scores]
    if missing:
        raise ValueError(f"scores lack the columns {missing}")


def _summary(board: Leaderboard) -> pd.DataFrame:
    """Mean, SD and number of defined values of each metric, by recipe."""
    if not len(board.scores):
        return pd.DataFrame()
    scores = board.scores.copy()
    for name in board.metrics:
        numbers = pd.to_numeric(scores[name], errors="coerce").astype(np.float64)
        scores[name] = numbers.where(np.isfinite(numbers))
    return scores.groupby("recipe", sort=False)[list(board.metrics)].agg(["mean", "std", "count"])


def _order(board: Leaderboard, summary: pd.DataFrame) -> list[str]:
    tables = (board.recipes, board.scores, board.costs, board.failures)
    names = [str(name) for table in tables if len(table) for name in table["recipe"]]
    names = list(dict.fromkeys(names))
    if not board.metrics or not len(summary):
        return names
    means = _goodness(summary, board.metrics[0]).reindex(names)
    order = means.reset_index(drop=True).sort_values(ascending=False, kind="stable")
    return [names[at] for at in order.index]


def _table(
    board: Leaderboard, summary: pd.DataFrame, order: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The main table, and the columns of words that rows can be chosen by."""
    about = _by_recipe(board.recipes)
    costs = _by_recipe(board.costs)
    text = [name for name in about if name != "page"]
    columns = [
        {"name": "recipe", "kind": "text"},
        *({"name": heading(name), "kind": "text"} for name in text),
        {"name": "cases", "kind": "number"},
        *({"name": heading(name), "kind": "number"} for name in (*board.metrics, *costs)),
    ]
    best = {name: _best(summary, name) for name in board.metrics}
    spent = {name: pd.to_numeric(costs[name], errors="coerce") for name in costs}
    rows: list[tuple[list[Cell], list[str]]] = []
    for recipe in order:
        link = about["page"].get(recipe) if "page" in about else None
        words = [shown(about[name].get(recipe)) for name in text]
        cells = [
            Cell(recipe, recipe, safe_link(str(link)) if _known(link) else ""),
            *(Cell(word, word) for word in words),
            _cases(board, recipe),
        ]
        for name in board.metrics:
            cells.append(_score(board, summary, recipe, name, best[name] == recipe))
        for values in spent.values():
            value = float(values.get(recipe, np.nan))
            cheapest = len(order) > 1 and value == values.min()
            cells.append(Cell(_cost(value), str(value) if _known(value) else "", best=cheapest))
        rows.append((cells, words))
    choices = []
    for at, name in enumerate(text):
        found = sorted({words[at] for _, words in rows})
        if 1 < len(found) <= MAX_CHOICES:
            choices.append({"at": at, "name": heading(name), "words": found})
    shown_rows = [{"cells": cells, "words": words} for cells, words in rows]
    return {"columns": columns, "rows": shown_rows}, choices


def _cases(board: Leaderboard, recipe: str) -> Cell:
    count = int((board.scores["recipe"] == recipe).sum()) if len(board.scores) else 0
    return Cell(str(count), str(count))


def _score(board: Leaderboard, summary: pd.DataFrame, recipe: str, metric: str, best: bool) -> Cell:
    """Mean ± SD; the number of cases too, where the metric is not defined on all of them."""
    of_metric: dict[Any, Any] = (
        pd.DataFrame(summary[metric]).to_dict("index") if len(summary) else {}
    )
    found = of_metric.get(recipe)
    if found is None or not found["count"]:
        return Cell("\N{EN DASH}", "")
    mean, spread, count = float(found["mean"]), float(found["std"]), int(found["count"])
    digits = 3 if abs(mean) < 10 else 1
    text = number(mean, digits)
    if np.isfinite(spread):
        text += f" ± {number(spread, digits)}"
    if count < int((board.scores["recipe"] == recipe).sum()):
        text += f" ({count})"
    share = mean if metric == board.metrics[0] and _is_fraction(board, metric) else None
    return Cell(text, str(mean), best=best, share=share)


def _goodness(summary: pd.DataFrame, metric: str) -> pd.Series:
    """The mean by recipe, turned so that more is better; of signed metrics 0 is best."""
    means = summary[metric, "mean"]
    means = means.abs() if metric in SIGNED else means
    return -means if metric in LOWER_IS_BETTER else means


def _best(summary: pd.DataFrame, metric: str) -> str:
    """The recipe with the best mean, the first of equal ones; "" where there is no contest."""
    if len(summary) < 2 or not summary[metric, "count"].gt(0).any():
        return ""
    return str(_goodness(summary, metric).idxmax())


def _is_fraction(board: Leaderboard, metric: str) -> bool:
    values = pd.to_numeric(board.scores[metric], errors="coerce").dropna()
    return bool(len(values) and values.between(0, 1).all())


def _matrix(board: Leaderboard, order: Sequence[str], main: str) -> dict[str, Any] | None:
    """Row - column differences of the first metric; None where there is nothing to compare."""
    needed = {"metric", "first", "second", "difference", "p_holm"}
    if not main or not needed <= set(board.comparisons):
        return None
    rows = board.comparisons[board.comparisons["metric"] == main]
    names = [name for name in order if name in {*rows["first"], *rows["second"]}]
    if not 1 < len(names) <= LARGEST_MATRIX:
        return None
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for entry in rows.to_dict("records"):
        first, second = str(entry["first"]), str(entry["second"])
        difference, p = float(entry["difference"]), float(entry["p_holm"])
        found[first, second] = difference, p
        found[second, first] = -difference, p
    better = -1 if main in LOWER_IS_BETTER else 1

    def cell(row: str, column: str) -> dict[str, str]:
        difference, p = found.get((row, column), (np.nan, np.nan))
        if row == column or not np.isfinite(difference):
            return {"text": "", "look": "", "title": ""}
        clear = np.isfinite(p) and p < 0.05
        sign = "+" if difference > 0 else ""
        return {
            "text": f"{sign}{number(difference, 3)}{'*' if clear else ''}",
            "look": ("ahead" if difference * better > 0 else "behind") if clear else "",
            "title": f"{row} - {column}: p {p:.2g}",
        }

    return {
        "names": names,
        "rows": [(row, [cell(row, column) for column in names]) for row in names],
    }


def _against_cost(board: Leaderboard, summary: pd.DataFrame, main: str) -> list[tuple[Markup, str]]:
    """The first metric against the first cost that is known of two recipes or more."""
    costs = _by_recipe(board.costs)
    for name in ("predict_s", "train_s", *costs):
        if name not in costs or not len(summary):
            continue
        cost = pd.to_numeric(costs[name], errors="coerce")
        both = [recipe for recipe in summary.index if cost.get(recipe, np.nan) > 0]
        if len(both) < 2:
            continue
        drawn = figures.named_points(
            {r: (float(cost[r]), float(summary.loc[r, (main, "mean")])) for r in both},
            x_label=heading(name),
            y_label=f"{heading(main)}, mean",
        )
        return [(Markup(figures.to_svg(drawn)), f"{heading(main)} against {heading(name)}")]
    return []


def _by_recipe(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns of a table, each by recipe; of rows with one recipe the first counts."""
    if not len(table):
        return {}
    first = table.drop_duplicates("recipe").set_index("recipe")
    return {str(name): first[name] for name in first}


def _cost(value: float) -> str:
    if value >= 1e6:
        return f"{number(value / 1e6, 1)} M"
    return number(value, 0 if value >= 100 else 1 if value >= 10 else 2)


def _words(table: pd.DataFrame, column: str) -> list[str]:
    return [str(word) for word in table[column].unique()] if column in table else []


def _known(value: Any) -> bool:
    return not (value is None or value == "" or (isinstance(value, float) and np.isnan(value)))


def _with_numbers(name: str, table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A table as read from its file, with the columns that are numbers as numbers."""
    every = {str(column) for column in table}
    text = {
        "recipes": every,
        "scores": every - set(metrics),
        "costs": {"recipe"},
        "comparisons": {"metric", "compared", "first", "second", "better"},
        "failures": every,
    }[name]
    for column in every:
        if column not in text:
            table[column] = pd.to_numeric(table[column], errors="coerce")
    return table
