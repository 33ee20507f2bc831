"""Smooth random fields, the raw material of every irregular thing in a simulated head."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, ...], scale_vox: float, fields: int = 1
) -> NDArray[np.float32]:
    """Random fields of zero mean, unit variance and about ``scale_vox`` correlation length.

    Each is white noise on a coarse lattice, interpolated by cubic B-splines, so it has
    continuous second derivatives.

    Args:
        rng: where the randomness comes from.
        shape: (I, J, K) of each field.
        scale_vox: distance between lattice points, in voxels along every axis.
        fields: how many independent fields.

    Returns:
        (fields, I, J, K) float32; one field has shape (I, J, K).

    Example:
        >>> field = smooth_field(np.random.default_rng(0), (20, 20, 20), scale_vox=5, fields=3)
        >>> field.shape, str(field.dtype)
        ((3, 20, 20, 20), 'float32')
    """
    bases = [_spline_basis(n, scale_vox) for n in shape]
    noise = rng.standard_normal((fields, *(basis.shape[1] for basis in bases)), dtype=np.float32)
    for axis, basis in enumerate(bases, start=1):
        noise = np.moveaxis(np.tensordot(noise, basis, axes=(axis, 1)), -1, axis)
    noise = np.ascontiguousarray(noise)
    return noise[0] if fields == 1 else noise


def _spline_basis(n: int, scale_vox: float) -> NDArray[np.float32]:
    """(n, m) weights of m cubic B-splines at n voxels, each row of unit sum of squares."""
    m = int(np.ceil((n - 1) / scale_vox)) + 4
    at = np.arange(n)[:, None] / scale_vox + 1.0
    u = np.abs(at - np.arange(m)[None, :])
    weights = np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.clip(2 - u, 0, None) ** 3 / 6)
    weights /= np.sqrt((weights**2).sum(axis=1, keepdims=True))
    return weights.astype(np.float32)
