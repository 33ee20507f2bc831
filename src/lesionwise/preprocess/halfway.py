"""Visits brought into the space half way between them, so that all are interpolated alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation

from lesionwise.preprocess.registration import Model, move_visits, register_visits, shared_scan
from lesionwise.types import Grid, Matrix, Study


@dataclass(frozen=True)
class RegisterToHalfway:
    """Every visit moved half of the way towards the others, onto one common grid.

    With one visit moved onto the other, only that one is blurred by interpolation, and the
    difference of the two shows it. Here the rigid movement between two visits is halved
    (``halfway``) and the common grid lies alike to both (``common_grid``). Three or more visits
    meet at the mean of their movements. A study of one visit passes unchanged.

    Attributes:
        model: rigid (6 parameters) or affine (12).
    """

    model: Model = "rigid"

    def __call__(self, study: Study) -> Study:
        if len(study.visits) < 2:
            return study
        worlds = halfway(register_visits(study, model=self.model))
        name = shared_scan(study)
        grid = common_grid([visit.scans[name].grid for visit in study.visits], worlds)
        return move_visits(study, worlds, lambda _: grid, grid)


def halfway(matrices: Sequence[Matrix]) -> tuple[Matrix, ...]:
    """World matrices from the halfway space to each visit.

    Args:
        matrices: world mm of one visit, the same for all, to world mm of each, as
            ``register_visits`` gives them.

    The halfway space lies at the mean of the matrix logarithms. Of two visits, one moves by the
    square root of the movement between them and the other by its inverse; roots of rigid
    movements are rigid. Movements by half a turn or more have no such mean; heads do not.

    Example:
        >>> moved = np.eye(4)
        >>> moved[0, 3] = 4  # the second visit lies 4 mm to the right
        >>> [round(float(world[0, 3]), 6) for world in halfway([np.eye(4), moved])]
        [-2.0, 2.0]
    """
    mean = np.mean([np.real(logm(matrix)) for matrix in matrices], axis=0)
    back = expm(-mean)
    return tuple(np.asarray(matrix @ back, dtype=np.float64) for matrix in matrices)


def common_grid(grids: Sequence[Grid], worlds: Sequence[Matrix]) -> Grid:
    """A grid in the common space that lies alike to all of the given ones and covers them.

    Args:
        grids: of the scans, canonical axes.
        worlds: one for each grid, common mm to mm of that grid, as ``halfway`` gives them.

    Its axes are the mean turn of the grids' axes as they lie in the common space, its voxels
    as small along each axis as the smallest, and its box the least that holds all of them but for
    a tenth of a voxel along each axis: one voxel more for a hair would shift all by half a voxel.

    Example:
        >>> grid, moved = Grid((10, 10, 10), np.eye(4)), np.eye(4)
        >>> moved[0, 3] = 4
        >>> common_grid([grid, grid], halfway([np.eye(4), moved])).shape
        (14, 10, 10)
    """
    placed = [np.linalg.inv(w) @ g.affine for g, w in zip(grids, worlds, strict=True)]
    turns = []
    for affine in placed:
        left, _, right = np.linalg.svd(affine[:3, :3])
        turns.append(left @ right)
    mirrored = np.linalg.det(turns[0]) < 0
    flip = np.diag([-1.0 if mirrored else 1.0, 1.0, 1.0])
    mean = Rotation.from_matrix([turn @ flip for turn in turns]).mean().as_matrix() @ flip
    spacing = np.min([grid.spacing_mm for grid in grids], axis=0)
    low, high = [], []
    for grid, affine in zip(grids, placed, strict=True):
        faces = [(-0.5, n - 0.5) for n in grid.shape]
        corners = np.array(np.meshgrid(*faces)).reshape(3, -1).T
        along = (corners @ affine[:3, :3].T + affine[:3, 3]) @ mean
        low.append(along.min(axis=0))
        high.append(along.max(axis=0))
    extent = np.max(high, axis=0) - np.min(low, axis=0)
    # visits that lie on each other but for a hair keep their voxels, and small lesions their shape
    i, j, k = np.maximum(np.ceil(extent / spacing - 0.1).astype(int), 1)
    middle = (np.max(high, axis=0) + np.min(low, axis=0)) / 2
    affine = np.eye(4)
    affine[:3, :3] = mean * spacing
    affine[:3, 3] = mean @ (middle - spacing * (np.array([i, j, k]) - 1) / 2)
    return Grid((int(i), int(j), int(k)), affine)
