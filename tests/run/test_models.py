"""What trained models really are."""

import json
from dataclasses import replace

import pytest

from lesionwise.inference.weights import WEIGHTS
from lesionwise.run.load_model import RUN_FILE, LoadedModel, load_model, model_names
from lesionwise.run.models import LICENCE, facts_of, models, read_card
from lesionwise.run.recipes import find_recipe, settings
from lesionwise.run.run_format import FORMAT
from lesionwise.types import InputError


def run_of(folder, overrides, **more):
    """A run folder as ``train`` leaves it, without weights."""
    folder.mkdir()
    described = {
        "format": FORMAT,
        "status": "done",
        "recipe": "unet-cc",
        "overrides": overrides,
        "settings": settings(find_recipe("unet-cc", overrides)),
        "training": ["a", "b", "c"],
        "validation": ["d"],
        "sha256": "f" * 64,
        "summary": {"steps": 12, "epochs": 3, "minutes": 1.5},
        **more,
    }
    (folder / RUN_FILE).write_text(json.dumps(described), encoding="utf-8")
    return folder


def test_settings_that_differ_from_the_recipe_are_marked(tmp_path) -> None:
    overrides = ["method.samples.batch_size=3", "threshold=0.4"]
    (facts,) = models(run_of(tmp_path / "run", overrides))
    changed = {setting.name: (setting.value, setting.recipe) for setting in facts.changed}
    assert changed == {"method.samples.batch_size": (3, 4), "threshold": (0.4, 0.5)}


def test_what_matters_to_training_alone_is_said(tmp_path) -> None:
    (facts,) = models(run_of(tmp_path / "run", []))
    training = {setting.name: setting.training for setting in facts.settings}
    assert training["method.optimization.epochs"]
    assert not training["method.network.features"]
    assert not training["to_instances.connectivity"]


def test_a_run_says_its_studies_steps_and_hash(tmp_path) -> None:
    (facts,) = models(run_of(tmp_path / "run", []))
    assert facts.training["training_studies"] == 3
    assert facts.training["steps"] == 12
    assert facts.sha256 == "f" * 64


def test_every_shipped_model_is_listed_with_its_hash_and_licence() -> None:
    found = models()
    assert [facts.name for facts in found] == model_names()
    for facts in found:
        assert len(facts.sha256) == 64
        assert facts.licence
        assert facts.citation


@pytest.mark.parametrize("name", model_names())
def test_settings_of_a_shipped_model_are_those_it_is_applied_with(name) -> None:
    (facts,) = models(name)
    applied = {s.name: s.value for s in facts.settings if not s.training}
    effective = settings(load_model(name, "cpu").recipe)
    assert applied.items() <= effective.items()
    assert "method.network.features" in applied


@pytest.mark.parametrize("name", model_names())
def test_a_shipped_model_has_scores_from_its_card(name) -> None:
    (facts,) = models(name)
    assert facts.scores
    assert all(any(sign.isdigit() for sign in value) for value in facts.scores.values())


def test_facts_are_fit_for_json_and_short_ones_for_a_sidecar() -> None:
    (facts,) = models("unet-cc")
    assert json.loads(json.dumps(facts.as_json()))["recipe"] == "unet-cc"
    summary = json.loads(json.dumps(facts.summary()))
    assert summary["Changed"] == {s.name: s.value for s in facts.changed}


def test_a_model_without_a_shipped_recipe_has_nothing_to_differ_from() -> None:
    recipe = replace(find_recipe("unet-cc"), threshold=0.1)
    facts = facts_of(LoadedModel(recipe, None, "mine", "", {}))
    assert facts.changed == ()
    assert facts.licence == LICENCE


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="nope: no such run folder, and no such model"):
        models("nope")


def test_scores_of_several_phases_say_which_phase_they_are_of() -> None:
    scores = read_card("conflunet").scores
    assert "second phase 0.784, 0.758; " in scores["two simulated heads of 1 mm: DSC"]


def test_a_card_that_is_not_there_has_no_scores() -> None:
    assert not read_card("nope").scores


def test_weights_are_not_needed_to_say_what_a_model_is(tmp_path) -> None:
    folder = run_of(tmp_path / "run", [])
    assert not (folder / WEIGHTS).exists()
    assert models(folder)[0].recipe == "unet-cc"


@pytest.mark.parametrize("name", ["conflunet", "unet-cc"])
def test_shipped_windows_are_shortened_to_sides_that_the_network_takes(name):
    method = load_model(name).recipe.method
    features = method.network.keywords["features"]
    assert method.inference.window.fit % 2 ** (len(features) - 1) == 0


@pytest.mark.parametrize("name", ["conflunet", "unet-cc", "unet-acls"])
def test_recipes_fit_no_windows_since_their_networks_may_be_made_deeper(name):
    assert find_recipe(name).method.inference.window.fit is None
