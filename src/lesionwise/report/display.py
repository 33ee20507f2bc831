"""What of a scan is shown: upright, cropped to the brain, in 256 gray levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from lesionwise.instances.table import bounding_box
from lesionwise.io.space import canonical
from lesionwise.types import Grid, Instances, Volume

MARGIN_MM = 6.0
"""Kept around the brain, so that pictures have an edge."""

SHELL_MM = 3.0
"""What is shown around the brain: enough to judge its edge, too little to hide it in 3D."""


@dataclass(frozen=True, eq=False)
class Display:
    """One visit as it is shown; all arrays share one grid.

    Attributes:
        gray: (I, J, K) uint8, axes to the right, front and top (nearest to RAS).
        labels: by method, (I, J, K) int32.
        grid: of the arrays.
        window: intensities shown as black and white.
    """

    gray: NDArray[np.uint8]
    labels: Mapping[str, NDArray[np.int32]]
    grid: Grid
    window: tuple[float, float]


def prepare(image: Volume, instances: Mapping[str, Instances], brain: Volume | None) -> Display:
    """Crop to the brain, a margin and every lesion, and bring to 256 gray levels.

    Further than ``SHELL_MM`` from brain and lesions the picture is black, which also keeps faces
    out of it.

    Args:
        image: any orientation and intensity unit; voxels that are not finite are shown black.
        instances: by method, on the image's grid.
        brain: mask on the image's grid; without it, every voxel that is not 0 counts.

    Black and white are the 0.5th and 99.8th percentile of the brain, or of the lesions where
    those are brighter.

    Raises:
        ValueError: If the grids do not match.
    """
    for name, other in (*instances.items(), ("brain", brain)):
        if other is not None and not other.grid.matches(image.grid):
            raise ValueError(f"{name} does not lie on the grid of the image")
    upright, grid = canonical(image.array, image.grid)
    array = np.nan_to_num(upright.astype(np.float32), posinf=0.0, neginf=0.0)
    inside = array != 0 if brain is None else canonical(brain.array, brain.grid)[0] != 0
    labels = {name: canonical(found.labels, found.grid)[0] for name, found in instances.items()}
    keep = inside.copy()
    for found in labels.values():
        keep |= found != 0
    margin_vox = [round(MARGIN_MM / spacing) for spacing in grid.spacing_mm]
    box = bounding_box(keep, margin_vox) or tuple(slice(0, n) for n in keep.shape)
    low, high = _window(array, inside, labels)
    cropped = array[box]
    gray = np.clip((cropped - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
    gray[_further_than(SHELL_MM, keep[box], grid.spacing_mm)] = 0
    start = np.array([side.start for side in box])
    affine = grid.affine.copy()
    affine[:3, 3] = grid.world_mm(start[None])[0]
    return Display(
        gray,
        {name: np.ascontiguousarray(found[box]) for name, found in labels.items()},
        Grid(gray.shape, affine),
        (low, high),
    )


def _further_than(
    distance_mm: float, mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    if not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    apart: NDArray[np.float32] = edt.edt(~mask, anisotropy=spacing_mm)
    return apart > distance_mm


def _window(
    array: NDArray[Any], inside: NDArray[np.bool_], labels: Mapping[str, NDArray[np.int32]]
) -> tuple[float, float]:
    shown = array[inside] if inside.any() else array.reshape(-1)
    low, high = (float(value) for value in np.percentile(shown, (0.5, 99.8)))
    for found in labels.values():
        if (found != 0).any():
            high = max(high, float(np.percentile(array[found != 0], 95)))
    return (low, high) if high > low else (low, low + 1.0)
