"""Axial slices of one size."""

from __future__ import annotations

from dataclasses import dataclass

from lesionwise.preprocess.geometry import Order, label_order, map_volumes, resample_to, reshaped
from lesionwise.types import Grid, InputError, Study, Volume


@dataclass(frozen=True)
class ResizeSlices:
    """Every slice along k with so many voxels along i and j; the slices themselves stay.

    The field of view is kept exactly, so a slice that was not square gets oblong voxels, as when
    a picture is resized. Scans are interpolated by ``order`` and smoothed first where an axis
    gets coarser; labels and brains go by nearest neighbor.

    Attributes:
        size_vox: along i and j.
        order: 1 linear, 3 cubic B-spline, 0 nearest neighbor.

    Source: Arian Darestani et al. 2025, preprocessing steps 3 and 4.
    """

    size_vox: tuple[int, int] = (512, 512)
    order: Order = 1

    def __call__(self, study: Study) -> Study:
        if min(self.size_vox) < 1:
            raise InputError(f"slices of {self.size_vox} voxels: at least 1 is needed")
        return map_volumes(
            study,
            lambda volume: resample_to(volume, self.resized(volume.grid), order=self.order),
            lambda volume: Volume(
                resample_to(volume, self.resized(volume.grid), order=label_order(volume)).array,
                self.resized(volume.grid),
            ),
        )

    def resized(self, grid: Grid) -> Grid:
        """The grid with slices of that size between the same outer faces."""
        return reshaped(grid, (*self.size_vox, grid.shape[2]))
