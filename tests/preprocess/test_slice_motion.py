import numpy as np
import pytest
from scipy import ndimage

from lesionwise.preprocess.slice_motion import slice_shift_mm

SPACING = (1.0, 1.5, 3.0)


@pytest.fixture(scope="module")
def scan():
    """An ellipsoid of smooth tissue, 3 mm slices: values and mask."""
    shape = (90, 70, 24)
    i, j, k = (2 * at / (n - 1) - 1 for at, n in zip(np.indices(shape), shape, strict=True))
    inside = i**2 + j**2 + k**2 < 0.85
    rough = np.random.default_rng(0).normal(size=shape)
    tissue = ndimage.gaussian_filter(rough, [5 / s for s in SPACING])
    values = np.where(inside, 100 + 400 * tissue, 5.0)
    return values.astype(np.float32), inside


def shifted(values, mm, axis, which):
    out = values.copy()
    amount = [0.0, 0.0]
    amount[axis] = mm / SPACING[axis]
    for at in which:
        out[..., at] = ndimage.shift(values[..., at], amount, order=1, mode="nearest")
    return out


def test_slices_in_their_places_do_not_shift(scan):
    assert slice_shift_mm(*scan, SPACING) < 0.2


@pytest.mark.parametrize("axis", [0, 1])
def test_measure_grows_with_the_shift_and_stays_below_it(scan, axis):
    values, inside = scan
    found = [
        slice_shift_mm(shifted(values, mm, axis, range(0, 24, 2)), inside, SPACING)
        for mm in (0.0, 1.0, 2.0, 3.0)
    ]
    assert found == sorted(found)
    assert found[1] > 2 * found[0]
    assert all(0.4 * mm < each < mm for mm, each in zip((1.0, 2.0, 3.0), found[1:], strict=True))


def test_a_few_slices_are_enough(scan):
    values, inside = scan
    few = shifted(values, 3.0, 0, (8, 10, 12))
    assert slice_shift_mm(few, inside, SPACING) > 3 * slice_shift_mm(values, inside, SPACING)


def test_a_change_of_brightness_is_no_shift(scan):
    values, inside = scan
    brighter = values * np.where(np.arange(24) % 2, 1.0, 1.1).astype(np.float32)
    assert slice_shift_mm(brighter, inside, SPACING) < 0.25


def test_slices_lie_across_the_longest_voxels(scan):
    values, inside = scan
    moved = shifted(values, 2.0, 0, range(0, 24, 2))
    turned = slice_shift_mm(moved.transpose(2, 0, 1), inside.transpose(2, 0, 1), (3.0, 1.0, 1.5))
    assert turned == pytest.approx(slice_shift_mm(moved, inside, SPACING), abs=1e-6)


def test_too_few_slices_say_nothing(scan):
    values, inside = scan
    assert slice_shift_mm(values[..., 10:14], inside[..., 10:14], SPACING) is None
    assert slice_shift_mm(values, np.zeros_like(inside), SPACING) is None


def test_a_scan_of_one_value_does_not_shift(scan):
    assert slice_shift_mm(np.ones_like(scan[0]), scan[1], SPACING) == 0
