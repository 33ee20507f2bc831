"""Recipes found by name or file, and values set in them."""

import json
import re

import pytest

from lesionwise.recipe import Recipe
from lesionwise.run.recipes import find_recipe, members_of, override, recipe_names, settings
from lesionwise.types import InputError


def test_every_recipe_file_is_found_and_holds_a_recipe():
    names = recipe_names()
    assert {"conflunet", "unet-cc", "unet-acls"} <= set(names)
    for name in names:
        assert isinstance(find_recipe(name), Recipe)


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(InputError, match="conflunet"):
        find_recipe("nothing")


def test_a_users_file_is_a_recipe_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from lesionwise.run.recipes import find_recipe\n"
        "RECIPE = replace(find_recipe('unet-cc'), threshold=0.4)\n"
    )
    assert find_recipe(path).threshold == 0.4
    assert find_recipe(str(path), ["threshold=0.3"]).threshold == 0.3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("RECIPE = 3", "does not set RECIPE"),
        ("import nosuchmodule", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_users_file_with_a_fault_is_named(tmp_path, text, fault):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"mine\.py: .*{fault}"):
        find_recipe(path)


def test_values_are_set_through_dataclasses_partials_and_tuples():
    recipe = find_recipe("conflunet")
    changed = override(recipe, "method.network.features=[8, 24, 64]")
    changed = override(changed, "method.objective.loss.heatmap=500")
    changed = override(changed, "refine.0.min_volume_mm3=3")
    built = settings(changed)
    assert built["method.network.features"] == [8, 24, 64]
    assert built["method.objective.loss.heatmap"] == 500.0
    assert built["refine.0.min_volume_mm3"] == 3
    assert settings(recipe)["method.network.features"] == [64, 128, 256, 512]


def test_a_whole_part_can_be_switched_off():
    changed = override(find_recipe("conflunet"), "method.samples.augmentation.spatial=None")
    assert settings(changed)["method.samples.augmentation.spatial"] is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("method.optimization.epochs", "name=value"),
        ("method.optimization.epoch=3", "did you mean epochs"),
        ("method.optimization.epochs=many", "expected int"),
        ("method.optimization.epochs=1.5", "expected int"),
        ("method.optimization.learning_rate.x=1", "nothing to set below"),
        ("method.objective.loss=3", "not a InstanceLoss"),
        ("refine.7.min_volume_mm3=3", "no 7"),
        ("method.inference.window.cover=brian", "cover must be 'volume' or 'brain', not 'brian'"),
        ("method.inference.window.weighting=3", "expected str"),
        ("method.inference.window.stride_vox=5", "a list of 3 values"),
        ("method.inference.window.stride_vox=[4, 4, 0]", "1 or more along each axis"),
        ("method.inference.window.overlap=1", "less than 1"),
        ("method.runtime.precision=half", "'float32' or 'bfloat16'"),
        ("method.selection.every=-1", "0 .never. or more"),
        ("method.selection.top_k=0", "1 or more"),
        ("method.selection.by=[3]", "a list of str or None"),
        ("method.samples.batch_size=0", "1 or more"),
        ("method.optimization.epochs=0", "1 or more"),
        ("method.optimization.learning_rate=-1", "0 or more"),
        ("method.optimization.learning_rate=None", "learning_rate must be float, not None"),
        ("output.grid=followp", "'followup'"),
    ],
)
def test_a_value_that_cannot_be_set_is_explained(text, fault):
    with pytest.raises(InputError, match=fault):
        override(find_recipe("conflunet"), text)


@pytest.mark.parametrize("name", recipe_names())
def test_every_setting_of_a_recipe_can_be_set_to_what_it_is(name):
    recipe = find_recipe(name)
    for path, value in settings(recipe).items():
        if value is not None and not path.endswith(".is") and settable(recipe, path):
            assert settings(override(recipe, f"{path}={value!r}"))[path] == value


def settable(recipe, path):
    """Names of functions and classes are told by ``settings`` and not taken by ``--set``."""
    part = recipe
    for name in path.split("."):
        part = members_of(part).get(name) if members_of(part) else None
    return isinstance(part, bool | int | float | str | tuple)


@pytest.mark.parametrize(
    ("recipe", "text", "why"),
    [
        ("conflunet", "method.network.features=[]", "tuple index out of range"),
        ("conflunet", "method.network.features=[0, 8]", "has no weights"),
        ("conflunet", "method.network.features=[-4, 8]", "negative dimension"),
        ("conflunet", "method.network.features=['a', 'b']", "unsupported operand"),
        ("segresnet-ensemble", "method.methods.0.network.in_channels=0", "has no weights"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_any_work(recipe, text, why):
    with pytest.raises(InputError, match=re.escape(f"--set {text}: the network cannot")) as error:
        find_recipe(recipe, [text])
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_values_that_fit_a_network_only_together_are_taken():
    found = find_recipe(
        "conflunet", ["method.network.features=[8, 16]", "method.network.widening=first"]
    )
    assert found.method.network.keywords["features"] == (8, 16)


def test_settings_go_through_json_and_name_every_part():
    flat = settings(find_recipe("conflunet"))
    assert json.loads(json.dumps(flat)) == flat
    assert flat["method.is"] == "NetworkMethod"
    assert flat["method.network.is"] == "UNet"
    assert flat["preprocess.0.is"] == "ExtractBrain"


def test_unet_acls_learns_and_chooses_exactly_what_unet_cc_does():
    def learned(name):
        return {
            key: value
            for key, value in settings(find_recipe(name)).items()
            if key.startswith(("method.", "preprocess."))
        }

    assert learned("unet-acls") == learned("unet-cc")


def test_conflunet_differs_from_its_baseline_in_heads_and_loss_alone():
    ours, base = settings(find_recipe("conflunet")), settings(find_recipe("unet-cc"))
    differ = {k for k in {*ours, *base} if ours.get(k) != base.get(k) and k.startswith("method.")}
    parts = {key.split(".")[1] for key in differ}
    assert parts == {"network", "objective", "selection"}


def test_the_published_numbers_are_those_of_the_document():
    flat = settings(find_recipe("conflunet"))
    assert flat["method.objective.loss.heatmap"] == 2000
    assert flat["method.objective.loss.offsets"] == 0.5
    assert flat["method.objective.loss.segmentation.terms.0.0"] == 1
    assert flat["method.objective.loss.segmentation.terms.0.1.is"] == "Focal"
    assert flat["method.objective.loss.segmentation.terms.1.0"] == 0.5
    assert flat["method.objective.loss.segmentation.terms.1.1.is"] == "Dice"
    assert flat["method.optimization.learning_rate"] == 1e-4
    assert flat["method.optimization.epochs"] == 300
    assert flat["method.samples.size_vox"] == [96, 96, 96]
    assert flat["method.objective.targets.sigma_mm"] == 2
    assert flat["method.samples.sampling.lesion_fraction"] == 0
    assert flat["method.selection.top_k"] == 10
    assert flat["threshold"] == 0.5


def test_the_backbone_has_the_published_number_of_parameters():
    # 001:41 names it by its reference alone: Çiçek's 3D U-Net, 19 069 955 with three classes there
    network = find_recipe("conflunet").method.network()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(19.07e6, abs=0.01e6)


def test_a_reduced_recipe_is_the_same_system_with_smaller_networks():
    whole, small = (settings(find_recipe(f"iqda{form}")) for form in ("", ":reduced"))
    differ = {key for key in {*whole, *small} if whole.get(key) != small.get(key)}
    assert differ == {
        "method.network.features",
        "method.samples.size_vox",
        "method.samples.batch_size",
        "method.samples.per_epoch",
        "method.optimization.learning_rate",
        "method.optimization.epochs",
        "method.selection.every",
        "method.inference.window.windows_per_batch",
        "method.inference.window.engine",
        "method.selection.window.windows_per_batch",
        "method.selection.window.overlap",
        "method.selection.window.engine",
    }


def test_a_reduced_ensemble_keeps_one_of_equal_members():
    whole, small = find_recipe("segresnet-ensemble"), find_recipe("segresnet-ensemble:reduced")
    assert len(whole.method.methods) == 10
    assert len(small.method.methods) == 2


def test_a_reduced_row_of_nnunet_is_the_same_system_with_a_smaller_network():
    whole, small = (settings(find_recipe(f"nnunet-empenn{form}")) for form in ("", ":reduced"))
    differ = {key for key in {*whole, *small} if whole.get(key) != small.get(key)}
    assert differ == {
        "method.plans.base_features",
        "method.plans.patch_size_vox",
        "method.plans.spacing_mm",
        "method.plans.batch_size",
        "method.learning.epochs",
        "method.learning.batches_per_epoch",
        "method.learning.validation_batches",
        "method.mirroring",
        "method.engine",
    }
    assert small["method.learning.batches_per_epoch"] == 20


def test_a_recipe_without_a_reduced_form_says_so():
    with pytest.raises(InputError, match="subtraction-threshold: does not set REDUCED"):
        find_recipe("subtraction-threshold:reduced")
