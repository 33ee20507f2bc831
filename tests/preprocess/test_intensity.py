"""Intensities: bias fields removed, scales made comparable."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.intensity import (
    N4,
    DropNegative,
    Rescale01,
    ZScore,
    ZScoreSlices,
)
from lesionwise.preprocess.pair import Quantize
from lesionwise.simulate.patient import simulate_patient
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def study(array, brain=None, spacing=1.0):
    where = Grid(array.shape, np.diag([spacing, spacing, spacing, 1.0]))
    mask = None if brain is None else Volume(brain, where)
    return Study(
        "01", (Visit({"flair": Volume(array.astype(np.float32), where)}, {}, mask, "M00"),)
    )


def scan(study):
    return study.visits[0].scans["flair"].array


EVERY_STEP = [
    ZScore("all"),
    ZScoreSlices(),
    DropNegative(),
    Rescale01(),
    N4(working_mm=1, levels=1, iterations=2),
]


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
    "step",
    [
        ZScore("all"),
        Rescale01(),
        N4(),
    ],
)
def test_a_constant_scan_is_refused_by_name(step):
    with pytest.raises(InputError, match=r"01 M00 flair: .*voxel.* the same value"):
        step(study(np.full((8, 8, 8), 5.0)))
    with pytest.raises(InputError, match=r"01 M00 flair: .*voxel"):
        step(study(np.zeros((8, 8, 8))))


@pytest.mark.parametrize("step", [ZScore(), ZScoreSlices(within="brain")])
def test_a_missing_or_empty_brain_is_refused(step):
    array = np.arange(8.0).reshape(2, 2, 2)
    with pytest.raises(InputError, match="no brain mask"):
        step(study(array))
    with pytest.raises(InputError, match="the brain mask is empty"):
        step(study(array, np.zeros((2, 2, 2), bool)))


def test_z_score_of_each_slice_by_hand():
    # slices along k: 1 and 3; 10 and 30; all alike
    array = np.array([[1.0, 10.0, 7.0], [3.0, 30.0, 7.0]]).reshape(2, 1, 3)
    out = scan(ZScoreSlices()(study(array)))
    np.testing.assert_allclose(out[:, 0], [[-1, -1, 0], [1, 1, 0]], atol=1e-6)
    rows = scan(ZScoreSlices(axis=0)(study(array)))
    np.testing.assert_allclose(rows[0, 0], (array[0, 0] - 6) / np.std([1, 10, 7]), atol=1e-6)


def test_z_score_of_slices_counts_only_the_brain():
    array = np.array([1.0, 3.0, 5.0, 2.0, 4.0, 9.0]).reshape(3, 1, 2, order="F")
    brain = np.array([True, True, False] * 2).reshape(3, 1, 2, order="F")
    brain[..., 1] = False  # a slice without brain becomes 0
    out = scan(ZScoreSlices(within="brain")(study(array, brain)))
    np.testing.assert_allclose(out[:, 0, 0], [-1, 1, 3], atol=1e-6)
    np.testing.assert_array_equal(out[..., 1], 0)


def test_slices_of_one_value_each_are_refused():
    array = np.arange(4.0).reshape(1, 1, 4) * np.ones((3, 3, 1))
    with pytest.raises(InputError, match="every slice has one value"):
        ZScoreSlices()(study(array))


def test_negative_values_become_zero():
    array = np.array([-3.0, 0.0, 2.0]).reshape(3, 1, 1)
    assert scan(DropNegative()(study(array))).ravel().tolist() == [0, 0, 2]


def test_a_range_of_tissue_is_not_that_of_the_brain():
    array = np.array([1.0, 80.0, 100.0, 120.0]).reshape(4, 1, 1)
    out = scan(Rescale01("tissue")(study(array, np.ones((4, 1, 1), bool)))).ravel()
    np.testing.assert_allclose(out, [0, 0, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_values_that_are_not_finite_are_refused(step):
    array = np.arange(60.0).reshape(3, 4, 5)
    array[1, 1, 1] = np.nan
    with pytest.raises(InputError, match="01 M00 flair: some voxels are not finite"):
        step(study(array))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32])
@pytest.mark.parametrize("step", EVERY_STEP)
def test_integers_give_what_their_values_give(step, dtype):
    values = np.random.default_rng(0).integers(1, 120, (6, 6, 6))
    whole = study(values)
    where = whole.visits[0].scans["flair"].grid
    visit = replace(whole.visits[0], scans={"flair": Volume(values.astype(dtype), where)})
    out = scan(step(replace(whole, visits=(visit,))))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, scan(step(whole)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("step", EVERY_STEP)
def test_the_study_keeps_all_else(step):
    values = np.random.default_rng(0).uniform(1, 120, (6, 6, 7))
    before = study(values, np.ones(values.shape, bool))
    visit = replace(
        before.visits[0], labels={"lesions": before.visits[0].brain}, to_native=2 * np.eye(4)
    )
    before = replace(before, visits=(visit,), changes={"new": visit.brain})
    after = step(before)
    assert after.changes is before.changes
    for name in ("brain", "labels", "to_native"):
        assert getattr(after.visits[0], name) is getattr(visit, name)


@pytest.mark.parametrize(
    "step",
    [ZScore(), Rescale01("brain"), N4()],
)
def test_a_brain_of_one_voxel_is_refused(step):
    brain = np.zeros((6, 6, 6), bool)
    brain[3, 3, 3] = True
    with pytest.raises(InputError, match="the same value"):
        step(study(np.random.default_rng(0).uniform(1, 120, brain.shape), brain))


def test_rescale_maps_the_extremes():
    array = np.array([-2.0, 0.0, 6.0, 50.0]).reshape(4, 1, 1)
    brain = np.array([True, True, True, False]).reshape(4, 1, 1)
    out = scan(Rescale01("brain")(study(array, brain))).ravel()
    np.testing.assert_allclose(out, [0, 0.25, 1, 1], atol=1e-6)


def test_steps_leave_their_input_alone():
    array = np.arange(60.0).reshape(3, 4, 5)
    before = study(array)
    for step in EVERY_STEP:
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


@pytest.mark.parametrize("zero", ["background too", "brain alone"])
def test_n4_takes_a_z_scored_scan_as_the_scan_itself(zero):
    array, brain, _ = biased_ball()
    array = np.where(brain, array, 0)
    inside = array[brain]
    if zero == "background too":
        scored = (array - inside.mean()) / inside.std()
    else:
        array = np.where(brain, array - inside.min(), 0)  # its lowest value is its zero
        scored = np.where(brain, (array - array[brain].mean()) / inside.std(), 0)
    right = scan(N4()(study(array, brain, 2.0)))[brain]
    seen = scan(N4()(study(scored, brain, 2.0)))[brain]
    np.testing.assert_allclose(seen / seen.mean(), right / right.mean(), rtol=2e-3, atol=2e-3)


def test_n4_field_is_positive_and_finite_everywhere():
    array, brain, _ = biased_ball()
    volume = study(array, brain, 2.0).visits[0].scans["flair"]
    field = N4().field(volume, brain).array
    assert field.dtype == np.float32
    assert np.isfinite(field).all()
    assert field.min() > 0


@pytest.mark.parametrize("shape", [(12, 12, 1), (1, 12, 12), (1, 1, 12), (2, 2, 2)])
def test_n4_takes_thin_scans(shape):
    array = np.random.default_rng(0).uniform(80, 120, shape)
    out = scan(N4(levels=2, iterations=3)(study(array, np.ones(shape, bool))))
    assert out.shape == shape
    assert (out > 0).all()
    assert out.mean() == pytest.approx(array.mean(), rel=1e-3)


@pytest.fixture(scope="module")
def biased_patient():
    """A simulated patient under a known field: study, its white matter."""
    patient = simulate_patient(7, spacing_mm=(3.0, 3.0, 3.0), with_skull=False).study
    visit = patient.visits[0]
    where = visit.scans["flair"].grid
    at = where.world_mm(np.argwhere(np.ones(where.shape, bool)))
    at = (at - at.mean(axis=0)) / np.ptp(at, axis=0)
    field = np.exp(0.8 * at[:, 0] + 0.6 * at[:, 1] ** 2 - 0.4 * at[:, 2]).reshape(where.shape)
    biased = visit.scans["flair"].array * field.astype(np.float32)
    brain = visit.brain.array.astype(bool)
    return study(biased, brain, spacing=3.0), visit.labels["tissue"].array == 3


@pytest.mark.parametrize(
    "settings",
    [{}, {"iterations": 1000, "tolerance": 1e-4, "fwhm": 0.05}, {"levels": 3, "iterations": 400}],
    ids=["default", "B1", "B27"],
)
def test_n4_flattens_white_matter_under_a_known_field(settings, biased_patient):
    before, white = biased_patient

    def variation(array):
        return array[white].std() / array[white].mean()

    # a copy of 8 mm, for time alone
    after = N4(working_mm=8, **settings)(before)
    assert variation(scan(after)) < 0.7 * variation(scan(before))


def test_n4_steadies_the_bright_half_of_a_real_scan(shared, supplied_mask):
    name = "data/sub-openlong01/ses-02/anat/sub-openlong01_ses-02_FLAIR.nii.gz"
    raw = read_volume(shared(name))
    brain = supplied_mask("openlong01", "02", raw.grid)
    visit = Visit({"flair": raw}, {}, Volume(brain, raw.grid), "02")
    small = Resample((3.0, 3.0, 3.0))(Study("openlong01", (visit,)))
    inside = small.visits[0].brain.array.astype(bool)

    def spread(array):
        low, high = np.percentile(array[inside], [30, 90])
        tissue = array[inside & (array > low) & (array < high)]
        return tissue.std() / tissue.mean()

    assert spread(scan(N4(working_mm=8)(small))) < 0.9 * spread(scan(small))


@pytest.mark.parametrize(
    "step",
    [ZScore(), Rescale01(), N4(), Quantize()],
    ids=lambda s: type(s).__name__,
)
def test_a_scan_of_truth_values_counts_as_0_and_1(step):
    values = np.random.default_rng(0).random((8, 9, 10)) > 0.5
    as_numbers = study(values, np.ones(values.shape, bool))
    visit = as_numbers.visits[0]
    as_truth = replace(visit, scans={"flair": Volume(values, visit.brain.grid)})
    expected = scan(step(as_numbers))
    np.testing.assert_array_equal(scan(step(replace(as_numbers, visits=(as_truth,)))), expected)
