"""B4, a Siamese MPU-net with nested decoders, against its document (002, from line 344)."""

import pytest
import torch
from published import one_step, parameters, shape_of_output

from lesionwise.learning.losses import Dice, PerChannel
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.schedules import TrainingProgress
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.geometry import CropToBrain, CropToNonzero, Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.preprocess.raters import RatersOfNew
from lesionwise.preprocess.standardize import Nyul
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("siamese-mpunetpp")
METHOD = RECIPE.method


def test_steps_come_in_the_order_of_the_document():
    # 002:411-418: middle point, brain and N4, 0.8 mm, standardized histograms, z-score
    wanted = [ExtractBrain, RegisterToHalfway, N4, Resample, Nyul, ZScore]
    steps = [s for s in RECIPE.preprocess if type(s) in wanted]
    assert [type(s) for s in steps] == wanted
    assert steps[3].spacing_mm == 0.8
    assert isinstance(RECIPE.preprocess[0], RatersOfNew)
    # 002:436: patches all over the volume
    assert not any(isinstance(s, CropToBrain | CropToNonzero) for s in RECIPE.preprocess)


def test_the_network_has_about_thirty_thousand_weights_and_five_outputs():
    # 002:385: approximately 30,000; 422-425: the consensus and four raters
    assert parameters(METHOD) == pytest.approx(30_000, rel=0.02)
    assert shape_of_output(METHOD) == (1, 5, 56, 56, 56)
    assert METHOD.objective.targets.references == METHOD.samples.references
    assert METHOD.samples.references[0] == "new"  # the one that is kept
    assert len(METHOD.samples.references) == 5
    assert METHOD.objective.targets.maps == ("probability",)


def test_patches_are_drawn_as_the_document_says():
    # 002:426-430
    samples = METHOD.samples
    assert samples.size_vox == (56, 56, 56)
    assert samples.sampling.lesion_fraction == 0.8
    assert samples.batch_size == 40
    assert samples.per_study == 872


def test_it_is_trained_as_the_document_says():
    # 002:430-432: Adam, 0.004, 40 epochs, a tenth less after each, Dice
    optimization = METHOD.optimization
    assert isinstance(optimization.optimizer, Adam)
    assert optimization.epochs == 40
    rates = [optimization.rate(TrainingProgress(n / 40, 40)) for n in (0, 1, 2)]
    assert rates == pytest.approx([0.004, 0.004 * 0.9, 0.004 * 0.81])
    loss = METHOD.objective.loss
    assert isinstance(loss, PerChannel)
    assert isinstance(loss.loss, Dice)


def test_windows_overlap_by_28_voxels_and_the_map_is_cut_in_native_space():
    # 002:436-440
    window = METHOD.inference.window
    assert [n - s for n, s in zip(METHOD.samples.size_vox, window.stride_vox, strict=True)] == (
        [28] * 3
    )
    assert window.weighting == "uniform"
    assert METHOD.selection.window == window
    assert RECIPE.output.resample == "probability"
    assert RECIPE.threshold == 0.5


@pytest.mark.slow
def test_eight_published_patches_are_learned_in_less_than_16_gib():
    # 40 of them, a whole batch, need more
    targets = {"mask": (torch.rand(8, 5, 56, 56, 56) > 0.99).float()}
    losses, peak = one_step(METHOD, (56, 56, 56), 8, targets)
    assert 0 < losses["total"] < 1
    assert peak < 16
