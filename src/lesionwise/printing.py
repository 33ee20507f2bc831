"""What commands print: progress, tables, notes and failures."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from lesionwise import types
from lesionwise.io.checked import printable

if TYPE_CHECKING:
    import pandas as pd

    from lesionwise.report.page import QualityNote
    from lesionwise.run.models import ModelFacts
    from lesionwise.run.recipes import RecipeFacts

console = Console(stderr=True, highlight=False)
results = Console(highlight=False)


def escape_unknown_characters() -> None:
    """Write characters that a stream's encoding lacks as escapes instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_line(text: object) -> None:
    """Print one line on standard output, as it is."""
    results.print(printable(text), markup=False, soft_wrap=True)


def show_note(text: object) -> None:
    """Print one line on standard error, as it is."""
    console.print(printable(text), markup=False, soft_wrap=True)


@contextmanager
def progress_shown() -> Iterator[types.Progress]:
    """A progress line per stage on standard error: bars on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        last = ""

        def plain_progress(stage: str, done: int, total: int) -> None:
            nonlocal last
            if stage != last:
                last = stage
                count = f" ({done}/{total})" if total > 1 else ""
                show_note(f"{printable(stage)}{count}")

        yield plain_progress
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None)

        def on_progress(stage: str, done: int, total: int) -> None:
            bars.update(task, description=printable(stage), completed=done, total=total or None)

        yield on_progress


def show(table: pd.DataFrame, title: str = "") -> None:
    """Print a small table on standard output; of a wide one no column that is 0 throughout.

    Where it is wider than the terminal and has few rows, each row becomes a column.
    """
    if len(table.columns) > 8:
        table = table.loc[:, [bool((table[name] != 0).any()) for name in table.columns]]
    if title:
        show_line(f"\n{title}")
    printed = _row_per_record(table)
    if not _fits(printed) and len(table) < len(table.columns):
        transposed = _transposed(table)
        printed = transposed if _fits(transposed) else printed
    results.print(printed)


def _fits(table: Table) -> bool:
    # measured without a limit, since rich would squeeze the table into the terminal's width
    room = results.options.update(max_width=100 * results.width)
    return results.measure(table, options=room).maximum <= results.width


def _row_per_record(table: pd.DataFrame) -> Table:
    drawn = Table(header_style="bold")
    for name in table.columns:
        drawn.add_column(
            str(name).replace("_", " "),
            justify="right" if table[name].dtype.kind in "if" else "left",
            no_wrap=name == table.columns[0],  # what a row is about stays whole
            overflow="fold",
        )
    for row in table.itertuples(index=False):
        drawn.add_row(*[_cell(value) for value in row])
    return drawn


def _transposed(table: pd.DataFrame) -> Table:
    """A column per record: names of the columns in front, the first column as the header."""
    first, *others = table.columns
    drawn = Table(header_style="bold")
    drawn.add_column(str(first), style="bold")
    for value in table[first]:
        drawn.add_column(_cell(value), justify="right")
    for name in others:
        drawn.add_row(str(name).replace("_", " "), *[_cell(value) for value in table[name]])
    return drawn


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN differs from itself
        return "–" if results.encoding.startswith("utf") else "-"  # noqa: RUF001
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return printable(value)


def show_quality(notes: Sequence[QualityNote]) -> None:
    """Print how fit the inputs are, before what was found in them."""
    from lesionwise.run.quality_checks import lines

    for line in lines(notes):
        show_line(line)


def show_page(page: Path) -> None:
    """Print where the page is."""
    show_line(f"\nThe page: {printable(page)}")


def show_failures(failures: Mapping[str, str]) -> None:
    """Print, for each input that gave nothing, its name and the error."""
    for name, error in failures.items():
        show_note(f"lesionwise: {error if name in error else f'{name}: {error}'}")


def show_recipes(facts: Sequence[RecipeFacts]) -> None:
    """Print a list of recipes, each with its short citation."""
    for each in facts:
        show_line(f"{each.name:22}{each.description} ({each.recipe.citation.short})")


def show_recipe(facts: RecipeFacts) -> None:
    """Print a recipe: citation, settings, the source's own scores, departures from the source."""
    show_line(f"{facts.name}: {facts.description}")
    show_line(f"cite: {facts.recipe.citation}")
    for name, value in facts.settings.items():
        show_line(f"{name} = {value}")
    for name, value in facts.recipe.reported.items():
        show_line(f"reported: {name} {value}")
    for departure in facts.recipe.departures:
        show_line(f"departure: {departure}")


def show_models(facts: Sequence[ModelFacts]) -> None:
    """Print a list of models: recipe, what they take and find, size of the training."""
    for each in facts:
        takes = f"{each.visits} visits" if each.visits > 1 else "1 visit"
        finds = "new lesions" if each.task == "new" else "all lesions"
        studies, steps = each.training.get("training_studies"), each.training.get("steps")
        show_line(
            f"{each.name:12} recipe {each.recipe}; {takes} of {', '.join(each.scans)}; {finds}; "
            f"{len(each.changed)} settings differ from the recipe; "
            f"trained on {studies} studies in {steps} steps"
        )


def show_model(facts: ModelFacts) -> None:
    """Print a model in full; settings that differ from the recipe begin with ``*``."""
    show_line(f"{facts.name}: a model of the recipe {facts.recipe}")
    show_line(f"cite: {facts.citation}")
    show_line(f"licence: {facts.licence}")
    show_line(f"sha256: {facts.sha256}")
    if facts.card:
        show_line(f"card: {facts.card}")
    for name, value in facts.training.items():
        show_line(f"training: {name.replace('_', ' ')} {value}")
    for name, value in facts.scores.items():
        show_line(f"score: {name}: {value}")
    show_line("settings (* differs from the recipe):")
    for setting in facts.settings:
        mark = "*" if setting.changed else " "
        recipe = f" (recipe: {setting.recipe})" if setting.changed and setting.recipe else ""
        only = ", training only" if setting.training else ""
        show_line(f"{mark} {setting.name} = {setting.value}{recipe}{only}")
    for departure in facts.departures:
        show_line(f"departure: {departure}")


def show_json(value: Any) -> None:
    """Print a value as JSON, as the only thing on standard output."""
    results.out(json.dumps(value, indent=2, ensure_ascii=False), highlight=False)
