"""Which way up a brain lies."""

import numpy as np
import pytest

from lesionwise.preprocess.brain_pose import brain_pose
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.template import template_maps
from lesionwise.types import Grid, Volume


@pytest.fixture(scope="module")
def brain():
    """The template's brain at 3 mm."""
    mask = template_maps().brain
    return resample_to(mask, respaced(mask.grid, 3.0), order=0)


def placed(brain, array):
    spacing = brain.grid.spacing_mm
    return brain_pose(
        Volume(np.ascontiguousarray(array), Grid(array.shape, np.diag([*spacing, 1.0])))
    )


def test_a_brain_as_its_header_says(brain):
    pose = brain_pose(brain)
    assert pose.symmetry[0] > 0.9
    assert pose.symmetry[0] > max(pose.symmetry[1:]) + 0.05
    assert pose.backward_mm > 10
    assert pose.upright > 3


def test_a_brain_turned_upside_down(brain):
    pose = placed(brain, brain.array[:, ::-1, ::-1])
    assert pose.upright < -3


def test_a_brain_mirrored_top_to_bottom_or_that_looks_backward(brain):
    assert placed(brain, brain.array[:, :, ::-1]).backward_mm < -10
    assert placed(brain, brain.array[:, ::-1, :]).backward_mm < -10


def test_a_brain_on_its_side(brain):
    pose = placed(brain, np.swapaxes(brain.array, 0, 2))
    assert pose.symmetry[2] > pose.symmetry[0] + 0.05


def test_a_brain_that_looks_sideways(brain):
    pose = placed(brain, np.swapaxes(brain.array, 0, 1))
    assert pose.symmetry[1] > pose.symmetry[0] + 0.05


def test_a_slab_and_an_empty_mask_have_no_pose(brain):
    low = Volume(brain.array.copy(), brain.grid)
    low.array[:, :, 20:] = False
    assert brain_pose(low) is None
    assert brain_pose(Volume(np.zeros_like(brain.array), brain.grid)) is None
