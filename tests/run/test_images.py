from pathlib import Path

import pytest

from lesionwise.run.images import find_images
from lesionwise.types import InputError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_bids_scans_are_found_by_subject_and_session_flair_first(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_label-L_mask.nii.gz",
    )
    found = find_images(
        tmp_path, {case: Path(f"{case}_mask.nii") for case in ("sub-01_ses-1", "sub-02_ses-1")}
    )
    assert {case: path.name for case, path in found.items()} == {
        "sub-01_ses-1": "sub-01_ses-1_FLAIR.nii.gz"
    }


@pytest.mark.parametrize("name", ["case01.nii.gz", "case01_0000.nii.gz", "case01_flair.nii"])
def test_other_scans_are_found_by_what_their_names_say_beside_the_channel(
    tmp_path: Path, name: str
) -> None:
    _touch(tmp_path, name)
    assert find_images(tmp_path, {case: Path(f"{case}.nii") for case in ("case01", "case02")}) == {
        "case01": tmp_path / name
    }


def test_one_file_belongs_to_every_case(tmp_path: Path) -> None:
    _touch(tmp_path, "scan.nii.gz")
    path = tmp_path / "scan.nii.gz"
    assert find_images(path, {"a": Path("a.nii")}) == {"a": path}


def test_a_folder_that_is_missing_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        find_images(tmp_path / "none", {"a": Path("a.nii")})


def test_each_acquisition_is_shown_over_its_own_scan(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-1_acq-2D_FLAIR.nii.gz", "sub-1_acq-3D_FLAIR.nii.gz")
    found = find_images(
        tmp_path,
        {"thick": Path("sub-1_acq-2D_mask.nii"), "unsaid": Path("sub-1_mask.nii")},
    )
    assert {case: path.name for case, path in found.items()} == {
        "thick": "sub-1_acq-2D_FLAIR.nii.gz"
    }
