"""Distances between the surfaces of two masks, in mm, by every definition in use.

Other tools measure between different points and summarize differently, and the same pair of
masks can score twice as much with one as with another, so each definition has a name here
and the name is written beside the value.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from lesionwise.instances.limits import check_limits
from lesionwise.metrics.score import Score, Undefined
from lesionwise.types import BoolArray

FloatVector: TypeAlias = NDArray[np.float64]
HausdorffDefinition: TypeAlias = Literal["larger_directed", "pooled", "area_weighted"]
AverageDefinition: TypeAlias = Literal[
    "pooled", "mean_of_directed", "larger_directed", "area_weighted"
]

HAUSDORFF_DEFINITIONS: dict[HausdorffDefinition, str] = {
    "larger_directed": "larger of the two directed percentiles over edge voxels, as MONAI",
    "pooled": "percentile of both directions together over edge voxels, as MedPy and panoptica",
    "area_weighted": "larger of the two directed percentiles over surface area, as DeepMind",
}
AVERAGE_DEFINITIONS: dict[AverageDefinition, str] = {
    "pooled": "mean of both directions together over edge voxels, as MedPy and MONAI",
    "mean_of_directed": "mean of the two directed means over edge voxels, as panoptica",
    "larger_directed": "larger of the two directed means over edge voxels",
    "area_weighted": "mean of both directions together over surface area, from DeepMind's elements",
}

EMPTY = "a mask has no surface: {} no lesion voxel"


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """How far each surface point of one mask lies from the other's surface.

    Attributes:
        reference_to_prediction: (n,) mm, one for each surface point of the reference.
        prediction_to_reference: (m,) mm.
        reference_area: (n,) mm² that each point stands for; None where points count alike.
        prediction_area: (m,) mm².
    """

    reference_to_prediction: FloatVector
    prediction_to_reference: FloatVector
    reference_area: FloatVector | None = None
    prediction_area: FloatVector | None = None

    @property
    def defined(self) -> bool:
        return bool(len(self.reference_to_prediction) and len(self.prediction_to_reference))


def edge_voxels(mask: BoolArray) -> BoolArray:
    """Foreground voxels with a background voxel across one of their six faces.

    What lies outside the volume counts as background.

    Example:
        >>> mask = np.zeros((5, 5, 5), dtype=bool)
        >>> mask[1:4, 1:4, 1:4] = True
        >>> int(mask.sum()), int(edge_voxels(mask).sum())
        (27, 26)
    """
    inside = mask.copy()
    for axis in range(3):
        swapped = np.moveaxis(inside, axis, 0)
        original = np.moveaxis(mask, axis, 0)
        swapped[1:] &= original[:-1]
        swapped[:-1] &= original[1:]
        swapped[:1] = False
        swapped[-1:] = False
    return mask & ~inside


def distances_between_edges(
    reference: BoolArray, prediction: BoolArray, spacing_mm: ArrayLike
) -> SurfaceDistances:
    """Distance from each edge voxel of one mask to the nearest edge voxel of the other.

    Between voxel centers, exact. Both vectors keep the order of the axes (k fastest).

    Args:
        reference: (I, J, K) bool; only the part around the foreground matters, except that
            the volume's edge is where the array ends.
        prediction: the same shape.
        spacing_mm: (3,) along i, j, k; or (3, 3), the steps along i, j, k as columns, for axes
            that are not at right angles (``Grid.axes_mm``).

    Returns:
        Empty vectors for the sides that have no edge voxel.

    Example:
        >>> one, other = np.zeros((2, 9, 3, 3), bool)
        >>> one[1, 1, 1] = other[7, 1, 2] = True
        >>> distances_between_edges(one, other, (1.0, 1.0, 3.0)).reference_to_prediction
        array([6.70820393])
    """
    return SurfaceDistances(
        *_nearest_both_ways(edge_voxels(reference), edge_voxels(prediction), _axes(spacing_mm))
    )


def _axes(spacing_mm: ArrayLike) -> FloatVector:
    """(3, 3) steps along i, j, k as columns, from these or from three spacings."""
    given = np.asarray(spacing_mm, dtype=np.float64)
    return np.diag(given) if given.ndim == 1 else given


def _nearest_both_ways(
    reference: BoolArray, prediction: BoolArray, axes_mm: FloatVector
) -> tuple[FloatVector, FloatVector]:
    """From each voxel of one set to the nearest of the other, and back; mm, k fastest."""
    at_r, at_p = np.nonzero(reference), np.nonzero(prediction)
    one, other = np.stack(at_r, axis=1), np.stack(at_p, axis=1)
    return (
        _nearest(one, other, axes_mm, prediction[at_r]),
        _nearest(other, one, axes_mm, reference[at_p]),
    )


def _nearest(
    index: NDArray[np.int64],
    targets: NDArray[np.int64],
    axes_mm: FloatVector,
    shared: BoolArray,
) -> FloatVector:
    """(n,) mm from each voxel index to the nearest target; infinite without targets.

    ``shared`` says which indices are targets themselves, so that nobody searches for them.
    """
    if len(index) == 0 or len(targets) == 0:
        return np.full(len(index), np.inf)
    distances = np.zeros(len(index))
    apart = index[~shared]
    if len(apart):
        tree = cKDTree(targets @ axes_mm.T, balanced_tree=False, compact_nodes=False)
        nearest = tree.query(apart @ axes_mm.T)[1]
        # From whole steps: a difference of products rounds, and one voxel must be one spacing
        # where a tolerance of exactly that is asked for.
        steps_mm = (apart - targets[nearest]) @ axes_mm.T
        distances[~shared] = np.sqrt((steps_mm**2).sum(axis=1))
    return distances


def distances_between_elements(
    reference: BoolArray, prediction: BoolArray, spacing_mm: ArrayLike
) -> SurfaceDistances:
    """Distance from each surface element of one mask to the nearest one of the other.

    A surface element sits on a corner shared by eight voxels that are not all alike and
    carries the area, in mm², of the triangles that marching cubes puts there (vertices halfway
    between voxel centers). Outside the volume is background.

    Args:
        spacing_mm: as for ``distances_between_edges``.

    Source: the definition of DeepMind's surface-distance 0.1.

    Example:
        >>> mask = np.zeros((9, 5, 5), dtype=bool)
        >>> mask[1:4, 1:4, 1:4] = True
        >>> distances = distances_between_elements(mask, np.roll(mask, 1, axis=0), (1.0, 1.0, 1.0))
        >>> float(distances.reference_to_prediction.max())
        1.0
    """
    axes_mm = _axes(spacing_mm)
    areas = _element_areas(tuple(axes_mm.ravel().tolist()))
    code_r, code_p = _corner_codes(reference), _corner_codes(prediction)
    on_r, on_p = ((code != 0) & (code != 255) for code in (code_r, code_p))
    to_p, to_r = _nearest_both_ways(on_r, on_p, axes_mm)
    return SurfaceDistances(to_p, to_r, areas[code_r[on_r]], areas[code_p[on_p]])


def _corner_codes(mask: BoolArray) -> NDArray[np.uint8]:
    """(I + 1, J + 1, K + 1): which of the eight voxels around each corner are set, as bits."""
    padded = np.pad(mask, 1).astype(np.uint8)
    code = np.zeros(tuple(n + 1 for n in mask.shape), dtype=np.uint8)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=3)):
        part = tuple(slice(c, c + n) for c, n in zip(corner, code.shape, strict=True))
        code |= padded[part] << np.uint8(7 - bit)
    return code


@cache
def _element_areas(axes_mm: tuple[float, ...]) -> FloatVector:
    """(256,) mm² of surface inside a 2 x 2 x 2 block of voxel centers, by its code."""
    from skimage import measure  # slow to import

    mesh: Any = measure.marching_cubes  # untyped
    areas = np.zeros(256)
    for code in range(1, 255):
        if code.bit_count() > 4:
            continue
        block = np.array([code >> (7 - bit) & 1 for bit in range(8)], dtype=np.float64)
        vertices, faces, _, _ = mesh(block.reshape(2, 2, 2), 0.5, method="lorensen")
        corners = (vertices @ np.reshape(axes_mm, (3, 3)).T)[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        # A block and its complement have the same surface: the original cases, without the
        # later ones that keep two diagonal background corners apart.
        areas[code] = np.linalg.norm(normals, axis=1).sum() / 2
        areas[255 - code] = areas[code]
    return areas


def hausdorff_mm(
    distances: SurfaceDistances,
    percentile: float = 95.0,
    definition: HausdorffDefinition = "larger_directed",
) -> Score:
    """The Hausdorff distance, cut at a percentile; 100 gives the largest distance.

    Percentiles of points that count alike are interpolated linearly; with areas it is the
    first distance at which the summed area reaches the share.

    Args:
        distances: from ``distances_between_elements`` for "area_weighted", else from
            ``distances_between_edges``.
        percentile: 0 to 100.
        definition: see ``HAUSDORFF_DEFINITIONS``.

    Returns:
        mm; undefined where a mask is empty.

    Example:
        >>> distances = SurfaceDistances(np.array([0.0, 1.0]), np.array([0.0, 3.0]))
        >>> hausdorff_mm(distances, percentile=100)
        3.0
    """
    check_limits(most=100, percentile=percentile)
    if not distances.defined:
        return _no_surface(distances)
    one, other = distances.reference_to_prediction, distances.prediction_to_reference
    if definition == "pooled":
        return float(np.percentile(np.concatenate([one, other]), percentile))
    if definition == "larger_directed":
        return float(max(np.percentile(one, percentile), np.percentile(other, percentile)))
    if distances.reference_area is None or distances.prediction_area is None:
        raise ValueError("area_weighted needs distances between surface elements")
    return max(
        _weighted_percentile(one, distances.reference_area, percentile),
        _weighted_percentile(other, distances.prediction_area, percentile),
    )


def _weighted_percentile(values: FloatVector, weights: FloatVector, percentile: float) -> float:
    if percentile >= 100:
        return float(values.max())
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    at = min(int(np.searchsorted(share, percentile / 100)), len(order) - 1)
    return float(values[order[at]])


def average_surface_distance_mm(
    distances: SurfaceDistances, definition: AverageDefinition = "pooled"
) -> Score:
    """The average symmetric surface distance.

    Args:
        distances: from ``distances_between_elements`` for "area_weighted", else from
            ``distances_between_edges``.
        definition: see ``AVERAGE_DEFINITIONS``.

    Returns:
        mm; undefined where a mask is empty.

    Example:
        >>> distances = SurfaceDistances(np.array([0.0, 1.0]), np.array([0.0, 3.0]))
        >>> average_surface_distance_mm(distances)
        1.0
    """
    if not distances.defined:
        return _no_surface(distances)
    one, other = distances.reference_to_prediction, distances.prediction_to_reference
    if definition == "pooled":
        return float((one.sum() + other.sum()) / (len(one) + len(other)))
    if definition == "mean_of_directed":
        return float((one.mean() + other.mean()) / 2)
    if definition == "larger_directed":
        return float(max(one.mean(), other.mean()))
    areas = (distances.reference_area, distances.prediction_area)
    if areas[0] is None or areas[1] is None:
        raise ValueError("area_weighted needs distances between surface elements")
    total = one @ areas[0] + other @ areas[1]
    return float(total / (areas[0].sum() + areas[1].sum()))


def surface_dice(
    distances: SurfaceDistances,
    tolerance_mm: float,
    definition: Literal["pooled", "mean_of_directed"] = "pooled",
) -> Score:
    """Share of both surfaces that lies within the tolerance of the other one.

    Points count alike (MONAI) or by area (DeepMind), as the distances carry them. "pooled" takes
    both surfaces as one; "mean_of_directed" is the mean of the two shares, so that the
    smaller surface weighs as much as the larger one (NSD of panoptica).

    Returns:
        0 where one mask is empty, undefined where both are.

    Example:
        >>> mask = np.zeros((5, 5, 5), dtype=bool)
        >>> mask[1:4, 1:4, 1:4] = True
        >>> surface_dice(distances_between_elements(mask, mask, (1.0, 1.0, 1.0)), tolerance_mm=1.0)
        1.0
    """
    check_limits(tolerance_mm=tolerance_mm)
    one, other = distances.reference_to_prediction, distances.prediction_to_reference
    if len(one) + len(other) == 0:
        return _no_surface(distances)
    if not distances.defined:
        return 0.0
    of_one = np.ones(len(one)) if distances.reference_area is None else distances.reference_area
    of_other = (
        np.ones(len(other)) if distances.prediction_area is None else distances.prediction_area
    )
    near = of_one[one <= tolerance_mm].sum(), of_other[other <= tolerance_mm].sum()
    if definition == "mean_of_directed":
        return float((near[0] / of_one.sum() + near[1] / of_other.sum()) / 2)
    return float((near[0] + near[1]) / (of_one.sum() + of_other.sum()))


def _no_surface(distances: SurfaceDistances) -> Undefined:
    one = len(distances.reference_to_prediction) == 0
    other = len(distances.prediction_to_reference) == 0
    which = "both have" if one and other else "the reference has" if one else "the prediction has"
    return Undefined(EMPTY.format(which))
