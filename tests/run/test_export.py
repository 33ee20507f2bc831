"""Data sets in the form nnU-Net trains on."""

import json

import nibabel as nib
import numpy as np
import pytest

from lesionwise.io.bids import open_dataset
from lesionwise.run.export import export, splits_of
from lesionwise.run.prepare import prepare, visits_of
from lesionwise.types import InputError

SHAPE = (8, 9, 10)


def save(path, array, shift=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 2, 3, 1])
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.fixture
def bids(tmp_path):
    """Two subjects with two visits on one grid; the second subject has no labels."""
    rng = np.random.default_rng(0)
    for subject in ("01", "02"):
        for session in ("1", "2"):
            stem = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}"
            save(tmp_path / "bids" / f"{stem}_FLAIR.nii.gz", rng.random(SHAPE, np.float32))
            if subject == "01":
                labels = np.zeros(SHAPE, np.uint8)
                labels[1:3, 1:3, 1:3], labels[5:7, 5:7, 5:7] = 1, 2
                derived = tmp_path / "bids" / "derivatives" / "truth"
                save(derived / f"{stem}_space-orig_seg-truth_dseg.nii.gz", labels)
                if session == "2":
                    save(derived / f"{stem}_space-orig_desc-new_mask.nii.gz", labels // 2)
    return tmp_path / "bids"


def test_visits_become_cases_with_labels_or_test_cases(bids, tmp_path):
    done = export(bids, tmp_path / "Dataset007_MS")
    assert done.training == ("01_1", "01_2")
    assert done.test == ("02_1", "02_2")
    assert done.failures == {}
    found = open_dataset(done.folder)
    assert found.cases == ("01_1", "01_2")
    assert found[0].followup.labels["lesions"].array.sum() == 16
    assert found[0].followup.labels["instances"].array.max() == 2
    assert sorted(p.name for p in (done.folder / "imagesTs").iterdir()) == [
        "02_1_0000.nii.gz",
        "02_2_0000.nii.gz",
    ]
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_visits_of_a_patient_never_train_and_validate_in_one_split(bids, tmp_path):
    for session in ("1", "2"):
        stem = f"sub-02/ses-{session}/anat/sub-02_ses-{session}"
        label = np.zeros(SHAPE, np.uint8)
        label[2, 2, 2] = 1
        derived = bids / "derivatives" / "truth"
        save(derived / f"{stem}_space-orig_seg-truth_dseg.nii.gz", label)
    done = export(bids, tmp_path / "Dataset007_MS")
    splits = json.loads((done.folder / "splits_final.json").read_text())
    first, second = ["01_1", "01_2"], ["02_1", "02_2"]
    assert sorted(splits, key=lambda split: split["val"]) == [
        {"train": second, "val": first},
        {"train": first, "val": second},
    ]


def test_one_labeled_patient_cannot_be_split(bids, tmp_path):
    assert not (export(bids, tmp_path / "Dataset007_MS").folder / "splits_final.json").exists()


def test_splits_deal_patients_evenly_and_every_case_validates_once():
    patients = {f"{n:02d}_{visit}": f"{n:02d}" for n in range(12) for visit in "ab"}
    splits = splits_of(patients)
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split["val"]) == sorted(patients)
    for split in splits:
        assert sorted(split["train"] + split["val"]) == sorted(patients)
        seen = [{patients[case] for case in split[part]} for part in ("train", "val")]
        assert not seen[0] & seen[1]
        assert len(seen[1]) in (2, 3)
    assert splits == splits_of(dict(reversed(patients.items())))


def test_a_subject_with_two_scans_of_equal_standing_is_named_and_the_others_go_on(bids, tmp_path):
    folder = bids / "sub-02" / "ses-1" / "anat"
    (folder / "sub-02_ses-1_FLAIR.nii.gz").rename(folder / "sub-02_ses-1_acq-2D_FLAIR.nii.gz")
    save(folder / "sub-02_ses-1_acq-3D_FLAIR.nii.gz", np.ones(SHAPE, np.float32))
    done = export(bids, tmp_path / "Dataset007_MS")
    assert done.training == ("01_1", "01_2")
    assert list(done.failures) == ["sub-02"]
    assert "more than one flair scan" in done.failures["sub-02"]


def test_two_visits_are_the_channels_of_one_case(bids, tmp_path):
    done = export(bids, tmp_path / "Dataset008_New", visits=2, task="new")
    assert (done.training, done.test) == (("01_1_2",), ("02_1_2",))
    about = json.loads((done.folder / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "FLAIR_baseline", "1": "FLAIR_followup"}
    assert about["labels"] == {"background": 0, "new_lesion": 1}
    (study,) = open_dataset(done.folder, visits=2)
    assert [visit.session for visit in study.visits] == ["1", "2"]
    assert study.changes["new"].array.sum() == 8
    known = nib.load(bids / "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz").get_fdata()
    assert np.allclose(study.baseline.scans["flair"].array, known)
    with pytest.raises(InputError, match="hold 2 visits, but 1 are needed"):
        open_dataset(done.folder)


def test_nnunet_finds_nothing_wrong(bids, tmp_path):
    verify = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity")
    for number, visits in ((1, 1), (2, 2)):
        done = export(bids, tmp_path / f"Dataset00{number}_MS", visits=visits)
        verify.verify_dataset_integrity(str(done.folder), 1)


def test_visits_on_other_grids_are_registered(bids, tmp_path, monkeypatch):
    path = bids / "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"
    array = np.asarray(nib.load(path).dataobj)
    save(path, array, shift=100.0)
    derived = "derivatives/truth/sub-01/ses-1/anat/sub-01_ses-1_space-orig_seg-truth_dseg.nii.gz"
    (bids / derived).unlink()
    shift = np.eye(4)
    shift[0, 3] = 100
    asked = []
    monkeypatch.setattr("lesionwise.run.export.rigid", lambda *a, **k: asked.append(a) or shift)
    done = export(bids, tmp_path / "Dataset009_MS", visits=2)
    assert len(asked) == 1
    moved = nib.load(done.folder / "imagesTr" / "01_1_2_0000.nii.gz").get_fdata()
    assert np.allclose(moved, array, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("out", {}, "such as Dataset001_Lesions"),
        ("Dataset001_MS", {"task": "new"}, "not possible"),
        ("Dataset001_MS", {"scans": ("t1w",)}, "no session has t1w"),
    ],
)
def test_what_cannot_be_exported_is_refused(bids, tmp_path, name, settings, why):
    with pytest.raises(InputError, match=why):
        export(bids, tmp_path / name, **settings)
    assert not (tmp_path / name).exists()


def test_a_folder_that_is_there_stays(bids, tmp_path):
    (tmp_path / "Dataset001_MS").mkdir()
    with pytest.raises(InputError, match="exists already"):
        export(bids, tmp_path / "Dataset001_MS")


def test_a_faulty_study_is_listed_and_leaves_nothing(bids, tmp_path):
    (bids / "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz").write_bytes(b"broken")
    done = export(bids, tmp_path / "Dataset001_MS")
    assert list(done.failures) == ["sub-01"]
    assert "not a NIfTI file" in done.failures["sub-01"]
    assert done.training == ()
    assert not list(done.folder.glob("imagesTr/01*"))


def test_an_exported_data_set_is_prepared_for_training(bids, tmp_path):
    recipe = tmp_path / "bare.py"
    recipe.write_text(
        "from dataclasses import replace\n"
        "from lesionwise.recipes.conflunet import RECIPE as BASE\n"
        "RECIPE = replace(BASE, preprocess=())\n"
    )
    done = export(bids, tmp_path / "Dataset003_MS")
    prepared = prepare(recipe, done.folder, tmp_path / "prepared")
    assert prepared.names == ("sub-011/ses-1", "sub-012/ses-2")
    assert prepared.subjects == ("01", "01")  # one patient, never on both sides of a split
    assert prepared.lesions == (2, 2)
    assert [study.subject for study in prepared.studies(["01"])] == ["01", "01"]


def test_a_visit_without_a_scan_and_a_file_of_another_name_are_told(bids, tmp_path):
    folder = bids / "sub-02" / "ses-2" / "anat"
    (folder / "sub-02_ses-2_FLAIR.nii.gz").rename(folder / "sub-02_ses-2_T1w.nii.gz")
    save(bids / "sub-02" / "ses-1" / "anat" / "old flair.nii.gz", np.ones(SHAPE, np.float32))
    done = export(bids, tmp_path / "Dataset007_MS")
    assert done.test == ("02_1",)
    assert done.failures == {}
    (odd, why), (visit, reason) = sorted(done.left_out.items())
    assert odd.endswith("old flair.nii.gz")
    assert why == "its name does not follow BIDS"
    assert (visit, reason) == ("sub-02_ses-2", "no flair scan")


def test_each_visit_that_cannot_be_prepared_has_a_row_of_its_own(bids, tmp_path):
    folder = bids / "sub-01" / "ses-2" / "anat"
    (folder / "sub-01_ses-2_FLAIR.nii.gz").rename(folder / "sub-01_ses-2_T1w.nii.gz")
    with pytest.raises(InputError, match="sub-01_ses-2: no flair scan"):
        prepare("unet-cc", bids, tmp_path / "prepared")  # the other visits have no lesions or brain
    rows = (tmp_path / "prepared" / "failures.tsv").read_text().splitlines()[1:]
    listed = {row.partition("\t")[0] for row in rows}
    assert {"sub-01_ses-2", "sub-02_ses-1", "sub-02_ses-2"} <= listed


def test_a_map_of_regions_does_not_pass_for_lesions(bids, tmp_path, caplog):
    path = next((bids / "derivatives").rglob("sub-01_ses-1_*seg-truth_dseg.nii.gz"))
    labels = np.zeros(SHAPE, np.uint8)
    for number, k in enumerate((0, 3, 6, 9)):
        labels[1:3, 1:3, k], labels[5:7, 5:7, k] = 1 + number % 2, 2 - number % 2
    save(path, labels)
    studies = open_dataset(bids)
    parts = dict(visits_of(studies[0], 1))
    assert len(np.unique(parts["ses-1"].followup.labels["instances"].array)) == 9
    assert len(np.unique(parts["ses-2"].followup.labels["instances"].array)) == 3
    (said,) = caplog.messages
    assert said.startswith("sub-01 ses-1: its instance map holds 2 labels in 8 separate parts")
