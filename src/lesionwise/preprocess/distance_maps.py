"""Where in the brain a voxel lies, as scans."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import edt
import numpy as np
from numpy.typing import NDArray

from lesionwise.preprocess.each_scan import mask_of, scan_name
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import BoolArray, Grid, InputError, Study, Visit, Volume

DEPTH, DOWN, FORWARD = "depth", "vertex_neck", "occiput_nose"


@dataclass(frozen=True)
class DistanceMaps:
    """Every visit with three scans more, on the grid of its ``scan``.

    ``depth``: distance to the nearest voxel outside the brain mask, 0 outside. ``vertex_neck``:
    from the brain's top downward. ``occiput_nose``: from its back forward; the latter two run on
    outside the brain. Down and forward are the world's, so a tilted grid makes no difference. Where
    the volume cuts the brain off, that face is no surface, unless the mask fills the volume.

    Attributes:
        scan: whose grid the maps get.
        unit: ``mm``, or ``share`` of the brain's greatest depth, height and length: 0 to 1 within.
            A brain of no height has 0 everywhere.

    Raises InputError for a visit without that scan, and for a missing or empty brain mask.

    Its source, the MSSEG-2 chapter on image processing and CNNs, states no unit.
    """

    scan: str = "flair"
    unit: Literal["share", "mm"] = "share"

    def __call__(self, study: Study) -> Study:
        def with_maps(visit: Visit) -> Visit:
            name = scan_name(study, visit, self.scan)
            if self.scan not in visit.scans:
                raise InputError(f"{name}: missing, and this step needs it")
            volume = visit.scans[self.scan]
            brain = mask_of(visit, volume, "brain", name)
            maps = {
                DEPTH: _depth_mm(brain, volume.grid),
                DOWN: _along(brain, volume.grid, axis=2, sign=-1),
                FORWARD: _along(brain, volume.grid, axis=1, sign=1),
            }
            if self.unit == "share":
                for array in maps.values():
                    greatest = float(array[brain].max())
                    array *= np.float32(1 / greatest if greatest > 0 else 0)
            added = {key: Volume(array, volume.grid) for key, array in maps.items()}
            return replace(visit, scans={**visit.scans, **added})

        return each_visit(study, with_maps)


def _depth_mm(brain: BoolArray, grid: Grid) -> NDArray[Any]:
    distance: NDArray[np.float32] = edt.edt(
        np.ascontiguousarray(brain), anisotropy=grid.spacing_mm, black_border=bool(brain.all())
    )
    return distance


def _along(brain: BoolArray, grid: Grid, axis: int, sign: int) -> NDArray[Any]:
    """Distance in mm along a world axis from the first brain voxel in that direction."""
    slope = sign * grid.affine[axis, :3]
    lines = [slope[n] * np.arange(grid.shape[n]) for n in range(3)]
    at = np.add.outer(np.add.outer(lines[0], lines[1]), lines[2]).astype(np.float32)
    return np.asarray(at - at[brain].min())
