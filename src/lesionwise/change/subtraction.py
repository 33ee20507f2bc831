"""What became brighter between two scans, voxel by voxel.

Arrays are (I, J, K), of any real dtype and one shape, on one grid and one intensity scale; results
are float32. Nothing here looks at a brain mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


def subtraction(baseline: NDArray[Any], followup: NDArray[Any]) -> Float32:
    """Follow-up minus baseline: positive where the tissue became brighter.

    Source: the chapter of recipe ``subtraction-2d``.

    Example:
        >>> subtraction(np.array([[[100.0, 80.0]]]), np.array([[[100.0, 95.0]]])).tolist()
        [[[0.0, 15.0]]]
    """
    _check(baseline, followup)
    difference: Float32 = np.subtract(followup, baseline, dtype=np.float32)
    return difference


def ratio(baseline: NDArray[Any], followup: NDArray[Any]) -> Float32:
    """Follow-up over baseline; 1, no change, where either is not positive.

    Source: the MSSEG-2 chapter on image processing and CNNs.

    Example:
        >>> ratio(np.array([[[100.0, 0.0]]]), np.array([[[150.0, 95.0]]])).tolist()
        [[[1.5, 1.0]]]
    """
    _check(baseline, followup)
    out: Float32 = np.ones(baseline.shape, dtype=np.float32)
    positive = (baseline > 0) & (followup > 0)
    np.divide(followup, baseline, out=out, where=positive, dtype=np.float32)
    return out


def attention_maps(baseline: NDArray[Any], followup: NDArray[Any]) -> tuple[Float32, Float32]:
    """What became brighter, times the baseline and times the follow-up: (F - B)+ * B, (F - B)+ * F.

    Both are 0 wherever the follow-up is not brighter.

    Source: the MSSEG-2 chapter on SC U-Nets.

    Example:
        >>> before, after = attention_maps(np.array([[[2.0, 3.0]]]), np.array([[[3.0, 1.0]]]))
        >>> before.tolist(), after.tolist()
        ([[[2.0, 0.0]]], [[[3.0, 0.0]]])
    """
    brighter = subtraction(baseline, followup)
    np.maximum(brighter, 0, out=brighter)
    return (
        np.multiply(brighter, baseline, dtype=np.float32),
        np.multiply(brighter, followup, dtype=np.float32),
    )


def _check(baseline: NDArray[Any], followup: NDArray[Any]) -> None:
    if baseline.shape != followup.shape:
        raise ValueError(f"scans of different shapes: {baseline.shape} and {followup.shape}")
