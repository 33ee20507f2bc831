"""Gray levels brought onto a scale learned from training scans."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.standardize import (
    DECILES,
    LANDMARKS,
    MatchHistogramToTraining,
    Nyul,
    ToLandmarks,
)
from lesionwise.types import Grid, InputError, RunContext, Study, TrainingData, Visit, Volume

LEARNED = [Nyul(), MatchHistogramToTraining()]


def study(array, brain=None, key="flair"):
    where = Grid(array.shape, np.eye(4))
    brain = np.ones(array.shape, bool) if brain is None else brain
    return Study("01", (Visit({key: Volume(array, where)}, {}, Volume(brain, where), "M00"),))


def scan(study, key="flair"):
    return study.visits[0].scans[key].array


def line(*values):
    return np.array(values, dtype=np.float32).reshape(-1, 1, 1)


def head(seed, power=1.0, scale=1.0):
    """1000 gray levels of one shape, on any scale."""
    level = np.random.default_rng(seed).uniform(1, 5, (10, 10, 10)) ** power
    return (scale * level).astype(np.float32)


def test_landmarks_by_hand(tmp_path):
    # percentiles 0, 50, 100 are the values; on 0 to 10 the medians lie at 5 and 2.5
    data = TrainingData([study(line(0, 1, 2)), study(line(10, 20, 50))])
    step = Nyul(percentiles=(0, 50, 100), scale=(0, 10)).fit(data, RunContext(tmp_path))
    assert step.landmarks == (("flair", (0.0, 3.75, 10.0)),)
    out = scan(step(study(line(100, 104, 108))))
    np.testing.assert_allclose(out.ravel(), [0, 3.75, 10], atol=1e-6)


def test_the_outermost_slopes_go_on(tmp_path):
    step = ToLandmarks((("flair", (0.0, 4.0, 10.0)),), (0, 50, 100))
    brain = np.array([False, True, True, True, False]).reshape(-1, 1, 1)
    out = scan(step(study(line(-1, 0, 2, 4, 5), brain)))
    np.testing.assert_allclose(out.ravel(), [-2, 0, 4, 10, 13], atol=1e-5)
    zeroed = scan(replace(step, zero_outside=True)(study(line(-1, 0, 2, 4, 5), brain)))
    np.testing.assert_allclose(zeroed.ravel(), [0, 0, 4, 10, 0], atol=1e-5)


def test_the_mean_histogram_by_hand(tmp_path):
    # in units of the medians: 0.5, 1, 3 and 0.5, 1, 1.5
    data = TrainingData([study(line(1, 2, 6)), study(line(10, 20, 30))])
    step = MatchHistogramToTraining((0, 50, 100)).fit(data, RunContext(tmp_path))
    assert step.landmarks == (("flair", (0.5, 1.0, 2.25)),)


@pytest.mark.parametrize("step", LEARNED)
def test_scanners_with_other_curves_meet(step, tmp_path):
    data = TrainingData([study(head(s, power=p)) for s, p in ((0, 0.8), (1, 1.0), (2, 1.25))])
    fitted = step.fit(data, RunContext(tmp_path))
    results = [
        np.sort(scan(fitted(study(head(5, power=p, scale=s)))).ravel())
        for p, s in ((0.7, 3.0), (1.4, 0.01))
    ]
    inner = slice(20, -20)
    spread = np.ptp(results[0][inner])
    assert np.abs(results[0] - results[1])[inner].max() < 0.02 * spread


@pytest.mark.parametrize("step", LEARNED)
def test_what_was_learned_comes_back(step, tmp_path):
    run = RunContext(tmp_path / "steps" / "2")
    fitted = step.fit(TrainingData([study(head(0)), study(head(1, 1.5))]), run)
    assert step.load(run) == fitted
    assert [path.name for path in run.folder.iterdir()] == [LANDMARKS]
    np.testing.assert_array_equal(
        scan(step.load(run)(study(head(7)))), scan(fitted(study(head(7))))
    )


@pytest.mark.parametrize("step", LEARNED)
def test_units_of_a_scan_do_not_matter(step, tmp_path):
    plain = [study(head(s)) for s in (0, 1)]
    fitted = step.fit(TrainingData(plain), RunContext(tmp_path / "a"))
    scaled = [study(head(0)), study(head(1, scale=1000.0))]
    again = step.fit(TrainingData(scaled), RunContext(tmp_path / "b"))
    np.testing.assert_allclose(again.landmarks[0][1], fitted.landmarks[0][1], rtol=1e-5)
    np.testing.assert_allclose(
        scan(fitted(study(head(9, scale=50.0)))), scan(fitted(study(head(9)))), rtol=1e-4
    )


@pytest.mark.parametrize("step", LEARNED)
def test_each_kind_of_scan_has_landmarks_of_its_own(step, tmp_path):
    where = Grid((10, 10, 10), np.eye(4))
    scans = {"t1w": Volume(head(0, 2.0), where), "flair": Volume(head(1), where)}
    visit = Visit(scans, {}, Volume(np.ones(where.shape, bool), where))
    fitted = step.fit(TrainingData([Study("01", (visit, visit))]), RunContext(tmp_path))
    names, targets = zip(*fitted.landmarks, strict=True)
    assert names == ("flair", "t1w")
    assert targets[0] != targets[1]
    assert json.loads((tmp_path / LANDMARKS).read_text())["scans"] == {"t1w": 2, "flair": 2}
    with pytest.raises(InputError, match="01 M00 t2w: no scan of this kind was in training"):
        fitted(study(head(0), key="t2w"))


@pytest.mark.parametrize("step", LEARNED)
def test_before_learning_a_step_says_so(step):
    with pytest.raises(RuntimeError, match="call fit or load first"):
        step(study(head(0)))


@pytest.mark.parametrize("step", LEARNED)
def test_faulty_scans_are_refused_in_learning_and_use(step, tmp_path):
    run = RunContext(tmp_path)
    fitted = step.fit(TrainingData([study(head(0))]), run)
    empty, single = np.zeros((10, 10, 10), bool), np.zeros((10, 10, 10), bool)
    single[5, 5, 5] = True
    bad = head(0)
    bad[0, 0, 0] = np.nan
    cases = [
        (study(head(0), empty), "01 M00 flair: the brain mask is empty"),
        (study(head(0), single), "01 M00 flair: every voxel between the percentiles"),
        (study(np.zeros((3, 3, 3), np.float32)), "01 M00 flair: every voxel between"),
        (study(np.full((3, 3, 3), 7, np.uint8)), "01 M00 flair: every voxel between"),
        (study(bad), "01 M00 flair: some voxels are not finite"),
    ]
    for case, message in cases:
        for use in (fitted, lambda s: step.fit(TrainingData([s]), run)):
            with pytest.raises(InputError, match=message):
                use(case)
    with pytest.raises(InputError, match="training set is empty"):
        step.fit(TrainingData([]), run)
    # what was learned before still stands
    assert step.load(run) == fitted


def test_what_was_learned_otherwise_is_not_loaded(tmp_path):
    run = RunContext(tmp_path)
    with pytest.raises(InputError, match=r"landmarks\.json: cannot be read"):
        Nyul().load(run)
    Nyul().fit(TrainingData([study(head(0))]), run)
    with pytest.raises(InputError, match="another setting of step"):
        MatchHistogramToTraining().load(run)
    with pytest.raises(InputError, match="another setting of percentiles"):
        Nyul(percentiles=(1, 50, 99)).load(run)
    with pytest.raises(InputError, match="another setting of within"):
        Nyul(within="nonzero").load(run)


def test_settings_out_of_range_are_refused():
    for percentiles in ((5,), (10, 5), (-1, 50), (50, 101), (5, 5)):
        with pytest.raises(ValueError, match="percentiles must rise"):
            Nyul(percentiles=percentiles)
    with pytest.raises(ValueError, match="scale must rise"):
        Nyul(scale=(5, 5))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_integers_give_what_their_values_give(dtype, tmp_path):
    whole = np.round(head(0, scale=20)).astype(dtype)
    step = Nyul().fit(TrainingData([study(whole)]), RunContext(tmp_path))
    out = scan(step(study(whole)))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, scan(step(study(whole.astype(np.float32)))), rtol=1e-6)


def test_all_but_the_scans_stays(tmp_path):
    before = study(head(0))
    kept = head(0)
    visit = replace(before.visits[0], labels={"lesions": before.visits[0].brain})
    before = replace(before, visits=(visit,), changes={"new": visit.brain})
    after = Nyul().fit(TrainingData([before]), RunContext(tmp_path))(before)
    assert after.changes is before.changes
    for name in ("brain", "labels", "to_native"):
        assert getattr(after.visits[0], name) is getattr(visit, name)
    np.testing.assert_array_equal(scan(before), kept)


@pytest.mark.parametrize("step", LEARNED)
def test_real_scans_of_two_patients_get_one_scale(step, shared, tmp_path):
    studies = []
    for name in ("open07", "open19"):
        path = shared(f"data/sub-{name}/ses-01/anat/sub-{name}_ses-01_FLAIR.nii.gz")
        part = read_volume(path).array[40:140:2, 40:180:2, 60:120:2]
        studies.append(study(part, part > 0))

    def apart(pair):
        """Mean distance of the deciles, in units of the first scan's range of them."""
        deciles = [np.percentile(scan(s)[s.visits[0].brain.array], DECILES) for s in pair]
        return np.abs(deciles[0] - deciles[1]).mean() / np.ptp(deciles[0])

    fitted = step.fit(TrainingData(studies), RunContext(tmp_path))
    assert apart([fitted(s) for s in studies]) < 0.02
    assert apart(studies) > 0.2
