"""Faults of a scan, put into one that has none: to see that they are noticed."""

from __future__ import annotations

import edt
import numpy as np

from lesionwise.types import BoolArray, Grid, Volume


def degraded(
    scan: Volume, seed: int, *, ghost: float = 0.0, noise: float = 0.0, keep: float = 1.0
) -> Volume:
    """A scan as it would be had the patient moved, the signal been weak or slices been left out.

    Args:
        scan: (I, J, K), canonical axes, any type; values from 0.
        seed: of the noise.
        ghost: brightness of a copy of the head, shifted by a third of the picture along j and
            wrapped around, as a share of the head's.
        noise: SD of the noise in each of two channels (Rician), as a share of the head's
            brightness, the mean of what exceeds the overall mean.
        keep: share of the slices along k that are kept, the lowest.

    Returns:
        float32, on the grid of the slices that are kept; at least one is.

    Example:
        >>> grid = Grid((4, 4, 10), np.eye(4))
        >>> scan = Volume(np.arange(160.0).reshape(grid.shape), grid)
        >>> degraded(scan, seed=0, keep=0.7).grid.shape
        (4, 4, 7)
        >>> bool((degraded(scan, seed=0, noise=0.1).array != scan.array).all())
        True
    """
    slices = max(1, round(keep * scan.grid.shape[2]))
    values = np.asarray(scan.array[:, :, :slices], dtype=np.float32)
    shifted = np.roll(values, values.shape[1] // 3, axis=1)
    values = (1 - ghost) * values + ghost * shifted
    head = float(values[values > values.mean()].mean()) if np.ptp(values) > 0 else 1.0
    rng = np.random.default_rng(seed)
    one, two = rng.standard_normal((2, *values.shape), dtype=np.float32) * np.float32(noise * head)
    degraded = np.sqrt((values + one) ** 2 + two**2)
    return Volume(degraded.astype(np.float32), Grid(degraded.shape, scan.grid.affine))


def without_face(scan: Volume, brain: BoolArray, margin_mm: float) -> Volume:
    """The scan with 0 in all that lies further in front of the brain than a margin.

    In each line along j, what counts is the foremost voxel within the margin of the brain; in lines
    that pass the brain by, that of the nearest slice along k that has any, in its foremost line.
    A scan without brain is returned as it is.

    Args:
        scan: canonical axes: j runs to the front, k upward.
        brain: bool, (I, J, K).
        margin_mm: between the brain and what is cut.

    Example:
        >>> scan = Volume(np.full((1, 8, 1), 100.0), Grid((1, 8, 1), np.eye(4)))
        >>> brain = np.zeros(scan.grid.shape, dtype=np.bool_)
        >>> brain[:, 2:4] = True
        >>> without_face(scan, brain, margin_mm=2.0).array.ravel().tolist()
        [100.0, 100.0, 100.0, 100.0, 100.0, 100.0, 0.0, 0.0]
    """
    if not brain.any():
        return scan
    near = edt.edt(~brain, anisotropy=scan.grid.spacing_mm, black_border=False) <= margin_mm
    n = near.shape[1]
    front = np.where(near.any(axis=1), n - 1 - near[:, ::-1].argmax(axis=1), -1)  # (I, K)
    of_slice = front.max(axis=0)
    filled = np.flatnonzero(of_slice >= 0)
    nearest = filled[np.abs(np.arange(len(of_slice))[:, None] - filled).argmin(axis=1)]
    front = np.where(front < 0, of_slice[nearest][None, :], front)
    kept = np.arange(n)[None, :, None] <= front[:, None, :]
    return Volume(np.where(kept, scan.array, np.zeros((), scan.array.dtype)), scan.grid)
