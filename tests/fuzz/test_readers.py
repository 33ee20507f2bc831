"""Whatever a file holds, reading it gives a result or one ``InputError`` of one line.

Each reader below makes a good file, which is then damaged, or replaced by garbage, thousands of
times. A few thousand files are tried in every run, 50,000 by ``make test-all``.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from garbage import only_input_errors

from lesionwise.io.checked import read_checked, read_rows
from lesionwise.io.dataset import open_dataset, read_dataset
from lesionwise.io.files import read_json, read_table
from lesionwise.io.nifti import (
    header_notes,
    read_grid,
    read_labels,
    read_map,
    read_mask,
    read_volume,
)
from lesionwise.io.nnunet import read_nnunet
from lesionwise.io.scans import select_scans, subject_scans
from lesionwise.io.sidecar import acquired, read_sidecar
from lesionwise.io.visit_order import visit_times
from lesionwise.run.label_maps import lesions_of
from lesionwise.run.train import training_warning
from lesionwise.types import InputError

Made = tuple[Path, Callable[[], Any]]


@dataclass(frozen=True)
class Summary:
    lesions: int
    volume_mm3: float
    parts: dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    lesion: int
    volume_mm3: float | None


def _nifti(path: Path, kind: type[nib.Nifti1Image] = nib.Nifti1Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (np.arange(24) % 2).astype(np.uint8).reshape(2, 3, 4)
    image = kind(array, np.diag([-1.0, 1, 3, 1]))
    image.header["scl_slope"], image.header["scl_inter"] = 1, 0
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def _every(path: Path) -> None:
    """Each reader of images in turn; a fault in one is none in another."""
    for read in (read_volume, read_labels, read_mask, read_map, read_grid, header_notes):
        try:
            read(path)
        except InputError:
            continue


def nifti(root: Path) -> Made:
    path = _nifti(root / "a.nii")
    return path, lambda: _every(path)


def nifti_packed(root: Path) -> Made:
    path = _nifti(root / "a.nii.gz")
    return path, lambda: _every(path)


def nifti_2(root: Path) -> Made:
    path = _nifti(root / "a.nii", nib.Nifti2Image)
    return path, lambda: _every(path)


def label_map(root: Path) -> Made:
    path = _nifti(root / "sub-1_dseg.nii")
    sidecar = root / "sub-1_dseg.json"
    sidecar.write_text('{"GeneratedBy": {"Name": "another tool"}}')
    return path, lambda: lesions_of(read_labels(path), path, 26)


def label_map_sidecar(root: Path) -> Made:
    path, read = label_map(root)
    return path.with_suffix(".json"), read


def training_log(root: Path) -> Made:
    path = root / "log.jsonl"
    path.write_text('{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "validation_dsc": 0.25}\n')
    return path, lambda: training_warning(root)


def checked_json(root: Path) -> Made:
    path = root / "a.json"
    path.write_text(json.dumps({"lesions": 1, "volume_mm3": 2.5, "parts": {"a": [1, 2]}}))
    return path, lambda: (read_checked(path, Summary), read_json(path))


def checked_table(root: Path) -> Made:
    path = root / "a.tsv"
    path.write_text("lesion\tvolume_mm3\tname\n1\t2.5\ta\n2\tn/a\tb\n")
    return path, lambda: (read_rows(path, Row), read_table(path))


def _dataset(root: Path) -> Path:
    for session in "12":
        _nifti(root / "sub-1" / f"ses-{session}" / "anat" / f"sub-1_ses-{session}_FLAIR.nii")
    (root / "dataset_description.json").write_text('{"Name": "x", "DatasetType": "raw"}')
    return root


def sidecar(root: Path) -> Made:
    scan = _dataset(root) / "sub-1" / "ses-1" / "anat" / "sub-1_ses-1_FLAIR.nii"
    path = scan.with_suffix(".json")
    path.write_text(
        json.dumps(
            {"EchoTime": 0.1, "AcquisitionDate": "2020-01-01", "AcquisitionTime": "10:11:12.5"}
        )
    )
    return path, lambda: (read_sidecar(scan), acquired(scan))


def sessions_table(root: Path) -> Made:
    path = _dataset(root) / "sub-1" / "sub-1_sessions.tsv"
    path.write_text("session_id\tacq_time\nses-1\t2020-01-01\nses-2\t2021-01-01T10:11:12\n")
    return path, lambda: (visit_times(root, "1", "12"), read_dataset(root).errors)


def participants_table(root: Path) -> Made:
    path = _dataset(root) / "participants.tsv"
    path.write_text("participant_id\tage\nsub-1\t30\n")
    return path, lambda: read_dataset(root).participants()


def ignored_files(root: Path) -> Made:
    path = _dataset(root) / ".bidsignore"
    path.write_text("*_T1w.nii\nsub-2/\n**/x[0-9]?.nii\n")
    return path, lambda: (select_scans([root]), subject_scans(root, "1"))


def map_of_a_dataset(root: Path) -> Made:
    made = _dataset(root) / "derivatives" / "truth" / "sub-1" / "ses-2" / "anat"
    path = _nifti(made / "sub-1_ses-2_space-orig_label-L_mask.nii")
    return path, lambda: read_dataset(root)[0]


def nnunet_description(root: Path) -> Made:
    for folder, name in (("imagesTr", "a_0000"), ("labelsTr", "a")):
        _nifti(root / folder / f"{name}.nii.gz")
    path = root / "dataset.json"
    path.write_text(
        json.dumps(
            {
                "channel_names": {"0": "FLAIR"},
                "labels": {"background": 0, "lesion": 1},
                "file_ending": ".nii.gz",
                "numTraining": 1,
                "patients": {"a": "p1"},
            }
        )
    )
    return path, lambda: (read_nnunet(root)[0], open_dataset(root), select_scans([root]))


def dicom_image(root: Path) -> Made:
    pytest.importorskip("pydicom")
    from dicom_series import write_series

    from lesionwise.io.dicom_series import choose_series, find_series

    folder = write_series(root / "series")
    for path in sorted(folder.iterdir())[3:]:
        path.unlink()
    path = min(folder.iterdir())
    return path, lambda: choose_series(find_series(folder))


def dicom_geometry(root: Path) -> Made:
    path, _ = dicom_image(root)
    from lesionwise.io.dicom import series_grid
    from lesionwise.io.dicom_series import find_series

    return path, lambda: [series_grid(series) for series in find_series(path.parent)]


def landmarks(root: Path) -> Made:
    from lesionwise.preprocess.standardize import LANDMARKS, Nyul
    from lesionwise.types import RunContext

    step = Nyul()
    path = root / LANDMARKS
    learned = {"flair": [float(value) for value in step.percentiles]}
    about = {"step": "Nyul", "percentiles": list(step.percentiles), "within": step.within}
    path.write_text(json.dumps({**about, "scans": {"flair": 2}, "landmarks": learned}))
    return path, lambda: step.load(RunContext(root))


READERS = (
    nifti,
    nifti_packed,
    nifti_2,
    label_map,
    label_map_sidecar,
    training_log,
    checked_json,
    checked_table,
    sidecar,
    sessions_table,
    participants_table,
    ignored_files,
    map_of_a_dataset,
    nnunet_description,
    landmarks,
    dicom_image,
    dicom_geometry,
)
SLOW = {dicom_image, dicom_geometry, map_of_a_dataset}
"""A file takes these ten times as long as the others, so they get fewer."""


def _examples(make: Callable[[Path], Made], total: int) -> int:
    shares = sum(0.1 if each in SLOW else 1 for each in READERS)
    return int((0.1 if make in SLOW else 1) * total / shares) + 1


@pytest.mark.parametrize("make", READERS)
def test_only_input_errors_come_out_of_garbage(tmp_path, make):
    only_input_errors(*make(tmp_path), _examples(make, 3000))


@pytest.mark.slow
@pytest.mark.parametrize("make", READERS)
def test_only_input_errors_come_out_of_much_garbage(tmp_path, make):
    only_input_errors(*make(tmp_path), _examples(make, 50_000), repeatable=False)
