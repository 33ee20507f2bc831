"""Places where a finding is less certain: the ends of a scan and the brainstem's border.

The first and the last slice show less and move with the field of view. At the brainstem's surface
fluid pulsates, and the brain mask ends where the scan or the program happened to end.
"""

from __future__ import annotations

import edt
import numpy as np

from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import BoolArray, Grid, Matrix, Volume

STEM_HEIGHT_MM = 50.0
"""The brainstem lies in this lowest part of the brain,"""
STEM_HALF_WIDTH_MM = 20.0
"""and so near to the middle between left and right."""
STEM_BORDER_MM = 3.0
"""How far into the brainstem its border reaches."""
LOWER_END_MM = 5.0
"""Above the lowest voxel of the brain mask, or one slice where that is more."""


def edge_voxels(scan: Grid, brain: Volume, common: Grid, world: Matrix) -> BoolArray:
    """Voxels of a common grid in which findings of one visit are less certain.

    These are the voxels in the outermost layer of the scan's voxels along any axis, those
    outside of it, those at the lower end of the brain, and the brainstem's border.

    Args:
        scan: grid of the scan as read.
        brain: bool, on any grid in the world of the scan; where it is empty, only the ends of the
            scan count.
        common: the grid of the result.
        world: (4, 4), world mm of ``common`` to world mm of the scan.

    Returns:
        (I, J, K) bool on ``common``.

    Example:
        >>> grid = Grid((5, 5, 5), np.eye(4))
        >>> no_brain = Volume(np.zeros(grid.shape, dtype=np.bool_), grid)
        >>> int(edge_voxels(grid, no_brain, grid, np.eye(4)).sum()) == 5**3 - 3**3
        True
    """
    ends = _outermost(scan, common, world)
    border = brainstem_border(brain, max(LOWER_END_MM, max(scan.spacing_mm)))
    moved = resample_to(Volume(border, brain.grid), common, order=0, world=world)
    return ends | moved.array.astype(np.bool_, copy=False)


def brainstem_border(brain: Volume, lower_end_mm: float = LOWER_END_MM) -> BoolArray:
    """Brain voxels at the lower end of the mask and on the surface of the brainstem.

    The brainstem is taken to be what lies in the lowest 50 mm of the brain and within 20 mm of the
    middle between left and right, which includes the lower part of the vermis. Its border is the
    outer 3 mm.

    Args:
        brain: bool; i, j, k run to the right, to the front and upward, or nearly so.

    Example:
        >>> stem = Volume(np.ones((11, 11, 21), dtype=np.bool_), Grid((11, 11, 21), np.eye(4)))
        >>> border = brainstem_border(stem)
        >>> border[5, 5].astype(int).tolist()  # from its lower end up
        [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1]
    """
    inside = brain.array != 0
    if not inside.any():
        return np.zeros(brain.grid.shape, dtype=np.bool_)
    index = np.argwhere(inside)
    world_mm = brain.grid.world_mm(index)
    above_mm = world_mm[:, 2] - world_mm[:, 2].min()
    beside_mm = np.abs(world_mm[:, 0] - np.median(world_mm[:, 0]))
    stem = (above_mm <= STEM_HEIGHT_MM) & (beside_mm <= STEM_HALF_WIDTH_MM)
    depth_mm = edt.edt(np.pad(inside, 1), anisotropy=brain.grid.spacing_mm)[1:-1, 1:-1, 1:-1]
    surface = depth_mm[tuple(index.T)] <= STEM_BORDER_MM
    border = np.zeros(brain.grid.shape, dtype=np.bool_)
    border[tuple(index[(stem & surface) | (above_mm < lower_end_mm)].T)] = True
    return border


def _outermost(scan: Grid, common: Grid, world: Matrix) -> BoolArray:
    """Voxels of ``common`` in the outermost layer of the scan along any axis, or outside of it."""
    to_scan = np.linalg.inv(scan.affine) @ world @ common.affine
    to_scan[np.abs(to_scan) < 1e-9] = 0  # what inverting leaves of 0; 1e-6 voxels at most
    places = np.ogrid[tuple(slice(n) for n in common.shape)]
    found = np.zeros(common.shape, dtype=np.bool_)
    for n, (*steps, first) in zip(scan.shape, to_scan[:3], strict=True):
        # Where the axes run alike only one of them counts, and this is no volume.
        moved = [step * place for step, place in zip(steps, places, strict=True) if step]
        at = np.rint(sum(moved, np.float64(first)))
        found |= (at < 1) | (at > n - 2)
    return found
