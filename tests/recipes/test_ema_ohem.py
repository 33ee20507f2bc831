"""B23, hard example mining by a moving average, against its document (002, from line 2613)."""

import pytest
import torch
from published import one_step, parameters, shape_of_output

from lesionwise.learning.losses import Dice, SquaredError
from lesionwise.learning.objective import HardExamples
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.parts import MomentumCopy
from lesionwise.learning.schedules import TrainingProgress
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import ZScore
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("ema-ohem")
METHOD = RECIPE.method


def test_scans_are_resampled_and_then_normalized_one_by_one():
    # 002:2658-2660: half a millimeter, z-normalization, aligned half way; no brain mask (2641)
    assert [type(s) for s in RECIPE.preprocess] == [RegisterToHalfway, Resample, ZScore]
    assert RECIPE.preprocess[1].spacing_mm == 0.5
    assert RECIPE.preprocess[2].within == "all"


def test_the_network_is_that_of_the_equations():
    # 002:2669-2670: B(16) B(32) B(64) B(32) B(16) Conv(1)
    assert METHOD.network.keywords["features"] == (16, 32, 64)
    assert METHOD.scans == ("flair",)
    kernels = [m for m in METHOD.network().modules() if isinstance(m, torch.nn.Conv3d)]
    assert [k.out_channels for k in kernels] == [16, 16, 32, 32, 64, 64, 32, 32, 16, 16, 1]
    assert shape_of_output(METHOD) == (1, 1, 32, 32, 32)
    assert parameters(METHOD) == 354_353


def test_a_quarter_of_a_batch_is_chosen_by_a_copy_that_follows():
    # 002:2691-2695: 128 patches, 30 % of them positive; 2698: the 32 with the highest error
    samples = METHOD.samples
    assert samples.size_vox == (32, 32, 32)
    assert samples.batch_size == 128
    assert samples.lesion_fraction == 0.3
    assert isinstance(METHOD.objective, HardExamples)
    assert round(METHOD.objective.fraction * samples.batch_size) == 32
    (part,) = METHOD.parts
    assert isinstance(part, MomentumCopy)
    assert part.name == METHOD.objective.judge
    # Algorithm 1 writes e for what ranks (unstated) and l for what is learned from
    assert isinstance(METHOD.objective.error, SquaredError)
    assert isinstance(METHOD.objective.supervised.loss, Dice)


def test_the_rate_falls_at_half_and_at_four_fifths_of_thirty_thousand_steps():
    # 002:2713-2716
    optimization = METHOD.optimization
    assert isinstance(optimization.optimizer, Adam)
    steps = optimization.epochs * METHOD.samples.per_epoch // METHOD.samples.batch_size
    assert steps == 30_000
    rates = [optimization.rate(TrainingProgress(f, 300)) for f in (0.0, 0.49, 0.5, 0.79, 0.8, 1.0)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_windows_of_32_every_24_voxels_are_averaged():
    # 002:2673-2675
    window = METHOD.inference.window
    assert window.stride_vox == (24, 24, 24)
    assert window.weighting == "uniform"


@pytest.mark.slow
def test_the_published_batch_is_learned_in_less_than_16_gib():
    targets = {"mask": (torch.rand(128, 1, 32, 32, 32) > 0.999).float()}
    losses, peak = one_step(METHOD, (32, 32, 32), 128, targets)
    assert 0 < losses["total"] <= 1
    assert peak < 16
