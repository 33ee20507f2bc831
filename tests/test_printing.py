"""What commands print."""

import io
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import typer
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner

from lesionwise import printing
from lesionwise.printing import (
    StageLog,
    add_output_options,
    duration,
    options,
    show,
)
from lesionwise.run.models import models


@pytest.mark.parametrize(
    ("width", "first"), [(50, ["visit", "01", "02"]), (200, ["visit", *"abcdefg"])]
)
def test_a_table_of_few_rows_is_transposed_where_it_does_not_fit(monkeypatch, width, first):
    written = io.StringIO()
    monkeypatch.setattr(printing, "results", Console(file=written, width=width, highlight=False))
    values = {name * (1 if width > 100 else 9): [1, 2] for name in "abcdefg"}
    printing.show(pd.DataFrame({"visit": ["01", "02"], **values}))
    lines = written.getvalue().splitlines()
    assert lines[1].strip("┃ ").replace("┃", " ").split() == first
    assert all(len(line) <= width for line in lines)
    assert "…" not in written.getvalue()


def test_a_stream_without_utf8_takes_whatever_is_printed(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    printing.escape_unknown_characters()
    printing.show(
        pd.DataFrame({"name": ["病人", "pati\udce9nt", "a\x1b[2J"], "volume": [None, 1.5, 2]})
    )
    stream.flush()
    shown = stream.buffer.getvalue()
    assert rb"\u75c5\u4eba" in shown
    assert rb"pati\xe9nt" in shown
    assert b"\x1b[2J" not in shown


def test_a_setting_that_differs_from_the_recipe_begins_with_a_star(capsys):
    (facts,) = models("unet-cc")
    printing.show_model(facts)
    lines = capsys.readouterr().out.splitlines()
    stars = [line.split()[1] for line in lines if line.startswith("* ")]
    assert stars == [setting.name for setting in facts.changed]


def test_json_is_all_that_stands_on_standard_output(capsys):
    printing.show_json({"a": [1, "é"]})
    assert capsys.readouterr().out == '{\n  "a": [\n    1,\n    "é"\n  ]\n}\n'


def test_a_failure_is_one_line_with_the_name_once(capsys):
    printing.show_failures({"a.nii": "a.nii: no such file", "b.nii": "is empty"})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["lesionwise: a.nii: no such file", "lesionwise: b.nii: is empty"]


@pytest.fixture(autouse=True)
def _as_at_the_start():
    yield
    options.quiet = options.verbose = options.as_json = False
    options.said = {}


def _log(**kwargs):
    lines, clock = [], iter([0.0, 10.0, 30.0, 30.0, 31.0])
    log = StageLog(
        lines.append, clock=lambda: next(clock), time_of_day=lambda: "12:00:00", **kwargs
    )
    return log, lines


def test_lines_carry_the_time_and_about_what_is_left():
    log, lines = _log()
    log("a", 0, 3)
    log("b", 1, 3)
    assert lines == ["12:00:00 a (0/3)", "12:00:00 b (1/3), about 20 s left"]


def test_a_stage_that_goes_on_is_said_once():
    log, lines = _log()
    log("a", 0, 1)
    log("a", 0, 1)
    assert lines == ["12:00:00 a"]


def test_verbose_says_how_long_each_stage_took():
    lines, clock = [], iter([0.0, 5.0, 5.0, 9.0])
    log = StageLog(
        lines.append, verbose=True, clock=lambda: next(clock), time_of_day=lambda: "12:00:00"
    )
    log("read", 0, 1)
    log("write", 0, 1)
    log.end()
    assert lines[1::2] == ["12:00:00 read took 5 s", "12:00:00 write took 4 s"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "2 min"), (7200, "2 h 0 min")]
)
def test_times_are_said_as_a_person_does(seconds, text):
    assert duration(seconds) == text


def test_columns_of_zeros_stay_and_no_lesion_is_said(capsys, monkeypatch):
    monkeypatch.setattr(printing, "results", printing.Console(highlight=False, width=200))
    show(pd.DataFrame({**{f"c{n}": [n] for n in range(9)}, "new": [0], "lesions": [0]}))
    said = capsys.readouterr().out
    assert "new" in said
    assert "No lesion was found." in said


def _app():
    app = typer.Typer()

    @app.command()
    def count(n: int = 2) -> None:
        show(pd.DataFrame({"lesions": [n], "note": [None]}), "found")

    @app.command()
    def other() -> None:
        pass

    add_output_options(app)
    return app


def test_every_command_can_print_json_alone():
    done = CliRunner().invoke(_app(), ["count", "--n", "3", "--json", "--quiet"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "tables": [{"title": "found", "rows": [{"lesions": 3, "note": None}]}]
    }


def test_a_call_without_options_is_as_before():
    app = _app()
    assert CliRunner().invoke(app, ["count", "--json"]).exit_code == 0
    assert "lesions" in CliRunner().invoke(app, ["count"]).stdout


def test_every_command_of_the_program_has_the_options():
    from lesionwise.cli import app

    for info in app.registered_commands:
        done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [info.callback.__name__, "--help"])
        assert all(word in done.stdout for word in ("--quiet", "--verbose", "--json")), info


def test_the_page_is_named_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    printing.show_page(Path("out/index.html"))
    assert capsys.readouterr().out.splitlines() == ["", "The page: out/index.html"]


def _log_at(*times):
    lines, clock = [], iter(times)
    return (
        StageLog(lines.append, clock=lambda: next(clock), time_of_day=lambda: "12:00:00"),
        lines,
    )


def test_a_stage_that_counts_its_parts_says_how_far_it_is_now_and_then():
    log, lines = _log_at(0.0, 10.0, 25.0, 30.0, 100.0)
    log("scan 1: find lesions", 0, 1)
    log("scan 1: find lesions", 2, 10)  # too soon for another line
    log("scan 1: find lesions", 5, 10)
    log("scan 1: find lesions", 6, 10)  # too soon again
    log("scan 1: find lesions", 10, 10)  # over: the next stage says so
    assert lines == [
        "12:00:00 scan 1: find lesions",
        "12:00:00 scan 1: find lesions (5/10), about 25 s left",
    ]


def test_parts_of_a_stage_leave_the_time_of_all_scans_as_it_is():
    log, lines = _log_at(0.0, 30.0, 60.0)
    log("scan 1: find lesions", 0, 3)
    log("scan 1: find lesions", 4, 10)
    log("scan 2: read", 1, 3)
    assert lines[1:] == [
        "12:00:00 scan 1: find lesions (4/10), about 45 s left",
        "12:00:00 scan 2: read (1/3), about 2 min left",
    ]


def test_a_terminal_shows_the_parts_of_a_stage_on_a_bar_of_their_own(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(printing, "console", terminal)
    with Progress(console=terminal) as bars:
        told = printing._on_bars(bars)
        told("scan 1: find lesions", 0, 3)
        told("scan 1: find lesions", 4, 10)
        assert [(bar.completed, bar.total, bar.visible) for bar in bars.tasks] == [
            (0, 3, True),
            (4, 10, True),
        ]
        told("scan 1: write", 0, 3)
        assert [bar.visible for bar in bars.tasks] == [True, False]


METRICS = pd.DataFrame(
    {
        "metric": ["Dice similarity coefficient", "average symmetric surface distance (mm)"],
        "key": ["dsc", "relative_volume_difference"],
        "a tool": ["0.940 ± 0.028", "1.77 ± 0.32"],
        "another tool": ["0.443 ± 0.063", "4.0 ± 1.1"],
        "n": [12345, 2],
        "mean": [0.496, -12.3],
    }
)


@pytest.mark.parametrize("columns", [3, 4, 6])
@pytest.mark.parametrize("records", [1, 2])
@pytest.mark.parametrize("width", range(40, 161, 5))
def test_no_value_is_broken_or_lost_at_any_width(monkeypatch, width, records, columns):
    written = io.StringIO()
    monkeypatch.setattr(printing, "results", Console(file=written, width=width, highlight=False))
    table = METRICS.iloc[:records, :columns]
    printing.show(table)
    text = written.getvalue()
    assert all(len(line) <= width for line in text.splitlines())
    values = {printing._cell(value) for name in table.columns[1:] for value in table[name]}
    assert [value for value in values if value not in text] == []
    words = {word for value in table["metric"] for word in value.split()}
    assert [word for word in words if word not in text] == []


def test_values_of_records_printed_as_lists_stand_below_each_other(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(printing, "results", Console(file=written, width=60, highlight=False))
    printing.show(METRICS[["metric", "key", "a tool"]].iloc[::-1])
    heading, first, _, second = written.getvalue().splitlines()[:4]
    assert heading == "average symmetric surface distance (mm)"
    assert first.index("a tool") == second.index("a tool")


@pytest.mark.parametrize("terminal", [True, False])
def test_entries_are_wrapped_on_a_terminal_and_stay_lines_elsewhere(monkeypatch, terminal):
    written = io.StringIO()
    console = Console(file=written, width=40, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(printing, "results", console)
    printing.show_entry("name      one two three four five six seven eight nine ten", 10)
    lines = written.getvalue().splitlines()
    if terminal:
        assert max(map(len, lines)) <= 40
        assert [line[:10].strip() for line in lines] == ["name", *[""] * (len(lines) - 1)]
        assert len(lines) > 1
    else:
        assert lines == ["name      one two three four five six seven eight nine ten"]


def _shown(monkeypatch, table, width):
    written = io.StringIO()
    monkeypatch.setattr(printing, "results", Console(file=written, width=width, highlight=False))
    printing.show(table)
    return written.getvalue()


def test_a_column_without_any_text_is_left_out_and_one_of_zeros_is_not(monkeypatch):
    table = pd.DataFrame({"metric": ["a", "b"], "why": ["", ""], "new": [0, 0]})
    shown = _shown(monkeypatch, table, 80)
    assert "why" not in shown
    assert "new" in shown


def test_a_list_of_records_says_nothing_of_empty_cells(monkeypatch):
    table = pd.DataFrame({"metric": ["x" * 60, "y"], "value": [1, 2], "why": ["", "z" * 40]})
    assert _shown(monkeypatch, table, 50).count("why") == 1


SIGNS = "[red]a[/x]:x:.nii.gz"


def test_signs_in_names_are_printed_as_they_are(capsys, monkeypatch):
    for terminal in (False, True):
        monkeypatch.setattr(printing.results, "_force_terminal", terminal)
        for width in (40, 60, 200):  # a list, a column per record, a line per record
            monkeypatch.setattr(printing.results, "_width", width)
            show(pd.DataFrame({SIGNS: [SIGNS], "b": ["x" * 20], "c": ["y" * 20]}), SIGNS)
            out = capsys.readouterr().out
            assert out.count(SIGNS) == (2 if width == 40 else 3), (width, out)
        printing.show_entry(SIGNS)
        printing.show_line(SIGNS)
        assert capsys.readouterr().out.split() == [SIGNS, SIGNS]
    printing.show_note(SIGNS)
    printing.show_failures({SIGNS: "is empty"})
    assert capsys.readouterr().err.splitlines() == [SIGNS, f"lesionwise: {SIGNS}: is empty"]
