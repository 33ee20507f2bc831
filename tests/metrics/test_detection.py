import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionwise.instances.matching import Matching, match
from lesionwise.instances.table import Overlaps, overlap_table
from lesionwise.metrics.detection import (
    any_overlap_f1,
    confluent_scores,
    count_lesions,
    detection_scores,
    f1,
)
from lesionwise.metrics.score import Undefined

label_maps = arrays(np.int32, (3, 4, 4), elements=st.integers(0, 4))


def row(*labels: int) -> np.ndarray:
    return np.array(labels, dtype=np.int32).reshape(-1, 1, 1)


def scores(reference: np.ndarray, prediction: np.ndarray, **how: object) -> dict:
    table = overlap_table(reference, prediction)
    return detection_scores(table, match(table, **how))


# Lesion 1 found exactly, 2 found half, 3 missed; prediction 4 false.
REFERENCE = row(1, 1, 0, 2, 2, 0, 3, 0, 0)
PREDICTION = row(1, 1, 0, 2, 0, 0, 0, 0, 4)


def test_detection_by_hand():
    found = scores(REFERENCE, PREDICTION)
    assert (found["lesion_tp"], found["lesion_fp"], found["lesion_fn"]) == (2, 1, 1)
    assert found["lesion_precision"] == found["lesion_recall"] == 2 / 3
    assert found["lesion_f1"] == 2 / 3
    assert found["lesion_fpr"] == 1 / 3
    assert found["dic"] == 0
    assert found["dsc_tp"] == pytest.approx((1 + 2 / 3) / 2)


def test_any_overlap_counts_one_voxel_and_many_to_many():
    # One long prediction meets two of three lesions, another one meets none.
    table = overlap_table(row(1, 1, 2, 2, 0, 3, 0), row(0, 5, 5, 0, 0, 0, 6))
    a, b = 2 / 3, 1 / 2
    assert any_overlap_f1(table) == pytest.approx(2 * a * b / (a + b))


def test_empty_sides_are_undefined_with_a_reason():
    nothing, something = row(0, 0), row(1, 0)
    both = scores(nothing, nothing)
    for key in ("lesion_precision", "lesion_recall", "lesion_f1", "lesion_f1_any_overlap"):
        assert isinstance(both[key], Undefined), key
    assert both["dic"] == 0
    no_reference = scores(nothing, something)
    assert no_reference["lesion_recall"] == Undefined("the reference has no lesion")
    assert no_reference["lesion_precision"] == no_reference["lesion_f1"] == 0.0
    assert no_reference["lesion_fpr"] == 1.0
    no_prediction = scores(something, nothing)
    assert no_prediction["lesion_precision"] == Undefined("the prediction has no lesion")
    assert no_prediction["lesion_fpr"] == Undefined("the prediction has no lesion")
    assert no_prediction["lesion_recall"] == no_prediction["lesion_f1"] == 0.0
    assert no_prediction["dsc_tp"] == Undefined("no lesion is matched")


def confluent(reference: np.ndarray, prediction: np.ndarray, units: tuple[int, ...]) -> dict:
    table = overlap_table(reference, prediction)
    of_units = table.keep(reference=np.isin(table.reference_ids, units))
    displaced = len(match(table).displaced)
    return confluent_scores(of_units, match(of_units), displaced)


def test_confluent_units_by_hand():
    # 1 and 2 touch and are found as one, which matches 1 (IoU 3/5 against 2/5); 3 is apart
    # and hit by two predictions, the smaller of which is displaced; 6 is false.
    reference = row(1, 1, 1, 2, 2, 0, 3, 3, 3, 0, 0)
    prediction = row(4, 4, 4, 4, 4, 0, 5, 5, 7, 0, 6)
    found = confluent(reference, prediction, units=(1, 2))
    assert found["clu_count"] == 2
    assert found["clu_recall"] == 1 / 2
    assert found["clu_precision"] == 1 / 2
    assert found["clu_f1"] == 1 / 2
    assert found["dsc_tp_clu"] == 6 / 8
    assert found["pq_clu"] == (3 / 5) / (1 + 1 / 2 + 1 / 2)


def test_without_confluent_units_there_is_nothing_to_say():
    found = confluent(row(1, 0, 2), row(1, 0, 2), units=())
    assert found.pop("clu_count") == 0
    assert set(found.values()) == {Undefined("the reference has no confluent unit")}


def test_confluent_units_all_missed():
    found = confluent(row(1, 2, 0), row(0, 0, 1), units=(1, 2))
    assert found["clu_recall"] == found["clu_f1"] == found["pq_clu"] == 0.0
    assert isinstance(found["clu_precision"], Undefined)
    assert isinstance(found["dsc_tp_clu"], Undefined)


@settings(deadline=None)
@given(label_maps, label_maps)
def test_counts_add_up(reference, prediction):
    table = overlap_table(reference, prediction)
    counts = count_lesions(table, match(table))
    assert counts.tp + counts.fn == len(table.reference_ids)
    assert counts.tp + counts.fp == len(table.prediction_ids)


@settings(deadline=None)
@given(label_maps, label_maps)
def test_any_overlap_f1_is_symmetric_and_no_smaller_than_matched(reference, prediction):
    table = overlap_table(reference, prediction)
    value = any_overlap_f1(table)
    mirrored = any_overlap_f1(overlap_table(prediction, reference))
    assert value == mirrored or value == pytest.approx(mirrored)
    if isinstance(value, float):
        assert value >= f1(count_lesions(table, match(table))) - 1e-12


def by_label(table: Overlaps, matching: Matching) -> list[tuple[int, int]]:
    return [
        (int(table.prediction_ids[p]), int(table.reference_ids[r]))
        for r, p in zip(matching.reference_rows, matching.prediction_rows, strict=True)
    ]


def test_pairs_of_the_conflunet_authors_at_every_threshold(peer_case):
    table = overlap_table(peer_case.reference.labels, peer_case.prediction.labels)
    for threshold, theirs in peer_case.peer("conflunet")["match_instances_by_threshold"].items():
        found = match(table, "greedy", float(threshold))
        pairs = [tuple(pair[:2]) for pair in theirs["matched_pairs"]]
        assert sorted(by_label(table, found)) == sorted(pairs)
        scores = dict(
            zip(
                zip(table.prediction_rows.tolist(), table.reference_rows.tolist(), strict=True),
                table.iou,
                strict=True,
            )
        )
        for r, p, (_, _, iou) in zip(
            found.reference_rows,
            found.prediction_rows,
            sorted(theirs["matched_pairs"]),
            strict=True,
        ):
            assert scores[int(p), int(r)] == pytest.approx(iou, abs=1e-9)
        displaced = [
            (int(table.prediction_ids[p]), int(table.reference_ids[r])) for p, r in found.displaced
        ]
        assert sorted(displaced) == sorted(tuple(x[:2]) for x in theirs["removed_matched_pred"])
        counts = count_lesions(table, found)
        assert counts.fp == len(theirs["unmatched_pred"])
        assert counts.fn == len(theirs["unmatched_ref"])
