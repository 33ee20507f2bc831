"""What a scan shows on both sides of a brain mask's border: whether the mask ends where it should.

A brain ends in a dark layer: fluid and bone are dark in FLAIR, bone in every contrast. Beyond the
bone lie marrow, fat and skin. So a mask that cuts through the brain has tissue on both sides
of its border, and one that is too wide holds a dark layer, with bright fat outside of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.types import Volume

WORKING_MM = 2.0
SIDES = ("right", "left", "front", "back", "top", "bottom")
FACING = 0.75
"""Cosine of the angle to a side's direction below which a point of the border belongs to none."""
FEWEST_POINTS = 30
DEEPEST_MM, FARTHEST_MM = 14, 10
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class BrainBorder:
    """Shares of a mask's border, each from 0 to 1.

    Attributes:
        open: by side, in the order of ``SIDES``: where the scan goes on beyond the mask as within
            it, for 10 mm, with no dark layer and nothing brighter than tissue. 0 for a side with
            too few points, or where the field of view ends.
        fat: where what lies in the outermost 4 mm of the mask is 1.4 times as bright as the brain's
            median, with something darker than 0.7 of it beneath.
        skull: where what is as bright as tissue lies in the outermost 4 mm, with a layer darker
            than 0.3 of the brain's median beneath.
        dark_rim: of the outermost 6 mm, what is darker than 0.4 of the brain's median.
    """

    open: tuple[float, ...]
    fat: float
    skull: float
    dark_rim: float

    @property
    def widest_open(self) -> tuple[str, float]:
        """The side that is open most and its share; the bottom, where the brainstem leaves, never
        counts."""
        side = int(np.argmax(self.open[:5]))
        return SIDES[side], self.open[side]


def brain_border(scan: Volume, brain: Volume) -> BrainBorder | None:
    """Look along the normals of a mask's border; None where the brain or its border is too small.

    Args:
        scan: with or without skull, any spacing; computed on a copy with voxels of 2 mm.
        brain: bool, on any grid in the scan's world.

    Example:
        >>> from lesionwise.types import Grid
        >>> grid = Grid((40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
        >>> mask = np.zeros(grid.shape, dtype=np.bool_)
        >>> mask[10:30, 10:30, 10:30] = True
        >>> scan = Volume(np.full(grid.shape, 100.0), grid)  # tissue goes on beyond the mask
        >>> brain_border(scan, Volume(mask, grid)).widest_open
        ('right', 1.0)
    """
    grid = respaced(scan.grid, WORKING_MM)
    mask = Volume(brain.array.astype(np.float32), brain.grid)
    inside = resample_to(mask, grid, order=1, antialias=False).array > 0.5
    if not inside.any():
        return None
    image = resample_to(scan, grid, order=1).array
    median = float(np.median(image[inside]))
    if not median > 0:
        return None
    image = image / np.float32(median)
    spacing = np.array(grid.spacing_mm)
    depth = edt.edt(inside, anisotropy=grid.spacing_mm, black_border=False)
    signed = depth - edt.edt(~inside, anisotropy=grid.spacing_mm, black_border=False)
    if not np.isfinite(signed).all():  # the mask holds every voxel
        return None
    points = np.argwhere(inside & (depth < 1.1 * WORKING_MM))
    points = points[points.sum(axis=1) % 2 == 0]  # half of them, alike on every side
    if len(points) < FEWEST_POINTS:
        return None
    slope = np.stack(np.gradient(ndimage.gaussian_filter(signed, 1.0), *spacing))
    outward = -slope[:, points[:, 0], points[:, 1], points[:, 2]].T
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-6)

    def along(reach_mm: float) -> Floats:
        place = points + reach_mm * outward / spacing
        within = ((place >= 0) & (place <= np.array(grid.shape) - 1)).all(axis=1)
        value = ndimage.map_coordinates(image, place.T, order=1, mode="nearest")
        return np.where(within, value, np.nan).astype(np.float32)

    beyond = np.stack([along(mm) for mm in range(2, FARTHEST_MM + 1, 2)], axis=1)
    beneath = np.stack([along(-mm) for mm in range(0, DEEPEST_MM + 1, 2)], axis=1)
    seen = ~np.isnan(beyond).any(axis=1) & ~np.isnan(beneath[:, 2])
    goes_on = seen & (beyond.min(axis=1) > 0.6) & (beyond.max(axis=1) < 1.35)
    goes_on &= np.abs(beneath[:, 2] - beyond[:, 1]) < 0.3
    shares = []
    for axis in range(3):
        for sign in (1, -1):
            side = seen & (sign * outward[:, axis] > FACING)
            enough = int(side.sum()) >= FEWEST_POINTS
            shares.append(float(goes_on[side].mean()) if enough else 0.0)
    beneath = np.nan_to_num(beneath, nan=1.0)
    rim = inside & (depth < 6)
    return BrainBorder(
        tuple(shares),
        _layered(beneath, 1.4, 0.7),
        _layered(beneath, 0.6, 0.3),
        float((image[rim] < 0.4).mean()),
    )


def _layered(beneath: Floats, bright: float, dark: float) -> float:
    """Share of rays that are ``bright`` in the outermost two samples and ``dark`` deeper down."""
    found = np.zeros(len(beneath), dtype=bool)
    for start in range(2):
        found |= (beneath[:, start] > bright) & (beneath[:, start + 1 :].min(axis=1) < dark)
    return float(found.mean())
