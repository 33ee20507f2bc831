"""Trainings without lesions to learn from are refused at once."""

import numpy as np
import pytest

from lesionwise.preprocess.required_lesions import RequireLesions
from lesionwise.run.learned_steps import fit_steps, learns
from lesionwise.types import Grid, InputError, RunContext, Study, TrainingData, Visit, Volume

GRID = Grid((1, 1, 2), np.eye(4))
STEP = RequireLesions("new", auxiliary="lesions")


def volume(value):
    return Volume(np.array([[[0, value]]]), GRID)


def study(new=1, **labels):
    """A pair with ``new`` in its map of new lesions and labels of its last visit."""
    scans = {"flair": volume(5.0)}
    named = {name: volume(value) for name, value in labels.items()}
    return Study("a", (Visit(scans), Visit(scans, named)), {"new": volume(new)})


def fit(studies, tmp_path, **auxiliary):
    return STEP.fit(TrainingData(studies, (), auxiliary), RunContext(tmp_path))


@pytest.mark.parametrize("label", ["lesions", "instances"])
def test_one_study_with_a_lesion_is_enough(label, tmp_path):
    studies = [study(new=0), study(**{label: 1})]
    step = fit(studies, tmp_path)
    assert step(studies[0]) is studies[0]
    assert step == STEP.load(RunContext(tmp_path))
    assert not learns(step)


def test_a_step_that_has_not_seen_a_training_refuses():
    with pytest.raises(RuntimeError, match="call fit or load first"):
        STEP(study())


def test_without_a_new_lesion_there_is_nothing_to_learn(tmp_path):
    with pytest.raises(InputError, match="have no lesion"):
        fit([study(new=0, lesions=1)], tmp_path)


@pytest.mark.parametrize(
    ("labels", "lacks"), [({}, "has a lesion mask"), ({"lesions": 0}, "has a lesion in its mask")]
)
def test_without_lesions_of_visits_the_auxiliary_set_is_named(labels, lacks, tmp_path):
    with pytest.raises(InputError, match=f"no visit {lacks}.*--auxiliary lesions=DATA"):
        fit([study(**labels)], tmp_path)


def test_an_auxiliary_set_takes_the_place_of_the_visits(tmp_path):
    fit([study()], tmp_path, lesions=[study(lesions=0), study(lesions=1)])
    with pytest.raises(InputError, match="auxiliary set lesions: no visit has a lesion"):
        fit([study(lesions=1)], tmp_path, lesions=[study(lesions=0)])
    fit([study(lesions=1)], tmp_path, lesions=[])


def test_nothing_that_follows_is_learned_where_it_refuses(tmp_path):
    class Learns:
        def fit(self, data, run):
            raise AssertionError("a network was trained")

        load = fit

    with pytest.raises(InputError, match="no visit"):
        fit_steps((STEP, Learns()), TrainingData([study()]), RunContext(tmp_path))
