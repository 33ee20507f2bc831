"""Voxels by number, and voxel sizes that spare the interpolation where they can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionwise.preprocess.geometry import (
    Order,
    label_order,
    map_volumes,
    resample_to,
    reshaped,
    respaced,
)
from lesionwise.types import Grid, InputError, Study


@dataclass(frozen=True)
class ResizeVolume:
    """Every volume with so many voxels along i, j and k, whatever their size becomes.

    The outer faces stay where they are, so voxels may become oblong. Scans are interpolated by
    ``order`` and smoothed first where an axis gets coarser; labels and brains go by nearest
    neighbor. Raises InputError for fewer than one voxel.

    Attributes:
        size_vox: along i, j, k.
        order: 1 linear, 3 cubic B-spline, 0 nearest neighbor.
    """

    size_vox: tuple[int, int, int]
    order: Order = 1

    def __call__(self, study: Study) -> Study:
        if min(self.size_vox) < 1:
            raise InputError(f"volumes of {self.size_vox} voxels: at least 1 is needed")
        return map_volumes(
            study,
            lambda volume: resample_to(
                volume, reshaped(volume.grid, self.size_vox), order=self.order
            ),
            lambda volume: resample_to(
                volume, reshaped(volume.grid, self.size_vox), order=label_order(volume)
            ),
        )


@dataclass(frozen=True)
class ResampleNearInteger:
    """Voxels near ``target_mm`` along each axis, by a whole factor where one comes near enough.

    Where a whole multiple of an axis' spacing, or the spacing divided by a whole number, lies
    within ``tolerance_mm`` of the target, the one nearest to it is taken (the finer of two):
    0.45 mm become 0.9 mm, 3 mm become 1 mm, 0.95 mm stay. Another axis gets the target itself, as
    with ``Resample``. New voxels of a whole multiple start at the axis' first face; if the voxels
    do not divide, a rest of less than half a new voxel at the end is cut off, a larger one
    makes a voxel that reaches beyond it.

    Attributes:
        target_mm: wanted spacing.
        tolerance_mm: how far from it a whole factor may lead.
        order: for scans, 1 linear, 3 cubic B-spline, 0 nearest neighbor; labels and brains go by
            nearest neighbor.

    Source: Efird, Miller and Cobzas 2021.
    """

    target_mm: float = 1.0
    tolerance_mm: float = 0.11
    order: Order = 1

    def __post_init__(self) -> None:
        if not self.target_mm > 0 or not 0 <= self.tolerance_mm < self.target_mm:
            raise ValueError(
                f"the target must be positive and the tolerance below it, got {self.target_mm} "
                f"and {self.tolerance_mm}"
            )

    def __call__(self, study: Study) -> Study:
        return map_volumes(
            study,
            lambda volume: resample_to(volume, self.grid_for(volume.grid), order=self.order),
            lambda volume: resample_to(
                volume, self.grid_for(volume.grid), order=label_order(volume)
            ),
        )

    def spacing_for(self, spacing_mm: float) -> float:
        """The spacing that an axis of this one gets."""
        many = np.arange(1, int(2 * self.target_mm / spacing_mm) + 2)
        few = np.arange(2, int(2 * spacing_mm / self.target_mm) + 3)
        possible = np.sort(np.concatenate([spacing_mm * many, spacing_mm / few]))
        # rounded, so that the finer of two that are equally near comes first
        away = np.round(np.abs(possible - self.target_mm), 6)
        best = int(np.argmin(away))
        near = away[best] <= self.tolerance_mm + 1e-6
        return float(possible[best]) if near else self.target_mm

    def grid_for(self, grid: Grid) -> Grid:
        """The grid with those spacings."""
        new = [self.spacing_for(s) for s in grid.spacing_mm]
        even = respaced(grid, new)
        shape, to_old = list(even.shape), np.linalg.solve(grid.affine, even.affine)
        for axis, (old, spacing) in enumerate(zip(grid.spacing_mm, new, strict=True)):
            factor = round(spacing / old)
            if factor >= 2 and abs(spacing - factor * old) < 1e-6 * old:
                # respaced keeps both faces and would stretch the voxels by the rest
                shape[axis] = max(1, (grid.shape[axis] + factor // 2) // factor)
                to_old[axis, axis] = factor
                to_old[axis, 3] = (factor - 1) / 2
        return Grid((shape[0], shape[1], shape[2]), grid.affine @ to_old)
