from dataclasses import dataclass, replace

import numpy as np
import pytest
from witness import GRID, Witness, flair, shown, study

from lesionwise.methods.composite import (
    Ensemble,
    NewByVisitMaps,
    SegmentThenCompare,
    new_components,
)
from lesionwise.methods.members import labeled_visits, mean_maps
from lesionwise.types import (
    Grid,
    InputError,
    LesionMaps,
    Predictor,
    RunContext,
    Study,
    TrainingData,
    Visit,
    Volume,
)


def test_a_mean_ensemble_averages_probabilities(tmp_path):
    both = Ensemble((Witness(flair), Witness(lambda s: flair(s) + 0.5)))
    maps = both.load(RunContext(tmp_path))(study("a", 0.25))
    # member 0: 0.25, member 1: 0.25 + 0.5 + 1
    np.testing.assert_allclose(maps.probability, 1.0)
    assert maps.probability.dtype == np.float32


def test_a_vote_is_the_share_of_members_above_the_threshold(tmp_path):
    three = Ensemble((Witness(lambda s: flair(s) - 1),) * 3, combine="vote")
    maps = three.load(RunContext(tmp_path))(study("a", 1.0))
    np.testing.assert_allclose(maps.probability, 2 / 3)  # 0, 1 and 2


def test_an_ensemble_without_members_is_refused():
    with pytest.raises(ValueError, match="needs a member"):
        Ensemble(())


def test_members_have_seeds_and_equal_time_of_their_own(tmp_path):
    data = TrainingData([study("a", 1.0), study("b", 1.0)], [study("v", 1.0)])
    Ensemble((Witness(flair),) * 2).fit(data, RunContext(tmp_path, seed=3, max_minutes=10.0))
    first, second = shown(tmp_path / "member-0"), shown(tmp_path / "member-1")
    assert first["seed"] != second["seed"]
    assert first["minutes"] == second["minutes"] == 5.0
    assert first["training"] == ["a", "b"]
    assert first["validation"] == ["v"]


def test_each_fold_of_an_ensemble_validates_once_and_the_runs_validation_is_not_seen(tmp_path):
    data = TrainingData([study(name, 1.0) for name in "abcdef"], [study("v", 1.0)])
    Ensemble((Witness(flair),) * 3, folds=3).fit(data, RunContext(tmp_path))
    validated = []
    for number in range(3):
        seen = shown(tmp_path / f"member-{number}")
        assert sorted(seen["training"] + seen["validation"]) == list("abcdef")
        validated += seen["validation"]
    assert sorted(validated) == list("abcdef")


def test_more_folds_than_subjects_are_as_many_as_subjects(tmp_path):
    data = TrainingData([study("a", 1.0), study("b", 1.0)])
    Ensemble((Witness(flair),) * 3, folds=5).fit(data, RunContext(tmp_path))
    assert [shown(tmp_path / f"member-{n}")["training"] for n in range(3)] in (
        [["a"], ["b"], ["a"]],
        [["b"], ["a"], ["b"]],
    )


def test_a_resumed_ensemble_learns_only_what_is_missing(tmp_path):
    data = TrainingData([study("a", 1.0)])
    two = Ensemble((Witness(flair),) * 2)
    two.fit(data, RunContext(tmp_path))
    (tmp_path / "member-1" / "fitted").unlink()
    two.fit(data, RunContext(tmp_path, resume=True))
    assert len(list((tmp_path / "member-0").glob("shown*"))) == 1
    assert len(list((tmp_path / "member-1").glob("shown*"))) == 2


def test_a_mean_without_maps_is_refused():
    with pytest.raises(ValueError, match="no maps"):
        mean_maps([])


def test_a_mean_has_offsets_only_where_all_give_them():
    plain = LesionMaps(np.zeros(GRID.shape, np.float32), GRID)
    rich = replace(plain, offsets_vox=np.ones((3, *GRID.shape), np.float32))
    assert mean_maps([rich, plain]).offsets_vox is None
    assert mean_maps([plain, rich]).offsets_vox is None
    assert mean_maps([rich, rich]).offsets_vox is not None


def line(text: str) -> np.ndarray:
    return np.array([c == "#" for c in text])[:, None, None]


@pytest.mark.parametrize(
    ("before", "after", "max_overlap", "min_vox", "expected"),
    [
        ("......", "##..##", 0.0, 2, "##..##"),  # nothing was there
        (".#....", "##..##", 0.0, 2, "....##"),  # one shared voxel makes it old
        (".#....", "##..##", 0.5, 2, "##..##"),  # half of it may be shared
        ("..##..", "##..##", 0.0, 2, "##..##"),  # side by side is not overlap
        ("......", "##...#", 0.0, 2, "##...."),  # too small
        ("######", "......", 0.0, 1, "......"),
        ("......", "......", 0.0, 0, "......"),
    ],
)
def test_components_that_overlap_nothing_old_are_new(before, after, max_overlap, min_vox, expected):
    new = new_components(line(before), line(after), max_overlap=max_overlap, min_vox=min_vox)
    np.testing.assert_array_equal(new, line(expected))


def two_visits(before: np.ndarray, after: np.ndarray, spacing: float) -> Study:
    grid = Grid(before.shape, np.diag([spacing, 1.0, 1.0, 1.0]))
    visits = [
        Visit({"flair": Volume(array.astype(np.float32) * 0.75, grid)}, session=f"M{n}")
        for n, array in enumerate((before, after))
    ]
    return Study("a", tuple(visits))


@dataclass(frozen=True)
class Copies:
    """The probability is the scan."""

    def fit(self, data: TrainingData, run: RunContext) -> None: ...

    def load(self, run: RunContext) -> Predictor:
        def predict(study: Study) -> LesionMaps:
            assert len(study.visits) == 1
            scan = study.followup.scans["flair"]
            return LesionMaps(scan.array, scan.grid)

        return predict


@pytest.mark.parametrize(("spacing", "kept"), [(5.0, True), (4.9, False)])
def test_new_lesions_below_10_mm3_are_dropped(tmp_path, spacing, kept):
    predictor = SegmentThenCompare(Copies()).load(RunContext(tmp_path))
    maps = predictor(two_visits(line("###..."), line("##..##"), spacing))
    np.testing.assert_allclose(maps.probability, line("....##" if kept else "......") * 0.75)


@pytest.mark.parametrize(("spacing", "new"), [(4.0, True), (10.0, False)])
def test_a_speck_at_the_first_visit_makes_no_lesion_old_if_it_is_below_10_mm3(
    tmp_path, spacing, new
):
    predictor = SegmentThenCompare(Copies()).load(RunContext(tmp_path))
    maps = predictor(two_visits(line("#....."), line("###..."), spacing))
    np.testing.assert_allclose(maps.probability, line("###..." if new else "......") * 0.75)


def test_a_new_lesion_keeps_the_probability_around_it(tmp_path):
    after = np.array([0.0, 0.4, 0.9, 0.4, 0.0, 0.45, 0.9, 0.45])[:, None, None]
    before = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.9, 0.0])[:, None, None]
    grid = Grid(after.shape, np.diag([10.0, 1.0, 1.0, 1.0]))
    visits = tuple(Visit({"flair": Volume(a.astype(np.float32), grid)}) for a in (before, after))
    maps = SegmentThenCompare(Copies()).load(RunContext(tmp_path))(Study("a", visits))
    expected = [0.0, 0.4, 0.9, 0.4, 0.0, 0.45, 0.0, 0.45]  # the old lesion alone is taken out
    np.testing.assert_allclose(maps.probability[:, 0, 0], np.float32(expected))


def test_visits_on_two_grids_cannot_be_compared(tmp_path):
    pair = two_visits(line("#....."), line("##..##"), 5.0)
    other = two_visits(line("#....."), line("##..##"), 4.0)
    mixed = replace(pair, visits=(pair.visits[0], other.visits[1]))
    with pytest.raises(InputError, match="sub-a: its visits are on different grids"):
        SegmentThenCompare(Copies()).load(RunContext(tmp_path))(mixed)


def test_a_single_visit_method_learns_from_every_labeled_visit(tmp_path):
    unlabeled = study("b", 1.0, 1.0, labeled=False)
    data = TrainingData([study("a", 1.0, 2.0), unlabeled])
    assert len(labeled_visits(data.training)) == 2
    SegmentThenCompare(Witness(flair)).fit(data, RunContext(tmp_path))
    assert shown(tmp_path)["visits"] == [["M0"], ["M1"]]


def test_without_any_lesion_mask_there_is_nothing_to_learn(tmp_path):
    data = TrainingData([study("b", 1.0, 1.0, labeled=False)])
    with pytest.raises(InputError, match="no visit has a lesion mask"):
        SegmentThenCompare(Witness(flair)).fit(data, RunContext(tmp_path))


class Fails(Witness):
    """A method that cannot learn, and has nothing to load."""

    def fit(self, data, run):
        raise InputError("there is nothing to learn")

    def load(self, run):
        raise InputError(f"{run.folder / 'model.safetensors'}: no such weights file")


def test_a_member_that_failed_is_named(tmp_path):
    ensemble = Ensemble((Witness(flair), Fails(flair)))
    with pytest.raises(InputError, match=r"^member 2 of 2: there is nothing to learn$"):
        ensemble.fit(TrainingData([study("a", 1.0)]), RunContext(tmp_path))
    with pytest.raises(InputError, match=r"^member 2 of 2: .*member-1/model.safetensors: no such"):
        ensemble.load(RunContext(tmp_path))


def with_maps(first, last):
    """A pair with a map of all lesions in each visit, from lists of voxels along i."""
    pair = study("a", 1.0)
    flat = np.zeros(GRID.shape, dtype=np.float32)

    def visit(voxels):
        array = flat.copy()
        array[voxels, 0, 0] = 0.9
        return Visit({"flair": Volume(flat, GRID), "all": Volume(array, GRID)})

    return replace(pair, visits=(visit(first), visit(last)))


def finding(voxels):
    """A method that finds voxels along i with a probability of 0.7, and 0.3 elsewhere."""

    def probability(_):
        array = np.full(GRID.shape, 0.3, dtype=np.float32)
        array[voxels, 0, 0] = 0.7
        return array

    return Witness(probability)


def test_new_components_are_confirmed_by_maps_of_both_visits(tmp_path):
    found = finding([0, 1, 3])
    for first, last, kept in (
        ([], [0], [0, 1]),  # one voxel of the follow-up's lesions is enough
        ([0], [0, 1], []),  # half of it was there, and nothing may be
        ([], [], []),
        ([0], [0, 1, 3], [3]),
    ):
        method = NewByVisitMaps(found, scan="all")
        maps = method.load(RunContext(tmp_path))(with_maps(first, last))
        dropped = sorted({0, 1, 3} - set(kept))
        expected = np.full(GRID.shape[0], 0.3, dtype=np.float32)
        expected[kept], expected[dropped] = 0.7, 0.0
        np.testing.assert_array_equal(maps.probability[:, 0, 0], expected)


def test_a_share_of_a_new_component_may_have_been_there(tmp_path):
    method = NewByVisitMaps(finding([0, 1]), scan="all", max_overlap=0.5)
    predict = method.load(RunContext(tmp_path))
    assert predict(with_maps([0], [0, 1])).probability[0, 0, 0] == np.float32(0.7)
    assert predict(with_maps([0, 1], [0, 1])).probability.max() == np.float32(0.3)


def test_a_visit_without_its_map_is_refused(tmp_path):
    method = NewByVisitMaps(finding([0]), scan="other")
    with pytest.raises(InputError, match="no other scan"):
        method.load(RunContext(tmp_path))(with_maps([], [0]))
