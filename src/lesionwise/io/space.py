"""Do two grids describe the same voxels, and how does an array get from one to the other?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from lesionwise.types import Grid, InputError, Volume

_nibabel: Any = orientations  # nibabel states no types here


MAX_ROUNDING_MM = 0.5
"""The qform keeps three of four quaternion components in single precision, which may move the far
corner of a head by this much."""

ROUNDING_FRACTION = 0.2
"""Two grids count as one up to this part of their smallest voxel edge, which cannot be seen."""


def rounding_mm(grid: Grid) -> float:
    """How far voxel centers may lie apart where headers were written by different programs.

    Example:
        >>> rounding_mm(Grid((4, 4, 4), np.eye(4))) < 0.5
        True
    """
    return min(MAX_ROUNDING_MM, ROUNDING_FRACTION * min(grid.spacing_mm))


@dataclass(frozen=True)
class SpaceVerdict:
    """Whether two grids describe the same voxels.

    Attributes:
        kind: ``identical``; ``rounding``, where headers differ by less than could be seen;
            ``reordered``, the same voxels in another order of axes; ``different``.
        reason: one phrase for a person; empty where the grids are identical.
    """

    kind: Literal["identical", "rounding", "reordered", "different"]
    reason: str = ""

    @property
    def same(self) -> bool:
        return self.kind != "different"


def same_space(a: Grid, b: Grid, tolerance_mm: float | None = None) -> SpaceVerdict:
    """Say whether two grids describe the same voxels, and if not, what differs.

    Args:
        tolerance_mm: voxel centers may lie this far apart; None takes ``rounding_mm`` of ``b``.

    Returns:
        The verdict. Shapes are compared first, then spacings, directions and places; the
        reason names the first that differs, with its values.

    Example:
        >>> same_space(Grid((4, 4, 4), np.eye(4)), Grid((4, 4, 4), np.eye(4))).kind
        'identical'
    """
    tolerance_mm = rounding_mm(b) if tolerance_mm is None else tolerance_mm
    apart_mm = _apart_mm(a, b)
    if apart_mm == 0:
        return SpaceVerdict("identical")
    if apart_mm is not None and apart_mm <= tolerance_mm:
        return SpaceVerdict("rounding", f"grids differ by {apart_mm:.2g} mm, taken as rounding")
    order = _order(a, b)
    if order is not None:
        moved = _reordered(a, *order)
        if moved.matches(b, tolerance_mm):
            return SpaceVerdict(
                "reordered", f"same voxels, axes {_axes(a)} and {_axes(b)}, put in one order"
            )
        a = moved
    return SpaceVerdict("different", _difference(a, b))


def canonical(array: NDArray[Any], grid: Grid) -> tuple[NDArray[Any], Grid]:
    """An array and its grid with axes permuted and flipped to the nearest to RAS.

    Returns:
        A view of the array, and the grid that describes the same voxels.

    Example:
        >>> flipped = Grid((4, 4, 4), np.diag([-1.0, 1.0, 1.0, 1.0]))
        >>> float(canonical(np.zeros((4, 4, 4)), flipped)[1].affine[0, 0])
        1.0
    """
    orientation = _nibabel.io_orientation(grid.affine)
    affine = grid.affine @ _nibabel.inv_ornt_aff(orientation, grid.shape)
    turned: NDArray[Any] = _nibabel.apply_orientation(array, orientation)
    return turned, Grid(turned.shape, affine)


def on_grid(
    volume: Volume, grid: Grid, name: str = "volume", tolerance_mm: float | None = None
) -> Volume:
    """The same voxels in the axis order of ``grid``: permuted and flipped, never interpolated.

    Args:
        grid: describes the same voxels, to within the tolerance at every corner.
        name: names the volume in the error.
        tolerance_mm: None takes ``rounding_mm`` of ``grid``.

    Returns:
        The array in C order on ``grid`` itself, so that results compare without rounding.

    Raises:
        InputError: If the two grids do not describe the same voxels.

    Example:
        >>> grid = Grid((4, 4, 4), np.eye(4))
        >>> on_grid(Volume(np.ones((4, 4, 4)), grid), grid).array.shape
        (4, 4, 4)
    """
    tolerance_mm = rounding_mm(grid) if tolerance_mm is None else tolerance_mm
    order = _order(volume.grid, grid)
    if order is None or not _reordered(volume.grid, *order).matches(grid, tolerance_mm):
        raise InputError(f"{name}: {same_space(volume.grid, grid, tolerance_mm).reason}")
    axes, flipped = order
    array = np.flip(volume.array.transpose(axes), [axis for axis in range(3) if flipped[axis]])
    return Volume(np.ascontiguousarray(array), grid)


def _order(source: Grid, target: Grid) -> tuple[tuple[int, int, int], NDArray[np.bool_]] | None:
    """For each target axis the source axis along it and whether it runs backward; None if none."""
    directions = [grid.affine[:3, :3] / np.array(grid.spacing_mm) for grid in (source, target)]
    cosines = np.linalg.solve(directions[1], directions[0])
    axes = np.abs(cosines).argmax(axis=1)
    if sorted(axes) != [0, 1, 2]:
        return None
    flipped = cosines[np.arange(3), axes] < 0
    return (int(axes[0]), int(axes[1]), int(axes[2])), flipped


def _reordered(grid: Grid, axes: tuple[int, int, int], flipped: NDArray[np.bool_]) -> Grid:
    into_source = np.zeros((4, 4))
    into_source[3, 3] = 1
    for new, old in enumerate(axes):
        into_source[old, new] = -1 if flipped[new] else 1
        into_source[old, 3] = grid.shape[old] - 1 if flipped[new] else 0
    shape = grid.shape[axes[0]], grid.shape[axes[1]], grid.shape[axes[2]]
    return Grid(shape, grid.affine @ into_source)


def _apart_mm(a: Grid, b: Grid) -> float | None:
    if a.shape != b.shape:
        return None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape])).reshape(3, -1).T
    return float(np.linalg.norm(a.world_mm(corners) - b.world_mm(corners), axis=1).max())


def _difference(a: Grid, b: Grid) -> str:
    if a.shape != b.shape:
        return f"shapes differ, {_times(a.shape)} and {_times(b.shape)} voxels"
    if not np.allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3, atol=0):
        return f"spacings differ, {_times(a.spacing_mm)} and {_times(b.spacing_mm)} mm"
    cosines = (a.affine[:3, :3] * b.affine[:3, :3]).sum(axis=0)
    cosines = cosines / (np.array(a.spacing_mm) * np.array(b.spacing_mm))
    degrees = float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())
    if degrees > 0.1:
        return f"orientations differ by {degrees:.3g} degrees ({_axes(a)} and {_axes(b)})"
    return f"same shape and spacing, but voxels lie up to {_apart_mm(a, b):.4g} mm apart"


def _axes(grid: Grid) -> str:
    return "".join(str(code) for code in _nibabel.aff2axcodes(grid.affine))


def _times(values: tuple[Any, ...]) -> str:
    return " x ".join(
        f"{value:.4g}" if isinstance(value, float) else str(value) for value in values
    )
