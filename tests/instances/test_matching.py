import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionwise.instances.matching import match, relate
from lesionwise.instances.table import Overlaps, overlap_table

ONE_TO_ONE = ("greedy", "greedy_pairs", "optimal")
label_maps = arrays(np.int32, (3, 4, 5), elements=st.integers(0, 4))


def row(*labels: int) -> np.ndarray:
    """A volume of one row of voxels along i."""
    return np.array(labels, dtype=np.int32).reshape(-1, 1, 1)


def pairs(reference: np.ndarray, prediction: np.ndarray, **how: object) -> set[tuple[int, int]]:
    """Matched (reference label, prediction label)."""
    table = overlap_table(reference, prediction)
    found = match(table, **how)
    return {
        (int(table.reference_ids[r]), int(table.prediction_ids[p]))
        for r, p in zip(found.reference_rows, found.prediction_rows, strict=True)
    }


def test_the_table_counts_sizes_and_common_voxels():
    table = overlap_table(row(7, 7, 7, 0, 2, 0), row(0, 5, 5, 5, 9, 9))
    assert table.reference_ids.tolist() == [2, 7]
    assert table.reference_voxels.tolist() == [1, 3]
    assert table.prediction_ids.tolist() == [5, 9]
    assert table.prediction_voxels.tolist() == [3, 2]
    assert table.reference_rows.tolist() == [1, 0]
    assert table.prediction_rows.tolist() == [0, 1]
    assert table.common.tolist() == [2, 1]
    assert table.iou.tolist() == [2 / 4, 1 / 2]
    assert table.dice.tolist() == [4 / 6, 2 / 3]


def test_labels_far_above_the_voxel_count_are_counted_the_same():
    small = overlap_table(row(1, 1, 2, 0), row(3, 1, 1, 1))
    large = overlap_table(row(1, 1, 2_000_000_000, 0), row(2_000_000_000, 1, 1, 1))
    assert large.reference_ids.tolist() == [1, 2_000_000_000]
    assert large.common.tolist() == small.common.tolist()
    assert large.prediction_voxels.tolist() == small.prediction_voxels.tolist()


def test_memory_order_does_not_matter():
    rng = np.random.default_rng(0)
    reference, prediction = rng.integers(0, 4, (2, 4, 5, 6), dtype=np.int32)
    straight = overlap_table(reference, prediction)
    for one in (reference, np.asfortranarray(reference)):
        for other in (prediction, np.asfortranarray(prediction)):
            assert overlap_table(one, other).common.tolist() == straight.common.tolist()


def test_negative_labels_are_refused():
    with pytest.raises(ValueError, match="negative"):
        overlap_table(row(0, -1), row(0, 1))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ"):
        overlap_table(row(0, 1), row(0, 1, 1))


@pytest.mark.parametrize("rule", ONE_TO_ONE)
def test_empty_sides_match_nothing(rule):
    for reference, prediction in ((0, 0), (1, 0), (0, 1)):
        assert pairs(row(reference), row(prediction), rule=rule) == set()


def test_a_threshold_is_passed_or_reached():
    reference, prediction = row(1, 1, 0), row(0, 1, 1)  # IoU 1/3
    assert pairs(reference, prediction, threshold=1 / 3) == set()
    assert pairs(reference, prediction, threshold=1 / 3, comparison=">=") == {(1, 1)}
    assert pairs(reference, prediction, threshold=0.4, score="dice") == {(1, 1)}


# Reference 1 is wanted by both predictions; prediction 1 also lies on reference 2.
CONTESTED = (row(1, 1, 1, 1, 2, 2, 0), row(2, 2, 1, 1, 1, 0, 0))


def test_greedy_leaves_a_displaced_prediction_without_its_second_best():
    # IoU(ref 1, pred 1) = 2/5, (ref 1, pred 2) = 2/4, (ref 2, pred 1) = 1/4.
    assert pairs(*CONTESTED, rule="greedy") == {(1, 2)}
    table = overlap_table(*CONTESTED)
    assert match(table, "greedy").displaced.tolist() == [[0, 0]]


def test_greedy_pairs_offers_the_second_best():
    assert pairs(*CONTESTED, rule="greedy_pairs") == {(1, 2), (2, 1)}


def test_optimal_finds_a_larger_sum_than_the_best_pair_first():
    # IoU: (1, 1) = 4/8, (1, 2) = 3/7, (2, 1) = 2/6, (2, 2) = 0.
    # Best pair first takes 4/8 and ends; crossing over gives 3/7 + 2/6.
    reference = row(1, 1, 1, 1, 1, 1, 1, 2, 2, 0)
    prediction = row(2, 2, 2, 1, 1, 1, 1, 1, 0, 0)
    assert pairs(reference, prediction, rule="greedy_pairs") == {(1, 1)}
    assert pairs(reference, prediction, rule="optimal") == {(1, 2), (2, 1)}


@pytest.mark.parametrize("rule", ["greedy", "greedy_pairs"])
def test_ties_go_to_the_lowest_labels(rule):
    # Prediction 1 shares one voxel with each of two references of equal size.
    assert pairs(row(2, 1), row(4, 4), rule=rule) == {(1, 4)}
    # Two predictions of equal size on one reference.
    assert pairs(row(3, 3), row(8, 6), rule=rule) == {(3, 6)}


def test_lesions_left_out_become_background():
    table = overlap_table(*CONTESTED).keep(reference=np.array([False, True]))
    assert table.reference_ids.tolist() == [2]
    assert table.prediction_ids.tolist() == [1, 2]
    assert (table.reference_rows.tolist(), table.prediction_rows.tolist()) == ([0], [0])


def kinds(reference: np.ndarray, prediction: np.ndarray, share: float = 0.25) -> list[tuple]:
    return [
        (found.kind, found.references, found.predictions)
        for found in relate(overlap_table(reference, prediction), share)
    ]


def test_split_and_merged_lesions_are_named():
    reference = row(1, 1, 1, 1, 0, 2, 2, 3, 3, 0, 4, 0, 5, 0, 0)
    prediction = row(1, 1, 2, 2, 0, 3, 3, 3, 3, 0, 4, 0, 0, 0, 5)
    assert kinds(reference, prediction) == [
        ("split", (1,), (1, 2)),
        ("merged", (2, 3), (3,)),
        ("one_to_one", (4,), (4,)),
        ("missed", (5,), ()),
        ("false", (), (5,)),
    ]


def test_chains_are_mixed():
    assert kinds(row(1, 1, 2, 2), row(3, 4, 4, 5)) == [("mixed", (1, 2), (3, 4, 5))]


def test_a_border_that_moved_a_little_links_nothing():
    reference = row(*[1] * 10, *[2] * 10)
    prediction = row(*[1] * 9, *[2] * 11)
    assert [kind for kind, _, _ in kinds(reference, prediction)] == ["one_to_one"] * 2
    assert [kind for kind, _, _ in kinds(reference, prediction, 0.1)] == ["mixed"]


@settings(deadline=None)
@given(label_maps, label_maps)
def test_every_lesion_is_in_exactly_one_relation(reference, prediction):
    table = overlap_table(reference, prediction)
    groups = relate(table)
    assert sorted(n for g in groups for n in g.references) == table.reference_ids.tolist()
    assert sorted(n for g in groups for n in g.predictions) == table.prediction_ids.tolist()


@settings(deadline=None)
@given(label_maps, label_maps)
def test_the_table_equals_counting_by_masks(reference, prediction):
    table = overlap_table(reference, prediction)
    for r, p, common in zip(table.reference_rows, table.prediction_rows, table.common, strict=True):
        one = reference == table.reference_ids[r]
        other = prediction == table.prediction_ids[p]
        assert common == (one & other).sum()
        assert table.reference_voxels[r] == one.sum()
    assert table.common.sum() == ((reference > 0) & (prediction > 0)).sum()


def total(table: Overlaps, rule: str, threshold: float) -> float:
    found = match(table, rule, threshold)
    chosen = set(zip(found.reference_rows.tolist(), found.prediction_rows.tolist(), strict=True))
    rows = zip(table.reference_rows.tolist(), table.prediction_rows.tolist(), strict=True)
    return float(sum(iou for pair, iou in zip(rows, table.iou, strict=True) if pair in chosen))


@settings(max_examples=60, deadline=None)
@given(label_maps, label_maps, st.sampled_from([0.0, 0.1, 0.3]))
def test_one_to_one_rules_use_each_lesion_once_and_only_hits(reference, prediction, threshold):
    table = overlap_table(reference, prediction)
    iou = {
        (int(r), int(p)): value
        for r, p, value in zip(table.reference_rows, table.prediction_rows, table.iou, strict=True)
    }
    for rule in ONE_TO_ONE:
        found = match(table, rule, threshold)
        assert len(set(found.reference_rows.tolist())) == len(found.reference_rows)
        assert len(set(found.prediction_rows.tolist())) == len(found.prediction_rows)
        for pair in zip(found.reference_rows.tolist(), found.prediction_rows.tolist(), strict=True):
            assert iou[pair] > threshold


@settings(max_examples=60, deadline=None)
@given(label_maps, label_maps)
def test_no_rule_has_a_larger_sum_than_optimal(reference, prediction):
    table = overlap_table(reference, prediction)
    best = total(table, "optimal", 0.1)
    assert best >= total(table, "greedy_pairs", 0.1) - 1e-12
    assert total(table, "greedy_pairs", 0.1) >= total(table, "greedy", 0.1) - 1e-12


@settings(max_examples=60, deadline=None)
@given(label_maps, label_maps)
def test_the_optimal_sum_is_symmetric(reference, prediction):
    one = total(overlap_table(reference, prediction), "optimal", 0.1)
    other = total(overlap_table(prediction, reference), "optimal", 0.1)
    assert one == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("rule", ONE_TO_ONE)
def test_identical_maps_match_label_to_label(rule):
    labels = np.random.default_rng(1).integers(0, 6, (4, 4, 4), dtype=np.int32)
    assert pairs(labels, labels, rule=rule) == {(n, n) for n in range(1, 6)}


@settings(max_examples=60, deadline=None)
@given(label_maps, label_maps)
def test_a_higher_threshold_never_matches_more(reference, prediction):
    table = overlap_table(reference, prediction)
    for rule in ("greedy", "greedy_pairs"):
        counts = [len(match(table, rule, t).common) for t in (0.0, 0.1, 0.25, 0.5)]
        assert counts == sorted(counts, reverse=True)
