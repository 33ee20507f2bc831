"""How much of a lesion's contrast a scan with other voxels would show.

A voxel shows the mean of what lies in it. A lesion of 3 mm in a slice of 6 mm fills half of it at
best, and a quarter of two slices where it lies on their border: it can be there and not be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.instances.voxels import Indices
from lesionwise.types import BoolArray, Grid, Matrix

SUBVOXELS = 3
"""Points for each voxel of the lesion, along each axis, at which a scan's voxel is sampled."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """The voxels a visit was acquired with.

    Attributes:
        scan: grid of the scan as read.
        world: (4, 4), world mm of the grid on which lesions are compared to world mm of the scan.
    """

    scan: Grid
    world: Matrix

    def to_scan(self, common: Grid) -> Matrix:
        """(4, 4), voxels of the grid on which lesions are compared to those of the scan."""
        return np.asarray(np.linalg.inv(self.scan.affine) @ self.world @ common.affine)

    def shows(self, index: Indices, common: Grid) -> BoolArray:
        """(n,) which of (n, 3) voxels of ``common`` have their center in the field of view.

        Example:
            >>> short = Acquisition(Grid((9, 9, 5), np.eye(4)), np.eye(4))
            >>> tall = Grid((9, 9, 9), np.eye(4))
            >>> short.shows(np.array([[0, 0, 4], [0, 0, 5]]), tall).tolist()
            [True, False]
        """
        to_scan = self.to_scan(common)
        at = index @ to_scan[:3, :3].T + to_scan[:3, 3]
        inside = (at >= -0.5) & (at <= np.array(self.scan.shape) - 0.5)
        return np.asarray(inside.all(axis=1), dtype=np.bool_)


def visible_fraction(index: Indices, common: Grid, acquisition: Acquisition) -> float:
    """Mean fraction of its contrast that a scan shows at a lesion's voxels, in [0, 1].

    Every voxel of the scan shows the fraction of it that the lesion fills; between voxel centers
    the scan is interpolated linearly, as it is where scans are compared. 1 for a lesion much
    larger than the voxels, 0 for one outside the field of view.

    Args:
        index: (n, 3) voxels of the lesion on ``common``, one or more.
        common: grid on which lesions are compared.
        acquisition: the scan in question.

    Example:
        A plate of 3 mm in the middle of a slice of 5 mm, on voxels of 1 mm, has three fifths of its
        contrast at the center of the slice and less beside it:

        >>> thick = Grid((9, 9, 5), np.diag([1.0, 1, 5, 1]))
        >>> plate = np.argwhere(np.ones((9, 9, 3), bool)) + [0, 0, 9]
        >>> fine = Grid((9, 9, 30), np.eye(4))
        >>> round(visible_fraction(plate, fine, Acquisition(thick, np.eye(4))), 2)
        0.52
    """
    to_scan = acquisition.to_scan(common)
    centers = index @ to_scan[:3, :3].T + to_scan[:3, 3]
    low = np.maximum(np.floor(centers.min(axis=0)), 0).astype(np.intp)
    high = np.minimum(np.ceil(centers.max(axis=0)) + 1, acquisition.scan.shape).astype(np.intp)
    if (low >= high).any():
        return 0.0
    to_common: Matrix = np.asarray(np.linalg.inv(to_scan), dtype=np.float64)
    filled = _filled(index, to_common, low, high)
    shown: NDArray[np.float64] = ndimage.map_coordinates(
        filled, (centers - low).T, order=1, mode="constant", cval=0.0
    )
    return float(shown.mean())


def relative_visibility(
    index: Indices, common: Grid, own: Acquisition, other: Acquisition
) -> float:
    """The fraction that the other visit would show, relative to what its own visit shows.

    1 where both were acquired alike, below 1 where the other has larger voxels, never above 1;
    0 outside the other's field of view.

    Example:
        >>> thick = Acquisition(Grid((9, 9, 5), np.diag([1.0, 1, 5, 1])), np.eye(4))
        >>> fine = Acquisition(Grid((9, 9, 25), np.eye(4)), np.eye(4))
        >>> plate = np.argwhere(np.ones((9, 9, 3), bool)) + [0, 0, 9]
        >>> round(relative_visibility(plate, fine.scan, own=fine, other=thick), 2)
        0.52
    """
    shown = visible_fraction(index, common, own)
    if shown <= 0:
        return 1.0
    return min(visible_fraction(index, common, other) / shown, 1.0)


def _filled(
    index: Indices, to_common: Matrix, low: NDArray[np.intp], high: NDArray[np.intp]
) -> NDArray[np.float64]:
    """The fraction of each voxel of a scan, from ``low`` to ``high`` - 1, that a lesion fills.

    Args:
        to_common: (4, 4), voxels of the scan to those that ``index`` names.
    """
    first = index.min(axis=0)
    lesion = np.zeros(index.max(axis=0) - first + 1, dtype=np.bool_)
    lesion[tuple((index - first).T)] = True
    across = np.linalg.norm(to_common[:3, :3], axis=0)
    counts = np.maximum(np.ceil(SUBVOXELS * across), SUBVOXELS).astype(int).tolist()
    axes = [
        np.arange(a, b)[:, None] + (np.arange(n) + 0.5) / n - 0.5
        for a, b, n in zip(low, high, counts, strict=True)
    ]
    i, j, k = np.ix_(*(axis.ravel() for axis in axes))
    inside, at = np.bool_(True), []
    for axis in range(3):
        a, b, c, d = to_common[axis]
        # halves go up: to even, they would depend on where the grid begins
        position = np.floor(a * i + b * j + c * k + d + 0.5).astype(np.intp) - first[axis]
        inside = inside & (position >= 0) & (position < lesion.shape[axis])
        at.append(np.clip(position, 0, lesion.shape[axis] - 1))
    points = lesion[tuple(at)] & inside
    parts = [n for axis in axes for n in axis.shape]
    filled: NDArray[np.float64] = points.reshape(parts).mean(axis=(1, 3, 5))
    return filled
