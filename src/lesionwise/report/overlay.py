"""Reference and prediction over each other, without a scan: what both mark, and what one does."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesionwise.io.space import canonical
from lesionwise.types import Instances

BOTH, MISSED, FALSE = (0, 158, 115), (230, 159, 0), (86, 180, 233)
"""Okabe and Ito's green, orange and sky blue."""

_BACKGROUND = (24, 28, 34)
_MARGIN_MM = 10.0


def overlay_png(
    reference: Instances, prediction: Instances, *, slices: int = 6, height_px: int = 220
) -> bytes:
    """Axial slices side by side, patient's right on the left, as a PNG.

    Shown are the slices with most voxels that only one side marks or both do, in order from
    bottom to top, cut to the box around all lesions and a margin of 10 mm. Without any lesion
    one empty slice is shown.
    """
    truth, grid = canonical(reference.labels > 0, reference.grid)
    found, _ = canonical(prediction.labels > 0, prediction.grid)
    either = truth | found
    chosen = _telling_slices(either, slices)
    spacing = grid.spacing_mm
    rows, columns = (_range(either, axis, spacing[axis]) for axis in (0, 1))
    tiles = []
    for at in chosen:
        a, b = truth[rows, columns, at], found[rows, columns, at]
        tile = np.empty((*a.shape, 3), dtype=np.uint8)
        tile[...] = _BACKGROUND
        tile[a & b], tile[a & ~b], tile[~a & b] = BOTH, MISSED, FALSE
        # right on the left: i runs to the patient's left on the screen's right, j up
        upright = np.ascontiguousarray(tile[::-1, ::-1].transpose(1, 0, 2))
        tall = upright.shape[0] * spacing[1]
        wide = upright.shape[1] * spacing[0]
        size = (max(1, round(height_px * wide / tall)), height_px)
        tiles.append(np.asarray(Image.fromarray(upright).resize(size, Image.Resampling.NEAREST)))
        tiles.append(np.full((height_px, 4, 3), 255, dtype=np.uint8))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(tiles[:-1], axis=1)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def css(color: tuple[int, int, int]) -> str:
    """A color as pages take it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _telling_slices(either: NDArray[np.bool_], count: int) -> list[int]:
    """Slices with most marked voxels, no two adjacent while there is a choice."""
    voxels = either.sum(axis=(0, 1))
    order = [int(at) for at in np.argsort(-voxels, kind="stable") if voxels[at]]
    chosen: list[int] = []
    for gap in (3, 2, 1):
        for at in order:
            if len(chosen) < count and all(abs(at - other) >= gap for other in chosen):
                chosen.append(at)
    return sorted(chosen) or [either.shape[2] // 2]


def _range(either: NDArray[np.bool_], axis: int, spacing_mm: float) -> slice:
    filled = np.flatnonzero(either.any(axis=tuple(other for other in range(3) if other != axis)))
    if not len(filled):
        return slice(None)
    margin = round(_MARGIN_MM / spacing_mm)
    return slice(max(0, int(filled[0]) - margin), int(filled[-1]) + 1 + margin)
