"""B17, B18 and B19, three pipelines of one chapter, against it (002, from line 2049)."""

from dataclasses import replace

import pytest
import torch
from published import one_step, parameters, shape_of_output

from lesionwise.learning.losses import Dice
from lesionwise.learning.positions import EqualClasses, RegularGrid
from lesionwise.learning.targets import SoftMasks
from lesionwise.methods.composite import Ensemble
from lesionwise.preprocess.brain_masks import BetBrain, MaskToBrain, SharedBrain
from lesionwise.preprocess.cord import AlignCord, BrainAndCord, CordOfLast, FindCord
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import CropToBrain, CropToCenter, Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.soft_labels import SoftLabels
from lesionwise.run.recipes import find_recipe

MODIFIED = find_recipe("modified-unet")
ATTENTION = find_recipe("attention-unet-mc")
SEVERAL = find_recipe("modified-unet-ensemble")


def test_all_three_share_the_preprocessing_in_the_order_of_the_document():
    # 002:2129-2153: 0.5 mm; cord registration; brain of the follow-up, both masks dilated and
    # summed; SyN; mask; N4; crop to the joint mask; 002:2163-2165: center crop
    wanted = [
        RegisterToHalfway,
        SoftLabels,
        Resample,
        BetBrain,
        FindCord,
        AlignCord,
        SharedBrain,
        CordOfLast,
        BrainAndCord,
        DeformToLast,
        SharedBrain,
        MaskToBrain,
        N4,
        CropToBrain,
        CropToCenter,
    ]
    for recipe in (MODIFIED, ATTENTION, SEVERAL):
        assert [type(step) for step in recipe.preprocess] == wanted
    steps = {type(step): step for step in MODIFIED.preprocess}
    assert steps[Resample].spacing_mm == 0.5
    assert steps[SharedBrain].of == "last"
    assert steps[BrainAndCord].by_mm > 0
    deform = steps[DeformToLast]
    assert deform.method == "syn"
    assert deform.order == 3  # B-spline interpolation
    # shrink factors 8, 4 and 2 of half a millimeter
    levels = [deform.working_mm * 2**n for n in range(len(deform.iterations))][::-1]
    assert levels == [0.5 * shrink for shrink in (8, 4, 2)]
    assert steps[CropToCenter].shape == (311, 391, 487)


def test_subvolumes_are_listed_duplicated_and_augmented():
    samples = MODIFIED.method.samples
    assert samples.size_vox[0] in (32, 64, 128, 256)  # 002:2167
    assert isinstance(samples.positions, RegularGrid)
    assert samples.positions.stride_vox[0] in (32, 64, 96, 128)
    assert samples.balance == EqualClasses()
    spatial = samples.augmentation.spatial
    assert spatial.flip_axes == (0,)  # left and right alone
    assert spatial.affine is not None
    assert spatial.elastic is not None
    assert [type(e).__name__ for e in samples.augmentation.intensity.effects] == ["BiasField"]


def test_the_network_learns_soft_labels_with_the_dice_loss():
    method = MODIFIED.method
    assert len(method.network.keywords["features"]) == 5  # four down, four up: 002:2210
    loss = method.objective.loss
    assert isinstance(loss, Dice)
    assert loss.activated
    assert isinstance(method.objective.targets, SoftMasks)
    assert method.objective.targets.references == method.samples.references == ("new",)
    assert method.optimization.epochs == 100  # 002:2269-2270
    assert method.selection.by == ("soft_dsc",)


def test_the_third_pipeline_adds_gates_and_a_mean_of_samples():
    first, third = MODIFIED.method, ATTENTION.method
    keywords = dict(third.network.keywords)
    assert keywords.pop("attention") is True
    assert keywords.pop("dropout") > 0
    assert keywords == first.network.keywords
    assert third.inference.dropout.passes > 1
    same = {"network": None, "inference": None}
    assert replace(third, **same) == replace(first, **same)


def test_the_second_pipeline_is_the_mean_of_four_each_with_its_own_split():
    ensemble = SEVERAL.method
    assert isinstance(ensemble, Ensemble)
    assert ensemble.combine == "mean"
    assert len(ensemble.methods) == 4
    first, fourth = ensemble.methods[0], ensemble.methods[3]
    assert list(ensemble.methods[:3]) == [first] * 3
    assert first.network.keywords == MODIFIED.method.network.keywords
    assert fourth.network.keywords == ATTENTION.method.network.keywords
    for member in (first, fourth):
        assert replace(member, network=None) == replace(MODIFIED.method, network=None)
    assert 1 / ensemble.folds == 0.2  # 002:2264-2266: 80 % train, 20 % validate


@pytest.mark.parametrize(("recipe", "count"), [(MODIFIED, 7_112_161), (ATTENTION, 7_219_908)])
def test_published_shapes_and_weights(recipe, count):
    assert shape_of_output(recipe.method) == (1, 1, 128, 128, 128)
    assert parameters(recipe.method) == count


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [MODIFIED, ATTENTION])
def test_one_published_patch_is_learned_in_less_than_16_gib(recipe):
    targets = {"mask": torch.rand(1, 1, 128, 128, 128) * (torch.rand(1, 1, 128, 128, 128) > 0.99)}
    losses, peak = one_step(recipe.method, (128, 128, 128), 1, targets)
    assert 0 < losses["total"] < 1
    assert peak < 16
