"""Which subjects and scans are taken."""

from pathlib import Path

import pytest

from lesionwise.cohort.cohort import cohort
from lesionwise.cohort.subjects import find_subjects
from lesionwise.types import InputError


def test_subjects_and_sessions_come_in_natural_order(dataset):
    root = dataset(("10", "1"), ("2", "10"), ("2", "9"))
    found = find_subjects(root)
    assert [subject.label for subject in found] == ["2", "10"]
    assert [scan.session for scan in found[0].scans] == ["9", "10"]


def test_participants_and_sessions_are_chosen_with_or_without_their_prefix(dataset):
    root = dataset(("01", "A"), ("01", "B"), ("02", "A"), ("03", "A"))
    found = find_subjects(root, ["sub-01", "03"], ["ses-A"])
    assert [(s.label, [scan.session for scan in s.scans]) for s in found] == [
        ("01", ["A"]),
        ("03", ["A"]),
    ]


def test_an_unknown_participant_is_one_line(dataset):
    root = dataset(("01", ""), ("02", ""))
    with pytest.raises(InputError, match=r"no participant 07, 99; there are 01, 02$"):
        find_subjects(root, ["99", "07", "01"])


def test_a_session_that_nobody_has_is_one_line(dataset):
    with pytest.raises(InputError, match="no FLAIR scan in session B"):
        find_subjects(dataset(("01", "A")), sessions=["B"])


def test_a_subject_without_a_scan_comes_with_its_error(dataset):
    root = dataset(("01", ""), ("02", "A"))
    (root / "sub-03" / "anat").mkdir(parents=True)
    (root / "sub-02" / "ses-A" / "anat" / "sub-04_ses-A_FLAIR.nii.gz").write_text("")
    errors = [subject.error for subject in find_subjects(root)]
    assert errors[0] == ""
    assert "name and the folder name different visits" in errors[1]
    assert errors[2] == "sub-03: no FLAIR scan"


def test_two_scans_of_one_name_are_an_error(dataset):
    root = dataset(("01", ""))
    (root / "sub-01" / "anat" / "sub-01_FLAIR.nii").write_text("")
    assert find_subjects(root)[0].error.endswith("there is a second scan of this name")


def test_of_each_session_one_scan_is_compared(dataset):
    root = dataset(("01", "A"), ("01", "B"), ("02", "A"), ("03", "A"), ("03", "B"), ("04", "A"))
    for subject, name in (("03", "acq-2D"), ("04", "run-2")):
        folder = root / f"sub-{subject}" / "ses-A" / "anat"
        (folder / f"sub-{subject}_ses-A_{name}_FLAIR.nii.gz").write_text("")
    found = find_subjects(root)
    assert [len(subject.comparable) for subject in found] == [2, 0, 2, 0]
    assert [scan.path.name for scan in found[2].comparable] == [
        "sub-03_ses-A_FLAIR.nii.gz",
        "sub-03_ses-B_FLAIR.nii.gz",
    ]
    assert [subject.not_compared for subject in found] == [""] * 4


def test_where_nothing_tells_which_scans_belong_together_the_reason_is_given(dataset):
    root = dataset(("01", "B"), ("02", ""))
    for acquisition in ("2D", "3D"):
        path = root / "sub-01" / "ses-A" / "anat" / f"sub-01_ses-A_acq-{acquisition}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (root / "sub-02" / "anat" / "sub-02_run-2_FLAIR.nii.gz").write_text("")
    found = find_subjects(root)
    assert [len(subject.comparable) for subject in found] == [0, 0]
    assert found[0].not_compared == (
        "visits not compared: ses-A has several FLAIR scans "
        "(sub-01_ses-A_acq-2D_FLAIR.nii.gz, sub-01_ses-A_acq-3D_FLAIR.nii.gz)"
    )
    assert found[1].not_compared == "visits not compared: a scan has no session in its name"


def sessions_table(root, *rows):
    lines = ["session_id\tacq_time", *("\t".join(row) for row in rows)]
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("\n".join(lines) + "\n")


def test_stated_times_order_the_visits(dataset):
    root = dataset(("01", "post"), ("01", "pre"), ("01", "later"))
    order = ["later", "post", "pre"]
    assert [scan.session for scan in find_subjects(root)[0].scans] == order
    sessions_table(root, ("ses-pre", "2019-01-01T10:00:00"), ("ses-post", "2019-06-01T09:00:00"))
    assert [scan.session for scan in find_subjects(root)[0].scans] == order  # one time is missing
    sessions_table(
        root,
        ("ses-later", "2020-01-01"),
        ("ses-pre", "2019-01-01T10:00:00"),
        ("ses-post", "2019-06-01T09:00:00"),
    )
    assert [scan.session for scan in find_subjects(root)[0].scans] == ["pre", "post", "later"]
    sessions_table(root, ("ses-pre", "soon"))
    assert "soon is not a time" in find_subjects(root)[0].error


def test_a_folder_without_subjects_is_one_line(tmp_path):
    with pytest.raises(InputError, match="not a BIDS data set"):
        find_subjects(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_subjects(tmp_path / "missing")


def test_the_command_names_folders_as_they_were_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^nothere: no such folder$"):
        cohort(Path("nothere"), Path("out"), "participant")
    with pytest.raises(InputError, match=r"^out: no subject is finished"):
        cohort(Path("bids"), Path("out"), "group")
