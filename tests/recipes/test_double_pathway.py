"""B11, a double pathway, against its document (002, from line 1097)."""

import math

import pytest
import torch
from published import one_step, parameters, shape_of_output

from lesionwise.inference.window import window_starts
from lesionwise.learning.samplers import CenterSampling
from lesionwise.methods.composite import PositiveCases
from lesionwise.preprocess.intensity import Rescale01
from lesionwise.preprocess.template import RegisterToTemplate, template_maps
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("double-pathway")
METHOD = RECIPE.method.method


def test_scans_are_brought_to_an_atlas_and_to_0_to_1():
    # 002, table 1
    assert [type(s) for s in RECIPE.preprocess] == [RegisterToTemplate, Rescale01]


def test_layers_are_those_of_the_table():
    # 002, table 2
    keywords = METHOD.network.keywords
    assert METHOD.samples.size_vox == (97, 97, 97)
    assert keywords["fine_vox"] == 33
    assert keywords["fine"] == (30, 40, 50, 60, 70, 80, 90)
    assert keywords["coarse"] == (30, 40, 50, 60, 70, 80, 90, 100)
    assert keywords["joint"] == (300, 300)
    assert shape_of_output(METHOD) == (1, 2, 19, 19, 19)
    assert parameters(METHOD) == 1_651_262


def test_every_patch_that_is_learned_from_has_a_new_lesion_and_half_have_it_in_their_middle():
    # 002:1253-1261; 288 patches
    assert isinstance(RECIPE.method, PositiveCases)
    assert RECIPE.method.task == "new"
    assert METHOD.samples.per_study / 2 == 288
    assert METHOD.samples.sampling == CenterSampling((19, 19, 19), inner_fraction=0.5)


def test_2304_windows_cover_the_template():
    # 002, table 2: number of patches in inference
    window = METHOD.inference.window
    counts = [
        len(window_starts(length, 19, window.overlap, stride))
        for length, stride in zip(template_maps().t1.grid.shape, window.stride_vox, strict=True)
    ]
    assert counts == [12, 16, 12]
    assert math.prod(counts) == 2304
    assert window.weighting == "uniform"
    assert METHOD.selection.window == window


@pytest.mark.slow
def test_a_published_batch_is_learned_in_less_than_16_gib():
    targets = {"mask": (torch.rand(2, 1, 97, 97, 97) > 0.99).float()}
    losses, peak = one_step(METHOD, (97, 97, 97), 2, targets)
    assert losses["total"] > 0
    assert peak < 16
