"""Maps of change as scans."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.pair_maps import AttentionMaps, Subtract
from lesionwise.types import Grid, InputError, Study, Visit, Volume

STEPS = [Subtract(), AttentionMaps()]


def pair(baseline, followup, sessions=("M00", "M12"), spacing=1.0):
    where = Grid(baseline.shape, np.diag([spacing, spacing, spacing, 1.0]))
    brain = Volume(np.ones(baseline.shape, bool), where)
    visits = tuple(
        Visit({"flair": Volume(array, where)}, {"lesions": brain}, brain, session, 2 * np.eye(4))
        for array, session in zip((baseline, followup), sessions, strict=True)
    )
    return Study("01", visits, {"new": brain})


def line(*values, dtype=np.float32):
    return np.array(values, dtype=dtype).reshape(-1, 1, 1)


def test_maps_by_hand():
    study = pair(line(1, 5, 2), line(3, 4, 2))
    subtraction = Subtract()(study).followup.scans["subtraction"]
    assert subtraction.array.ravel().tolist() == [2, -1, 0]
    attention = AttentionMaps()(study)
    assert attention.baseline.scans["attention"].array.ravel().tolist() == [2, 0, 0]
    assert attention.followup.scans["attention"].array.ravel().tolist() == [6, 0, 0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
def test_whole_numbers_do_not_wrap_round(dtype):
    study = pair(line(250, 3, dtype=dtype), line(3, 250, dtype=dtype))
    subtraction = Subtract()(study).followup.scans["subtraction"].array
    assert subtraction.dtype == np.float32
    assert subtraction.ravel().tolist() == [-247, 247]
    attention = AttentionMaps()(study).followup.scans["attention"].array
    assert attention.ravel().tolist() == [0, 247 * 250]


@pytest.mark.parametrize("step", STEPS)
def test_all_that_was_there_stays(step):
    study = pair(line(1, 5, 2), line(3, 4, 2))
    after = step(study)
    assert after.changes is study.changes
    for old, new in zip(study.visits, after.visits, strict=True):
        assert new.scans["flair"] is old.scans["flair"]
        for name in ("brain", "labels", "to_native", "session"):
            assert getattr(new, name) is getattr(old, name)


@pytest.mark.parametrize("sessions", [("M00", "M12"), ("", "")])
@pytest.mark.parametrize("step", STEPS)
def test_faults_are_named(step, sessions):
    study = pair(line(1, 5, 2), line(3, 4, 2), sessions)
    with pytest.raises(InputError, match="01: only one visit"):
        step(replace(study, visits=study.visits[:1]))
    other = pair(line(1, 5, 2), line(3, 4, 2), sessions, spacing=2.0)
    with pytest.raises(InputError, match="flair: not on the grid of"):
        step(replace(study, visits=(study.visits[0], other.visits[1])))
    bare = replace(study.visits[0], scans={"t1w": study.visits[0].scans["flair"]})
    with pytest.raises(InputError, match="flair: missing"):
        step(replace(study, visits=(bare, study.visits[1])))


@pytest.mark.parametrize("step", STEPS)
def test_values_that_are_not_finite_are_refused(step):
    with pytest.raises(InputError, match="01 M12 flair: some voxels are not finite"):
        step(pair(line(1, 5, 2), line(3, np.nan, 2)))


def test_scans_of_zeros_show_no_change():
    zeros = np.zeros((3, 3, 3), np.float32)
    study = pair(zeros, zeros)
    assert not Subtract()(study).followup.scans["subtraction"].array.any()
    assert not AttentionMaps()(study).followup.scans["attention"].array.any()


def test_plausible_new_lesions_of_a_real_pair_stand_out(shared):
    folder = "data/derivatives/coregistered/sub-openlong01"
    scans = [
        read_volume(
            shared(f"{folder}/ses-{s}/anat/sub-openlong01_ses-{s}_space-common_FLAIR.nii.gz")
        )
        for s in ("01", "02")
    ]
    new = read_mask(
        shared(f"{folder}/anat/sub-openlong01_space-common_desc-plausiblenew_mask.nii.gz")
    ).array.astype(bool)
    brain = read_mask(
        shared(f"{folder}/anat/sub-openlong01_space-common_desc-brain_mask.nii.gz")
    ).array.astype(bool)
    visits = tuple(Visit({"flair": scan}) for scan in scans)
    after = Subtract()(AttentionMaps()(Study("openlong01", visits))).followup.scans
    for name in ("subtraction", "attention"):
        array = after[name].array
        assert np.median(array[new]) > np.percentile(array[brain & ~new], 90)
