"""How alike two scans look where a world matrix lays one onto the other.

Two scans of one head agree in their sulci, ventricles and borders of tissue; two heads, or one head
registered to its mirror image, do not, however well their outlines fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.types import BoolArray, Grid, Matrix, Volume

Float32 = NDArray[np.float32]
WORKING_MM = 3.0
SMOOTH_MM = 8.0
"""What is smoother than this belongs to the coil, the scanner or every head, and is left out."""
TAILS_PERCENT = (2.0, 97.0)
"""Beyond these percentiles values count as equal to them: lesions come and go, noise is bright."""
MIN_SHARED_VOX = 500


def similarity(
    fixed: Volume,
    moving: Volume,
    world: Matrix,
    fixed_brain: Volume | None = None,
    moving_brain: Volume | None = None,
) -> float:
    """Correlation of the fine structure of two scans, within both brains, in [-1, 1].

    Both are read at 3 mm and cut at their 2nd and 97th percentile, and what is smoother than 8 mm
    is subtracted; the rest is correlated over the brain that both show. Near 1 for two scans of
    one head (numbers: ``docs/measurements/alignment.md``); negative for contrasts that are
    opposite, such as T1w and T2w; 0 where the brains share too little.

    Args:
        fixed, moving: any contrast and spacing.
        world: (4, 4), world mm of ``fixed`` to world mm of ``moving``.
        fixed_brain, moving_brain: bool, on any grid in the world of their scan; None takes what
            is brighter than the background.

    Example:
        >>> array = np.random.default_rng(0).uniform(1, 2, (16, 16, 16))
        >>> scan = Volume(array, Grid(array.shape, np.diag([3.0, 3.0, 3.0, 1.0])))
        >>> brain = Volume(np.ones(array.shape, dtype=np.bool_), scan.grid)
        >>> round(similarity(scan, scan, np.eye(4), brain, brain), 2)
        1.0
        >>> inverted = Volume(3 - array, scan.grid)
        >>> round(similarity(scan, inverted, np.eye(4), brain, brain), 1)
        -1.0
    """
    grid = _box(fixed, fixed_brain)
    inside = _inside(fixed, fixed_brain, grid, np.eye(4)) & _inside(
        moving, moving_brain, grid, world
    )
    if int(inside.sum()) < MIN_SHARED_VOX:
        return 0.0
    details = [
        _detail(_read(scan, grid, matrix), inside, grid)
        for scan, matrix in ((fixed, np.eye(4)), (moving, world))
    ]
    one, two = (detail - detail.mean() for detail in details)
    spread = float(np.sqrt((one * one).sum() * (two * two).sum()))
    return float((one * two).sum()) / spread if spread > 0 else 0.0


def _box(fixed: Volume, brain: Volume | None) -> Grid:
    """The working grid, cut to the brain's box where the brain is known."""
    grid = respaced(fixed.grid, WORKING_MM)
    if brain is None or not brain.array.any():
        return grid
    points = brain.grid.world_mm(np.argwhere(brain.array))
    to_index = np.linalg.inv(grid.affine)
    at = points @ to_index[:3, :3].T + to_index[:3, 3]
    low = np.maximum(np.floor(at.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(at.max(axis=0)) + 1, grid.shape).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = low
    i, j, k = np.maximum(high - low, 1)
    return Grid((int(i), int(j), int(k)), grid.affine @ shift)


def _inside(scan: Volume, brain: Volume | None, grid: Grid, world: Matrix) -> BoolArray:
    if brain is None or not brain.array.any():
        low, high = np.percentile(scan.array, [1, 99])
        brain = Volume(np.asarray(scan.array > low + 0.1 * (high - low)), scan.grid)
    moved = resample_to(brain, grid, order=0, world=world)
    return np.asarray(moved.array.astype(np.bool_, copy=False))


def _read(scan: Volume, grid: Grid, world: Matrix) -> Float32:
    """The scan at the voxels of a grid, smoothed first where its own voxels are smaller."""
    ratio = WORKING_MM / np.array(scan.grid.spacing_mm)
    # of the Gaussian whose full width at half maximum makes up the difference
    sigma_vox = np.sqrt(np.maximum(ratio**2 - 1, 0)) / 2.3548
    smooth = ndimage.gaussian_filter(np.asarray(scan.array, dtype=np.float32), sigma_vox)
    moved = resample_to(Volume(smooth, scan.grid), grid, order=1, world=world, antialias=False)
    return np.asarray(moved.array)


def _detail(values: Float32, inside: BoolArray, grid: Grid) -> NDArray[np.float64]:
    """(n,) what is finer than ``SMOOTH_MM`` at the voxels inside."""
    low, high = np.percentile(values[inside], TAILS_PERCENT)
    cut = np.where(inside, np.clip(values, low, high), 0).astype(np.float32)
    sigma_vox = [SMOOTH_MM / s for s in grid.spacing_mm]
    weight = ndimage.gaussian_filter(inside.astype(np.float32), sigma_vox)
    smooth = ndimage.gaussian_filter(cut, sigma_vox) / np.maximum(weight, 1e-3)
    return np.asarray((cut - smooth)[inside], dtype=np.float64)
