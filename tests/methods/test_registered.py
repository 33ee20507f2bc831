from dataclasses import dataclass

import numpy as np
import pytest
from engine import pair_of
from scipy import ndimage

from lesionwise.methods.registered import AddRegistered, warped
from lesionwise.types import (
    Grid,
    InputError,
    LesionMaps,
    RunContext,
    Study,
    TrainingData,
    Visit,
    Volume,
)


@dataclass(frozen=True)
class Shift:
    """A method that finds the whole volume shifted along i, and one corner that does not fit."""

    by_vox: float

    uses_validation = True

    def members(self):
        return ()

    def fit(self, data, run):
        assert not len(data.validation)
        (run.folder / "seen").write_text(str(len(data.training)))

    def load(self, run):
        def predict(study):
            volume = study.followup.scans["flair"]
            shape = volume.grid.shape
            unlike = np.zeros(shape, np.float32)
            unlike[:3, :3, :3] = 0.9
            zeros = np.zeros(shape, np.float32)
            field = {"field_i": zeros + self.by_vox, "field_j": zeros, "field_k": zeros}
            return LesionMaps(unlike, volume.grid, extra=field)

        return predict


def shifted_pair():
    """The second visit shows one further along i what the first shows."""
    rng = np.random.default_rng(0)
    first = ndimage.gaussian_filter(rng.standard_normal((16, 16, 16)), 1.5).astype(np.float32)
    second = np.concatenate([first[1:], first[-1:]])
    grid = Grid(first.shape, np.eye(4))
    visits = tuple(Visit({"flair": Volume(array, grid)}) for array in (first, second))
    return Study("a", visits), first, second


def test_the_first_visit_is_warped_onto_the_last_and_subtracted(tmp_path):
    study, first, second = shifted_pair()
    step = AddRegistered(Shift(1.0))
    step.fit(TrainingData([study], [study]), RunContext(tmp_path))
    assert (tmp_path / "seen").read_text() == "1"
    after = step.load(RunContext(tmp_path))(study).followup.scans
    assert set(after) == {"flair", "non_correspondence", "registered_difference"}
    difference = after["registered_difference"].array
    fits = np.ones(first.shape, dtype=bool)
    fits[:3, :3, :3] = False
    assert np.abs(difference[fits]).max() < 1e-4
    # where they do not correspond nothing is moved
    plain = (second - first)[:3, :3, :3]
    np.testing.assert_allclose(difference[:3, :3, :3], plain, atol=1e-5)
    assert np.abs(plain).max() > 0.01


def test_what_is_added_lies_in_the_last_visit_alone(tmp_path):
    study, _, _ = shifted_pair()
    after = AddRegistered(Shift(0.0)).fit(TrainingData([study]), RunContext(tmp_path))(study)
    assert set(after.baseline.scans) == {"flair"}
    np.testing.assert_allclose(
        after.followup.scans["registered_difference"].array,
        study.followup.scans["flair"].array - study.baseline.scans["flair"].array,
        atol=1e-5,
    )


def test_a_volume_is_warped_as_the_network_warps():
    image = np.arange(5.0).reshape(5, 1, 1)
    field = np.zeros((3, 5, 1, 1))
    field[0] = -1.0
    assert warped(image, field)[:, 0, 0].tolist() == [0.0, 0.0, 1.0, 2.0, 3.0]


def test_a_step_that_was_not_fitted_and_visits_on_two_grids_are_refused(tmp_path):
    step = AddRegistered(Shift(0.0))
    with pytest.raises(RuntimeError, match="not fitted"):
        step(pair_of())
    study = pair_of()
    flair = study.baseline.scans["flair"]
    moved = Grid(flair.grid.shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    baseline = Visit({"flair": Volume(flair.array, moved)})
    apart = Study("a", (baseline, study.followup), study.changes)
    with pytest.raises(InputError, match="are on different grids"):
        step.load(RunContext(tmp_path))(apart)
