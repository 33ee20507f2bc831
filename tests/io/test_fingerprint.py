"""What tells one state of a data set from another."""

import os

import pytest

from lesionwise.io.bids import write_dataset_description
from lesionwise.io.fingerprint import fingerprint_of, same_form


@pytest.fixture
def data(tmp_path):
    """Two visits of a patient with masks; nothing of the images is read but their bytes."""
    for session in ("1", "2"):
        put(tmp_path, f"sub-1/ses-{session}/anat/sub-1_ses-{session}_FLAIR.nii.gz")
        name = f"sub-1_ses-{session}_label-L_mask.nii"
        put(tmp_path, f"derivatives/manual/sub-1/ses-{session}/{name}")
    return tmp_path


def put(root, name, content="abc"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii.gz",
        "derivatives/manual/sub-1/ses-2/sub-1_ses-2_label-L_mask.nii",
    ],
)
def test_content_name_and_presence_of_an_image_count(data, name):
    found = {fingerprint_of(data)}
    path = data / name
    put(data, name, "abd")  # as many bytes as before
    found.add(fingerprint_of(data))
    head, _, rest = path.name.partition(f"{path.name[6:11]}_")
    path = path.rename(path.with_name(f"{head}{path.name[6:11]}_acq-3D_{rest}"))
    found.add(fingerprint_of(data))
    path.unlink()
    found.add(fingerprint_of(data))
    assert len(found) == 4


def test_the_order_of_visits_counts_and_the_rest_of_their_table_does_not(data):
    before = fingerprint_of(data)
    table = put(data, "sub-1/sub-1_sessions.tsv", "session_id\tacq_time\nses-1\tn/a\n")
    assert fingerprint_of(data) == before
    table.write_text("session_id\tacq_time\tedss\nses-1\t2020-01-01\t2\nses-2\t2021-01-01\t3\n")
    assert fingerprint_of(data) == before
    table.write_text("session_id\tacq_time\nses-1\t2022-01-01\nses-2\t2021-01-01\n")
    assert fingerprint_of(data) != before


def test_what_no_study_is_read_from_does_not_count(data):
    before = fingerprint_of(data)
    put(data, "README")
    put(data, "sub-1/ses-1/func/sub-1_ses-1_task-rest_bold.nii.gz")
    put(data, "derivatives/bench/predictions/unet-cc/sub-1_ses-1_dseg.nii.gz")
    put(data, "derivatives/bench/references/sub-1_ses-1_dseg.nii.gz")
    put(data, "derivatives/fmriprep/sub-1/sub-1_T1w.nii.gz")
    put(data, "sourcedata/sub-1_FLAIR.nii.gz")
    assert fingerprint_of(data) == before


def test_results_of_this_package_never_count(data):
    before = fingerprint_of(data)
    write_dataset_description(data / "derivatives" / "lesionwise", "lesionwise segment")
    own = "derivatives/lesionwise/sub-1/ses-1/anat/sub-1_ses-1_label-L_mask.nii.gz"
    put(data, own)
    assert fingerprint_of(data) == before
    for path in (data / "derivatives" / "manual").rglob("*.nii"):
        path.unlink()
    alone = fingerprint_of(data)
    put(data, own, "abd")
    assert fingerprint_of(data) == alone
    put(data, own.replace("lesionwise", "corrected"))
    assert fingerprint_of(data) != alone


def test_a_link_to_nowhere_is_no_error_and_counts_by_its_name(data):
    before = fingerprint_of(data)
    link = data / "sub-1" / "ses-1" / "anat" / "sub-1_ses-1_T1w.nii.gz"
    link.symlink_to(data / "gone.nii.gz")
    dead = fingerprint_of(data)
    link.unlink()
    put(data, "sub-1/ses-1/anat/sub-1_ses-1_T1w.nii.gz")
    assert len({before, dead, fingerprint_of(data)}) == 3


def test_folders_of_subjects_may_be_links(data, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = put(elsewhere, "sub-2/anat/sub-2_FLAIR.nii.gz")
    os.symlink(elsewhere / "sub-2", data / "sub-2")
    before = fingerprint_of(data)
    path.write_text("abd")
    assert fingerprint_of(data) != before


def test_of_an_nnunet_data_set_training_cases_and_its_description_count(tmp_path):
    for name in ("dataset.json", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii"):
        put(tmp_path, name)
    found = [fingerprint_of(tmp_path)]
    for name in ("dataset.json", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii"):
        put(tmp_path, name, "abd")
        found.append(fingerprint_of(tmp_path))
    assert len(set(found)) == 4
    assert found[-1] == found[-2]


def test_one_of_an_earlier_version_is_compared_in_its_form(data):
    earlier = fingerprint_of(data, "0" * 64)
    assert len(earlier) == 64
    assert not same_form(earlier, fingerprint_of(data))
    put(data, "sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii.gz", "abd")
    assert fingerprint_of(data, earlier) == earlier  # names and sizes alone, as it was
    put(data, "sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii.gz", "abcd")
    assert fingerprint_of(data, earlier) != earlier
    (data / "x.nii").symlink_to(data / "gone.nii")
    assert len(fingerprint_of(data, earlier)) == 64
