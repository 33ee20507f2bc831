"""What the intensity steps share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.preprocess.each_scan import from_zero


def stripped(seed=0):
    """A scan without skull: 0 outside of its brain, a bit of fluid, tissue around 100."""
    rng = np.random.default_rng(seed)
    brain = np.zeros((12, 12, 12), dtype=bool)
    brain[2:10, 2:10, 2:10] = True
    array = np.where(brain, rng.normal(100, 10, brain.shape), 0)
    array[4:6, 4:6, 4:6] = 20
    return array.astype(np.float32), brain


def test_a_magnitude_image_comes_back_itself():
    array, brain = stripped()
    assert from_zero(array, brain) is array
    noisy = np.abs(array + np.random.default_rng(1).normal(0, 1, array.shape))
    assert from_zero(noisy, brain) is noisy


def test_few_negative_voxels_of_interpolation_change_nothing():
    array, brain = stripped()
    array[5, 5, 5] = -3
    assert from_zero(array, brain) is array


@given(st.floats(-1000, 1000), st.floats(0.01, 100))
def test_a_scan_scored_with_its_background_is_the_scan_up_to_a_factor(mean, std):
    array, brain = stripped()
    scored = (array.astype(np.float64) - mean) / std
    np.testing.assert_allclose(from_zero(scored, brain) * std, array, rtol=1e-3, atol=1e-3)


def test_a_brain_scored_alone_begins_at_zero_and_its_background_stays():
    array, brain = stripped()
    inside = array[brain]
    scored = np.where(brain, (array - inside.mean()) / inside.std(), 0)
    seen = from_zero(scored, brain)
    assert seen[brain].min() == 0
    assert not seen[~brain].any()
    assert np.corrcoef(seen[brain], inside)[0, 1] == pytest.approx(1)
    assert scored[brain].min() < -1  # the scan itself is left alone


def test_integers_below_zero_do_not_wrap():
    array = np.array([[[-1000, -1000, 0, 32000]]], dtype=np.int16)
    np.testing.assert_array_equal(from_zero(array, array > -1000), [[[0, 0, 1000, 33000]]])
