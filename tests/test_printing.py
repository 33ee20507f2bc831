"""What commands print."""

import io
import sys

import pandas as pd
import pytest
from rich.console import Console

from lesionwise import printing
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
