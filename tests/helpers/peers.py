"""What peers compute and the program does not, for comparing with their stored numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from lesionwise.instances.matching import match
from lesionwise.instances.table import overlap_table
from lesionwise.metrics.case import CaseResult
from lesionwise.metrics.score import Score, Undefined
from lesionwise.metrics.surface import (
    SurfaceDistances,
    average_surface_distance_mm,
    distances_between_edges,
)
from lesionwise.types import Instances

EPSILON = 1e-6
"""Added to denominators by the ConfLUNet authors' code."""


def directed_averages_mm(distances: SurfaceDistances) -> tuple[Score, Score]:
    """Mean distance reference to prediction, and prediction to reference, weighted by area."""
    if not distances.defined:
        none = average_surface_distance_mm(distances)
        return none, none
    return (
        float(np.average(distances.reference_to_prediction, weights=distances.reference_area)),
        float(np.average(distances.prediction_to_reference, weights=distances.prediction_area)),
    )


@dataclass(frozen=True)
class AnimaDistances:
    """The three distances of the challenge's official evaluator, mm.

    Attributes:
        hausdorff: largest distance from a voxel of one mask to the nearest voxel of the other.
        contour_mean: the larger directed mean between contours; the volume's edge is no contour.
        surface_distance: its "average surface distance", whose running minimum is never reset.
    """

    hausdorff: Score
    contour_mean: Score
    surface_distance: Score


def anima_distances(reference: Any, prediction: Any, spacing_mm: Any) -> AnimaDistances:
    """The official evaluator's distances of two (I, J, K) masks; i runs fastest there.

    Source: README 2.3 of the reference vectors. Its contour also asks for a background voxel
    among the 26 neighbors, which every voxel with a background face has.
    """
    if not (reference.any() and prediction.any()):
        none = average_surface_distance_mm(
            distances_between_edges(reference, prediction, spacing_mm)
        )
        return AnimaDistances(none, none, none)
    masks = reference.T, prediction.T
    spacing = np.asarray(spacing_mm)[::-1]
    largest = float(max(d.max() for d in _both_ways(*(np.argwhere(m) * spacing for m in masks))))
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in masks]
    if not all(edge.any() for edge in edges):
        none = Undefined("a mask fills the whole volume and has no contour")
        return AnimaDistances(largest, none, none)
    between = SurfaceDistances(*_both_ways(*(np.argwhere(edge) * spacing for edge in edges)))
    kept = [
        np.minimum.accumulate(d)
        for d in (between.reference_to_prediction, between.prediction_to_reference)
    ]
    return AnimaDistances(
        hausdorff=largest,
        contour_mean=average_surface_distance_mm(between, "larger_directed"),
        surface_distance=float(np.concatenate(kept).mean()),
    )


def _both_ways(one: Any, other: Any) -> tuple[Any, Any]:
    return cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]


def as_conflunet_authors(
    result: CaseResult, reference: Instances, prediction: Instances
) -> dict[str, Any]:
    """Our values as the ConfLUNet authors' code gives them: epsilons, and a number for 0 / 0."""
    values: dict[str, Any] = dict(result.values)
    tp, fp, fn = (int(values[f"lesion_{name}"]) for name in ("tp", "fp", "fn"))
    p = tp / (tp + fp + EPSILON) if tp + fp else 1.0
    r = tp / (tp + fn + EPSILON) if tp + fn else 1.0
    values |= {
        "lesion_precision": p,
        "lesion_recall": r,
        "lesion_f1": 2 * p * r / (p + r + EPSILON) if tp else 0.0,
        "lesion_fpr": fp / (tp + fp + EPSILON) if tp + fp else 0.0,
    }
    instead = {"dsc": 1.0, "ndsc": 1.0, "pq": 1.0, "dsc_tp": 0.0}
    values |= {key: value for key, value in instead.items() if values[key] is None}
    table = overlap_table(reference.labels, prediction.labels)
    displaced, units = len(match(table).displaced), int(values["clu_count"])
    found = round((values["clu_recall"] or 0) * units)
    p = found / (found + displaced + EPSILON) if found + displaced else 0.0
    r = found / (units + EPSILON)
    if not units:
        p, r = 0.0 if displaced else 1.0, 1.0
        values["pq_clu"] = float(not prediction.labels.any())
    elif values["dsc_tp_clu"] is None:
        values["dsc_tp_clu"] = 0.0
    f = 2 * p * r / (p + r + EPSILON) if found or not units else 0.0
    return values | {"clu_recall": r, "clu_precision": p, "clu_f1": f}
