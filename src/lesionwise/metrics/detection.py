"""Which lesions were found: counts over a matching, and over any overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionwise.instances.matching import Matching, Overlaps
from lesionwise.metrics.score import Score, Undefined, ratio

NO_REFERENCE = "the reference has no lesion"
NO_PREDICTION = "the prediction has no lesion"
BOTH_EMPTY = "neither side has a lesion"
NO_PAIR = "no lesion is matched"
NO_UNIT = "the reference has no confluent unit"


@dataclass(frozen=True)
class LesionCounts:
    """Lesions found, wrongly found and missed.

    Attributes:
        tp: matched reference lesions.
        fp: predictions that match none.
        fn: reference lesions without a match.
    """

    tp: int
    fp: int
    fn: int


def count_lesions(overlaps: Overlaps, matching: Matching) -> LesionCounts:
    """Counts of a matching; predictions joined onto one reference count once."""
    tp = len(np.unique(matching.reference_rows))
    fp = len(overlaps.prediction_ids) - len(matching.prediction_rows)
    return LesionCounts(tp, fp, len(overlaps.reference_ids) - tp)


def precision(counts: LesionCounts, epsilon: float = 0.0) -> Score:
    """TP / (TP + FP + epsilon); undefined without a prediction."""
    if counts.tp + counts.fp == 0:
        return Undefined(NO_PREDICTION)
    return counts.tp / (counts.tp + counts.fp + epsilon)


def recall(counts: LesionCounts, epsilon: float = 0.0) -> Score:
    """TP / (TP + FN + epsilon); undefined without a reference lesion."""
    if counts.tp + counts.fn == 0:
        return Undefined(NO_REFERENCE)
    return counts.tp / (counts.tp + counts.fn + epsilon)


def f1(counts: LesionCounts, epsilon: float = 0.0) -> Score:
    """2 p r / (p + r + epsilon), p and r with the same epsilon.

    0 without a pair; undefined when neither side has a lesion.
    """
    if counts.tp + counts.fp + counts.fn == 0:
        return Undefined(BOTH_EMPTY)
    if counts.tp == 0:
        return 0.0
    if epsilon == 0:
        return 2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn)
    p = counts.tp / (counts.tp + counts.fp + epsilon)
    r = counts.tp / (counts.tp + counts.fn + epsilon)
    return 2 * p * r / (p + r + epsilon)


def any_overlap_f1(overlaps: Overlaps) -> Score:
    """F1 where one common voxel is a hit, many to many.

    2 a b / (a + b), a the share of reference lesions that meet a prediction, b the share of
    predictions that meet a reference lesion. 0 where only one side has lesions, undefined
    where neither has. Source: 002, equation 4 of the paper at line 761 ff.
    """
    n, m = len(overlaps.reference_ids), len(overlaps.prediction_ids)
    if n + m == 0:
        return Undefined(BOTH_EMPTY)
    if len(overlaps.common) == 0:
        return 0.0
    found = len(np.unique(overlaps.reference_rows)) / n
    right = len(np.unique(overlaps.prediction_rows)) / m
    return 2 * found * right / (found + right)


def mean_dice(overlaps: Overlaps, matching: Matching) -> Score:
    """Mean over matched references of the Dice with the voxels of all their predictions."""
    rows, voxels, common = matching.joined(overlaps)
    if len(rows) == 0:
        return Undefined(NO_PAIR)
    return float(np.mean(2.0 * common / (overlaps.reference_voxels[rows] + voxels)))


def detection_scores(
    overlaps: Overlaps, matching: Matching, epsilon: float = 0.0
) -> dict[str, Score | int]:
    """Counts and detection metrics under the names that ``metrics.json`` uses.

    ``epsilon`` is added to denominators: 0 by default, 1e-6 in the ConfLUNet authors' code.
    """
    counts = count_lesions(overlaps, matching)
    n, m = len(overlaps.reference_ids), len(overlaps.prediction_ids)
    return {
        "lesion_tp": counts.tp,
        "lesion_fp": counts.fp,
        "lesion_fn": counts.fn,
        "lesion_precision": precision(counts, epsilon),
        "lesion_recall": recall(counts, epsilon),
        "lesion_f1": f1(counts, epsilon),
        "lesion_f1_any_overlap": any_overlap_f1(overlaps),
        "lesion_fpr": Undefined(NO_PREDICTION) if m == 0 else counts.fp / (m + epsilon),
        "dic": abs(m - n),
        "dsc_tp": mean_dice(overlaps, matching),
    }


def confluent_scores(
    units: Overlaps, matching: Matching, displaced: int, epsilon: float = 0.0
) -> dict[str, Score | int]:
    """How well the confluent units of the reference were found.

    Args:
        units: the table with the confluent units as its only references.
        matching: made on that table.
        displaced: predictions that hit a reference lesion, of any kind, and lost it to another
            one. They alone count as false positives here: a prediction away from every
            lesion says nothing about how confluent ones were separated.
        epsilon: added to denominators.

    Source: 001, equations 3 and 4; precision, F1 and PQ (which 000 reports without a formula) as
    in the authors' code.
    """
    counts = count_lesions(units, matching)
    counts = LesionCounts(counts.tp, displaced, counts.fn)
    scores: dict[str, Score | int] = {"clu_count": len(units.reference_ids)}
    if len(units.reference_ids) == 0:
        keys = ("clu_recall", "clu_precision", "clu_f1", "dsc_tp_clu", "pq_clu")
        return scores | {key: Undefined(NO_UNIT) for key in keys}
    r = recall(counts, epsilon)
    p = precision(counts, epsilon)
    if isinstance(p, Undefined):
        p = Undefined("no prediction is matched to a confluent unit or displaced from a lesion")
    f: Score = 0.0
    if counts.tp and isinstance(r, float) and isinstance(p, float):
        f = 2 * p * r / (p + r + epsilon)
    rows, voxels, common = matching.joined(units)
    union = units.reference_voxels[rows] + voxels - common
    return scores | {
        "clu_recall": r,
        "clu_precision": p,
        "clu_f1": f,
        "dsc_tp_clu": mean_dice(units, matching),
        "pq_clu": ratio(
            float((common / union).sum()), counts.tp + (counts.fp + counts.fn) / 2, NO_UNIT
        ),
    }
