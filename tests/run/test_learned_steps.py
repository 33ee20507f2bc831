"""Steps that learn, fitted on a fold."""

import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest

from lesionwise.run.learned_steps import STUDIES, fit_steps, load_steps, shared_steps
from lesionwise.types import Grid, RunContext, Study, TrainingData, Visit, Volume


def study(value):
    volume = Volume(np.full((2, 2, 2), value, np.float32), Grid((2, 2, 2), np.eye(4)))
    return Study(f"s{value:g}", (Visit({"flair": volume}),))


def value_of(study):
    return float(study.followup.scans["flair"].array[0, 0, 0])


@dataclass(frozen=True)
class Times:
    factor: float

    def __call__(self, study):
        scans = {
            name: Volume(v.array * self.factor, v.grid) for name, v in study.followup.scans.items()
        }
        return replace(study, visits=(replace(study.followup, scans=scans),))


@dataclass(frozen=True)
class DivideByMean:
    """Learns the mean over the training studies."""

    def fit(self, data, run):
        mean = float(np.mean([value_of(s) for s in data.training]))
        (run.folder / "mean.json").write_text(json.dumps(mean))
        return Times(1 / mean)

    def load(self, run):
        return Times(1 / json.loads((run.folder / "mean.json").read_text()))

    def __call__(self, study):
        raise RuntimeError("not fitted")


STEPS = (Times(2), DivideByMean(), Times(10), DivideByMean())
DATA = TrainingData([study(2), study(6)], [study(8)])


def test_the_steps_before_the_first_that_learns_are_shared():
    assert shared_steps(STEPS) == (Times(2),)
    assert shared_steps((Times(2), Times(3))) == (Times(2), Times(3))


def test_each_step_learns_from_training_studies_as_the_steps_before_leave_them(tmp_path):
    fitted = fit_steps(STEPS, DATA, RunContext(tmp_path))
    # means: 4, then of 2/4*10 = 5 and 6/4*10 = 15: 10
    assert [value_of(s) for s in fitted.training] == pytest.approx([0.5, 1.5])
    assert [value_of(s) for s in fitted.validation] == pytest.approx([2.0])


def test_loaded_steps_do_what_the_fitted_ones_did(tmp_path):
    fit_steps(STEPS, DATA, RunContext(tmp_path))
    loaded = load_steps(STEPS, RunContext(tmp_path))
    assert loaded[0] == Times(2)
    new = study(8)
    for step in loaded[1:]:
        new = step(new)
    assert value_of(new) == pytest.approx(2.0)


def test_a_resumed_fold_fits_nothing_twice(tmp_path):
    fit_steps(STEPS, DATA, RunContext(tmp_path))
    others = TrainingData([study(100), study(200)], [study(300)])
    again = fit_steps(STEPS, others, RunContext(tmp_path))
    assert [value_of(s) for s in again.training] == pytest.approx([0.5, 1.5])


def test_without_learned_steps_the_data_pass_untouched(tmp_path):
    assert fit_steps((Times(2),), DATA, RunContext(tmp_path)) is DATA
    assert not list(tmp_path.iterdir())


@dataclass(frozen=True)
class KnowsItsTraining(DivideByMean):
    """Tells a study of its training from a new one."""

    def fit(self, data, run):
        super().fit(data, run)
        return self.resume(run)

    def resume(self, run):
        return Times(-1.0)


def test_only_a_training_that_goes_on_gets_the_step_of_the_training(tmp_path):
    steps = (KnowsItsTraining(),)
    for _ in range(2):  # fitted, then resumed
        fitted = fit_steps(steps, DATA, RunContext(tmp_path))
        assert [value_of(s) for s in fitted.training] == [-2.0, -6.0]
        shutil.rmtree(tmp_path / STUDIES)
    (loaded,) = load_steps(steps, RunContext(tmp_path))
    assert value_of(loaded(study(8))) == pytest.approx(2.0)
