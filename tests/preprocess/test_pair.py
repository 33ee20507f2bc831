"""Visits of one patient on one intensity scale."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.geometry import CropToBrain, Resample
from lesionwise.preprocess.pair import (
    DifferentialBias,
    JointRescale,
    MatchHistograms,
    Quantize,
    piecewise_linear,
)
from lesionwise.types import Grid, InputError, Study, Visit, Volume

SPACING = (1.0, 1.0, 3.0)
PAIR_STEPS = [DifferentialBias(), JointRescale(), MatchHistograms()]
ALL_STEPS = [*PAIR_STEPS, Quantize()]


def pair(baseline, followup, brain=None, spacing=SPACING):
    where = Grid(baseline.shape, np.diag([*spacing, 1.0]))
    brain = np.ones(baseline.shape, bool) if brain is None else brain
    visits = tuple(
        Visit({"flair": Volume(array, where)}, {}, Volume(brain, where), session)
        for array, session in ((baseline, "M00"), (followup, "M12"))
    )
    return Study("01", visits, {"new": Volume(brain, where)})


def scans(study):
    return [visit.scans["flair"].array for visit in study.visits]


def anatomy(shape=(48, 48, 16), seed=0):
    """Smooth texture around 100, as float32."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (2, 2, 1))
    return (100 + 10 * smooth / smooth.std()).astype(np.float32)


def line(*values):
    return np.array(values, dtype=np.float32).reshape(-1, 1, 1)


def test_joint_rescale_by_hand():
    # means 3 and 30, standard deviations 2 and 10
    baseline, followup = line(1, 5, 1, 5), line(20, 40, 40, 20)
    first, second = scans(JointRescale()(pair(baseline, followup)))
    np.testing.assert_array_equal(first, baseline)
    np.testing.assert_allclose(second.ravel(), [1, 5, 5, 1], atol=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0])
def test_after_joint_rescale_total_least_squares_give_y_equals_x(scale):
    """Document 002, line 223: rescaled "so that it best fits the y=x line in a least square
    sense"."""
    rng = np.random.default_rng(0)
    head = anatomy()
    before, after = (head + rng.normal(0, 6, head.shape) for _ in range(2))
    first, second = scans(JointRescale()(pair(before, scale * after + 30)))
    pairs = np.stack([first.ravel(), second.ravel()])
    (_, direction), middle = np.linalg.eigh(np.cov(pairs))[1].T, pairs.mean(axis=1)
    np.testing.assert_allclose(direction / direction[0], [1, 1], atol=1e-3)
    assert middle[0] == pytest.approx(middle[1], rel=1e-5)


def test_joint_rescale_keeps_the_contrast_of_a_lesion_in_noisy_scans():
    head = anatomy()
    rng = np.random.default_rng(1)
    noise = [rng.normal(0, 10, head.shape) for _ in range(2)]
    followup = head + noise[1]
    followup[20:26, 20:26, 6:9] += 60
    study = pair((head + noise[0]).astype(np.float32), (3 * followup + 50).astype(np.float32))
    before = followup[20:26, 20:26, 6:9].mean() - followup.mean()
    after = scans(JointRescale()(study))[1]
    contrast = after[20:26, 20:26, 6:9].mean() - after.mean()
    # a regression of one scan on the other would leave about half of it
    assert contrast > 0.9 * before


def test_matching_histograms_by_hand():
    # without points in between, a linear map of the extremes
    baseline, followup = line(0, 1, 2, 4), line(10, 20, 30, 50)
    first, second = scans(MatchHistograms(points=0)(pair(baseline, followup)))
    np.testing.assert_allclose(first.ravel(), [10, 20, 30, 50], rtol=1e-6)
    np.testing.assert_array_equal(second, followup)
    first, second = scans(MatchHistograms(to="baseline", points=0)(pair(baseline, followup)))
    np.testing.assert_array_equal(first, baseline)
    np.testing.assert_allclose(second.ravel(), [0, 1, 2, 4], atol=1e-6)


def test_matching_undoes_any_monotone_change_of_gray_levels():
    head = anatomy()
    squared = (head**2 / 50).astype(np.float32)
    first, second = scans(MatchHistograms()(pair(squared, head)))
    # between two knots of distance d a parabola departs from its chord by d**2 / (4 * 2 * head):
    # d is below 2 between these percentiles, and 30 at the very ends
    low, high = np.percentile(head, [5, 95])
    middle = (head > low) & (head < high)
    assert np.abs(first - second)[middle].max() < 0.01
    assert np.abs(first - second).max() < 2


def test_levels_by_hand_are_the_same_in_both_visits():
    step = Quantize(levels=3, low=0, high=100)
    brain = np.array([True, True, True, False]).reshape(-1, 1, 1)
    # the brains hold 0 to 9: steps of 3
    study = pair(line(0, 2.9, 3, 100), line(5.9, 6, 9, -5), brain)
    first, second = scans(step(study))
    assert first.ravel().tolist() == [1, 1, 2, 0]
    assert second.ravel().tolist() == [2, 3, 3, 0]


def test_quantizing_works_for_one_visit():
    study = pair(line(0, 1, 2), line(0, 1, 2))
    alone = replace(study, visits=study.visits[:1])
    assert scans(Quantize(3, 0, 100)(alone))[0].ravel().tolist() == [1, 2, 3]


def smooth_field(shape, strength):
    i = np.linspace(-1, 1, shape[0])[:, None, None]
    j = np.linspace(-1, 1, shape[1])[None, :, None]
    return np.exp(strength * (i + 0.5 * j**2)) * np.ones(shape)


def test_differential_bias_is_halved_between_two_visits():
    head = anatomy((64, 64, 20))
    field = smooth_field(head.shape, 0.3)
    study = pair((head * field).astype(np.float32), (head / field).astype(np.float32))
    first, second = scans(DifferentialBias()(study))
    # their geometric mean is the head itself
    np.testing.assert_allclose(first[6:-6, 6:-6], head[6:-6, 6:-6], rtol=0.02)
    np.testing.assert_allclose(second[6:-6, 6:-6], head[6:-6, 6:-6], rtol=0.02)


def test_three_visits_meet_in_the_middle():
    head = anatomy((64, 64, 20))
    study = pair(head, head)
    changed = [head * smooth_field(head.shape, s) for s in (0.3, -0.3, 0.0)]
    visits = tuple(
        replace(study.visits[0], scans={"flair": Volume(a.astype(np.float32), v.grid)})
        for a, v in zip(changed, [study.visits[0].scans["flair"]] * 3, strict=True)
    )
    for after in scans(DifferentialBias()(replace(study, visits=visits))):
        np.testing.assert_allclose(after[6:-6, 6:-6], head[6:-6, 6:-6], rtol=0.02)


def test_a_new_lesion_smaller_than_half_the_cube_survives():
    head = anatomy((48, 48, 16))
    grown = head.copy()
    lesion = (slice(20, 25), slice(20, 25), slice(7, 9))
    grown[lesion] *= 1.5
    first, second = scans(DifferentialBias()(pair(head, grown)))
    assert (second[lesion] / first[lesion]).mean() > 1.45


def test_what_lies_outside_the_brain_has_no_say():
    head = anatomy((48, 48, 16))
    brain = np.zeros(head.shape, bool)
    brain[12:36, 12:36, 3:13] = True
    field = smooth_field(head.shape, 0.2)
    quiet, loud = head * field, (head * field).copy()
    loud[~brain] *= 20
    results = [
        scans(DifferentialBias()(pair(head, array.astype(np.float32), brain)))[1][brain]
        for array in (quiet, loud)
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)


@pytest.mark.parametrize("step", ALL_STEPS)
def test_all_but_the_scans_stays(step):
    study = pair(anatomy(), anatomy(seed=1))
    moved = np.diag([1.0, 1.0, 1.0, 1.0])
    moved[0, 3] = 5
    visits = tuple(replace(v, to_native=moved, labels={"lesions": v.brain}) for v in study.visits)
    study = replace(study, visits=visits)
    before = [array.copy() for array in scans(study)]
    after = step(study)
    assert after.changes is study.changes
    for old, new, array in zip(study.visits, after.visits, before, strict=True):
        assert new.brain is old.brain
        assert new.labels is old.labels
        assert new.to_native is old.to_native
        assert new.scans["flair"].array.dtype == np.float32
        np.testing.assert_array_equal(old.scans["flair"].array, array)


@pytest.mark.parametrize("step", PAIR_STEPS)
def test_one_visit_is_refused(step):
    study = pair(anatomy(), anatomy())
    with pytest.raises(InputError, match="01: only one visit"):
        step(replace(study, visits=study.visits[:1]))


@pytest.mark.parametrize("step", [DifferentialBias(), JointRescale()])
def test_visits_on_different_grids_are_refused(step):
    study, other = pair(anatomy(), anatomy()), pair(anatomy(), anatomy(), spacing=(1, 1, 4))
    with pytest.raises(InputError, match="01 M12 flair: not on the grid of 01 M00 flair"):
        step(replace(study, visits=(study.visits[0], other.visits[1])))
    nameless = (replace(study.visits[0], session=""), replace(other.visits[1], session=""))
    with pytest.raises(InputError, match="01 flair: not on the grid of 01 flair"):
        step(replace(study, visits=nameless))


@pytest.mark.parametrize("step", [DifferentialBias(), JointRescale()])
def test_brains_that_do_not_overlap_are_refused(step):
    study = pair(anatomy(), anatomy())
    where = study.visits[0].brain.grid
    left, right = np.zeros(where.shape, bool), np.zeros(where.shape, bool)
    left[:20], right[30:] = True, True
    visits = tuple(
        replace(v, brain=Volume(b, where)) for v, b in zip(study.visits, (left, right), strict=True)
    )
    with pytest.raises(InputError, match="do not overlap"):
        step(replace(study, visits=visits))


@pytest.mark.parametrize("step", ALL_STEPS)
def test_empty_brains_and_values_that_are_not_finite_are_refused(step):
    with pytest.raises(InputError, match="the brain mask is empty"):
        step(pair(anatomy(), anatomy(), np.zeros((48, 48, 16), bool)))
    bad = anatomy()
    bad[3, 4, 5] = np.nan
    with pytest.raises(InputError, match="01 M12 flair: some voxels are not finite"):
        step(pair(anatomy(), bad))


@pytest.mark.parametrize("step", ALL_STEPS)
def test_scans_of_zeros_are_refused(step):
    zeros = np.zeros((8, 8, 8), np.float32)
    with pytest.raises(InputError, match=r"same value|alike|not positive"):
        step(pair(zeros, zeros))


@pytest.mark.parametrize("step", [JointRescale(), MatchHistograms()])
def test_one_voxel_brains_are_refused(step):
    brain = np.zeros((48, 48, 16), bool)
    brain[9, 9, 9] = True
    with pytest.raises(InputError, match="same value"):
        step(pair(anatomy(), anatomy(seed=1), brain))


def test_differential_bias_of_one_voxel_scales_both_to_its_mean():
    brain = np.zeros((48, 48, 16), bool)
    brain[9, 9, 9] = True
    first, second = scans(DifferentialBias()(pair(anatomy(), 4 * anatomy(), brain)))
    np.testing.assert_allclose(first, 2 * anatomy(), rtol=1e-4)
    np.testing.assert_allclose(second, 2 * anatomy(), rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("step", ALL_STEPS)
def test_integer_scans_give_what_their_values_give(step, dtype):
    whole = [np.round(anatomy(seed=s)).astype(dtype) for s in (0, 1)]
    expected = scans(step(pair(*[a.astype(np.float32) for a in whole])))
    for got, want in zip(scans(step(pair(*whole))), expected, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_a_scan_of_one_visit_only_stays():
    study = pair(anatomy(), anatomy())
    extra = Volume(anatomy(seed=2), study.visits[0].brain.grid)
    first = replace(study.visits[0], scans={**study.visits[0].scans, "t1w": extra})
    after = JointRescale()(replace(study, visits=(first, study.visits[1])))
    assert after.visits[0].scans["t1w"] is extra


@given(
    arrays.arrays(np.float64, 12, elements=st.integers(-400, 400)),
    arrays.arrays(np.float64, 5, elements=st.integers(-40, 40)),
    arrays.arrays(np.float64, 5, elements=st.integers(-40, 40)),
)
def test_a_piecewise_linear_map_never_turns_two_values_round(values, source, target):
    source, target = np.sort(source), np.sort(target)
    if source[0] == source[-1]:
        with pytest.raises(ValueError, match="two different values"):
            piecewise_linear(values, source, target)
        return
    out = piecewise_linear(np.sort(values), source, target)
    steps = np.diff(out)
    assert (steps >= -1e-6 * np.abs(out).max()).all()


def test_a_piecewise_linear_map_by_hand():
    source, target = np.array([0.0, 1.0, 1.0, 3.0]), np.array([0.0, 10.0, 20.0, 17.0 + 2.0])
    got = piecewise_linear(np.array([-1.0, 0.5, 1.0, 2.0, 4.0]), source, target)
    np.testing.assert_allclose(got, [-15, 7.5, 15, 17, 21])


@pytest.fixture(scope="module")
def real_pair(shared):
    """openlong12 in the common space, its brain, 2 mm in plane."""
    folder = "data/derivatives/coregistered/sub-openlong12"
    brain = read_mask(shared(f"{folder}/anat/sub-openlong12_space-common_desc-brain_mask.nii.gz"))
    visits = tuple(
        Visit(
            {
                "flair": read_volume(
                    shared(
                        f"{folder}/ses-{s}/anat/sub-openlong12_ses-{s}_space-common_FLAIR.nii.gz"
                    )
                )
            },
            {},
            brain,
            s,
        )
        for s in ("01", "02")
    )
    study = CropToBrain(0)(Study("openlong12", visits))
    return Resample((2.0, 2.0, 3.0))(study)


def difference(study):
    """Mean absolute log ratio of the visits, over both scans' brightness, in the brain."""
    brain = study.baseline.brain.array.astype(bool)
    first, second = (np.maximum(a[brain], 1) for a in scans(study))
    return float(np.abs(np.log(second / first)).mean())


@pytest.mark.parametrize("step", PAIR_STEPS)
def test_real_visits_come_closer_to_each_other(step, real_pair):
    assert difference(step(real_pair)) < difference(real_pair)


def test_real_visits_share_six_levels(real_pair):
    brain = real_pair.baseline.brain.array.astype(bool)
    first, second = scans(Quantize()(MatchHistograms()(real_pair)))
    assert set(np.unique(first[brain])) == set(np.unique(second[brain])) == {1, 2, 3, 4, 5, 6}
    assert (first[brain] == second[brain]).mean() > 0.6
