"""What commands print: progress, tables, notes and failures."""

from __future__ import annotations

import functools
import inspect
import io
import json
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from lesionwise import types
from lesionwise.io.checked import printable

if TYPE_CHECKING:
    import pandas as pd

    from lesionwise.report.page import QualityNote
    from lesionwise.run.models import ModelFacts
    from lesionwise.run.recipes import RecipeFacts


def plain_console(**how: Any) -> Console:
    """A console that prints every text as it is, whatever signs the names of files hold.

    Rich would read ``[red]`` as a color and ``:x:`` as a picture, also in tables.

    Example:
        >>> plain_console(file=sys.stdout).print("[red]a:x:.nii.gz")
        [red]a:x:.nii.gz
    """
    return Console(**how, highlight=False, markup=False, emoji=False)


console = plain_console(stderr=True)
results = plain_console()


@dataclass
class OutputOptions:
    """How much the command prints, and what it has to say at its end.

    Attributes:
        quiet: no progress and no notes; errors and results stay.
        verbose: every stage stays on the screen with the time it took.
        as_json: results are one JSON object on standard output in the place of text.
        said: tables, lines and pages of a command that prints JSON.
    """

    quiet: bool = False
    verbose: bool = False
    as_json: bool = False
    said: dict[str, Any] = field(default_factory=dict)


options = OutputOptions()

MIN_WRAPPED = 24
"""Characters a line of a wrapped text holds at least; below that, records are lists."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only results and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Every stage with the time it took.")]
AsJson = Annotated[bool, typer.Option("--json", help="Results as JSON on standard output.")]


def with_output_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with ``--quiet``, ``--verbose`` and ``--json``, those that it has not itself.

    Example:
        >>> def greet(name: str) -> None: ...
        >>> list(inspect.signature(with_output_options(greet)).parameters)
        ['name', 'quiet', 'verbose', 'as_json']
    """
    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in (("quiet", Quiet), ("verbose", Verbose), ("as_json", AsJson))
        if name not in signature.parameters
    ]
    names = [each.name for each in added]

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        chosen = {name: kwargs.pop(name, False) for name in names}
        options.quiet = chosen.get("quiet", False)
        options.verbose = chosen.get("verbose", False)
        options.as_json = chosen.get("as_json", False)
        options.said = {}
        try:
            command(*args, **kwargs)
        finally:
            if options.as_json and options.said:
                print_json(options.said)

    all_parameters = [*signature.parameters.values(), *added]
    run.__signature__ = signature.replace(parameters=all_parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in all_parameters}
    return run


def add_output_options(app: typer.Typer) -> None:
    """Give every command of the program ``--quiet``, ``--verbose`` and ``--json``."""
    for info in app.registered_commands:
        if info.callback is not None:
            info.callback = with_output_options(info.callback)


def escape_unknown_characters() -> None:
    """Write characters that a stream's encoding lacks as escapes instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_line(text: object) -> None:
    """Print one line on standard output, as it is."""
    if options.as_json:
        options.said.setdefault("lines", []).append(str(text).strip())
        return
    results.print(printable(text), soft_wrap=True)


def show_note(text: object) -> None:
    """Print one line on standard error, as it is."""
    console.print(printable(text), soft_wrap=True)


def show_entry(text: str, indent: int = 4) -> None:
    """Print an entry of a list; a terminal gets it wrapped between words, further lines indented.

    Elsewhere it is one line, which other programs can search.
    """
    if results.is_terminal:
        lines = textwrap.wrap(
            printable(text),
            max(results.width, indent + MIN_WRAPPED),
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
        )
        text = "\n".join(lines)
        results.print(text, soft_wrap=True)
    else:
        show_line(text)


def duration(seconds: float) -> str:
    """A time as a person says it.

    Example:
        >>> duration(7.2), duration(95), duration(8000)
        ('7 s', '2 min', '2 h 13 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


REPEAT_S = 20.0
"""A log without a terminal says again how far a stage is, so often."""


class StageLog:
    """Lines of a log: the time of day, the stage, how far, and about how long it still takes.

    Args:
        write: takes each line.
        verbose: say of each stage how long it took.
        clock: seconds, for what is left.
        time_of_day: for the start of a line.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], str] = lambda: time.strftime("%H:%M:%S"),
    ) -> None:
        self._write, self._verbose = write, verbose
        self._clock, self._time_of_day = clock, time_of_day
        self._last, self._since = "", 0.0
        self._written = 0.0
        # When it began, how much was done then, and of how much: of all, and of the stage alone.
        self._start: tuple[float, int, int] | None = None
        self._stage: tuple[float, int, int] = (0.0, 0, 0)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show progress.

        A line is written when a new stage begins, and every ``REPEAT_S`` while it counts on.
        """
        now = self._clock()
        if stage != self._last:
            self.end()
            if self._start is None or self._start[2] != total or done < self._start[1]:
                self._start = now, done, total
            self._last, self._since, self._stage = stage, now, (now, done, total)
            self._line(now, done, total, self._start)
            return
        if self._stage[2] != total:  # the stage counts its own parts, from 0
            self._stage = self._since, 0, total
        if now - self._written >= REPEAT_S and 0 < done < total:
            self._line(now, done, total, self._stage)

    def end(self) -> None:
        """The last stage is over."""
        if self._verbose and self._last:
            took = self._clock() - self._since
            self._write(f"{self._time_of_day()} {printable(self._last)} took {duration(took)}")
        self._last = ""

    def _line(self, now: float, done: int, total: int, start: tuple[float, int, int]) -> None:
        count = f" ({done}/{total})" if total > 1 else ""
        left = _left(now, done, total, start)
        if self._last.endswith(" left"):  # the stage says so itself
            left = ""
        self._write(f"{self._time_of_day()} {printable(self._last)}{count}{left}")
        self._written = now


def _left(now: float, done: int, total: int, start: tuple[float, int, int]) -> str:
    began, first, _ = start
    if total < 2 or done <= first or done >= total:
        return ""
    return f", about {duration((now - began) / (done - first) * (total - done))} left"


@contextmanager
def progress_shown() -> Iterator[types.Progress]:
    """Progress on standard error: a bar on a terminal, a line a stage with the time elsewhere.

    A second bar shows the parts of a stage that counts its own. Nothing with ``--quiet``; with
    ``--verbose`` the lines stay on a terminal too.
    """
    if options.quiet:
        yield types.no_progress
        return
    if not console.is_terminal or options.verbose:
        log = StageLog(show_note, verbose=options.verbose)
        yield log
        log.end()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield _on_bars(bars)


def _on_bars(bars: Progress) -> types.Progress:
    whole, parts = bars.add_task("", total=None), bars.add_task("", total=None, visible=False)
    last = "", 0

    def on_progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        if stage == last[0] and total != last[1]:
            if not bars.tasks[parts].visible:
                bars.reset(parts, total=total, visible=True, description="")
            bars.update(parts, completed=done, total=total)
            return
        last = stage, total
        bars.update(parts, visible=False)
        bars.update(whole, description=printable(stage), completed=done, total=total or None)

    return on_progress


def show(table: pd.DataFrame, title: str = "") -> None:
    """Print a small table on standard output, every column of it, no number broken.

    A line is a record where the terminal is wide enough for that; otherwise each record becomes a
    column, or texts wrap between words, or each record is printed as a list of names and values.
    A column of empty texts alone is left out.
    Where its column ``lesions`` is 0 throughout, a line says that no lesion was found.
    """
    if options.as_json:
        rows = json.loads(table.to_json(orient="records"))
        options.said.setdefault("tables", []).append({"title": title, "rows": rows})
        return
    if title:
        show_line("")
        show_line(title)
    table = table[[name for name in table if not len(table) or any(map(_cell, table[name]))]]
    layouts = [_row_per_record(table)]
    if len(table) < len(table.columns):
        layouts.append(_transposed(table))
    layouts.append(_row_per_record(table, wrap=True))
    fitting = next((drawn for drawn in layouts if _fits(drawn)), None)
    if fitting is not None:
        results.print(fitting)
    else:
        _print_records(table)
    if "lesions" in table and len(table) and (table["lesions"] == 0).all():
        show_line("No lesion was found.")


def _fits(table: Table) -> bool:
    # measured without a limit, since rich would squeeze the table into the terminal's width
    room = results.options.update(max_width=100 * results.width)
    return results.measure(table, options=room).minimum <= results.width


def _row_per_record(table: pd.DataFrame, *, wrap: bool = False) -> Table:
    """A line per record; with ``wrap``, the longest texts may take several lines."""
    drawn = Table(header_style="bold")
    for name in table.columns:
        cells = [_cell(value) for value in table[name]]
        heading = str(name).replace("_", " ")
        widest = max(map(cell_len, [heading, *cells]))
        wraps = wrap and widest > MIN_WRAPPED and _all_words(cells)
        drawn.add_column(
            heading,
            justify="right" if table[name].dtype.kind in "if" else "left",
            no_wrap=not wraps,
            min_width=MIN_WRAPPED if wraps else widest,
        )
    for row in table.itertuples(index=False):
        drawn.add_row(*[_cell(value) for value in row])
    return drawn


def _all_words(cells: Sequence[str]) -> bool:
    """Whether every text can wrap between words that are not too long for a line."""
    return all(cell_len(word) <= MIN_WRAPPED for cell in cells for word in cell.split())


def _print_records(table: pd.DataFrame) -> None:
    """Each record as its first value, and below it the names and values of the others.

    Values of a name stand below each other; where a line is full, the next pair begins a new one.
    """
    first, *others = table.columns
    cells = {name: [_cell(value) for value in table[name]] for name in table.columns}
    widths = {
        name: cell_len(str(name)) + 1 + max(map(cell_len, cells[name]), default=0)
        for name in others
    }
    room = results.width - 2
    for number, heading in enumerate(cells[first]):
        results.print(Text(heading, style="bold"))
        line = ""
        for name in others:
            if not cells[name][number]:
                continue
            pair = f"{str(name).replace('_', ' ')} {cells[name][number]}"
            if line and cell_len(line) + min(widths[name], room) > room:
                _print_indented(line)
                line = ""
            line += pair + " " * (widths[name] + 3 - cell_len(pair))
        _print_indented(line)


def _print_indented(line: str) -> None:
    """The line, and what is too long for it, two characters to the right."""
    for part in textwrap.wrap(
        line.rstrip(), results.width - 2, break_on_hyphens=False, break_long_words=False
    ):
        show_line(f"  {part}")


def _transposed(table: pd.DataFrame) -> Table:
    """A column per record: names of the columns in front, the first column as the header."""
    first, *others = table.columns
    drawn = Table(header_style="bold")
    names = [str(name).replace("_", " ") for name in table.columns]
    drawn.add_column(names[0], style="bold", no_wrap=True, min_width=max(map(cell_len, names)))
    for number, value in enumerate(table[first]):
        widest = max(cell_len(_cell(table[name].iloc[number])) for name in table.columns)
        drawn.add_column(_cell(value), justify="right", no_wrap=True, min_width=widest)
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

    if options.as_json:
        options.said["quality"] = [note.written() for note in notes]
        return
    for line in lines(notes):
        show_line(line)


def show_page(page: Path) -> None:
    """Print where the page is."""
    if options.as_json:
        options.said["page"] = str(page)
        return
    show_line("")
    show_line(f"The page: {page}")


def show_failures(failures: Mapping[str, str]) -> None:
    """Print, for each input that gave nothing, its name and the error."""
    if options.as_json and failures:
        options.said["failures"] = dict(failures)
    for name, error in failures.items():
        show_note(f"lesionwise: {error if name in error else f'{name}: {error}'}")


def show_recipes(facts: Sequence[RecipeFacts]) -> None:
    """Print a list of recipes, each with its short citation."""
    if options.as_json:
        options.said["recipes"] = [
            {"name": each.name, "description": each.description, "models": list(each.models)}
            for each in facts
        ]
        return
    width = 2 + max((len(each.name) for each in facts), default=0)
    for each in facts:
        weights = f"; shipped weights: {', '.join(each.models)}" if each.models else ""
        text = f"{each.description} ({each.recipe.citation.short}){weights}"
        show_entry(f"{each.name:{width}}{text}", width)
    show_entry(
        "Recipes without shipped weights are trained first: lesionwise train RECIPE DATASET."
    )


def show_recipe(facts: RecipeFacts) -> None:
    """Print a recipe: citation, settings, the source's own scores, departures from the source."""
    show_line(f"{facts.name}: {facts.description}")
    show_entry(f"cite: {facts.recipe.citation}")
    show_line(f"shipped weights: {', '.join(facts.models) or 'none; train it first'}")
    for name, value in facts.settings.items():
        show_line(f"{name} = {value}")
    for name, value in facts.recipe.reported.items():
        show_line(f"reported: {name} {value}")
    for departure in facts.recipe.departures:
        show_entry(f"departure: {departure}")


def show_models(facts: Sequence[ModelFacts]) -> None:
    """Print a list of models: recipe, what they take and find, size of the training."""
    for each in facts:
        takes = f"{each.visits} visits" if each.visits > 1 else "1 visit"
        finds = "new lesions" if each.task == "new" else "all lesions"
        studies, steps = each.training.get("training_studies"), each.training.get("steps")
        show_entry(
            f"{each.name:12} recipe {each.recipe}; {takes} of {', '.join(each.scans)}; {finds}; "
            f"{len(each.changed)} settings differ from the recipe; "
            f"trained on {studies} studies in {steps} steps",
            13,
        )


def show_model(facts: ModelFacts) -> None:
    """Print a model in full; settings that differ from the recipe begin with ``*``."""
    show_line(f"{facts.name}: a model of the recipe {facts.recipe}")
    show_entry(f"cite: {facts.citation}")
    show_line(f"licence: {facts.licence}")
    show_line(f"sha256: {facts.sha256}")
    if facts.card:
        show_line(f"card: {facts.card}")
    for name, value in facts.training.items():
        show_entry(f"training: {name.replace('_', ' ')} {value}")
    for name, value in facts.scores.items():
        show_entry(f"score: {name}: {value}")
    show_line("settings (* differs from the recipe):")
    for setting in facts.settings:
        mark = "*" if setting.changed else " "
        recipe = f" (recipe: {setting.recipe})" if setting.changed and setting.recipe else ""
        only = ", training only" if setting.training else ""
        show_line(f"{mark} {setting.name} = {setting.value}{recipe}{only}")
    for departure in facts.departures:
        show_entry(f"departure: {departure}")


def show_json(value: Any) -> None:
    """Print a value as JSON, as the only thing on standard output."""
    options.said = {}
    print_json(value)


def print_json(value: Any) -> None:
    """Write a value as JSON on standard output."""
    results.out(json.dumps(value, indent=2, ensure_ascii=False), highlight=False)
