"""Faults of a scan, put into one that has none: to see that they are noticed."""

from __future__ import annotations

import numpy as np

from lesionwise.types import Grid, Volume


def spoiled(
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
    """
    slices = max(1, round(keep * scan.grid.shape[2]))
    values = np.asarray(scan.array[:, :, :slices], dtype=np.float32)
    shifted = np.roll(values, values.shape[1] // 3, axis=1)
    values = (1 - ghost) * values + ghost * shifted
    head = float(values[values > values.mean()].mean()) if np.ptp(values) > 0 else 1.0
    rng = np.random.default_rng(seed)
    one, two = rng.standard_normal((2, *values.shape), dtype=np.float32) * np.float32(noise * head)
    spoilt = np.sqrt((values + one) ** 2 + two**2)
    return Volume(spoilt.astype(np.float32), Grid(spoilt.shape, scan.grid.affine))
