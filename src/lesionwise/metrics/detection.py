"""Which lesions were found: counts over a matching, and over any overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionwise.instances.matching import Matching
from lesionwise.instances.table import Overlaps
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
    """Counts of a matching.

    Example:
        >>> from lesionwise.instances.matching import match
        >>> from lesionwise.instances.table import overlap_table
        >>> overlaps = overlap_table(np.array([[[1, 0, 2]]]), np.array([[[1, 3, 0]]]))
        >>> count_lesions(overlaps, match(overlaps))
        LesionCounts(tp=1, fp=1, fn=1)
    """
    tp = len(matching.reference_rows)
    return LesionCounts(tp, len(overlaps.prediction_ids) - tp, len(overlaps.reference_ids) - tp)


def precision(counts: LesionCounts) -> Score:
    """TP / (TP + FP); undefined without a prediction.

    Example:
        >>> precision(LesionCounts(tp=3, fp=1, fn=0))
        0.75
    """
    return ratio(counts.tp, counts.tp + counts.fp, NO_PREDICTION)


def recall(counts: LesionCounts) -> Score:
    """TP / (TP + FN); undefined without a reference lesion.

    Example:
        >>> recall(LesionCounts(tp=3, fp=1, fn=2))
        0.6
    """
    return ratio(counts.tp, counts.tp + counts.fn, NO_REFERENCE)


def f1(counts: LesionCounts) -> Score:
    """2 TP / (2 TP + FP + FN); undefined when neither side has a lesion.

    Example:
        >>> f1(LesionCounts(tp=3, fp=1, fn=1))
        0.75
    """
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, BOTH_EMPTY)


def any_overlap_f1(overlaps: Overlaps) -> Score:
    """F1 where one common voxel is a hit, many to many.

    2 a b / (a + b), a the share of reference lesions that meet a prediction, b the share of
    predictions that meet a reference lesion. 0 where only one side has lesions, undefined
    where neither has. Source: equation 4 of the MSSEG-2 chapter on a lesion-wise loss (Univ.
    Bordeaux, 2021).

    Example:
        >>> from lesionwise.instances.table import overlap_table
        >>> any_overlap_f1(overlap_table(np.array([[[1, 1, 2, 2]]]), np.array([[[5, 5, 5, 5]]])))
        1.0
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
    """Mean Dice of the matched pairs.

    Example:
        >>> from lesionwise.instances.matching import match
        >>> from lesionwise.instances.table import overlap_table
        >>> overlaps = overlap_table(np.array([[[1, 1, 0]]]), np.array([[[4, 4, 4]]]))
        >>> mean_dice(overlaps, match(overlaps))
        0.8
    """
    dice = matching.dice(overlaps)
    return float(dice.mean()) if len(dice) else Undefined(NO_PAIR)


def detection_scores(overlaps: Overlaps, matching: Matching) -> dict[str, Score | int]:
    """Counts and detection metrics under the names that ``metrics.json`` uses.

    Example:
        >>> from lesionwise.instances.matching import match
        >>> from lesionwise.instances.table import overlap_table
        >>> overlaps = overlap_table(np.array([[[1, 0, 2]]]), np.array([[[1, 3, 0]]]))
        >>> detection_scores(overlaps, match(overlaps))["lesion_f1"]
        0.5
    """
    counts = count_lesions(overlaps, matching)
    n, m = len(overlaps.reference_ids), len(overlaps.prediction_ids)
    return {
        "lesion_tp": counts.tp,
        "lesion_fp": counts.fp,
        "lesion_fn": counts.fn,
        "lesion_precision": precision(counts),
        "lesion_recall": recall(counts),
        "lesion_f1": f1(counts),
        "lesion_f1_any_overlap": any_overlap_f1(overlaps),
        "lesion_fpr": ratio(counts.fp, m, NO_PREDICTION),
        "dic": abs(m - n),
        "dsc_tp": mean_dice(overlaps, matching),
    }


def confluent_scores(units: Overlaps, matching: Matching, displaced: int) -> dict[str, Score | int]:
    """How well the confluent units of the reference were found.

    Args:
        units: the table with the confluent units as its only references.
        matching: made on that table.
        displaced: predictions that hit a reference lesion, of any kind, and lost it to another
            one. They alone count as false positives here: a prediction away from every
            lesion says nothing about how confluent ones were separated.

    Source: Wynen et al. (ConfLUNet), equations 3 and 4; precision, F1 and PQ as in the authors'
    code.

    Example:
        >>> from lesionwise.instances.matching import match
        >>> from lesionwise.instances.table import overlap_table
        >>> units = overlap_table(np.array([[[1, 2, 0]]]), np.array([[[4, 0, 0]]]))
        >>> confluent_scores(units, match(units), displaced=0)["clu_recall"]
        0.5
    """
    tp, fn = len(matching.reference_rows), len(units.reference_ids) - len(matching.reference_rows)
    scores: dict[str, Score | int] = {"clu_count": tp + fn}
    if tp + fn == 0:
        keys = ("clu_recall", "clu_precision", "clu_f1", "dsc_tp_clu", "pq_clu")
        return scores | {key: Undefined(NO_UNIT) for key in keys}
    nothing = "no prediction is matched to a confluent unit or displaced from a lesion"
    return scores | {
        "clu_recall": tp / (tp + fn),
        "clu_precision": ratio(tp, tp + displaced, nothing),
        "clu_f1": 2 * tp / (2 * tp + displaced + fn),
        "dsc_tp_clu": mean_dice(units, matching),
        "pq_clu": float(matching.iou(units).sum()) / (tp + (displaced + fn) / 2),
    }
