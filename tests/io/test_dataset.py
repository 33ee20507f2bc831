import re
from dataclasses import replace

import numpy as np
import pytest

from lesionwise.io.bids import write_dataset_description
from lesionwise.io.dataset import open_dataset, read_dataset
from lesionwise.io.nifti import write_volume
from lesionwise.io.nnunet import describe_nnunet, write_nnunet
from lesionwise.types import Grid, InputError, Volume

SHAPE = (3, 4, 5)
LAS = np.diag([-1.0, 1, 1, 1])


def put(root, name, array=None, affine=None):
    """One small file; the folders follow from its name."""
    parts = name.split("_")
    folder = root / parts[0]
    if parts[1].startswith("ses-"):
        folder /= parts[1]
    array = np.arange(60).reshape(SHAPE) if array is None else array
    affine = np.eye(4) if affine is None else affine
    path = folder / "anat" / f"{name}.nii.gz"
    write_volume(path, Volume(array, Grid(array.shape, affine)))
    return path


def lesion(*index):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[index] = True
    return mask


def voxels(volume):
    return [tuple(int(n) for n in index) for index in np.argwhere(volume.array)]


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "data"
    for session in ("M0", "M12", "M6"):
        put(folder, f"sub-01_ses-{session}_FLAIR")
    put(folder, "sub-02_FLAIR")
    return folder


def test_studies_come_by_subject_and_visits_by_time(root):
    studies = read_dataset(root)
    assert studies.subjects == ("01", "02")
    assert len(studies) == 2
    assert [visit.session for visit in studies[0].visits] == ["M0", "M6", "M12"]
    assert [visit.session for visit in studies[1].visits] == [""]
    assert studies[0].baseline.scans["flair"].array.shape == SHAPE


def test_dates_decide_the_order_where_all_are_known(root):
    path = root / "sub-01" / "sub-01_sessions.tsv"
    path.write_text("session_id\tacq_time\nses-M0\t2020-03-01\nses-M6\t2020-02-01\n")
    assert [visit.session for visit in read_dataset(root)[0].visits] == ["M0", "M6", "M12"]
    path.write_text(path.read_text() + "ses-M12\t2020-01-01T10:00:00\n")
    assert [visit.session for visit in read_dataset(root)[0].visits] == ["M12", "M6", "M0"]


def test_dates_of_scans_serve_where_sessions_have_none(root):
    for session, dates in (("M0", "03-01 02-07"), ("M6", "02-08 03-02"), ("M12", "01-09")):
        rows = "".join(f"anat/{date}.nii.gz\t2020-{date}T12:00:00\n" for date in dates.split())
        path = root / "sub-01" / f"ses-{session}" / f"sub-01_ses-{session}_scans.tsv"
        path.write_text(f"filename\tacq_time\n{rows}")
    assert [visit.session for visit in read_dataset(root)[0].visits] == ["M12", "M0", "M6"]


def test_files_are_read_only_when_asked_for(root):
    (root / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").write_bytes(b"damaged")
    studies = read_dataset(root)
    assert studies[0].subject == "01"
    with pytest.raises(InputError, match=r"sub-02_FLAIR\.nii\.gz: not a NIfTI"):
        studies[1]


def test_slices_and_selections_are_data_sets_too(root):
    studies = read_dataset(root)
    assert studies[1:].subjects == ("02",)
    assert studies[-1].subject == "02"
    assert studies.select(["sub-02"]).subjects == ("02",)
    with pytest.raises(InputError, match="no subject 07"):
        studies.select(["07", "01"])


def test_incomplete_visits_are_skipped_and_named(root):
    put(root, "sub-01_ses-M6_T1w")
    studies = read_dataset(root, ("flair", "t1w"))
    assert studies.subjects == ("01",)
    assert list(studies[0].baseline.scans) == ["flair", "t1w"]
    assert studies.skipped == (
        "sub-01_ses-M0: no t1w scan",
        "sub-01_ses-M12: no t1w scan",
        "sub-02: no t1w scan",
    )


def test_contrast_agent_tells_two_t1_scans_apart(root):
    plain, enhanced = put(root, "sub-02_T1w"), put(root, "sub-02_ce-gadolinium_T1w")
    found = read_dataset(root, ("t1ce", "t1w")).files(0)[0]
    assert (found["t1w"].path, found["t1ce"].path) == (plain, enhanced)


def test_the_plainest_scan_is_taken(root):
    put(root, "sub-02_acq-3D_FLAIR")
    assert read_dataset(root).files(1)[0]["flair"].path.name == "sub-02_FLAIR.nii.gz"


def test_the_last_run_is_taken(root):
    for run in (1, 2, 10):
        put(root, f"sub-03_run-{run}_FLAIR")
    assert read_dataset(root).files(2)[0]["flair"].path.name == "sub-03_run-10_FLAIR.nii.gz"


def test_a_subject_with_two_scans_of_equal_standing_is_named_and_the_others_are_read(root):
    put(root, "sub-03_acq-2D_FLAIR")
    put(root, "sub-03_acq-3D_FLAIR")
    studies = read_dataset(root)
    assert studies.subjects == ("01", "02")
    assert list(studies.errors) == ["03"]
    fault = r"sub-03: more than one flair .*acq-2D.* and .*acq-3D"
    assert re.match(fault, studies.errors["03"])
    with pytest.raises(InputError, match=fault):
        studies.select(["03"])
    assert read_dataset(root, only={"acq": "3D"}).subjects == ("03",)


def test_a_subject_that_is_all_there_is_is_refused_with_its_own_fault(tmp_path):
    put(tmp_path, "sub-03_acq-2D_FLAIR")
    put(tmp_path, "sub-03_acq-3D_FLAIR")
    with pytest.raises(InputError, match=r"^sub-03: more than one flair"):
        read_dataset(tmp_path)


def test_where_all_subjects_are_at_fault_the_first_ones_are_named(tmp_path):
    for subject in "ab":
        put(tmp_path, f"sub-{subject}_acq-2D_FLAIR")
        put(tmp_path, f"sub-{subject}_acq-3D_FLAIR")
    with pytest.raises(InputError, match=r"no session has flair \(sub-a: more .*; sub-b: more "):
        read_dataset(tmp_path)


def test_a_subject_whose_files_lie_in_the_wrong_folder_is_named(root):
    put(root, "sub-03_FLAIR")
    (root / "sub-03/anat/sub-03_FLAIR.nii.gz").rename(root / "sub-03/anat/sub-04_FLAIR.nii.gz")
    studies = read_dataset(root)
    assert studies.subjects == ("01", "02")
    assert "name and the folder name different visits" in studies.errors["03"]


def test_a_scan_in_both_formats_is_a_duplicate(root):
    packed = root / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz"
    packed.with_name("sub-02_FLAIR.nii").write_bytes(packed.read_bytes())
    assert "more than one flair" in read_dataset(root).errors["02"]


def test_maps_are_found_in_derivatives_in_any_axis_order(root):
    made = root / "derivatives" / "truth"
    put(made, "sub-01_ses-M0_space-orig_label-L_mask", lesion(0, 1, 2), LAS @ shift(-2))
    put(made, "sub-01_ses-M0_space-orig_desc-brain_mask", ~lesion(0, 0, 0))
    put(made, "sub-01_ses-M0_space-orig_seg-truth_dseg", 3 * lesion(1, 1, 1).astype(np.int32))
    put(made, "sub-01_ses-M0_space-orig_label-L_desc-rater2_mask", lesion(2, 2, 2))
    put(made, "sub-01_ses-M0_space-orig_label-L_desc-consensus_mask", lesion(2, 2, 1))
    put(made, "sub-01_ses-M0_space-orig_dseg", np.full(SHAPE, 2))
    visit = read_dataset(root)[0].baseline
    assert set(visit.labels) == {"lesions", "instances", "rater-2", "consensus", "tissue"}
    assert voxels(visit.labels["lesions"]) == [(2, 1, 2)]
    assert visit.labels["lesions"].array.dtype == bool
    assert visit.labels["instances"].array[1, 1, 1] == 3
    assert visit.brain.array.sum() == 59
    assert not read_dataset(root)[0].followup.labels


def shift(mm):
    affine = np.eye(4)
    affine[0, 3] = mm
    return affine


def test_a_map_of_a_name_of_its_own_space_belongs_if_the_grid_does(root):
    made = root / "derivatives" / "lesions"
    put(made, "sub-02_space-MNI152_label-lesion_mask", lesion(0, 1, 2))
    assert voxels(read_dataset(root)[1].baseline.labels["lesions"]) == [(0, 1, 2)]
    put(made, "sub-02_space-MNI152_label-lesion_mask", np.zeros((3, 3, 3), bool))
    assert not read_dataset(root)[1].baseline.labels


def test_a_map_that_claims_the_scan_grid_and_has_another_is_a_fault(root):
    put(root / "derivatives" / "x", "sub-02_space-orig_label-L_mask", np.zeros((3, 3, 3), bool))
    with pytest.raises(InputError, match=r"label-L_mask.nii.gz: not on the grid of .*shapes diff"):
        read_dataset(root)[1]


def test_two_maps_for_one_place_are_refused_until_a_folder_is_named(root):
    for name, index in (("a", (0, 0, 0)), ("b", (1, 1, 1))):
        put(root / "derivatives" / name, "sub-02_space-orig_label-L_mask", lesion(*index))
    with pytest.raises(InputError, match="has the name of the same map"):
        read_dataset(root)[1]
    for wanted in ("b", root / "derivatives" / "b"):
        visit = read_dataset(root, derivatives=[wanted])[1].baseline
        assert voxels(visit.labels["lesions"]) == [(1, 1, 1)]
    assert not read_dataset(root, derivatives=[])[1].baseline.labels
    with pytest.raises(InputError, match="neither a folder"):
        read_dataset(root, derivatives=["c"])


def test_truth_is_the_main_instance_map(root):
    made = root / "derivatives" / "x"
    put(made, "sub-02_space-orig_seg-acls_dseg", lesion(0, 0, 0).astype(int))
    assert set(read_dataset(root)[1].baseline.labels) == {"instances"}
    put(made, "sub-02_space-orig_seg-offsets_dseg", lesion(0, 0, 1).astype(int))
    assert set(read_dataset(root)[1].baseline.labels) == {"instances-acls", "instances-offsets"}
    put(made, "sub-02_space-orig_seg-truth_dseg", lesion(0, 0, 2).astype(int))
    labels = read_dataset(root)[1].baseline.labels
    assert voxels(labels["instances"]) == [(0, 0, 2)]


def test_what_each_rater_calls_new_is_a_change(root):
    made = root / "derivatives" / "truth"
    put(made, "sub-01_ses-M12_space-orig_label-L_desc-new_mask", lesion(0, 0, 1))
    put(made, "sub-01_ses-M12_space-orig_label-L_desc-newrater1_mask", lesion(0, 0, 2))
    put(made, "sub-01_ses-M12_space-orig_label-L_desc-newrater4_mask", lesion(0, 1, 2))
    changes = read_dataset(root)[0].changes
    assert set(changes) == {"new", "new-rater-1", "new-rater-4"}
    assert voxels(changes["new-rater-4"]) == [(0, 1, 2)]


def test_changes_belong_to_the_last_visit(root):
    made = root / "derivatives" / "truth"
    put(made, "sub-01_ses-M12_space-orig_desc-new_mask", lesion(0, 0, 1))
    put(made, "sub-01_ses-M6_space-orig_desc-new_mask", lesion(0, 0, 2))
    put(made, "sub-01_desc-gone_dseg", 2 * lesion(0, 0, 3).astype(int))
    changes = read_dataset(root)[0].changes
    assert {name: voxels(volume) for name, volume in changes.items()} == {
        "new": [(0, 0, 1)],
        "new@M6": [(0, 0, 2)],
        "gone": [(0, 0, 3)],
    }


def test_a_brain_mask_without_session_serves_all_visits(root):
    put(root / "derivatives" / "x", "sub-01_space-common_desc-brain_mask", lesion(1, 1, 1))
    assert all(voxels(visit.brain) == [(1, 1, 1)] for visit in read_dataset(root)[0].visits)


def test_participants(root):
    assert len(read_dataset(root).participants()) == 0
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t31\n")
    assert read_dataset(root).participants().loc["01", "age"] == "31"
    (root / "participants.tsv").write_text("age\n31\n")
    with pytest.raises(InputError, match="no column participant_id"):
        read_dataset(root).participants()


def test_folders_that_are_no_data_set(tmp_path, root):
    with pytest.raises(InputError, match="no such folder"):
        read_dataset(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="not a BIDS data set"):
        read_dataset(tmp_path / "empty")
    with pytest.raises(InputError, match="no session has t2w"):
        read_dataset(root, ("t2w",))
    with pytest.raises(InputError, match="dti"):
        read_dataset(root, ("dti",))


def test_the_real_data_sets_are_read(shared):
    studies = read_dataset(shared("data"))
    assert studies.subjects == ("open07", "open19", "openlong01", "openlong03", "openlong12")
    assert int(studies[0].baseline.labels["lesions"].array.sum()) == 1300
    pairs = read_dataset(shared("data/derivatives/coregistered"), ("flair", "t2w"))
    study = pairs[0]
    assert [visit.session for visit in study.visits] == ["01", "02"]
    assert set(study.changes) == {"change", "changesign", "plausiblenew"}
    assert study.baseline.brain is not None


def test_copies_in_another_space_and_phase_images_are_not_the_scan(root):
    put(root, "sub-02_space-MNI152_FLAIR")
    put(root, "sub-02_part-phase_FLAIR")
    assert read_dataset(root).files(1)[0]["flair"].path.name == "sub-02_FLAIR.nii.gz"


def test_a_scan_that_the_data_set_ignores_is_not_there(root):
    (root / ".bidsignore").write_text("sub-01/ses-M6/\n")
    assert [visit.session for visit in read_dataset(root)[0].visits] == ["M0", "M12"]


def test_either_kind_of_data_set_is_opened(root, tmp_path):
    assert open_dataset(root).subjects == ("01", "02")
    export = tmp_path / "Dataset001_X"
    visits = [replace(study, visits=study.visits[:1]) for study in read_dataset(root)]
    write_nnunet(visits, export, part="Ts")
    describe_nnunet(export, 0)
    with pytest.raises(InputError, match="imagesTr: no such folder"):
        open_dataset(export)
    labeled = [
        replace(
            study,
            visits=tuple(
                replace(v, labels={"lesions": Volume(lesion(1, 1, 1), v.scans["flair"].grid)})
                for v in study.visits
            ),
        )
        for study in visits
    ]
    write_nnunet(labeled, export)
    found = open_dataset(export)
    assert found.subjects == ("01M0", "02")
    assert found.select(["02"]).cases == ("02",)
    with pytest.raises(InputError, match=r"no t1w among its channels \(flair\)"):
        open_dataset(export, ("t1w",))
    with pytest.raises(InputError, match="no case 77"):
        found.select(["77"])


def test_results_of_this_package_are_no_references_unless_their_folder_is_named(root):
    made = root / "derivatives" / "lesionwise"
    write_dataset_description(made, "lesionwise segment")
    put(made, "sub-02_space-orig_label-L_mask", lesion(0, 0, 0))
    studies = read_dataset(root)
    assert not studies[1].baseline.labels
    assert studies.skipped == (f"{made}: results of lesionwise are not taken as references",)
    named = read_dataset(root, derivatives=["lesionwise"])
    assert set(named[1].baseline.labels) == {"lesions"}
    assert named.skipped == ()
    truth = root / "derivatives" / "truth"
    write_dataset_description(truth, "Truth of simulated patients")
    put(truth, "sub-02_space-orig_label-L_mask", lesion(1, 1, 1))
    assert voxels(read_dataset(root)[1].baseline.labels["lesions"]) == [(1, 1, 1)]


def test_a_folder_of_results_is_no_data_set_with_references(root):
    write_dataset_description(root, "lesionwise segment")  # as of scans converted from DICOM
    put(root, "sub-02_space-orig_label-L_mask", lesion(0, 0, 0))
    studies = read_dataset(root)
    assert not studies[1].baseline.labels
    assert len(studies.skipped) == 1
