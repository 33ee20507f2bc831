"""DICOM folders through ``segment`` and ``compare``."""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dcm2niix")

from dicom_segmentation import read_segmentation  # noqa: E402
from heads import head, pair_model  # noqa: E402
from series import write_series  # noqa: E402

from lesionwise.io.nifti import read_labels, read_mask  # noqa: E402
from lesionwise.run.compare import compare  # noqa: E402
from lesionwise.run.find_lesions import FindOptions  # noqa: E402
from lesionwise.run.predict_pairs import predict_pairs  # noqa: E402
from lesionwise.run.segment import segment  # noqa: E402
from lesionwise.types import InputError  # noqa: E402

BARE = FindOptions(extract_brain=False)
"""The head has no skull."""


def test_segmentations_of_a_series_read_back_into_the_same_voxels(tmp_path, model):
    folder = write_series(tmp_path / "scan", head("ab"))
    done = segment([folder], tmp_path / "out", options=BARE)
    mask_path = next((tmp_path / "out").rglob("*label-L_mask.nii.gz"))
    mask = read_mask(mask_path)
    assert np.array_equal(mask.array, head("ab") == 300)
    written = read_segmentation(mask_path.with_name(mask_path.name[:-7] + ".dcm"), mask.grid)
    assert np.array_equal(written.array > 0, mask.array)
    labels_path = next((tmp_path / "out").rglob("*seg-offsets_dseg.nii.gz"))
    labels = read_labels(labels_path)
    assert labels.array.max() == 2
    written = read_segmentation(labels_path.with_name(labels_path.name[:-7] + ".dcm"), labels.grid)
    assert np.array_equal(written.array, labels.array)
    assert done.quality[0].about.startswith("flair of")
    raw = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.json"))
    assert b"P1" not in raw
    assert b"20200304" not in raw


def test_segmentations_can_be_left_out_and_need_a_series(tmp_path, model):
    folder = write_series(tmp_path / "scan", head("a"))
    segment([folder], tmp_path / "out", dicom_seg=False, options=BARE)
    assert not list((tmp_path / "out").rglob("*.dcm"))
    nifti = next((tmp_path / "out").rglob("*_FLAIR.nii.gz"))
    with pytest.raises(InputError, match="needs a DICOM series"):
        segment([nifti], tmp_path / "again", dicom_seg=True)
    assert not (tmp_path / "again").exists()


def test_one_of_several_series_is_named_by_its_description(tmp_path, model):
    write_series(tmp_path / "scan", head("a"), number=3)
    write_series(tmp_path / "scan", head("ab"), number=4, SeriesDescription="FLAIR sag")
    with pytest.raises(InputError, match="several series fit"):
        segment([tmp_path / "scan"], tmp_path / "out", options=BARE)
    done = segment([tmp_path / "scan"], tmp_path / "out", series="SAG", options=BARE)
    assert done.summary.iloc[0]["lesions"] == 2


def test_two_patients_are_not_compared(tmp_path, model):
    before = write_series(tmp_path / "a", head("a"), patient="SECRETA")
    after = write_series(tmp_path / "b", head("b"), patient="SECRETB")
    with pytest.raises(
        InputError, match=r"/b: its headers? names? another patient than .*/a"
    ) as why:
        compare([before, after], tmp_path / "out", options=BARE)
    assert "SECRET" not in str(why.value)


def test_a_refused_pair_leaves_nothing_in_the_output_folder(tmp_path, model):
    before = write_series(tmp_path / "a", head("a"), patient="A")
    after = write_series(tmp_path / "b", head("b"), patient="B")
    with pytest.raises(InputError, match="another patient"):
        compare([before, after], tmp_path / "out", options=BARE)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="another patient"):
        predict_pairs([before, after], tmp_path / "out", model=pair_model())
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_visits_of_two_identifiers_are_compared_where_the_user_says_they_are_one(tmp_path, model):
    before = write_series(tmp_path / "a", head("a"), patient="A")
    after = write_series(tmp_path / "b", head("ab"), patient="B", date="20210304")
    done = compare([before, after], tmp_path / "out", options=BARE, same_patient=True)
    assert done.summary["new"].tolist() == [0, 1]
    assert len(list((tmp_path / "out").rglob("*desc-new_mask.dcm"))) == 1


def test_visits_whose_dates_run_backwards_are_refused(tmp_path, model):
    later = write_series(tmp_path / "a", head("a"), date="20210304")
    earlier = write_series(tmp_path / "b", head("ab"), date="20200304")
    with pytest.raises(InputError, match=r"/b: acquired before .*/a"):
        compare([later, earlier], tmp_path / "out", options=BARE)
    assert not (tmp_path / "out").exists()


def test_folders_whose_names_run_backwards_are_refused(tmp_path, model):
    scans = [write_series(tmp_path / f"visit{n}", head("a")) for n in "21"]
    with pytest.raises(InputError, match=r"visit1: by its name before .*visit2"):
        compare(scans, tmp_path / "out", options=BARE)


def test_a_series_with_a_missing_slice_leaves_nothing(tmp_path, model):
    folder = write_series(tmp_path / "scan", head("a"))
    (folder / "S3_030.dcm").unlink()
    with pytest.raises(InputError, match="1 slices are missing"):
        segment([folder], tmp_path / "out", options=BARE)
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
