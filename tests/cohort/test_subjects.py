"""Which subjects and scans are taken."""

import pytest

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


def test_a_subject_without_a_scan_comes_with_its_fault(dataset):
    root = dataset(("01", ""), ("02", "A"))
    (root / "sub-03" / "anat").mkdir(parents=True)
    (root / "sub-02" / "ses-A" / "anat" / "sub-04_ses-A_FLAIR.nii.gz").write_text("")
    faults = [subject.fault for subject in find_subjects(root)]
    assert faults[0] == ""
    assert "name and the folder name different visits" in faults[1]
    assert faults[2] == "sub-03: no FLAIR scan"


def test_two_scans_of_one_name_are_a_fault(dataset):
    root = dataset(("01", ""))
    (root / "sub-01" / "anat" / "sub-01_FLAIR.nii").write_text("")
    assert find_subjects(root)[0].fault.endswith("there is a second scan of this name")


def test_visits_are_compared_only_where_each_session_has_one_scan(dataset):
    root = dataset(("01", "A"), ("01", "B"), ("02", "A"), ("03", "A"), ("03", "B"))
    again = root / "sub-03" / "ses-A" / "anat" / "sub-03_ses-A_run-2_FLAIR.nii.gz"
    again.write_text("")
    assert [subject.comparable for subject in find_subjects(root)] == [True, False, False]


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
    assert "'soon' is no time" in find_subjects(root)[0].fault


def test_a_folder_without_subjects_is_one_line(tmp_path):
    with pytest.raises(InputError, match="not a BIDS data set"):
        find_subjects(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_subjects(tmp_path / "missing")
