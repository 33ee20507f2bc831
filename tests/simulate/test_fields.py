import numpy as np
import pytest

from lesionwise.simulate.fields import smooth_field


def test_one_field_has_the_shape_asked_for():
    assert smooth_field(np.random.default_rng(0), (5, 7, 3), 2.0).shape == (5, 7, 3)


def test_several_fields_come_stacked():
    assert smooth_field(np.random.default_rng(0), (5, 7, 3), 2.0, fields=4).shape == (4, 5, 7, 3)


def test_same_seed_same_field():
    a = smooth_field(np.random.default_rng(3), (9, 9, 9), 3.0)
    b = smooth_field(np.random.default_rng(3), (9, 9, 9), 3.0)
    np.testing.assert_array_equal(a, b)


def test_unit_variance_everywhere_in_the_volume():
    fields = smooth_field(np.random.default_rng(0), (6, 6, 6), 2.5, fields=4000)
    # 4000 draws: the SD of an estimated variance is sqrt(2 / 4000) = 0.022
    assert np.abs(fields.var(axis=0) - 1).max() < 6 * 0.0224


@pytest.mark.parametrize("scale", [4.0, 12.0])
def test_larger_scale_is_smoother(scale):
    rng = np.random.default_rng(1)
    field = smooth_field(rng, (60, 60, 60), scale)
    step = np.abs(np.diff(field, axis=0)).mean()
    # a field of correlation length s changes by about its SD over s voxels
    assert 0.3 / scale < step < 2.0 / scale
