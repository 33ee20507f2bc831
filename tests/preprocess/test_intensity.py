"""Intensities: bias fields removed, scales made comparable."""

import numpy as np
import pytest

from lesionwise.preprocess.intensity import N4, ClipPercentiles, Rescale01, ZScore
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def study(array, brain=None, spacing=1.0):
    where = Grid(array.shape, np.diag([spacing, spacing, spacing, 1.0]))
    mask = None if brain is None else Volume(brain, where)
    return Study(
        "01", (Visit({"flair": Volume(array.astype(np.float32), where)}, {}, mask, "M00"),)
    )


def scan(study):
    return study.visits[0].scans["flair"].array


def test_z_score_by_hand_within_the_brain():
    array = np.array([1.0, 3.0, 100.0]).reshape(3, 1, 1)
    brain = np.array([True, True, False]).reshape(3, 1, 1)
    np.testing.assert_allclose(scan(ZScore()(study(array, brain))).ravel(), [-1, 1, 98], atol=1e-5)
    zeroed = scan(ZScore(zero_outside=True)(study(array, brain))).ravel()
    np.testing.assert_allclose(zeroed, [-1, 1, 0], atol=1e-5)


def test_z_score_by_tissue_does_not_depend_on_the_fluid_in_the_mask():
    tissue = np.array([90.0, 100.0, 110.0])
    loose = np.concatenate([tissue, [5.0, 0.0], [1000.0]]).reshape(6, 1, 1)
    brain = np.array([True] * 5 + [False]).reshape(6, 1, 1)
    out = scan(ZScore("tissue", zero_outside=True)(study(loose, brain))).ravel()
    expected = (tissue - 100) / tissue.std()
    np.testing.assert_allclose(out[:3], expected, atol=1e-5)
    np.testing.assert_allclose(out[4:], [-100 / tissue.std(), 0], atol=1e-4)


def test_z_score_of_nonzero_and_all():
    array = np.array([0.0, 1.0, 3.0]).reshape(3, 1, 1)
    nonzero = scan(ZScore("nonzero")(study(array))).ravel()
    np.testing.assert_allclose(nonzero[1:], [-1, 1], atol=1e-6)
    everything = scan(ZScore("all")(study(array)))
    assert abs(everything.mean()) < 1e-6
    assert abs(everything.std() - 1) < 1e-6


@pytest.mark.parametrize(
    "step", [ZScore("all"), Rescale01(), N4(), ClipPercentiles(within="all", onto=(0, 1))]
)
def test_a_constant_scan_is_refused_by_name(step):
    with pytest.raises(InputError, match=r"01 M00 flair: every voxel .* the same value"):
        step(study(np.full((8, 8, 8), 5.0)))


@pytest.mark.parametrize("step", [ZScore(), ClipPercentiles()])
def test_a_missing_or_empty_brain_is_refused(step):
    array = np.arange(8.0).reshape(2, 2, 2)
    with pytest.raises(InputError, match="no brain mask"):
        step(study(array))
    with pytest.raises(InputError, match="the brain mask is empty"):
        step(study(array, np.zeros((2, 2, 2), bool)))


def test_rescale_maps_the_extremes():
    array = np.array([-2.0, 0.0, 6.0, 50.0]).reshape(4, 1, 1)
    brain = np.array([True, True, True, False]).reshape(4, 1, 1)
    out = scan(Rescale01("brain")(study(array, brain))).ravel()
    np.testing.assert_allclose(out, [0, 0.25, 1, 1], atol=1e-6)


def test_clip_at_percentiles_and_onto_a_range():
    array = np.arange(101.0).reshape(101, 1, 1)
    kept = scan(ClipPercentiles(10, 90, "all")(study(array))).ravel()
    assert (kept.min(), kept.max(), kept[50]) == (10, 90, 50)
    mapped = scan(ClipPercentiles(10, 90, "all", onto=(-1, 1))(study(array))).ravel()
    np.testing.assert_allclose(mapped[[0, 10, 50, 90, 100]], [-1, -1, 0, 1, 1], atol=1e-6)
    with pytest.raises(ValueError, match="ordered"):
        ClipPercentiles(90, 10)


def test_steps_leave_their_input_alone():
    array = np.arange(27.0).reshape(3, 3, 3)
    before = study(array)
    for step in (ZScore("all"), Rescale01(), ClipPercentiles(within="all", onto=(0, 1))):
        step(before)
    np.testing.assert_array_equal(scan(before), array.astype(np.float32))


def biased_ball():
    """Two tissues in a ball of 60 mm, under a field that rises from 0.7 to 1.3."""
    i, j, k = np.indices((64, 64, 64)) * 2.0 - 63.0
    radius = np.sqrt(i**2 + j**2 + k**2)
    brain = radius < 55
    tissue = np.where(np.sin(i / 6) + np.sin(j / 7) + np.sin(k / 5) > 0, 100.0, 70.0)
    noise = np.random.default_rng(0).normal(0, 1.5, tissue.shape)
    field = 1 + 0.3 * i / 63 + 0.1 * (j / 63) ** 2
    return (tissue * brain + noise).clip(0) * field, brain, tissue


def test_n4_flattens_a_known_field():
    array, brain, tissue = biased_ball()
    before = study(array, brain, spacing=2.0)
    after = N4()(before)
    bright = brain & (tissue > 90)

    def variation(volume):
        return volume[bright].std() / volume[bright].mean()

    assert variation(scan(after)) < variation(scan(before)) / 3
    np.testing.assert_allclose(scan(after)[brain].mean(), array[brain].mean(), rtol=1e-3)


def test_n4_field_is_positive_and_finite_everywhere():
    array, brain, _ = biased_ball()
    volume = study(array, brain, 2.0).visits[0].scans["flair"]
    field = N4().field(volume, brain).array
    assert field.dtype == np.float32
    assert np.isfinite(field).all()
    assert field.min() > 0
