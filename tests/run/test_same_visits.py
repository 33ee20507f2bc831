"""Every command that looks at two visits pairs the same ones, in the same order."""

from itertools import pairwise

import numpy as np
import pytest
from bids import begin, save_visit

from lesionwise.cohort.subjects import find_subjects
from lesionwise.io.dataset import read_dataset
from lesionwise.run.compare import _scans
from lesionwise.run.predict_pairs import select_pairs
from lesionwise.run.prepare import visits_of
from lesionwise.types import InputError

TIMED = (("pre", "2019-01-01"), ("post", "2019-06-01T09:00:00"), ("later", "2020-01-01"))
IMAGE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def root(tmp_path):
    """Subject 1 has dates, and a session without a FLAIR; 2 has numbers; 3 lacks a date."""
    root = begin(tmp_path / "data")
    for subject, sessions in (("1", [name for name, _ in TIMED]), ("3", ["b", "a"])):
        for session in sessions:
            save_visit(root, subject, session, {"FLAIR": IMAGE})
    save_visit(root, "1", "blood", {"T1w": IMAGE})
    for session in ("M10", "M2", "M0"):
        save_visit(root, "2", session, {"FLAIR": IMAGE})
    _times(root, "1", TIMED)
    _times(root, "3", [("b", "2019-01-01")])
    return root


def _times(root, subject, rows):
    lines = ["session_id\tacq_time", *(f"ses-{session}\t{time}" for session, time in rows)]
    (root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv").write_text("\n".join(lines) + "\n")


EXPECTED = {
    "1": [("pre", "post"), ("post", "later")],
    "2": [("M0", "M2"), ("M2", "M10")],
    "3": [("a", "b")],
}


def by_train(root):
    return {
        study.subject: [
            (part.visits[0].session, part.visits[1].session) for _, part in visits_of(study, 2)
        ]
        for study in read_dataset(root)
    }


def by_predict(root):
    found = {}
    for pair in select_pairs([root]).pairs:
        sessions = (pair.baseline.session, pair.followup.session)
        found.setdefault(pair.followup.subject, []).append(sessions)
    return found


def by_compare(root):
    return {
        folder.name.removeprefix("sub-"): list(pairwise(scan.session for scan in _scans([folder])))
        for folder in root.glob("sub-*")
    }


def by_cohort(root):
    return {
        subject.label: list(pairwise(scan.session for scan in subject.comparable))
        for subject in find_subjects(root)
    }


@pytest.mark.parametrize("command", [by_train, by_predict, by_compare, by_cohort])
def test_the_visits_of_each_subject_are_paired_in_time_order(root, command):
    assert command(root) == EXPECTED


def test_a_subject_whose_times_cannot_be_read_is_named_by_each_and_the_others_go_on(root):
    _times(root, "3", [("a", "soon"), ("b", "2019-01-01")])
    others = {subject: pairs for subject, pairs in EXPECTED.items() if subject != "3"}
    assert by_train(root) == others
    assert by_predict(root) == others
    assert "soon is not a time" in read_dataset(root).errors["3"]
    assert {subject.label: subject.error for subject in find_subjects(root)}["3"].endswith(
        "soon is not a time"
    )
    with pytest.raises(InputError, match="soon is not a time"):
        _scans([root / "sub-3"])


def test_visits_that_are_named_one_by_one_stay_in_the_order_given(root):
    folder = root / "sub-1"
    paths = [folder / f"ses-{name}" / "anat" / f"sub-1_ses-{name}_FLAIR.nii.gz"
             for name in ("later", "pre")]  # fmt: skip
    assert [scan.session for scan in _scans(paths)] == ["later", "pre"]
    (pair,) = select_pairs(paths).pairs
    assert (pair.baseline.session, pair.followup.session) == ("later", "pre")
