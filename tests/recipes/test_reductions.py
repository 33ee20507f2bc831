"""The page of reductions says what the code reduces."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reductions():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("reductions")


def test_the_page_has_the_table_of_the_code(reductions):
    page = (ROOT / "docs/measurements/reductions.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows == reductions.table().splitlines()


def test_a_reduced_value_stands_after_the_published_one(reductions):
    names = ["recipe", *reductions.COLUMNS, "networks", "others"]
    cells = dict(zip(names, reductions.row("antialias-unet"), strict=True))
    assert cells["learning rate"] == "0.001→0.02"
    assert cells["network"] == "40-40-80-80-120-120→8-8-16-16-24"
    assert cells["networks"] == "5→1"
    assert cells["early stopping"] == "dsc→off"


def test_what_has_no_column_stands_in_the_last_one(reductions):
    assert reductions.row("nnunet-empenn")[-1] == "`plans.spacing_mm` 1-0.5-0.5→1-1-1"
    assert reductions.row("iqda")[-1] == ""
