import json

import nibabel as nib
import numpy as np
import pytest

from lesionwise.io.nifti import write_volume
from lesionwise.io.nnunet import read_nnunet, write_nnunet
from lesionwise.types import Grid, InputError, Study, Visit, Volume

SHAPE = (3, 4, 5)
GRID = Grid(SHAPE, np.diag([1.0, 2, 3, 1]))
RAMP = np.arange(60, dtype=np.float32).reshape(SHAPE)


def mask(*indices):
    array = np.zeros(SHAPE, dtype=bool)
    for index in indices:
        array[index] = True
    return array


def study(subject="01", sessions=("",), **labels):
    labels = labels or {"lesions": mask((0, 1, 2))}
    visits = tuple(
        Visit(
            {"flair": Volume(RAMP, GRID), "t1w": Volume(RAMP[::-1] + 1, GRID)},
            {name: Volume(array, GRID) for name, array in labels.items()},
            session=session,
        )
        for session in sessions
    )
    return Study(subject, visits)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "Dataset001_Lesions"
    write_nnunet([study("01"), study("02", ("M0", "M12"))], folder, ("flair", "t1w"))
    return folder


def edit(root, **changes):
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_data_set_has_the_layout_of_nnunet(root):
    assert sorted(p.relative_to(root).as_posix() for p in root.rglob("*.*")) == [
        "dataset.json",
        *(f"imagesTr/{c}_000{n}.nii.gz" for c in ("01", "02_M0", "02_M12") for n in (0, 1)),
        *(f"labelsTr/{c}.nii.gz" for c in ("01", "02_M0", "02_M12")),
    ]
    assert json.loads((root / "dataset.json").read_text()) == {
        "channel_names": {"0": "FLAIR", "1": "T1w"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        "patients": {"01": "01", "02_M0": "02", "02_M12": "02"},
    }


def test_visits_know_their_patient_again(root):
    found = read_nnunet(root)
    assert found.subjects == ("01", "02M0", "02M12")
    assert [(s.subject, s.followup.session) for s in found] == [
        ("01", ""),
        ("02", "M0"),
        ("02", "M12"),
    ]


def test_without_patients_every_case_is_its_own(root):
    edit(root, patients={"01": "01"})
    assert [(s.subject, s.followup.session) for s in read_nnunet(root)] == [
        ("01", ""),
        ("02M0", ""),
        ("02M12", ""),
    ]


def test_a_patient_of_any_name_becomes_a_label(root):
    edit(root, patients={"02_M0": "../Doe, J.", "02_M12": "../Doe, J."})
    assert [(s.subject, s.followup.session) for s in read_nnunet(root)] == [
        ("01", ""),
        ("DoeJ", ""),
        ("DoeJ", ""),
    ]


@pytest.mark.parametrize("patients", [["01"], {"01": 1}, {"01": ""}, {"01": "../"}])
def test_patients_of_another_form_are_refused(root, patients):
    edit(root, patients=patients)
    with pytest.raises(
        InputError, match=r"dataset\.json: patients does not give a patient for each case"
    ):
        read_nnunet(root)


def test_what_was_written_is_read_back(root):
    studies = read_nnunet(root)
    assert studies.cases == ("01", "02_M0", "02_M12")
    assert studies.subjects == ("01", "02M0", "02M12")
    visit = studies[0].baseline
    assert np.array_equal(visit.scans["flair"].array, RAMP)
    assert np.array_equal(visit.scans["t1w"].array, RAMP[::-1] + 1)
    assert np.array_equal(visit.labels["lesions"].array, mask((0, 1, 2)))
    assert studies[1:].cases == ("02_M0", "02_M12")


def test_instances_lie_where_nnunet_does_not_look(tmp_path):
    labels = np.where(mask((0, 1, 2), (2, 2, 2)), 300, 0)
    write_nnunet([study(lesions=labels > 0, instances=labels)], tmp_path)
    assert nib.load(tmp_path / "instancesTr" / "01.nii.gz").get_fdata().max() == 300
    assert nib.load(tmp_path / "labelsTr" / "01.nii.gz").get_fdata().max() == 1


def test_test_cases_need_no_labels(root):
    write_nnunet([Study("09", (Visit({"flair": Volume(RAMP, GRID)}),))], root, part="Ts")
    edit(root, channel_names={"0": "FLAIR"})
    studies = read_nnunet(root, "Ts")
    assert studies.cases == ("09",)
    assert not studies[0].baseline.labels
    assert json.loads((root / "dataset.json").read_text())["numTraining"] == 3


def test_channels_in_another_axis_order_are_put_on_one_grid(root):
    flipped = Grid(
        SHAPE, GRID.affine @ np.array([[-1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    )
    write_volume(root / "imagesTr" / "01_0001.nii.gz", Volume(RAMP[::-1], flipped))
    assert np.array_equal(read_nnunet(root)[0].baseline.scans["t1w"].array, RAMP)


def test_a_channel_on_another_grid_is_refused(root):
    write_volume(root / "imagesTr" / "01_0001.nii.gz", Volume(RAMP, Grid(SHAPE, np.eye(4))))
    with pytest.raises(InputError, match=r"01_0001\.nii\.gz: spacings differ"):
        read_nnunet(root)[0]


def test_channels_are_known_by_usual_names(root):
    edit(root, channel_names={"0": "T2-FLAIR", "1": "T1"})
    assert read_nnunet(root).scans == ("flair", "t1w")
    edit(root, channel_names={"0": "noise", "1": "T1"})
    assert read_nnunet(root).scans == ("noise", "t1w")
    assert read_nnunet(root, scans=("flair", "t2w")).scans == ("flair", "t2w")


def test_the_lesion_is_known_by_its_name(root):
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0] = (0, 1, 2, 3, 4)
    write_volume(root / "labelsTr" / "01.nii.gz", Volume(array, GRID))

    def found(**options):
        lesions = read_nnunet(root, **options)[0].baseline.labels["lesions"].array
        return np.flatnonzero(lesions[0, 0]).tolist()

    edit(root, labels={"background": 0, "tissue": 1, "MS lesion": 2})
    assert found() == [2]
    edit(root, labels={"background": 0, "old": 1, "new": [2, 3]})
    assert found(lesion_labels=["new"]) == [2, 3]
    with pytest.raises(InputError, match="which of the labels old, new is the lesion"):
        read_nnunet(root)
    with pytest.raises(InputError, match="no label gone"):
        read_nnunet(root, lesion_labels=["gone"])


@pytest.mark.parametrize("name", ["imagesTr/01_0001.nii.gz", "labelsTr/02_M0.nii.gz"])
def test_a_missing_file_is_named(root, name):
    (root / name).unlink()
    with pytest.raises(InputError, match=f"{name}: no such file"):
        read_nnunet(root)


def test_folders_that_are_no_data_set(tmp_path, root):
    with pytest.raises(InputError, match="it has no dataset"):
        read_nnunet(tmp_path)
    with pytest.raises(InputError, match="imagesTs: no such folder"):
        read_nnunet(root, "Ts")
    edit(root, file_ending=".png")
    with pytest.raises(InputError, match=r"'\.png' are not read"):
        read_nnunet(root)
    edit(root, channel_names={"1": "FLAIR"})
    with pytest.raises(InputError, match="not numbered"):
        read_nnunet(root)
    edit(root, channel_names=None, modality={"0": "FLAIR"})
    with pytest.raises(InputError, match="no channel_names"):
        read_nnunet(root)


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match="01: no t2w scan"):
        write_nnunet([study()], tmp_path, ("flair", "t2w"))
    with pytest.raises(InputError, match="01: no lesion mask"):
        write_nnunet([study(tissue=mask())], tmp_path)
    with pytest.raises(InputError, match="01: two visits"):
        write_nnunet([study(), study()], tmp_path)
    with pytest.raises(InputError, match="no visit to write"):
        write_nnunet([], tmp_path)
    assert not (tmp_path / "dataset.json").exists()


def pair(**changes):
    found = study("01", ("M0", "M6"))
    shifted = Visit({"flair": Volume(RAMP + 5, GRID)}, found.followup.labels, session="M6")
    new = {name: Volume(array, GRID) for name, array in changes.items()}
    return Study("01", (found.baseline, shifted), new)


def test_two_visits_are_channels_of_one_case(tmp_path):
    assert write_nnunet([pair()], tmp_path, visits=2) == ("01_M0_M6",)
    (found,) = read_nnunet(tmp_path)
    assert [visit.session for visit in found.visits] == ["M0", "M6"]
    assert np.array_equal(found.baseline.scans["flair"].array, RAMP)
    assert np.array_equal(found.followup.scans["flair"].array, RAMP + 5)
    assert np.array_equal(found.followup.labels["lesions"].array, mask((0, 1, 2)))
    assert not found.baseline.labels


def test_new_lesions_keep_their_instances(tmp_path):
    new = np.where(mask((0, 1, 2)), 1, 0) + np.where(mask((2, 2, 2)), 2, 0)
    write_nnunet([pair(new=new)], tmp_path, visits=2, task="new")
    studies = read_nnunet(tmp_path)
    assert (studies.visits, studies.task) == (2, "new")
    assert np.array_equal(studies[0].changes["new"].array, new)
    assert not studies[0].followup.labels


def test_a_pair_without_new_lesions_has_an_empty_label(tmp_path):
    write_nnunet([pair(new=mask())], tmp_path, visits=2, task="new")
    assert read_nnunet(tmp_path)[0].changes["new"].array.sum() == 0


def test_pairs_that_are_none_or_do_not_say_what_is_new_are_refused(tmp_path):
    with pytest.raises(InputError, match="1 visits, but a case holds two"):
        write_nnunet([study()], tmp_path, visits=2)
    with pytest.raises(InputError, match="no map of new lesions"):
        write_nnunet([pair()], tmp_path, visits=2, task="new")


def test_channels_of_visits_in_another_order_are_refused(tmp_path):
    write_nnunet([pair()], tmp_path, visits=2)
    edit(tmp_path, channel_names={"0": "FLAIR_followup", "1": "FLAIR_baseline"})
    with pytest.raises(InputError, match="not those of a baseline and then"):
        read_nnunet(tmp_path)
