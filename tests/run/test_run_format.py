"""Runs and models of earlier versions, read by today's names."""

import json
from pathlib import Path

import numpy as np
import pytest

from lesionwise.run.load_model import _warn_of_other_steps, load_model
from lesionwise.run.recipes import find_recipe, settings
from lesionwise.run.run_format import (
    ADDED,
    FIELDS,
    FORMAT,
    TYPES,
    overrides_of,
    settings_of,
)
from lesionwise.types import Grid, Study, Visit, Volume


def test_fields_that_were_renamed_are_set_by_their_present_names() -> None:
    run = {
        "format": 2,
        "recipe": "conflunet",
        "overrides": ["method.finds='new'", "to_instances.crumb_mm3=3.0"],
    }
    assert overrides_of(run) == ["method.task='new'", "to_instances.fragment_mm3=3.0"]


def test_a_value_is_never_taken_for_a_name() -> None:
    run = {"format": 2, "recipe": "conflunet", "overrides": ["output.grid=finds"]}
    assert overrides_of(run) == ["output.grid=finds"]


def _former(name: str) -> str:
    """A setting's path as earlier versions wrote it."""
    old = {now: before for before, now in FIELDS.items()}
    return ".".join(old.get(part, part) for part in name.split("."))


def test_settings_of_before_compare_with_those_of_today() -> None:
    recipe = find_recipe("conflunet")
    before = {_former(name): value for name, value in settings(recipe).items()}
    before |= {"source": "001, section 3", "departures": ["one"], "reported.dsc": 0.5}
    assert settings_of({"settings": before}) == settings(recipe)


def test_types_of_before_compare_with_those_of_today() -> None:
    recipe = find_recipe("ncr-net")
    now = settings(recipe)
    types = {today: before for before, today in TYPES.items()}
    before = {
        _former(name): types.get(value, value) if name.endswith(".is") else value
        for name, value in now.items()
    }
    assert any(name.endswith(".places.is") for name in before)
    assert "PositivePlaces" in before.values()
    assert settings_of({"settings": before}) == now


def test_fields_that_parts_got_since_change_nothing_in_settings_of_before() -> None:
    now = settings(find_recipe("iqda"))
    later = {field for fields in ADDED.values() for field in fields}
    before = {name: value for name, value in now.items() if name.split(".")[-1] not in later}
    assert len(before) == len(now) - 2 * len(later)
    assert settings_of({"settings": before}) == now


def test_fields_that_parts_got_since_keep_their_written_values() -> None:
    now = settings(find_recipe("iqda", ["method.inference.window.at_once=3"]))
    assert settings_of({"settings": now})["method.inference.window.at_once"] == 3


@pytest.mark.parametrize(
    ("name", "sha256", "mean", "in_lesion"),
    [
        ("unet-cc", "ada60dfc", 0.0042709, 0.8992923),
    ],
)
def test_models_of_before_give_the_maps_they_gave(name, sha256, mean, in_lesion) -> None:
    """Means over a made-up scan, as the version before the renames computed them."""
    model = load_model(name, "cpu")
    if not model.sha256.startswith(sha256):
        pytest.skip("other weights are shipped now")
    grid = Grid((40, 36, 32), np.eye(4))
    image = np.random.default_rng(4).normal(size=grid.shape).astype(np.float32)
    lesion = np.s_[10:16, 12:18, 8:14]
    image[lesion] += 3
    brain = Volume(np.ones(grid.shape, dtype=bool), grid)
    maps = model.predict(Study("a", (Visit({"flair": Volume(image, grid)}, brain=brain),)))
    assert maps.probability.mean() == pytest.approx(mean, rel=0.02)
    assert maps.probability[lesion].mean() == pytest.approx(in_lesion, rel=0.005)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"preprocess.0.is": "Other"}, ["preprocess.0.is Other, now"]),
        ({"preprocess.9.is": "Other"}, ["preprocess.9.is Other, now none"]),
        ({"method.optimization.epochs": 3}, []),  # plays no part in prediction
    ],
)
def test_a_run_whose_recipe_prepares_scans_otherwise_today_is_named(
    caplog: pytest.LogCaptureFixture, changes: dict[str, object], said: list[str]
) -> None:
    recipe = find_recipe("iqda")
    written = json.loads(json.dumps(settings(recipe)))
    described = {"format": FORMAT, "settings": {**written, **changes}}
    _warn_of_other_steps(Path("RUN"), described, recipe)
    assert len(caplog.messages) == len(said)
    assert all(text in line for text, line in zip(said, caplog.messages, strict=True))
