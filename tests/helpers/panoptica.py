"""What panoptica measures inside each matched pair, for comparing our numbers with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lesionwise.instances.matching import Matching
from lesionwise.instances.table import Overlaps
from lesionwise.metrics import surface
from lesionwise.metrics.detection import BOTH_EMPTY, NO_PAIR, count_lesions
from lesionwise.metrics.score import Score, Undefined
from lesionwise.types import LabelArray

Quality: TypeAlias = Literal[
    "iou", "dice", "rvd", "rvae", "cedi_mm", "assd_mm", "hd_mm", "hd95_mm", "nsd"
]
FROM_COUNTS: tuple[Quality, ...] = ("iou", "dice", "rvd", "rvae")
FROM_SURFACES: tuple[Quality, ...] = ("assd_mm", "hd_mm", "hd95_mm", "nsd")
ALL_QUALITIES: tuple[Quality, ...] = (*FROM_COUNTS, "cedi_mm", *FROM_SURFACES)


def instance_qualities(
    overlaps: Overlaps,
    matching: Matching,
    wanted: Collection[Quality] = FROM_COUNTS,
    reference: LabelArray | None = None,
    prediction: LabelArray | None = None,
    spacing_mm: Sequence[float] | None = None,
    tolerance_mm: float | None = None,
) -> dict[Quality, NDArray[np.float64]]:
    """How well each matched reference lesion is outlined by its prediction or predictions.

    Args:
        overlaps: the table of common voxels.
        matching: made on it.
        wanted: which qualities. "rvd" is (predicted - reference) / reference volume, "rvae" its
            absolute value, "cedi_mm" the distance of the centers of mass, "assd_mm" the mean
            of the two directed means, "hd_mm" and "hd95_mm" the pooled percentiles 100 and 95,
            "nsd" the mean of the two shares of surface within the tolerance: as panoptica has them.
        reference: (I, J, K) labels; needed for all that is not a matter of counts.
        prediction: the same shape.
        spacing_mm: along i, j, k; needed with them.
        tolerance_mm: for "nsd"; None takes the smallest spacing.

    Returns:
        For each quality (k,) float64, one value a matched pair.
    """
    sizes = overlaps.reference_voxels[matching.reference_rows]
    voxels = overlaps.prediction_voxels[matching.prediction_rows]
    values: dict[Quality, NDArray[np.float64]] = {
        "iou": matching.iou(overlaps),
        "dice": matching.dice(overlaps),
        "rvd": (voxels - sizes) / sizes,
    }
    values["rvae"] = np.abs(values["rvd"])
    if not set(wanted) <= set(FROM_COUNTS):
        if reference is None or prediction is None or spacing_mm is None:
            raise ValueError(
                f"{sorted(set(wanted) - set(FROM_COUNTS))} need label maps and spacing"
            )
        tolerance_mm = min(spacing_mm) if tolerance_mm is None else tolerance_mm
        values |= _from_maps(
            overlaps, matching, wanted, reference, prediction, spacing_mm, tolerance_mm
        )
    return {name: values[name] for name in wanted}


def _from_maps(
    overlaps: Overlaps,
    matching: Matching,
    wanted: Collection[Quality],
    reference: LabelArray,
    prediction: LabelArray,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> dict[Quality, NDArray[np.float64]]:
    rows = matching.reference_rows
    pair = np.arange(len(rows))
    of_reference = _relabel(reference, overlaps.reference_ids[rows], pair)
    of_prediction = _relabel(prediction, overlaps.prediction_ids[matching.prediction_rows], pair)
    values: dict[Quality, NDArray[np.float64]] = {}
    if "cedi_mm" in wanted:
        apart = _centers(of_reference, len(rows)) - _centers(of_prediction, len(rows))
        values["cedi_mm"] = np.linalg.norm(apart * np.asarray(spacing_mm), axis=1)
    if not set(wanted) & set(FROM_SURFACES):
        return values
    for name in FROM_SURFACES:
        values[name] = np.full(len(rows), np.nan)
    boxes = zip(find_objects(of_reference), find_objects(of_prediction), strict=True)
    for row, (one, other) in enumerate(boxes):
        box = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop))
            for a, b in zip(one, other, strict=True)
        )
        distances = surface.distances_between_edges(
            of_reference[box] == row + 1, of_prediction[box] == row + 1, spacing_mm
        )
        found: dict[Quality, Score] = {
            "assd_mm": surface.average_surface_distance_mm(distances, "mean_of_directed"),
            "hd_mm": surface.hausdorff_mm(distances, 100, "pooled"),
            "hd95_mm": surface.hausdorff_mm(distances, 95, "pooled"),
            "nsd": surface.surface_dice(distances, tolerance_mm, "mean_of_directed"),
        }
        for name, value in found.items():
            values[name][row] = np.nan if isinstance(value, Undefined) else value
    return values


def _relabel(labels: LabelArray, ids: NDArray[np.int64], groups: NDArray[np.int64]) -> LabelArray:
    """The labels ``ids`` renamed to ``groups`` + 1, everything else background."""
    new = np.zeros(labels.shape, dtype=np.int32)
    order = np.argsort(ids)
    foreground = np.nonzero(labels)
    found = labels[foreground]
    at = np.minimum(np.searchsorted(ids[order], found), max(len(ids) - 1, 0))
    if len(ids):
        known = ids[order][at] == found
        new[foreground] = np.where(known, groups[order][at] + 1, 0)
    return new


def _centers(labels: LabelArray, n: int) -> NDArray[np.float64]:
    """(n, 3) centers of mass of the labels 1 to n, in voxels."""
    where = np.nonzero(labels)
    found = labels[where]
    counts = np.bincount(found, minlength=n + 1)[1:]
    sums = [np.bincount(found, axis, minlength=n + 1)[1:] for axis in where]
    return np.stack([s / counts for s in sums], axis=1)


def panoptic_report(
    overlaps: Overlaps, matching: Matching, qualities: dict[Quality, NDArray[np.float64]]
) -> dict[str, Score | int]:
    """The counts, and each quality as mean, standard deviation and product with rq.

    Keys: n_reference, n_prediction, tp, fp, fn, precision, recall,
    rq, and for each quality sq_NAME, sq_NAME_sd (population) and pq_NAME. Means are undefined
    without a matched pair; counts of zero make precision, recall and rq undefined.
    """
    counts = count_lesions(overlaps, matching)
    report: dict[str, Score | int] = {
        "n_reference": counts.tp + counts.fn,
        "n_prediction": counts.tp + counts.fp,
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
    }
    half = counts.tp + (counts.fp + counts.fn) / 2
    rq: Score = counts.tp / half if half else Undefined(BOTH_EMPTY)
    report["precision"] = (
        counts.tp / (counts.tp + counts.fp)
        if counts.tp + counts.fp
        else Undefined("the prediction has no lesion")
    )
    report["recall"] = (
        counts.tp / (counts.tp + counts.fn)
        if counts.tp + counts.fn
        else Undefined("the reference has no lesion")
    )
    report["rq"] = rq
    for name, values in qualities.items():
        if counts.tp == 0 or isinstance(rq, Undefined):
            none = Undefined(BOTH_EMPTY if half == 0 else NO_PAIR)
            report |= {f"sq_{name}": none, f"sq_{name}_sd": none, f"pq_{name}": none}
        else:
            mean = float(values.mean())
            report |= {
                f"sq_{name}": mean,
                f"sq_{name}_sd": float(values.std()),
                f"pq_{name}": mean * rq,
            }
    return report
