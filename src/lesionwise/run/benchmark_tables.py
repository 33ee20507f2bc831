"""Results of a benchmark as a leaderboard."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise import __version__
from lesionwise.io.files import write_table
from lesionwise.io.record import TRAINING_PACKAGES, versions
from lesionwise.metrics.evaluation import SHORT, Evaluation
from lesionwise.metrics.statistics import RankComparison
from lesionwise.report.leaderboard import Leaderboard, write_leaderboard
from lesionwise.run.benchmark_recipes import BenchmarkRecipe


def write_benchmark_tables(
    entries: Sequence[BenchmarkRecipe],
    done: Mapping[str, Sequence[Mapping[str, Any]]],
    evaluations: Mapping[str, Evaluation],
    failures: Mapping[str, str],
    made: Mapping[str, Any],
    dataset: Path,
    output: Path,
) -> tuple[pd.DataFrame, Path]:
    """Write ``leaderboard.tsv`` and the page with its tables; return the table and the page.

    Args:
        entries: every recipe that was asked for.
        done: by recipe, what each fold gave; without those that failed.
        evaluations: by group.
        failures: by recipe, or recipe and case with a blank between.
        made: ``folds``, ``seed``, ``max_minutes``, ``max_steps``.
        dataset: what was benchmarked on.
        output: folder.
    """
    scores, comparisons = [], []
    ranks: RankComparison | None = None
    # Groups find different things, so they are scored apart and stand in one table.
    for evaluation in evaluations.values():
        scores += [{"recipe": row.pop("method"), **row} for row in map(_flat, evaluation.cases)]
        comparisons += evaluation.comparison_rows
        ranks = ranks or evaluation.ranks.get(SHORT[0])
    about = [
        {
            "recipe": entry.name,
            "task": "new lesions" if entry.found.task == "new" else "all lesions",
            "visits": str(entry.found.visits),
            "source": entry.found.citation.short,
            "result": failures.get(entry.name, "done"),
            "page": f"evaluation-{entry.group}/evaluation.html"
            if entry.group in evaluations and entry.name not in failures
            else "",
        }
        for entry in entries
    ]
    costs = [_costs(entry.name, done[entry.name]) for entry in entries if entry.name in done]
    continued = [
        f"{name}, fold {result['fold'] + 1}: was interrupted; its times are of the last call"
        for name, results in done.items()
        for result in results
        if result["continued"]
    ]
    limits = [
        f"{limit:g} {unit}"
        for limit, unit in (
            (made["max_minutes"], "min"),
            (made.get("max_steps"), "steps of each network"),
        )
        if limit
    ]
    board = Leaderboard(
        title=f"Leaderboard on {dataset.resolve().name}",
        scores=pd.DataFrame(scores),
        metrics=SHORT,
        recipes=pd.DataFrame(about),
        costs=pd.DataFrame(costs),
        comparisons=pd.DataFrame(comparisons),
        failures=pd.DataFrame(_failure_rows(entries, failures)),
        ranks=ranks if len(evaluations) == 1 else None,
        lead=f"Cross-validation by patient in {made['folds']} folds; "
        + (
            "each training at most " + " and ".join(limits)
            if limits
            else "trainings as long as set"
        ),
        provenance={
            "data": str(dataset),
            "folds": made["folds"],
            "seed": made["seed"],
            "minutes per training": made["max_minutes"],
            "steps per network": made.get("max_steps"),
            "rules": next((e.rules for e in evaluations.values()), ""),
            "lesionwise": __version__,
            **versions(TRAINING_PACKAGES),
            "machine": f"{platform.machine()}, {platform.system()}",
            "sources": {entry.name: str(entry.found.citation) for entry in entries},
        },
        warnings=tuple(continued),
    )
    table = _short(board)
    write_table(output / "leaderboard.tsv", table)
    return table, write_leaderboard(board, output)


def _flat(case: Any) -> dict[str, Any]:
    row: dict[str, Any] = case.flat()
    return row


def _costs(name: str, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over folds and cases; the greatest memory; parameters of one fold's run."""

    def greatest(key: str) -> float | None:
        known = [result[key] for result in results if result[key] is not None]
        return max(known) if known else None

    seconds = [case["predict_s"] for result in results for case in result["cases"]]
    return {
        "recipe": name,
        "prepare_s": results[0]["prepare_s"],
        "train_s": sum(result["train_s"] for result in results) / len(results),
        "predict_s": sum(seconds) / len(seconds) if seconds else None,
        "peak_gb": greatest("peak_gb"),
        "gpu_gb": greatest("gpu_gb"),
        "parameters": results[0]["parameters"],
    }


def _failure_rows(
    entries: Sequence[BenchmarkRecipe], failures: Mapping[str, str]
) -> list[dict[str, str]]:
    names = {entry.name for entry in entries}
    rows = []
    for key, error in failures.items():
        recipe, _, case = (key, "", "") if key in names else key.rpartition(" ")
        rows.append({"recipe": recipe, "case": case, "error": error})
    return rows


def _short(board: Leaderboard) -> pd.DataFrame:
    """One row per recipe: what it is, mean and SD of the short table's metrics, costs."""
    rows = []
    for about in board.recipes.to_dict("records"):
        name = about["recipe"]
        row = {key: about[key] for key in ("recipe", "task", "visits", "result")}
        own = board.scores[board.scores["recipe"] == name] if len(board.scores) else board.scores
        row["cases"] = len(own)
        for metric in board.metrics:
            values = pd.to_numeric(own[metric], errors="coerce").dropna() if len(own) else own
            row[metric] = values.mean() if len(values) else None
            row[f"{metric}_sd"] = values.std() if len(values) > 1 else None
        if len(board.costs) and name in set(board.costs["recipe"]):
            cost = board.costs[board.costs["recipe"] == name].iloc[0].to_dict()
            row |= {key: value for key, value in cost.items() if key != "recipe"}
        rows.append(row)
    table = pd.DataFrame(rows)
    return table.sort_values(
        ["task", board.metrics[0]], ascending=[True, False], kind="stable", ignore_index=True
    )
