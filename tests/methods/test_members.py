"""What methods made of methods share."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.io.prepared import prepared_studies, write_prepared
from lesionwise.methods.members import chosen, deal, fit_once, hold_out, member_run, of_visits
from lesionwise.types import Grid, InputError, RunContext, Study, TrainingData, Visit, Volume

GRID = Grid((2, 2, 2), np.eye(4))


def study(subject, visits=1, labeled=True):
    volume = Volume(np.ones(GRID.shape, dtype=np.float32), GRID)
    labels = {"lesions": volume} if labeled else {}
    return Study(
        subject, tuple(Visit({"flair": volume}, labels, session=f"{n}") for n in range(visits))
    )


@given(st.integers(2, 30), st.integers(2, 10), st.integers(0, 2**31))
def test_parts_differ_by_one_subject_at_most(count, folds, seed):
    part_of = deal([study(f"s{n}") for n in range(count)], folds, seed)
    sizes = np.bincount(list(part_of.values()))
    assert len(sizes) == min(folds, count)
    assert sizes.max() - sizes.min() <= 1
    assert len(part_of) == count


def test_visits_of_one_subject_are_in_one_part():
    part_of = deal([study("a"), study("b"), study("a")], 2, 0)
    assert set(part_of) == {"a", "b"}
    assert set(part_of.values()) == {0, 1}


@pytest.mark.parametrize(("names", "folds"), [("ab", 1), ("ab", 0), ("a", 5), ("", 5)])
def test_there_is_nothing_to_deal_below_two(names, folds):
    assert deal([study(name) for name in names], folds, 0) == {}


def test_the_held_out_part_validates_and_the_others_train():
    data = TrainingData([study("a"), study("b"), study("a"), study("c")], [study("v")])
    held = hold_out(data, {"a": 0, "b": 1, "c": 1}, 0)
    assert [each.subject for each in held.training] == ["b", "c"]
    assert [each.subject for each in held.validation] == ["a", "a"]


def test_a_choice_can_be_sliced_and_reads_when_asked():
    some = chosen([study(name) for name in "abcd"], (3, 1, 0))
    assert [each.subject for each in some[1:]] == ["b", "a"]
    assert some[0].subject == "d"


def test_parts_of_prepared_data_travel_to_other_processes(tmp_path):
    for name in "abc":
        write_prepared(study(name), tmp_path / name)
    prepared = prepared_studies(tuple(tmp_path / name for name in "abc"))
    some = of_visits(TrainingData(chosen(prepared, (2, 0)))).training
    there = pickle.loads(pickle.dumps(some))
    assert [each.subject for each in there] == ["c", "a"]


def test_labeled_visits_are_studies_without_a_past():
    data = of_visits(TrainingData([study("a", 2), study("b", 1, labeled=False)], [study("v")]))
    assert [(each.subject, each.followup.session) for each in data.training] == [
        ("a", "0"),
        ("a", "1"),
    ]
    assert all(len(each.visits) == 1 for each in data.training[:2])
    assert len(data.validation) == 1


def test_without_a_mask_there_is_no_visit_to_learn_from():
    with pytest.raises(InputError, match="no visit has a lesion mask"):
        of_visits(TrainingData([study("b", labeled=False)]))


def test_members_share_the_time_and_nothing_else(tmp_path):
    run = RunContext(tmp_path, seed=1, max_minutes=9.0)
    members = [member_run(run, n, 3) for n in range(3)]
    assert {member.folder for member in members} == {tmp_path / f"member-{n}" for n in range(3)}
    assert len({member.seed for member in members}) == 3
    assert [member.max_minutes for member in members] == [3.0] * 3


def test_each_member_may_take_all_steps(tmp_path):
    assert member_run(RunContext(tmp_path, max_steps=9), 1, 3).max_steps == 9


@pytest.mark.parametrize(("members", "shown"), [(3, "member 2 of 3: training"), (1, "training")])
def test_progress_names_the_member_before_its_stage(tmp_path, members, shown):
    stages = []
    run = RunContext(tmp_path, progress=lambda stage, done, total: stages.append(stage))
    member_run(run, 1 if members > 1 else 0, members).progress("training", 1, 5)
    assert stages == [shown]


@dataclass
class Counts:
    fitted: int = 0
    fails: bool = False

    def fit(self, data, run):
        self.fitted += 1
        if self.fails:
            raise InputError("no")

    def load(self, run):
        raise AssertionError


def test_what_was_fitted_is_not_fitted_again_on_resuming(tmp_path):
    method = Counts()
    for resume in (False, True, True, False):
        fit_once(method, TrainingData([]), RunContext(tmp_path, resume=resume))
    assert method.fitted == 2


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_weights_that_are_not_whole_are_fitted_again(tmp_path, damage):
    class Writes(Counts):
        def fit(self, data, run):
            super().fit(data, run)
            (run.folder / "model.safetensors").write_bytes(b"0123456789")

    method = Writes()
    weights = tmp_path / "model.safetensors"
    for _ in range(2):
        fit_once(method, TrainingData([]), RunContext(tmp_path, resume=True))
    assert method.fitted == 1
    if damage == "cut":
        weights.write_bytes(b"01234")
    else:
        weights.unlink()
    fit_once(method, TrainingData([]), RunContext(tmp_path, resume=True))
    assert method.fitted == 2
    assert weights.read_bytes() == b"0123456789"


def test_what_failed_is_fitted_again(tmp_path):
    with pytest.raises(InputError):
        fit_once(Counts(fails=True), TrainingData([]), RunContext(tmp_path, resume=True))
    method = Counts()
    fit_once(method, TrainingData([]), RunContext(tmp_path, resume=True))
    assert method.fitted == 1
