"""The brain mask: found, recognized, or missed with a reason."""

import numpy as np
import pytest

from lesionwise.preprocess.brain import (
    ExtractBrain,
    NoBrainFound,
    brain_mask,
    largest_filled,
)
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def volume(array, spacing=1.0):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    return Volume(array, Grid(array.shape, affine))


def stripped_ball():
    """A noisy ball of one liter on exact zeros, with a hole of zeros inside."""
    i, j, k = np.indices((64, 64, 64)) * 2.5 - 80
    radius = np.sqrt(i**2 + j**2 + k**2)
    noise = np.random.default_rng(0).normal(100, 5, radius.shape)
    array = np.where((radius < 62) & (radius > 8), noise, 0).astype(np.float32)
    return volume(array, 2.5), radius < 62


def test_a_stripped_scan_is_its_own_mask_with_holes_filled():
    scan, ball = stripped_ball()
    np.testing.assert_array_equal(brain_mask(scan).array, ball)


def test_a_given_mask_is_left_alone():
    scan, _ = stripped_ball()
    given = volume(np.zeros(scan.array.shape, bool), 2.5)
    study = ExtractBrain()(Study("01", (Visit({"flair": scan}, {}, given),)))
    assert study.visits[0].brain is given


def test_a_constant_scan_is_refused_by_name():
    scan = volume(np.full((16, 16, 16), 3.0, np.float32), 8.0)
    with pytest.raises(NoBrainFound, match=r"^07 M06 flair: no brain found"):
        ExtractBrain()(Study("07", (Visit({"flair": scan}, {}, None, "M06"),)))
    assert issubclass(NoBrainFound, InputError)


def test_largest_region_is_kept_and_filled():
    mask = np.zeros((9, 9, 9), bool)
    mask[1:6, 1:6, 1:6] = True
    mask[3, 3, 3] = False
    mask[8, 8, 8] = True
    out = largest_filled(mask)
    assert out.sum() == 125
    assert out[3, 3, 3]
    assert not out[8, 8, 8]
    assert not largest_filled(np.zeros((2, 2, 2), bool)).any()
