"""Size and place of each lesion of a label map, and how the lesions of two maps overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import cc3d
import numpy as np
from numpy.typing import NDArray

from lesionwise.instances.voxels import Indices, renumbered
from lesionwise.types import Grid, LabelArray

Rows: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Box: TypeAlias = tuple[slice, slice, slice]
Score: TypeAlias = Literal["iou", "dice"]


@dataclass(frozen=True, eq=False)
class LesionTable:
    """Size and place of n lesions, in ascending order of labels.

    Attributes:
        label: (n,) int64.
        voxels: (n,) int64.
        low: (n, 3) int64, least index along i, j, k.
        high: (n, 3) int64, greatest index plus one.
        center_vox: (n, 3) float64, center of mass in voxel indices.
        grid: where the labels lie.
    """

    label: Rows
    voxels: Rows
    low: Indices
    high: Indices
    center_vox: Floats
    grid: Grid

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def volume_mm3(self) -> Floats:
        """(n,) volume."""
        return np.asarray(self.voxels * self.grid.voxel_volume_mm3, dtype=np.float64)

    @cached_property
    def extent_mm(self) -> Floats:
        """(n, 3) edges of the bounding box along the voxel axes, also where these are sheared."""
        return np.asarray((self.high - self.low) * np.array(self.grid.spacing_mm))

    @cached_property
    def center_mm(self) -> Floats:
        """(n, 3) center of mass in world mm."""
        return self.grid.world_mm(self.center_vox)

    def boxes(self, margin_vox: int = 0) -> list[Box]:
        """The bounding box of each lesion, widened and cut at the edge of the volume."""
        low = np.maximum(self.low - margin_vox, 0)
        high = np.minimum(self.high + margin_vox, self.grid.shape)
        return [_slices(a, b) for a, b in zip(low, high, strict=True)]


def lesion_table(labels: LabelArray, grid: Grid) -> LesionTable:
    """Measure every label of a map.

    Args:
        labels: (I, J, K) integer, 0 background, not negative; gaps and any size are allowed, and
            a label may lie in several pieces.
        grid: where they lie.

    Returns:
        One row a label, ascending; none for an empty map.

    Example:
        >>> labels = np.zeros((4, 4, 4), np.int32)
        >>> labels[1:3, 1, 1] = 7
        >>> table = lesion_table(labels, Grid(labels.shape, np.diag([1.0, 1.0, 3.0, 1.0])))
        >>> table.label.tolist(), table.volume_mm3.round(6).tolist(), table.extent_mm.tolist()
        ([7], [6.0], [[2.0, 1.0, 3.0]])
    """
    box = bounding_box(labels)
    if box is None:
        none = np.empty(0, dtype=np.int64)
        corners = np.empty((0, 3), dtype=np.int64)
        return LesionTable(none, none, corners, corners, np.empty((0, 3)), grid)
    # cc3d takes labels below the number of voxels only, hence numbers in place of the labels
    label, numbers = renumbered(labels[box])
    found: Any = cc3d.statistics(numbers, no_slice_conversion=True)
    corners = found["bounding_boxes"][1:].astype(np.int64)
    start = np.array([part.start for part in box])
    return LesionTable(
        label=label.astype(np.int64),
        voxels=found["voxel_counts"][1:].astype(np.int64),
        low=corners[:, ::2] + start,
        high=corners[:, 1::2] + 1 + start,
        center_vox=found["centroids"][1:] + start,
        grid=grid,
    )


def bounding_box(array: NDArray[Any], margin_vox: int | Sequence[int] = 0) -> Box | None:
    """The smallest box around all voxels that are not 0; None where there are none.

    Args:
        array: (I, J, K), a mask or a label map.
        margin_vox: voxels added on every side, one number or one for each axis; the box ends at
            the edge of the volume.

    Example:
        >>> mask = np.zeros((9, 9, 9), bool)
        >>> mask[4, 5:7, 8] = True
        >>> bounding_box(mask, margin_vox=1)
        (slice(3, 6, None), slice(4, 8, None), slice(7, 9, None))
    """
    filled = array if array.dtype == np.bool_ else array != 0
    margin = np.broadcast_to(np.asarray(margin_vox), 3)
    low, high = [], []
    for axis in range(3):
        used = np.flatnonzero(filled.any(axis=tuple(other for other in range(3) if other != axis)))
        if len(used) == 0:
            return None
        low.append(max(int(used[0] - margin[axis]), 0))
        high.append(min(int(used[-1] + margin[axis]) + 1, array.shape[axis]))
    return _slices(low, high)


def _slices(low: Sequence[int] | Indices, high: Sequence[int] | Indices) -> Box:
    i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return i, j, k


def count_parts(labels: LabelArray) -> dict[int, int]:
    """In how many 26-connected parts each label lies, by label; none for an empty map.

    Example:
        >>> count_parts(np.array([[[1, 0, 1, 2]]]))
        {1: 2, 2: 1}
    """
    box = bounding_box(labels)
    if box is None:
        return {}
    framed = np.ascontiguousarray(np.pad(labels[box], 1))
    parts: Any = cc3d.connected_components(framed, connectivity=26)
    at = np.nonzero(parts)
    _, first = np.unique(parts[at], return_index=True)
    found, counts = np.unique(framed[at][first], return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How many voxels n reference and m predicted lesions share: a sparse table.

    Attributes:
        reference_ids: (n,) labels, ascending.
        reference_voxels: (n,) size of each.
        prediction_ids: (m,) labels, ascending.
        prediction_voxels: (m,) size of each.
        reference_rows: (p,) for each overlapping pair, the position in ``reference_ids``.
        prediction_rows: (p,) the same for ``prediction_ids``.
        common: (p,) voxels the pair shares, at least 1. Pairs go by prediction, then reference.
    """

    reference_ids: Rows
    reference_voxels: Rows
    prediction_ids: Rows
    prediction_voxels: Rows
    reference_rows: Rows
    prediction_rows: Rows
    common: Rows

    @cached_property
    def iou(self) -> Floats:
        """(p,) common voxels over the voxels of either lesion."""
        either = self.reference_voxels[self.reference_rows]
        either = either + self.prediction_voxels[self.prediction_rows] - self.common
        return np.asarray(self.common / either, dtype=np.float64)

    @cached_property
    def dice(self) -> Floats:
        """(p,) twice the common voxels over the sum of both sizes."""
        both = self.reference_voxels[self.reference_rows]
        both = both + self.prediction_voxels[self.prediction_rows]
        return np.asarray(2.0 * self.common / both, dtype=np.float64)

    def score(self, name: Score) -> Floats:
        return self.iou if name == "iou" else self.dice

    def keep(
        self,
        reference: NDArray[np.bool_] | None = None,
        prediction: NDArray[np.bool_] | None = None,
    ) -> Overlaps:
        """The table without some lesions, as if their voxels had been background.

        Args:
            reference: (n,) True for the lesions that stay; None keeps all.
            prediction: (m,) the same for the other side.
        """
        keep_r = np.ones(len(self.reference_ids), bool) if reference is None else reference
        keep_p = np.ones(len(self.prediction_ids), bool) if prediction is None else prediction
        pairs = keep_r[self.reference_rows] & keep_p[self.prediction_rows]
        return Overlaps(
            reference_ids=self.reference_ids[keep_r],
            reference_voxels=self.reference_voxels[keep_r],
            prediction_ids=self.prediction_ids[keep_p],
            prediction_voxels=self.prediction_voxels[keep_p],
            reference_rows=(np.cumsum(keep_r) - 1)[self.reference_rows[pairs]],
            prediction_rows=(np.cumsum(keep_p) - 1)[self.prediction_rows[pairs]],
            common=self.common[pairs],
        )

    def transposed(self) -> Overlaps:
        """The same table with the two sides exchanged; the pairs keep their order."""
        return Overlaps(
            reference_ids=self.prediction_ids,
            reference_voxels=self.prediction_voxels,
            prediction_ids=self.reference_ids,
            prediction_voxels=self.reference_voxels,
            reference_rows=self.prediction_rows,
            prediction_rows=self.reference_rows,
            common=self.common,
        )


def overlap_table(reference: LabelArray, prediction: LabelArray) -> Overlaps:
    """Count the voxels of every lesion and of every overlapping pair, in one pass.

    Args:
        reference: (I, J, K) labels, 0 background, gaps allowed.
        prediction: the same shape.

    Raises:
        ValueError: If the shapes differ or a label is negative.

    Example:
        >>> table = overlap_table(np.array([[[1, 1, 0]]]), np.array([[[0, 5, 5]]]))
        >>> table.common.tolist(), table.iou.tolist()
        ([1], [0.3333333333333333])
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ")
    if reference.flags.f_contiguous and prediction.flags.f_contiguous:
        reference, prediction = reference.T, prediction.T  # flat views, not copies
    flat_r, flat_p = reference.reshape(-1), prediction.reshape(-1)
    foreground = np.flatnonzero((flat_r != 0) | (flat_p != 0))
    ids_r, row_r, size_r = _ranks(flat_r[foreground])
    ids_p, row_p, size_p = _ranks(flat_p[foreground])
    key = row_p * len(ids_r) + row_r
    pairs, common = np.unique(key[(row_r >= 0) & (row_p >= 0)], return_counts=True)
    pair_p, pair_r = np.divmod(pairs, max(len(ids_r), 1))
    return Overlaps(ids_r, size_r, ids_p, size_p, pair_r, pair_p, common.astype(np.int64))


def _ranks(labels: NDArray[Any]) -> tuple[Rows, Rows, Rows]:
    """The labels above 0, ascending; the rank of each voxel's label (-1 for 0); sizes."""
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels must not be negative, found {labels.min()}")
    highest = int(labels.max(initial=0))
    if highest <= 8 * labels.size + 1024:
        sizes = np.bincount(labels, minlength=1).astype(np.int64)
        sizes[0] = 0
        ids = np.flatnonzero(sizes)
        rank = np.full(len(sizes), -1, dtype=np.int64)
        rank[ids] = np.arange(len(ids))
        return ids.astype(np.int64), rank[labels], sizes[ids]
    found, rows, counts = np.unique(labels, return_inverse=True, return_counts=True)
    zero = int(found[0] == 0)
    return (
        found[zero:].astype(np.int64),
        rows.reshape(-1).astype(np.int64) - zero,
        counts[zero:].astype(np.int64),
    )
