"""Reference and prediction over each other: what both mark, and what one does."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lesionwise.instances.table import bounding_box
from lesionwise.io.space import canonical
from lesionwise.types import Instances, Volume

BOTH, MISSED, FALSE = (0, 158, 115), (230, 159, 0), (86, 180, 233)
"""Okabe and Ito's green, orange and sky blue."""

_BACKGROUND = (24, 28, 34)
_MARGIN_MM = 10.0
_GAP = 4
_FILL = 0.3
"""Over a scan, areas are tinted so far and their borders drawn in full color."""


def overlay_png(
    reference: Instances,
    prediction: Instances,
    image: Volume | None = None,
    *,
    slices: int = 6,
    height_px: int = 260,
) -> bytes:
    """Axial slices side by side, patient's right on the left, as a PNG.

    The slices with most voxels that either side marks are shown, in order from
    bottom to top, cut to the box around all lesions and a margin of 10 mm. Without any lesion
    one slice is shown, the middle one. With a scan, each slice stands there twice: the scan
    alone, and below it with both sides over it.

    Args:
        image: the scan, on the grid of the others; black and white are the 0.5th and 99.8th
            percentile of its voxels that are not 0.

    Raises:
        ValueError: If the scan lies on another grid.
    """
    if image is not None and not image.grid.matches(reference.grid):
        raise ValueError("the scan is not on the grid of the reference")
    truth, grid = canonical(reference.labels > 0, reference.grid)
    found, _ = canonical(prediction.labels > 0, prediction.grid)
    gray = None if image is None else _gray(canonical(image.array, image.grid)[0])
    either = truth | found
    chosen = _telling_slices(either, slices)
    spacing = grid.spacing_mm
    margin_vox = [round(_MARGIN_MM / mm) for mm in spacing]
    rows, across, _ = bounding_box(either, margin_vox) or (slice(None), slice(None), slice(None))
    columns = []
    for at in chosen:
        a, b = _as_displayed(truth[rows, across, at]), _as_displayed(found[rows, across, at])
        wide, tall = a.shape[1] * spacing[0], a.shape[0] * spacing[1]
        size = (max(1, round(height_px * wide / tall)), height_px)
        marks = [(a & b, BOTH), (a & ~b, MISSED), (b & ~a, FALSE)]
        if gray is None:
            tiles = [_flat(marks, size)]
        else:
            plain = _enlarged(_as_displayed(gray[rows, across, at]), size, Image.Resampling.BICUBIC)
            plain = np.repeat(plain[..., None], 3, axis=2)
            tiles = [plain, _over(plain, marks, size)]
        columns.append(_joined(tiles, axis=0))
    buffer = io.BytesIO()
    whole = _joined(columns, axis=1)
    Image.fromarray(whole).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _gray(array: NDArray[Any]) -> NDArray[np.uint8]:
    values = np.nan_to_num(array.astype(np.float32), posinf=0.0, neginf=0.0)
    shown = values[values != 0]
    low, high = np.percentile(shown, (0.5, 99.8)) if len(shown) else (0.0, 1.0)
    return np.clip((values - low) * (255 / max(high - low, 1e-9)), 0, 255).astype(np.uint8)


def _as_displayed(tile: NDArray[Any]) -> NDArray[Any]:
    """Rows and columns of a picture: i runs to the patient's left on the screen's right, j up."""
    return np.ascontiguousarray(tile[::-1, ::-1].T)


def _enlarged(
    tile: NDArray[Any], size: tuple[int, int], how: Image.Resampling
) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(tile.astype(np.uint8)).resize(size, how), dtype=np.uint8)


def _flat(
    marks: list[tuple[NDArray[np.bool_], tuple[int, int, int]]], size: tuple[int, int]
) -> NDArray[np.uint8]:
    tile = np.empty((*marks[0][0].shape, 3), dtype=np.uint8)
    tile[...] = _BACKGROUND
    for mask, color in marks:
        tile[mask] = color
    return np.asarray(Image.fromarray(tile).resize(size, Image.Resampling.NEAREST))


def _over(
    plain: NDArray[np.uint8],
    marks: list[tuple[NDArray[np.bool_], tuple[int, int, int]]],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    tile = plain.copy()
    for mask, color in marks:
        large = _enlarged(mask, size, Image.Resampling.NEAREST) > 0
        border = large & ~ndimage.binary_erosion(large)
        tile[large] = ((1 - _FILL) * tile[large] + _FILL * np.array(color)).astype(np.uint8)
        tile[border] = color
    return tile


def _joined(tiles: list[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    shape = list(tiles[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 255, dtype=np.uint8)
    parts = [part for tile in tiles for part in (tile, gap)]
    return np.concatenate(parts[:-1], axis=axis)


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
