"""Brain masks that a network learned."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import pytest
from engine import METHOD, SIDE, dice, longer

from lesionwise.preprocess.learned_brain import (
    BRAIN,
    MASKS,
    LearnBrain,
    LearnedBrain,
    single_visits,
)
from lesionwise.run.learned_steps import learns
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

GRID = Grid((8, 8, 8), np.diag([10.0, 10.0, 10.0, 1.0]))  # a voxel is 1 ml


def visit(value=1.0, session="", where=np.s_[1:3]):
    brain = np.zeros(GRID.shape, dtype=bool)
    brain[where] = True
    scan = Volume(np.full(GRID.shape, value, dtype=np.float32), GRID)
    lesions = Volume(np.zeros(GRID.shape, dtype=bool), GRID)
    return Visit({"flair": scan}, {"lesions": lesions}, Volume(brain, GRID), session)


PAIR = Study("a", (visit(1.0, "1"), visit(2.0, "2")))


@dataclass
class Network:
    """Gives one map for every visit, and counts how often it is asked."""

    probability: np.ndarray
    asked: int = 0

    def __call__(self, study):
        self.asked += 1
        (shown,) = study.visits
        assert shown.brain is None
        assert shown.labels == {}
        return LesionMaps(self.probability, GRID)

    def members(self):
        return ()

    uses_validation = True

    def fit(self, data, run):
        self.seen = data

    def load(self, run):
        return self


def block(side=5):
    probability = np.zeros(GRID.shape, dtype=np.float32)
    probability[:side, :side, :side] = 0.9
    return probability


def test_a_mask_is_the_largest_region_above_the_limit_with_its_holes_filled():
    probability = block(5)  # 125 voxels
    probability[2, 2, 2] = 0.0  # a hole
    probability[5, :5, :5] = 0.5  # not above
    probability[7, :3, :3] = 1.0  # another region, of 9 voxels
    after = LearnedBrain(Network(probability), least_ml=0.0)(PAIR)
    expected = np.zeros(GRID.shape, dtype=bool)
    expected[:5, :5, :5] = True
    for masked in after.visits:
        np.testing.assert_array_equal(masked.brain.array, expected)
        assert masked.brain.grid == GRID
        assert "lesions" in masked.labels


@pytest.mark.parametrize(("least_ml", "taken"), [(125.0, True), (125.5, False)])
def test_a_visit_keeps_its_mask_where_the_network_finds_too_little(least_ml, taken, caplog):
    with caplog.at_level(logging.WARNING, "lesionwise"):
        after = LearnedBrain(Network(block(5)), least_ml=least_ml)(PAIR)
    assert (after.baseline.brain is PAIR.baseline.brain) is not taken
    assert ("a 1: the network found 125 ml of brain" in caplog.text) is not taken


def test_the_network_learns_the_mask_of_each_visit_alone_without_seeing_it(tmp_path):
    network = Network(block())
    LearnBrain(network).fit(TrainingData([PAIR], [PAIR]), RunContext(tmp_path))
    assert [s.followup.session for s in network.seen.training] == ["1", "2"]
    assert len(network.seen.validation) == 2
    for study in network.seen.training:
        assert len(study.visits) == 1
        assert study.followup.brain is None
        assert set(study.followup.labels) == {BRAIN}
        np.testing.assert_array_equal(study.followup.labels[BRAIN].array, PAIR.baseline.brain.array)


def test_a_mask_on_another_grid_is_learned_on_that_of_the_scan():
    later = np.diag([10.0, 10.0, 10.0, 1.0])
    later[0, 3] = 10.0  # begins one voxel later
    mask = Volume(PAIR.baseline.brain.array, Grid(GRID.shape, later))
    (study,) = single_visits([Study("a", (replace(PAIR.baseline, brain=mask),))])
    label = study.followup.labels[BRAIN]
    assert label.grid == GRID
    assert np.flatnonzero(label.array[:, 0, 0]).tolist() == [2, 3]  # 1 and 2 before


def test_a_training_makes_the_mask_of_a_scan_once(tmp_path):
    network, run = Network(block()), RunContext(tmp_path)
    learn = LearnBrain(network)
    step = learn.fit(TrainingData([PAIR]), run)
    first = step(PAIR)
    assert network.asked == 2
    network.probability = block(6)
    for again in (step, learn.resume(run)):
        after = again(PAIR)
        np.testing.assert_array_equal(after.followup.brain.array, first.followup.brain.array)
    assert network.asked == 2
    other = Study("a", (visit(3.0, "1"), visit(2.0, "2")))  # a scan of the same name
    assert step(other).baseline.brain.array.sum() == 6**3
    assert network.asked == 3


def test_for_new_studies_nothing_is_looked_up_or_kept(tmp_path):
    network, run = Network(block()), RunContext(tmp_path)
    learn = LearnBrain(network)
    learn.fit(TrainingData([PAIR]), run)(PAIR)
    before = sorted((tmp_path / MASKS).iterdir())
    network.probability = block(6)
    assert not learns(learn.load(run))
    after = learn.load(run)(PAIR)
    assert after.followup.brain.array.sum() == 6**3
    learn.load(run)(Study("b", (visit(9.0),)))
    assert sorted((tmp_path / MASKS).iterdir()) == before


def test_a_kept_mask_that_is_damaged_is_made_again(tmp_path):
    network, run = Network(block()), RunContext(tmp_path)
    step = LearnBrain(network).fit(TrainingData([PAIR]), run)
    first = step(PAIR)
    for path in (tmp_path / MASKS).iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    np.testing.assert_array_equal(step(PAIR).baseline.brain.array, first.baseline.brain.array)
    assert network.asked == 4
    step(PAIR)
    assert network.asked == 4


def test_masks_of_an_earlier_training_are_forgotten(tmp_path):
    network, run = Network(block()), RunContext(tmp_path)
    learn = LearnBrain(network)
    learn.fit(TrainingData([PAIR]), run)(PAIR)
    network.probability = block(6)
    assert learn.fit(TrainingData([PAIR]), run)(PAIR).followup.brain.array.sum() == 6**3


def test_a_visit_without_a_mask_is_refused(tmp_path):
    bare = Study("a", (Visit({"flair": PAIR.baseline.scans["flair"]}, session="1"),))
    with pytest.raises(InputError, match="a 1: no brain mask"):
        LearnedBrain(Network(block()))(bare)
    with pytest.raises(InputError, match="a 1: no brain mask"):
        single_visits([bare])[0]


def test_a_step_that_was_not_fitted_refuses():
    with pytest.raises(RuntimeError, match="call fit or load first"):
        LearnBrain(Network(block()))(PAIR)


def head(seed):
    """A bright brain in noise."""
    grid = Grid((SIDE,) * 3, np.eye(4))
    brain = np.zeros(grid.shape, dtype=bool)
    brain[4 + seed : 10 + seed, 4:11, 5:12] = True
    noise = np.random.default_rng(seed).standard_normal(grid.shape)
    scan = Volume((2.0 * brain + 0.3 * noise).astype(np.float32), grid)
    return Study(f"s{seed}", (Visit({"flair": scan}, brain=Volume(brain, grid)),))


def test_a_network_learns_a_brain_and_finds_it_in_a_new_scan(tmp_path):
    network = replace(longer(METHOD, 4, 40), task=BRAIN)
    run = RunContext(tmp_path, device="cpu")
    step = LearnBrain(network, least_ml=0.1).fit(TrainingData([head(0), head(1)]), run)
    new = head(2)
    nowhere = Volume(np.zeros((SIDE,) * 3, dtype=bool), new.followup.brain.grid)
    wrong = replace(new, visits=(replace(new.followup, brain=nowhere),))
    assert dice(step(wrong).followup.brain.array, new.followup.brain.array) > 0.9
