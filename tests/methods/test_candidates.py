from dataclasses import dataclass, replace

import numpy as np
import pytest

from lesionwise.change.candidates import BrighterAtFollowup
from lesionwise.change.features import CandidateFeatures, FeatureTable, VoxelNeighborhood
from lesionwise.methods.candidates import (
    MODEL,
    CandidateMethod,
    Described,
    DropThinPatches,
    LightGbm,
    Rule,
    Rules,
)
from lesionwise.types import Grid, InputError, RunContext, Study, TrainingData, Visit, Volume

SHAPE = (14, 14, 14)
GRID = Grid(SHAPE, np.diag([1.0, 1.0, 2.0, 1.0]))
LESION = (slice(4, 8), slice(5, 9), slice(4, 8))
LEARNER = LightGbm(most_trees=15, patience=5, least_rows=5)


def pair(subject, seed, *, lesion=LESION):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(0, 0.2, (2, *SHAPE)).astype(np.float32)
    new = np.zeros(SHAPE, dtype=np.uint8)
    if lesion is not None:
        new[lesion] = 1
        after[lesion] += 2
    visits = tuple(Visit({"flair": Volume(a, GRID)}) for a in (before, after))
    return Study(subject, visits, {"new": Volume(new, GRID)})


def method(decide, describe=None, tidy=None):
    return CandidateMethod(
        propose=BrighterAtFollowup(above=1.0, min_vox=2),
        describe=describe or CandidateFeatures(("voxels", "contrast")),
        decide=decide,
        tidy=tidy,
    )


def table(**columns):
    values = np.array(list(columns.values()), dtype=np.float32).T
    count = len(values)
    return FeatureTable(tuple(columns), values, np.arange(count), np.arange(count))


def test_a_rule_includes_its_limits():
    kept = Rule("x", least=0.9, most=1.2)(table(x=[0.89, 0.9, 1.0, 1.2, 1.21]))
    assert kept.tolist() == [False, True, True, True, False]


def test_an_undefined_feature_meets_no_rule():
    assert not Rule("x")(table(x=[np.nan])).any()


def test_every_rule_has_to_be_met(tmp_path):
    decide = Rules((Rule("x", least=1), Rule("y", most=2))).load(RunContext(tmp_path))
    assert decide(table(x=[1, 1, 0], y=[2, 3, 2])).tolist() == [1, 0, 0]


def test_without_rules_everything_stays(tmp_path):
    assert Rules().load(RunContext(tmp_path))(table(x=[1, 2])).tolist() == [1, 1]


def test_candidates_that_pass_have_probability_1(tmp_path):
    predictor = method(Rules((Rule("voxels", least=30),))).load(RunContext(tmp_path))
    maps = predictor(pair("a", 0))
    assert maps.probability.dtype == np.float32
    assert maps.grid.matches(GRID)
    np.testing.assert_array_equal(maps.probability[LESION], 1)
    assert maps.probability.sum() == 64


def test_a_study_without_candidates_is_all_background(tmp_path):
    predictor = method(Rules()).load(RunContext(tmp_path))
    assert not predictor(pair("a", 0, lesion=None)).probability.any()


def test_trees_find_the_voxels_of_a_lesion_they_have_not_seen(tmp_path):
    learned = method(LEARNER, VoxelNeighborhood())
    data = TrainingData([pair("a", 0), pair("b", 1), pair("c", 2)])
    learned.fit(data, RunContext(tmp_path))
    moved = (slice(8, 12), slice(2, 6), slice(6, 10))
    found = learned.load(RunContext(tmp_path))(pair("z", 9, lesion=moved)).probability > 0.2
    reference = pair("z", 9, lesion=moved).changes["new"].array > 0
    dice = 2 * (found & reference).sum() / (found.sum() + reference.sum())
    assert dice > 0.9


def test_training_twice_gives_the_same_trees(tmp_path):
    learned = method(LEARNER, VoxelNeighborhood())
    data = TrainingData([pair("a", 0), pair("b", 1)])
    for name in ("one", "two"):
        learned.fit(data, RunContext(tmp_path / name, seed=5))
    assert (tmp_path / "one" / MODEL).read_text() == (tmp_path / "two" / MODEL).read_text()


def test_patience_limits_the_trees(tmp_path):
    learner = LightGbm(most_trees=200, patience=2, least_rows=5)
    method(learner, VoxelNeighborhood()).fit(
        TrainingData([pair("a", 0), pair("b", 1)]), RunContext(tmp_path)
    )
    text = (tmp_path / MODEL).read_text()
    assert 0 < text.count("Tree=") < 200


@pytest.mark.parametrize("subjects", ["a", "ab", "abc"])
def test_few_subjects_are_enough_to_count_trees(tmp_path, subjects):
    data = TrainingData([pair(name, seed) for seed, name in enumerate(subjects)])
    learner = replace(LEARNER, folds=3)
    method(learner, VoxelNeighborhood()).fit(data, RunContext(tmp_path))
    assert 0 < (tmp_path / MODEL).read_text().count("Tree=") <= 15


def test_nothing_to_find_is_nothing_to_learn(tmp_path):
    data = TrainingData([pair("a", 0, lesion=None), pair("b", 1, lesion=None)])
    with pytest.raises(InputError, match="no lesion lies in the training studies"):
        method(LEARNER, VoxelNeighborhood()).fit(data, RunContext(tmp_path))


def test_no_study_is_nothing_to_learn(tmp_path):
    with pytest.raises(InputError, match="no study to learn from"):
        method(LEARNER).fit(TrainingData([]), RunContext(tmp_path))


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such model file"):
        LEARNER.load(RunContext(tmp_path))


def test_a_malformed_model_is_one_line(tmp_path):
    (tmp_path / MODEL).write_text("not trees")
    with pytest.raises(InputError, match=r"model\.txt: not a LightGBM model"):
        LEARNER.load(RunContext(tmp_path))


def test_other_features_are_refused(tmp_path):
    method(LEARNER, VoxelNeighborhood()).fit(TrainingData([pair("a", 0)]), RunContext(tmp_path))
    with pytest.raises(InputError, match="learned from other features"):
        LEARNER.load(RunContext(tmp_path))(table(x=[1.0]))


def sampled(candidates):
    candidate = np.zeros(1000)
    candidate[:candidates] = 1
    truth = np.zeros(1000)
    truth[10:30] = 1
    described = Described("a", table(candidate=candidate, other=np.arange(1000)), truth)
    learner = replace(LEARNER, rows_per_study=100)
    return learner._sampled(described, np.random.default_rng(0))


def test_sampling_keeps_what_matters_and_weighs_the_rest():
    rows, positive, weight = sampled(20)
    assert len(rows) == 100
    assert set(range(30)) <= set(rows[:, 1].astype(int))
    assert positive.sum() == 20
    # 20 positive and 10 more candidates; 70 of the 970 others stand for all of them
    assert sorted(set(weight)) == [1, pytest.approx(970 / 70)]
    np.testing.assert_allclose(weight.sum(), 1000)


def test_many_candidates_leave_room_for_the_others():
    rows, positive, weight = sampled(900)
    on = rows[:, 0] > 0
    assert positive.sum() == 20
    assert (on & ~positive).sum() == 30
    assert (~on).sum() == 50
    np.testing.assert_allclose(weight[on & ~positive], 880 / 30)
    np.testing.assert_allclose(weight[~on], 2)


@dataclass(frozen=True)
class Halves:
    def __call__(self, probability):
        return probability / 2


def test_the_map_is_tidied_after_the_decision(tmp_path):
    maps = method(Rules(), tidy=Halves()).load(RunContext(tmp_path))(pair("a", 0))
    assert maps.probability.max() == 0.5


def block(*shape):
    array = np.zeros((12, 12, 40), dtype=np.float32)
    array[tuple(slice(2, 2 + n) for n in shape)] = 0.6
    return array


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((3, 3, 3), True),  # 27 voxels, axis 2√5 · √(8/12) = 3.65
        ((2, 3, 5), True),  # 30 voxels, axis 2√5 · √(3/12) = 2.24
        ((2, 3, 4), False),  # 24 voxels
        ((1, 3, 20), False),  # 60 voxels, but flat
    ],
)
def test_thin_and_small_patches_are_dropped(shape, kept):
    probability = block(*shape)
    np.testing.assert_array_equal(DropThinPatches()(probability), probability * kept)


def test_an_empty_map_stays_empty():
    assert not DropThinPatches()(np.zeros((3, 3, 3), np.float32)).any()


def test_below_a_patch_is_nothing():
    probability = block(3, 3, 3)
    probability[10, 10, 30] = 0.05
    assert DropThinPatches()(probability)[10, 10, 30] == 0
