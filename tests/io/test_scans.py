import os

import numpy as np
import pytest

from lesionwise.io.nifti import read_grid, write_volume
from lesionwise.io.scans import find_scans
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
    assert subjects(found) == [("scan1", ""), ("scan1x2", "")]
    assert [f.path for f in found] == paths


def test_bids_names_keep_their_entities(tmp_path):
    found = find_scans([scan(tmp_path / "sub-01_ses-M0_run-1_FLAIR.nii.gz")])
    assert subjects(found) == [("01", "M0")]
    assert found[0].entities.run == "1"


def test_two_subjects_of_one_name_in_two_folders_are_told_apart(tmp_path):
    paths = [scan(tmp_path / name / "sub-01_FLAIR.nii.gz") for name in "ab"]
    assert subjects(find_scans(paths)) == [("01", ""), ("01x2", "")]


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
    folder = tmp_path / "Series 7"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "IM0001").write_bytes(bytes(128) + b"DICM")
    found = find_scans([folder])
    assert [(f.path, f.kind, f.subject) for f in found] == [(folder, "dicom", "Series7")]


def test_folders_without_scans_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no NIfTI file"):
        find_scans([tmp_path])
    scan(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    with pytest.raises(InputError, match="without any FLAIR scan"):
        find_scans([tmp_path])
    with pytest.raises(InputError, match="no scan was named"):
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
