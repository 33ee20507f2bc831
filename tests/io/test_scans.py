import os

import numpy as np
import pytest

from lesionwise.io.bids import write_dataset_description
from lesionwise.io.nifti import read_grid, write_volume
from lesionwise.io.scans import find_scans, select_scans, subject_scans
from lesionwise.types import Grid, InputError, Volume


def scan(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, Volume(np.arange(8).reshape(2, 2, 2), Grid((2, 2, 2), np.eye(4))))
    return path


def subjects(found):
    return [(found_scan.subject, found_scan.session) for found_scan in found]


def test_plain_files_get_subjects_of_their_own(tmp_path):
    paths = [scan(tmp_path / "a" / "scan_1.nii.gz"), scan(tmp_path / "b" / "scan-1.nii")]
    found = find_scans(paths)
    assert subjects(found) == [("scan+1", ""), ("scan++1", "")]
    assert [f.path for f in found] == paths


def test_bids_names_keep_their_entities(tmp_path):
    found = find_scans([scan(tmp_path / "sub-01_ses-M0_run-1_FLAIR.nii.gz")])
    assert subjects(found) == [("01", "M0")]
    assert found[0].entities.run == "1"


def test_two_subjects_of_one_name_in_two_folders_are_told_apart(tmp_path):
    paths = [scan(tmp_path / name / "sub-01_FLAIR.nii.gz") for name in "ab"]
    assert subjects(find_scans(paths)) == [("01+a", ""), ("01+b", "")]


def test_a_file_given_twice_is_taken_once(tmp_path):
    path = scan(tmp_path / "a.nii.gz")
    assert len(find_scans([path, tmp_path, path])) == 1


def test_a_missing_file_is_left_to_fail_by_itself(tmp_path):
    found = find_scans([tmp_path / "missing.nii.gz", scan(tmp_path / "a.nii.gz")])
    assert [f.path.name for f in found] == ["missing.nii.gz", "a.nii.gz"]


def test_a_folder_gives_its_scans_without_masks(tmp_path):
    for name in ("s10.nii.gz", "s2.nii", "s2_mask.nii.gz", "s2_dseg.nii.gz", ".x-s3.nii.gz"):
        scan(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert [f.path.name for f in find_scans([tmp_path])] == ["s2.nii", "s10.nii.gz"]


def test_a_folder_with_bids_names_gives_the_flair_scans(tmp_path):
    for name in ("sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz", "other.nii.gz"):
        scan(tmp_path / name)
    assert [f.path.name for f in find_scans([tmp_path])] == ["sub-01_FLAIR.nii.gz"]


def test_a_data_set_gives_the_flair_scans_as_acquired(tmp_path):
    for name in ("FLAIR", "T1w", "space-MNI152_FLAIR", "run-2_space-MNI152_FLAIR"):
        scan(tmp_path / "sub-01" / "ses-1" / "anat" / f"sub-01_ses-1_{name}.nii.gz")
    scan(tmp_path / "derivatives" / "x" / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz")
    assert [f.path.name for f in find_scans([tmp_path])] == [
        "sub-01_ses-1_FLAIR.nii.gz",
        "sub-01_ses-1_run-2_space-MNI152_FLAIR.nii.gz",
    ]


def test_a_folder_of_dicom_files_is_one_scan(tmp_path):
    folder = tmp_path / "Series_7a"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "IM0001").write_bytes(bytes(128) + b"DICM")
    found = find_scans([folder])
    assert [(f.path, f.kind, f.subject) for f in found] == [(folder, "dicom", "Series+7a")]


def test_folders_without_scans_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no NIfTI file"):
        find_scans([tmp_path])
    scan(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    with pytest.raises(InputError, match="without any FLAIR scan"):
        find_scans([tmp_path])
    with pytest.raises(InputError, match="no scan was given"):
        find_scans([])


def test_cases_of_an_nnunet_data_set_are_their_flair_channels(tmp_path):
    root = tmp_path / "Dataset001_X"
    for part, case in (("imagesTs", "b"), ("imagesTr", "a")):
        for number in range(2):
            path = root / part / f"{case}_000{number}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (root / "dataset.json").write_text('{"channel_names": {"0": "T1w", "1": "FLAIR"}}')
    assert [scan.path.name for scan in find_scans([root])] == ["b_0001.nii.gz"]
    (found,) = find_scans([root / "imagesTr"])
    assert (found.path.name, found.subject) == ("a_0001.nii.gz", "a")
    (root / "dataset.json").unlink()
    assert [scan.path.name for scan in find_scans([root / "imagesTs"])] == ["b_0000.nii.gz"]


def test_pipes_and_links_that_lead_nowhere_are_no_scans(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.dcm").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no NIfTI file"):
        find_scans([tmp_path])
    loop = tmp_path / "loop.nii.gz"
    loop.symlink_to(loop)
    assert len(find_scans([loop])) == 1
    with pytest.raises(InputError, match="no such file"):
        read_grid(loop)
    with pytest.raises(InputError, match="a pipe or a device"):
        read_grid(tmp_path / "pipe")


@pytest.mark.parametrize("session", ["ses-1", ""])
def test_the_folder_of_a_bids_subject_gives_its_scans_alone(tmp_path, session, monkeypatch):
    for subject in ("01", "02"):
        name = "_".join(filter(None, (f"sub-{subject}", session)))
        folder = tmp_path / f"sub-{subject}" / session / "anat"
        scan(folder / f"{name}_FLAIR.nii.gz")
        scan(folder / f"{name}_T1w.nii.gz")
    monkeypatch.chdir(tmp_path / "sub-02")
    for named in (tmp_path / "sub-02", "."):
        assert subjects(find_scans([named])) == [("02", session.removeprefix("ses-"))]


def test_a_bids_subject_without_the_scan_is_named(tmp_path):
    scan(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    with pytest.raises(InputError, match=r"sub-01: a BIDS subject without any FLAIR scan"):
        find_scans([tmp_path / "sub-01"])


def test_files_of_equal_content_are_scans_of_their_own(tmp_path):
    store = scan(tmp_path / ".git" / "annex" / "object.nii.gz")
    for subject in ("01", "02"):
        path = tmp_path / f"sub-{subject}" / "anat" / f"sub-{subject}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        path.symlink_to(store)
    assert subjects(find_scans([tmp_path])) == [("01", ""), ("02", "")]
    for name in ("anna", "bert"):
        (tmp_path / "lab" / name).mkdir(parents=True)
        (tmp_path / "lab" / name / "FLAIR.nii.gz").symlink_to(store)
    assert subjects(find_scans([tmp_path / "lab"])) == [("anna+FLAIR", ""), ("bert+FLAIR", "")]


def test_a_file_reached_through_a_linked_folder_is_taken_once(tmp_path):
    path = scan(tmp_path / "a" / "s1.nii.gz")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert len(find_scans([path, tmp_path / "b" / "s1.nii.gz", tmp_path])) == 1


def test_linked_sessions_and_folders_are_part_of_a_data_set(tmp_path):
    store = tmp_path / "store"
    scan(store / "ses-2" / "anat" / "sub-01_ses-2_FLAIR.nii.gz")
    scan(store / "x" / "sub-02_ses-1_FLAIR.nii.gz")
    data = tmp_path / "data"
    scan(data / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_FLAIR.nii.gz")
    (data / "sub-01" / "ses-2").symlink_to(store / "ses-2")
    (data / "sub-02" / "ses-1").mkdir(parents=True)
    (data / "sub-02" / "ses-1" / "anat").symlink_to(store / "x")
    assert subjects(find_scans([data])) == [("01", "1"), ("01", "2"), ("02", "1")]


def test_a_misnamed_scan_has_an_error_and_the_others_are_found(tmp_path):
    scan(tmp_path / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_FLAIR.nii.gz")
    wrong = scan(tmp_path / "sub-02" / "ses-2" / "anat" / "sub-02_ses-1_FLAIR.nii.gz")
    odd = scan(tmp_path / "sub-03" / "anat" / "sub-03_my_FLAIR.nii.gz")
    found = select_scans([tmp_path])
    assert [(s.path, s.error.rpartition(": ")[2]) for s in found.scans if s.error] == [
        (wrong, "the name and the folder name different visits"),
        (odd, "its name does not follow BIDS"),
    ]
    assert [s.subject for s in found.scans if not s.error] == ["01"]
    assert found.lines() == ["found: 1 scan, 2 with errors"]


def test_labels_with_signs_are_read(tmp_path):
    for label in ("MS_001", "MS-002", "MS003"):
        scan(tmp_path / f"sub-{label}" / "anat" / f"sub-{label}_FLAIR.nii.gz")
    assert sorted(subjects(find_scans([tmp_path]))) == [
        ("MS++002", ""),
        ("MS+001", ""),
        ("MS003", ""),
    ]
    with pytest.raises(InputError, match=r"sub-MS_001: a BIDS label has only letters and digits"):
        subject_scans(tmp_path, "MS_001")


def test_subjects_without_the_scan_are_listed(tmp_path):
    scan(tmp_path / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz")
    scan(tmp_path / "sub-02" / "anat" / "sub-02_T1w.nii.gz")
    found = select_scans([tmp_path])
    assert found.left_out == {str(tmp_path / "sub-02"): "no FLAIR scan in it"}
    assert found.lines() == [
        "found: 1 scan, 1 left out",
        f"left out: {tmp_path / 'sub-02'}: no FLAIR scan in it",
    ]


@pytest.fixture
def lab(tmp_path):
    """A folder a patient and a folder a visit, FLAIR beside T1 in most."""
    for place in ("pat01/2020", "pat01/2021", "pat02/2020"):
        scan(tmp_path / place / "FLAIR.nii.gz")
        scan(tmp_path / place / "T1.nii.gz")
        scan(tmp_path / place / "FLAIR_lesion_mask.nii.gz")
    scan(tmp_path / "pat03" / "other.nii.gz")
    return tmp_path


def test_the_tree_of_a_lab_gives_its_flair_scans_and_lists_the_other_contrasts(lab):
    found = select_scans([lab])
    assert subjects(found.scans) == [
        ("pat01+2020+FLAIR", ""),
        ("pat01+2021+FLAIR", ""),
        ("pat02+2020+FLAIR", ""),
        ("other", ""),
    ]
    assert [name.rpartition("/")[2] for name in found.left_out] == ["T1.nii.gz"] * 3
    assert set(found.left_out.values()) == {"its name says t1, not FLAIR"}


def test_a_pattern_chooses_among_the_files_of_a_folder(lab):
    assert len(find_scans([lab], pattern="FLAIR.nii*")) == 3
    assert [f.path.name for f in find_scans([lab], pattern="pat01/2020/T*")] == ["T1.nii.gz"]
    with pytest.raises(InputError, match=r"no NIfTI file in it matches x\*"):
        find_scans([lab], pattern="x*")


def test_names_that_differ_in_a_separator_are_two_patients(tmp_path):
    paths = [scan(tmp_path / f"{name}.nii.gz") for name in ("P1_1", "P11", "P1-1", "病人", "病")]
    together = [s.subject for s in find_scans(paths)]
    assert len(set(together)) == 5
    assert [find_scans([path])[0].subject for path in paths] == together


def test_the_results_of_a_call_are_not_taken_for_scans(tmp_path):
    scan(tmp_path / "p1.nii.gz")
    scan(tmp_path / "out" / "sub-p1" / "anat" / "sub-p1_FLAIR.nii.gz")
    (tmp_path / "out" / "dataset_description.json").write_text('{"DatasetType": "derivative"}')
    found = select_scans([tmp_path])
    assert subjects(found.scans) == [("p1", "")]
    assert found.left_out == {str(tmp_path / "out"): "a data set of results"}


def test_results_in_a_folder_of_dicom_files_do_not_hide_the_scan(tmp_path):
    results = tmp_path / "results"
    write_dataset_description(results, "lesionwise segment")
    (results / "brain.nii.gz").touch()
    (results / "mask.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match="a data set of results"):
        select_scans([tmp_path])
    (tmp_path / "1.dcm").write_bytes(bytes(128) + b"DICM")
    found = select_scans([tmp_path])
    assert [(scan.path, scan.kind) for scan in found.scans] == [(tmp_path, "dicom")]
    assert dict(found.left_out) == {str(results): "a data set of results"}
