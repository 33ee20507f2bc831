"""The page of reductions says what the code reduces."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest

from lesionwise.inference.views import Planes
from lesionwise.learning.schedules import TrainingProgress
from lesionwise.reduction import Reduction, reduced
from lesionwise.run.recipes import find_recipe
from lesionwise.types import all_methods

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
    assert cells["learning rate"] == "0.001→0.01"
    assert cells["network"] == "40-40-80-80-120-120→8-8-16-16-24"
    assert cells["networks"] == "5→1"
    assert cells["early stopping"] == "dsc→off"


def test_what_has_no_column_stands_in_the_last_one(reductions):
    assert reductions.row("nnunet-empenn")[-1] == "`plans.spacing_mm` 1-0.5-0.5→1-1-1"
    assert reductions.row("iqda")[-1] == ""


def test_steps_are_reduced_by_the_name_of_their_class():
    published, small = find_recipe("modified-unet"), find_recipe("modified-unet:reduced")
    changed = [
        (type(a).__name__, b)
        for a, b in zip(published.preprocess, small.preprocess, strict=True)
        if a != b
    ]
    assert [name for name, _ in changed] == ["Resample", "DeformToLast", "CropToCenter"]
    assert changed[0][1].spacing_mm == 1.0
    assert changed[1][1] == replace(published.preprocess[9], working_mm=2.0)


def test_a_step_that_the_recipe_lacks_is_refused():
    with pytest.raises(ValueError, match="no step Quantize in this recipe"):
        reduced(find_recipe("iqda"), Reduction(steps={"Quantize": {"levels": 8}}))


def test_reduced_steps_are_named_in_words():
    assert str(Reduction(steps={"N4": {"levels": 2}})) == ("epochs 10000; N4's levels 2")


@pytest.mark.parametrize("name", ["iqda", "deepscan", "modified-unet"])
def test_a_reduced_network_validates_in_the_windows_in_which_it_predicts(name):
    methods = [m for m in all_methods(find_recipe(f"{name}:reduced").method) if m.members() == ()]
    assert methods
    assert all(m.selection.window == m.inference.window for m in methods)


@pytest.mark.parametrize("name", ["deepscan", "iqda"])
def test_other_views_replace_those_of_a_network_that_joins_several(name):
    published = list(all_methods(find_recipe(name).method))[-1].inference.planes
    small = reduced(find_recipe(name), Reduction(planes=Planes(axes=(1,))))
    planes = list(all_methods(small.method))[-1].inference.planes
    assert planes == (None if published is None else Planes(axes=(1,)))


@pytest.mark.parametrize("name", ["siamese-mpunetpp", "tiramisu-25d", "deepscan"])
def test_the_learning_rate_of_a_reduced_recipe_runs_through_the_published_course(name):
    published, small = (
        list(all_methods(find_recipe(each).method))[-1].optimization
        for each in (name, f"{name}:reduced")
    )
    assert published.epochs != small.epochs
    for fraction in (0.01, 0.2, 0.49, 0.9):
        factors = [
            each.schedule.factor(TrainingProgress(fraction, each.epochs))
            for each in (published, small)
        ]
        assert factors[0] == pytest.approx(factors[1])
