"""Lesions by offset voting: each voxel points to the center of its lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionwise import defaults
from lesionwise.instances.components import DEFAULT_CONNECTIVITY
from lesionwise.instances.filters import SIZE_ROUNDING, join_small_pieces
from lesionwise.instances.limits import check_limits
from lesionwise.instances.voxels import (
    Indices,
    in_order_of_first,
    label_voxels,
    list_voxels,
    nearest_rows,
)
from lesionwise.types import BoolArray, FloatArray, Instances, LesionMaps

PLATEAU_CONNECTIVITY = 6


def find_centers(
    heatmap: FloatArray,
    threshold: float,
    nms_size_vox: int,
    top_k: int | None = None,
    mask: BoolArray | None = None,
) -> NDArray[np.int64]:
    """Lesion centers: the peaks of a heatmap.

    A voxel is a peak when its value exceeds the threshold and no value in the window around it
    is greater; beyond the volume there is nothing to be greater. Peaks that touch through faces
    form a plateau and give one center: the voxel of the plateau nearest to the plateau's
    centroid, of several the first in C order. Peaks that touch at an edge or corner only remain
    two centers.

    Args:
        heatmap: (I, J, K) float, near 1 at centers. NaN is never a peak.
        threshold: values at or below it are ignored.
        nms_size_vox: edge of the cubic window, odd.
        top_k: keep the k highest centers, and those that equal the k-th; None keeps all.
        mask: (I, J, K) bool; where given, only voxels in it can be centers. What lies outside
            it still counts as greater.

    Returns:
        (n, 3) int64 in C order; n may be 0.

    Raises:
        ValueError: If the shapes disagree, the window is not odd, or top_k is below 1.

    Source: ConfLUNet (arXiv:2505.22537), after Panoptic-DeepLab. Departure: the authors' code
    keeps a random voxel of each plateau.

    Example:
        >>> heatmap = np.zeros((5, 5, 5), dtype=np.float32)
        >>> heatmap[2, 3, 1] = 0.9
        >>> find_centers(heatmap, threshold=0.1, nms_size_vox=3).tolist()
        [[2, 3, 1]]
    """
    if nms_size_vox < 1 or nms_size_vox % 2 == 0:
        raise ValueError(f"nms_size_vox must be odd and positive, got {nms_size_vox}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    high = heatmap > threshold
    if mask is not None:
        if mask.shape != heatmap.shape:
            raise ValueError(f"mask {mask.shape} does not fit the heatmap {heatmap.shape}")
        high &= mask
    peaks = _peaks(heatmap, list_voxels(high), nms_size_vox // 2)
    centers = peaks[_one_per_plateau(peaks, heatmap.shape)]
    if top_k is None or len(centers) <= top_k:
        return centers
    value = heatmap[tuple(centers.T)]
    highest: Indices = centers[value >= np.sort(value)[-top_k]]
    return highest


def _peaks(heatmap: FloatArray, candidates: Indices, reach: int) -> Indices:
    """Those candidates in whose window nothing is greater."""
    shape = np.array(heatmap.shape)
    window = np.arange(-reach, reach + 1)
    steps = np.stack(np.meshgrid(window, window, window, indexing="ij"), axis=-1).reshape(-1, 3)
    # Near neighbors first: nearly every candidate is out after a few of them.
    for step in steps[np.argsort((steps**2).sum(axis=1), kind="stable")[1:]]:
        beside = candidates + step
        inside = ((beside >= 0) & (beside < shape)).all(axis=1)
        keep = np.ones(len(candidates), dtype=np.bool_)
        keep[inside] = ~(heatmap[tuple(beside[inside].T)] > heatmap[tuple(candidates[inside].T)])
        candidates = candidates[keep]
    return candidates


def _one_per_plateau(peaks: Indices, shape: tuple[int, ...]) -> Indices:
    """Rows of the peaks that stand for their plateaus."""
    plateau = label_voxels(peaks, shape, PLATEAU_CONNECTIVITY)
    size = np.bincount(plateau)
    total = np.stack([np.bincount(plateau, peaks[:, axis], len(size)) for axis in range(3)], axis=1)
    # Distance to the centroid times the plateau's size: whole numbers, so ties are exact.
    apart = ((peaks * size[plateau][:, None] - total[plateau]) ** 2).sum(axis=1)
    order = np.lexsort((np.arange(len(peaks)), apart, plateau))
    _, first = np.unique(plateau[order], return_index=True)
    return np.sort(order[first])


def offset_bias(offsets_vox: FloatArray, centers_vox: Indices) -> NDArray[np.float64]:
    """(3,) mean offset over the center voxels, which would be 0 for a perfect network.

    Without centers it is 0.

    Example:
        >>> offsets_vox = np.full((3, 4, 4, 4), 0.5, dtype=np.float32)
        >>> offset_bias(offsets_vox, np.array([[1, 1, 1], [2, 2, 2]])).tolist()
        [0.5, 0.5, 0.5]
    """
    if len(centers_vox) == 0:
        return np.zeros(3)
    at_centers = offsets_vox[(slice(None), *centers_vox.T)]
    return np.asarray(at_centers.astype(np.float64).mean(axis=1))


def _votes(index: Indices, offsets_vox: FloatArray, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if offsets_vox.shape != (3, *shape):
        raise ValueError(f"offsets {offsets_vox.shape} do not fit a volume of shape {shape}")
    votes = index + offsets_vox[(slice(None), *index.T)].T.astype(np.float64)
    if not np.isfinite(votes).all():
        raise ValueError("an offset in the foreground is not a finite number")
    return np.asarray(votes)


@dataclass(frozen=True)
class OffsetVoting:
    """Each voxel of the mask joins the lesion center its offset points to.

    Every voxel of the mask gets a label and no other voxel does. In the end each label is one
    connected piece, numbered 1 … n in C order of the lesions' first voxels.

    Where the network missed every center of a region of the mask, its voxels have no center to
    point to, and the nearest one lies in another lesion. Such a region, one that holds no center
    and of whose votes fewer than half land within ``reach_vox`` of any center, becomes
    one lesion of its own. A center may well lie outside a bent lesion, hence the votes decide
    and not the place of the center alone.

    Votes are noisy, and a few voxels of a lesion may be nearer to a neighbor's center. What
    they form apart from that neighbor is a fragment, not a lesion: below ``fragment_mm3`` it joins
    the lesion it touches most.

    Attributes:
        center_threshold: heatmap value a center must exceed.
        nms_size_vox: window in which a center must be the greatest; odd.
        top_k: keep the k highest centers; None keeps all.
        calibrate: subtract the mean offset at the centers from every offset first.
        connectivity: of a region of the mask and of a lesion's pieces; None leaves the pieces
            of one center together (and regions 26-connected).
        reach_vox: how near to a center a vote must land to speak for it where a region holds
            no center. None sets no limit: a region without a center joins lesions however far
            away, and where there is no center at all nothing is a lesion.
        fragment_mm3: of the pieces of one center, all but the largest join a lesion that they touch
            when they are smaller than this; 0 lets each be a lesion. Only with a connectivity.

    Source: ConfLUNet (arXiv:2505.22537). The authors' code is ``connectivity=6``,
    ``reach_vox=None`` and ``fragment_mm3=0``; it draws one voxel of a plateau of equal peaks at
    random, and computes in half precision.
    """

    center_threshold: float = 0.1
    nms_size_vox: int = 3
    top_k: int | None = None
    calibrate: bool = False
    connectivity: int | None = DEFAULT_CONNECTIVITY
    reach_vox: float | None = 3.0
    fragment_mm3: float = defaults.MIN_VOLUME_MM3

    def __post_init__(self) -> None:
        check_limits(
            center_threshold=self.center_threshold,
            reach_vox=self.reach_vox,
            fragment_mm3=self.fragment_mm3,
        )

    def __call__(self, maps: LesionMaps, mask: BoolArray) -> Instances:
        """Separate the lesions of the mask.

        Raises:
            ValueError: If the maps hold no heatmap or offsets, shapes disagree, or an offset
                in the mask is not finite.
        """
        if maps.center_heatmap is None or maps.offsets_vox is None:
            raise ValueError("offset voting needs a center heatmap and offsets")
        if mask.shape != maps.center_heatmap.shape:
            raise ValueError(
                f"mask {mask.shape} does not fit the heatmap {maps.center_heatmap.shape}"
            )
        centers = find_centers(
            maps.center_heatmap, self.center_threshold, self.nms_size_vox, self.top_k
        )
        index = list_voxels(mask)
        votes = _votes(index, maps.offsets_vox, mask.shape)
        if self.calibrate:
            votes -= offset_bias(maps.offsets_vox, centers)
        fragment_vox = self.fragment_mm3 * (1 - SIZE_ROUNDING) / maps.grid.voxel_volume_mm3
        lesion = self._joined(index, votes, centers, mask.shape, fragment_vox)
        labels = np.zeros(mask.shape, dtype=np.int32)
        found = lesion > 0
        labels[tuple(index[found].T)] = in_order_of_first(lesion[found]) + 1
        return Instances(labels, maps.grid)

    def _joined(
        self,
        index: Indices,
        votes: FloatArray,
        centers: Indices,
        shape: tuple[int, ...],
        fragment_vox: float,
    ) -> NDArray[np.int64]:
        """(n,) lesion number of each voxel, 0 for none."""
        lesion = np.zeros(len(index), dtype=np.int64)
        apart = np.full(len(index), np.inf)
        if len(centers) and len(index):
            row, apart = nearest_rows(votes, centers)
            lesion = row + 1
        if self.reach_vox is not None and len(index):
            region = label_voxels(index, shape, self.connectivity or DEFAULT_CONNECTIVITY)
            alone = ~_near_a_center(index, region, centers, apart, self.reach_vox, shape)
            lesion = np.where(alone[region], len(centers) + 1 + region, lesion)
        if self.connectivity is None:
            return lesion
        return join_small_pieces(index, shape, lesion, self.connectivity, fragment_vox)


def _near_a_center(
    index: Indices,
    region: Indices,
    centers: Indices,
    apart: NDArray[np.float64],
    reach_vox: float,
    shape: tuple[int, ...],
) -> NDArray[np.bool_]:
    """Whether each region holds a center, or half of its votes land near one."""
    size = np.bincount(region)
    near = 2 * np.bincount(region, apart <= reach_vox, len(size)) >= size
    flat = np.ravel_multi_index(tuple(index.T), shape)
    at_centers = np.ravel_multi_index(tuple(centers.T), shape)
    near[region[np.isin(flat, at_centers)]] = True
    return np.asarray(near)
