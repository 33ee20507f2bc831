from dataclasses import dataclass, replace

import numpy as np
import pytest

from lesionwise.change.candidates import BrighterAtFollowup
from lesionwise.change.features import CandidateFeatures, FeatureTable, VoxelNeighborhood
from lesionwise.methods.candidates import (
    MODEL,
    TRAINING,
    CandidateMethod,
    LightGbm,
    Rule,
    Rules,
    TrainingRows,
)
from lesionwise.types import Grid, InputError, RunContext, Study, TrainingData, Visit, Volume

SHAPE = (14, 14, 14)
GRID = Grid(SHAPE, np.diag([1.0, 1.0, 2.0, 1.0]))
LESION = (slice(4, 8), slice(5, 9), slice(4, 8))
LEARNER = LightGbm(max_trees=15, patience=5, min_rows_per_leaf=5)


def pair(subject, seed, *, lesion=LESION):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(0, 0.2, (2, *SHAPE)).astype(np.float32)
    new = np.zeros(SHAPE, dtype=np.uint8)
    if lesion is not None:
        new[lesion] = 1
        after[lesion] += 2
    visits = tuple(Visit({"flair": Volume(a, GRID)}) for a in (before, after))
    return Study(subject, visits, {"new": Volume(new, GRID)})


def method(decide, describe=None, cleanup=None):
    return CandidateMethod(
        propose=BrighterAtFollowup(above=1.0, min_vox=2),
        describe=describe or CandidateFeatures(("voxels", "contrast")),
        decide=decide,
        cleanup=cleanup,
    )


def table(**columns):
    values = np.array(list(columns.values()), dtype=np.float32).T
    count = len(values)
    return FeatureTable(tuple(columns), values, np.arange(count), np.arange(count))


def test_a_rule_includes_its_limits():
    kept = Rule("x", min_value=0.9, max_value=1.2)(table(x=[0.89, 0.9, 1.0, 1.2, 1.21]))
    assert kept.tolist() == [False, True, True, True, False]


def test_an_undefined_feature_meets_no_rule():
    assert not Rule("x")(table(x=[np.nan])).any()


def test_every_rule_has_to_be_met(tmp_path):
    decide = Rules((Rule("x", min_value=1), Rule("y", max_value=2))).load(RunContext(tmp_path))
    assert decide(table(x=[1, 1, 0], y=[2, 3, 2])).tolist() == [1, 0, 0]


def test_without_rules_everything_stays(tmp_path):
    assert Rules().load(RunContext(tmp_path))(table(x=[1, 2])).tolist() == [1, 1]


def test_candidates_that_pass_have_probability_1(tmp_path):
    predictor = method(Rules((Rule("voxels", min_value=30),))).load(RunContext(tmp_path))
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
    learner = LightGbm(max_trees=200, patience=2, min_rows_per_leaf=5)
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
    with pytest.raises(InputError, match="have no lesion"):
        method(LEARNER, VoxelNeighborhood()).fit(data, RunContext(tmp_path))


def test_no_study_is_nothing_to_learn(tmp_path):
    with pytest.raises(InputError, match="no study to learn from"):
        method(LEARNER).fit(TrainingData([]), RunContext(tmp_path))


def test_a_missing_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"model\.txt: no such file"):
        LEARNER.load(RunContext(tmp_path))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trees")
    method(LEARNER, VoxelNeighborhood()).fit(TrainingData([pair("a", 0)]), RunContext(folder))
    return folder


def damaged_copy(trained, folder, content):
    for name in (MODEL, TRAINING):
        (folder / name).write_bytes((trained / name).read_bytes())
    (folder / MODEL).write_bytes(content((trained / MODEL).read_bytes()))
    return RunContext(folder)


@pytest.mark.parametrize(
    "content",
    [
        lambda model: model[: len(model) // 2],
        lambda model: model.replace(b"leaf_value=", b"leaf_value=nan ", 1),
        # LightGBM ends the process on this one
        lambda model: model.replace(b"num_leaves=", b"num_leaves=2000000000", 1),
        lambda model: b"",
        lambda model: model + b"\xff",
    ],
)
def test_a_damaged_model_is_one_line_before_lightgbm_reads_it(trained, tmp_path, content):
    run = damaged_copy(trained, tmp_path, content)
    with pytest.raises(InputError, match=r"model\.txt: damaged or changed since it was trained"):
        LEARNER.load(run)


@pytest.mark.parametrize("summary", [None, "", "[]", "{}", '{"sha256": 3}', '{"sha256": "00"}'])
def test_a_model_without_its_hash_is_one_line(trained, tmp_path, summary):
    run = damaged_copy(trained, tmp_path, lambda model: model)
    if summary is None:
        (tmp_path / TRAINING).unlink()
    else:
        (tmp_path / TRAINING).write_text(summary)
    with pytest.raises(InputError, match=r"training\.json: no|damaged or changed"):
        LEARNER.load(run)


def test_other_features_are_refused(trained):
    with pytest.raises(InputError, match="learned from other features"):
        LEARNER.load(RunContext(trained))(table(x=[1.0]))


def sampled(candidates):
    candidate = np.zeros(1000)
    candidate[:candidates] = 1
    truth = np.zeros(1000)
    truth[10:30] = 1
    described = TrainingRows("a", table(candidate=candidate, other=np.arange(1000)), truth)
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
    def __call__(self, maps):
        return replace(maps, probability=maps.probability / 2)


def test_the_map_is_tidied_after_the_decision(tmp_path):
    maps = method(Rules(), cleanup=Halves()).load(RunContext(tmp_path))(pair("a", 0))
    assert maps.probability.max() == 0.5
