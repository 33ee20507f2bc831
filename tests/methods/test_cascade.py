from dataclasses import replace

import numpy as np
import pytest
from witness import GRID, Witness, flair, shown, study

from lesionwise.methods.cascade import AddMaps, LastVisitOnly
from lesionwise.types import (
    Auxiliary,
    InputError,
    RunContext,
    TrainingData,
    Volume,
)


def test_maps_are_appended_to_every_visit(tmp_path):
    step = AddMaps(Witness(flair), "found").fit(
        TrainingData([study("a", 1.0, 2.0)]), RunContext(tmp_path)
    )
    after = step(study("z", 3.0, 5.0))
    values = [float(visit.scans["found"].array[0, 0, 0]) for visit in after.visits]
    assert values == [3.0, 5.0]
    assert set(after.baseline.scans) == {"flair", "found"}


def test_maps_of_a_whole_study_go_to_its_last_visit(tmp_path):
    whole = AddMaps(Witness(flair), "found", per_visit=False)
    step = whole.fit(TrainingData([study("a", 1.0, 2.0)]), RunContext(tmp_path))
    assert shown(tmp_path / "member-0")["visits"] == [["M0", "M1"]]
    after = step(study("z", 3.0, 5.0))
    assert "found" in after.followup.scans
    assert "found" not in after.baseline.scans


def test_training_maps_are_made_by_a_method_that_has_not_seen_the_subject(tmp_path):
    data = TrainingData([study(name, 0.0) for name in "abcd"], [study("v", 0.0)])
    adds = AddMaps(Witness(flair), "found", folds=2)
    step = adds.fit(data, RunContext(tmp_path, seed=1))
    for name in "abcd":
        number = int(step(study(name, 0.0)).followup.scans["found"].array[0, 0, 0])
        seen = shown(tmp_path / f"member-{number}")
        assert name not in seen["training"]
        assert seen["validation"] == ["v"]
    other = step(study("z", 0.0)).followup.scans["found"].array
    np.testing.assert_allclose(other, 0.5)  # the mean of methods 0 and 1
    again = adds.resume(RunContext(tmp_path))
    np.testing.assert_array_equal(
        again(study("a", 0.0)).followup.scans["found"].array,
        step(study("a", 0.0)).followup.scans["found"].array,
    )


def test_a_new_patient_of_a_name_known_from_training_gets_the_mean_of_all(tmp_path):
    data = TrainingData([study(name, 0.0) for name in "abcd"])
    adds = AddMaps(Witness(flair), "found", folds=2)
    adds.fit(data, RunContext(tmp_path))
    new = adds.load(RunContext(tmp_path))(study("a", 0.0)).followup.scans["found"].array
    np.testing.assert_allclose(new, 0.5)  # of methods 0 and 1


def test_an_auxiliary_set_is_learned_from_where_there_is_one(tmp_path):
    data = TrainingData([study("a", 1.0)], (), {"lesions": [study("x", 1.0)]})
    adds = AddMaps(Witness(flair), "found", auxiliary="lesions", folds=2)
    adds.fit(data, RunContext(tmp_path / "with"))
    assert shown(tmp_path / "with" / "member-0")["training"] == ["x"]
    adds.fit(replace(data, auxiliary={}), RunContext(tmp_path / "without"))
    assert shown(tmp_path / "without" / "member-0")["training"] == ["a"]


def test_an_auxiliary_set_with_scans_of_its_own_is_found_by_its_name(tmp_path):
    data = TrainingData([study("a", 1.0)], (), {"others": [study("x", 1.0)]})
    adds = AddMaps(Witness(flair), "found", auxiliary=Auxiliary("others", scans=("flair",)))
    adds.fit(data, RunContext(tmp_path / "with"))
    assert shown(tmp_path / "with" / "member-0")["training"] == ["x"]


def test_a_step_that_was_not_fitted_refuses():
    with pytest.raises(RuntimeError, match="not fitted"):
        AddMaps(Witness(flair), "found")(study("a", 1.0))


def test_a_folder_without_a_step_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"parts\.json: cannot be read"):
        AddMaps(Witness(flair), "found").load(RunContext(tmp_path))


def test_only_the_last_visit_stays_with_what_changed():
    pair = replace(study("a", 1.0, 4.0), changes={"new": Volume(np.ones(GRID.shape), GRID)})
    alone = LastVisitOnly()(pair)
    assert [visit.session for visit in alone.visits] == ["M1"]
    assert set(alone.changes) == {"new"}
