"""Filters on lesions: size and connected pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionwise import defaults
from lesionwise.instances.limits import check_limits
from lesionwise.instances.table import lesion_table
from lesionwise.instances.voxels import Indices, label_voxels, list_voxels, neighbor_pairs
from lesionwise.types import FloatArray, Instances

SIZE_ROUNDING = 1e-5
"""Relative difference below which a size equals its limit.

Headers hold spacing in float32 and rotated affines round further: 14 voxels of 1 mm³ come out
as 13.99999 mm³ and must still count as 14.
"""


@dataclass(frozen=True)
class DropSmall:
    """Drop lesions that are too small to count.

    A lesion goes when its volume is below ``min_volume_mm3``, or its bounding box measures less
    than ``min_extent_mm`` along any voxel axis. Both limits are strict: what lies exactly on one
    stays, and sizes within a relative 1e-5 of a limit lie on it, because spacing comes from
    headers that round. A label in several pieces is measured as a whole.

    Attributes:
        min_volume_mm3: 0 switches the limit off.
        min_extent_mm: 0 switches the limit off.
        drop_at_min_volume: True drops a lesion of exactly ``min_volume_mm3`` too.
        relabel: True numbers what stays 1 … n in the order of the old labels; False keeps them.

    Source: Wynen et al. (ConfLUNet), section 3 (14 mm³, 3 mm). Its authors' code also drops a
    lesion that
    lies exactly on the volume limit: ``drop_at_min_volume``. Departure: of the pieces that come
    from one center the authors drop every piece after the first small one, in decreasing order of
    voxels, even one that would pass; here each lesion is judged alone.
    """

    min_volume_mm3: float = defaults.MIN_VOLUME_MM3
    min_extent_mm: float = defaults.MIN_EXTENT_MM
    drop_at_min_volume: bool = False
    relabel: bool = True

    def __post_init__(self) -> None:
        check_limits(min_volume_mm3=self.min_volume_mm3, min_extent_mm=self.min_extent_mm)

    def __call__(self, instances: Instances) -> Instances:
        """Return the lesions that stay, on the same grid."""
        table = lesion_table(instances.labels, instances.grid)
        small = self.too_small(table.volume_mm3, table.extent_mm)
        if not small.any() and not self.relabel:
            return instances
        kept = np.flatnonzero(~small)
        new_labels = np.zeros(len(table), dtype=np.int32)
        new_labels[kept] = np.arange(1, len(kept) + 1) if self.relabel else table.label[kept]
        at = tuple(list_voxels(instances.labels).T)
        labels = np.zeros(instances.labels.shape, dtype=np.int32)
        labels[at] = new_labels[np.searchsorted(table.label, instances.labels[at])]
        return Instances(labels, instances.grid)

    def too_small(self, volume_mm3: FloatArray, extent_mm: FloatArray) -> NDArray[np.bool_]:
        """(n,) True where a lesion goes, from (n,) volumes and (n, 3) extents."""
        rounding = 1 + SIZE_ROUNDING if self.drop_at_min_volume else 1 - SIZE_ROUNDING
        small_volume = volume_mm3 < self.min_volume_mm3 * rounding
        small_extent = (extent_mm < self.min_extent_mm * (1 - SIZE_ROUNDING)).any(axis=1)
        return np.asarray(small_volume | small_extent)


def split_values(
    index: Indices, shape: tuple[int, ...], values: NDArray[np.int64], connectivity: int
) -> NDArray[np.int64]:
    """Give each connected piece of a label a label of its own: (n,) to (n,), where 0 stays 0.

    The largest piece keeps the label (ties: the one whose first voxel comes first in C order).
    The others get labels above the highest one in use: by ascending old label, then by falling
    voxel count, then in C order of their first voxels.

    Args:
        index: (n, 3) voxels in C order.
        values: (n,) their labels.
        connectivity: 6, 18 or 26.

    Example:
        >>> index = np.array([[0, 0, 0], [0, 0, 2], [0, 0, 3]])
        >>> split_values(index, (1, 1, 4), np.array([1, 1, 1]), connectivity=26).tolist()
        [2, 1, 1]
    """
    if not values.any():
        return values
    piece = label_voxels(index, shape, connectivity, values)
    _, first, voxels = np.unique(piece, return_index=True, return_counts=True)
    old = values[first]
    order = np.lexsort((first, -voxels, old))
    others = order[1:][(old[order[1:]] == old[order[:-1]]) & (old[order[1:]] > 0)]
    new = old.copy()
    new[others] = values.max() + 1 + np.arange(len(others))
    return np.asarray(new[piece])


def join_small_pieces(
    index: Indices,
    shape: tuple[int, ...],
    values: NDArray[np.int64],
    connectivity: int,
    below_vox: float,
) -> NDArray[np.int64]:
    """Split labels into connected pieces, but give fragments to the lesions they touch.

    As ``split_values``, except for pieces that are neither the largest of their label nor hold
    ``below_vox`` voxels: such a fragment joins the lesion with which it has the most pairs of
    touching voxels (ties: the lowest label). Fragments that touch only fragments wait until one of
    these has joined; those that touch no lesion at all remain lesions of their own.

    Example:
        >>> index = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
        >>> join_small_pieces(index, (1, 1, 3), np.array([1, 1, 2]), 26, below_vox=2).tolist()
        [1, 1, 2]
    """
    split = split_values(index, shape, values, connectivity)
    # The largest piece of a label keeps the label, so a changed label marks the others.
    label, first, row, voxels = np.unique(
        split, return_index=True, return_inverse=True, return_counts=True
    )
    fragment = (label != values[first]) & (voxels < below_vox) & (label > 0)
    if not fragment.any():
        return split
    start, end = row[neighbor_pairs(index, shape, connectivity)]
    touching = np.concatenate([np.stack([start, end]), np.stack([end, start])], axis=1)
    touching = touching[:, fragment[touching[0]] & (label[touching[1]] > 0)]
    joined = np.arange(len(label))
    while True:
        contact = np.stack([touching[0], joined[touching[1]]])
        contact = contact[:, fragment[contact[0]] & ~fragment[contact[1]]]
        (piece, lesion), pairs = np.unique(contact, axis=1, return_counts=True)
        order = np.lexsort((label[lesion], -pairs, piece))
        piece, lesion = piece[order], lesion[order]
        piece, best = np.unique(piece, return_index=True)
        if len(piece) == 0:
            return np.asarray(label[joined[row]])
        joined[piece] = lesion[best]
        fragment[piece] = False
