"""BET: a surface that expands from the middle of the head until it meets the brain's border."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lesionwise.preprocess.brain import largest_filled
from lesionwise.types import BoolArray, Grid, Volume

SUBDIVISIONS = 4
"""2562 points, some 5 mm apart on a brain."""
DEEP_MM, LESS_DEEP_MM = 20, 10
"""How far below the surface the darkest and the brightest value are sought."""
SHARPEST_MM, FLATTEST_MM = 3.33, 10.0
"""Radii of curvature between which smoothing sets in."""
PULL = 0.05

Points = NDArray[np.float64]
Faces = NDArray[np.intp]


def bet_mask(
    scan: Volume, fraction: float = 0.5, iterations: int = 1000, *, on: Grid | None = None
) -> BoolArray:
    """The brain in a scan of the head: bool, one region without holes; may be empty.

    Every point of the surface moves towards the middle of its neighbors and outward or inward: out
    while the darkest value below it is brighter than a local threshold, else in.

    Args:
        scan: any spacing; tissue is brighter than what surrounds the brain.
        fraction: of the way from background to the local brightest value where the threshold
            lies; smaller values give larger brains.
        iterations: how often all points move.
        on: grid of the mask; None means that of the scan.

    Departures from the source: points that lie beyond the scan read its outermost voxels, and
    a surface that cuts itself is kept and not smoothed again; what it winds around is brain.

    Source: Smith 2002.

    Example:
        >>> grid = Grid((20, 20, 20), np.diag([8.0, 8.0, 8.0, 1.0]))
        >>> away = np.linalg.norm(np.indices(grid.shape) - 9.5, axis=0)
        >>> mask = bet_mask(Volume(100.0 * (away < 8), grid), iterations=20)
        >>> bool(mask[10, 10, 10]), bool(mask[0, 0, 0])
        (True, False)
    """
    array, grid = scan.array, scan.grid
    low, high = np.percentile(array, (2, 98))
    on = grid if on is None else on
    if not high > low:
        return np.zeros(on.shape, dtype=bool)
    background = low + 0.1 * (high - low)
    head = np.argwhere(array > background)
    weights = np.minimum(array[tuple(head.T)], high) - low
    points_mm = grid.world_mm(head)
    middle = np.average(points_mm, axis=0, weights=weights)
    radius = float(np.cbrt(3 * len(head) * grid.voxel_volume_mm3 / (4 * np.pi)))
    near = array[tuple(head[np.linalg.norm(points_mm - middle, axis=1) < radius].T)]
    typical = float(np.median(near)) if len(near) else float(high)
    sphere, faces = icosphere(SUBDIVISIONS)
    surface = _blown_up(
        middle + radius / 2 * sphere,
        faces,
        scan,
        (float(low), float(background), typical),
        fraction,
        iterations,
    )
    return largest_filled(inside_of(surface, faces, on))


def _blown_up(
    points: Points,
    faces: Faces,
    scan: Volume,
    levels: tuple[float, float, float],
    fraction: float,
    iterations: int,
) -> Points:
    low, background, typical = levels
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    n = len(points)
    both = np.concatenate([edges, edges[:, ::-1]])
    meet = sparse.csr_matrix((np.ones(len(both)), both.T), shape=(n, n))
    mean_of_neighbors = sparse.diags(1 / np.asarray(meet.sum(axis=1)).ravel()) @ meet
    at_corner = sparse.csr_matrix(
        (np.ones(faces.size), (faces.ravel(), np.repeat(np.arange(len(faces)), 3))),
        shape=(n, len(faces)),
    )
    to_voxel = np.linalg.inv(scan.grid.affine)
    last = np.array(scan.grid.shape) - 1
    depth = np.arange(DEEP_MM + 1)
    midpoint = (1 / SHARPEST_MM + 1 / FLATTEST_MM) / 2
    steep = 6 / (1 / SHARPEST_MM - 1 / FLATTEST_MM)
    for _ in range(iterations):
        a, b, c = (points[faces[:, corner]] for corner in range(3))
        normals = at_corner @ np.cross(b - a, c - a)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        apart = float(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1).mean())
        to_middle = mean_of_neighbors @ points - points
        outward = (to_middle * normals).sum(axis=1)
        curvature = 2 * np.abs(outward) / apart**2
        smoothing = (1 + np.tanh(steep * (curvature - midpoint))) / 2
        below = points[:, None] - depth[:, None] * normals[:, None]
        voxels = np.rint(below @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(np.intp)
        i, j, k = np.moveaxis(np.clip(voxels, 0, last), -1, 0)
        values = scan.array[i, j, k]
        darkest = np.maximum(low, np.minimum(typical, values.min(axis=1)))
        brightest = values[:, : LESS_DEEP_MM + 1].max(axis=1)
        brightest = np.minimum(typical, np.maximum(background, brightest))
        threshold = (brightest - low) * fraction + low
        push = 2 * PULL * apart * (darkest - threshold) / (brightest - low)
        along = outward * smoothing + push - outward / 2
        points = points + to_middle / 2 + along[:, None] * normals
    return points


def icosphere(subdivisions: int) -> tuple[Points, Faces]:
    """Points on the unit sphere and the triangles between them, (n, 3) each.

    The corners of a triangle run counterclockwise, seen from outside. The triangles are those of
    an icosahedron, each cut in four so many times: 10 * 4**n + 2 points.

    Example:
        >>> points, triangles = icosphere(1)
        >>> points.shape, triangles.shape
        ((42, 3), (80, 3))
    """
    golden = (1 + np.sqrt(5)) / 2
    points = np.array(
        [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
        + [(a, b * golden, 0) for a in (-1, 1) for b in (-1, 1)]
        + [(b * golden, 0, a) for a in (-1, 1) for b in (-1, 1)]
    )
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    meet = np.abs(apart - 2) < 1e-6
    faces = [
        (a, b, c)
        for a in range(12)
        for b in range(a + 1, 12)
        for c in range(b + 1, 12)
        if meet[a, b] and meet[b, c] and meet[a, c]
    ]
    turned = [f if np.linalg.det(points[list(f)]) > 0 else (f[0], f[2], f[1]) for f in faces]
    corners = np.array(turned, dtype=np.intp)
    for _ in range(subdivisions):
        edges = np.sort(corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        unique, row = np.unique(edges, axis=0, return_inverse=True)
        new = row.reshape(-1, 3) + len(points)
        points = np.concatenate([points, points[unique].mean(axis=1)])
        a, b, c = corners.T
        ab, bc, ca = new.T
        corners = np.concatenate(
            [np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        )
    return points / np.linalg.norm(points, axis=1, keepdims=True), corners


def inside_of(points_mm: Points, faces: Faces, grid: Grid) -> BoolArray:
    """The voxels whose centers a closed surface winds around, (I, J, K) bool.

    For every column of voxels along k, each triangle above it counts by the side that it shows.

    Example:
        >>> points, triangles = icosphere(2)
        >>> around = 1.2 * points + 2  # a ball about the middle voxel, which reaches its neighbors
        >>> int(inside_of(around, triangles, Grid((5, 5, 5), np.eye(4))).sum())
        7
    """
    to_voxel = np.linalg.inv(grid.affine)
    # a hair aside, so that no column meets an edge or a corner
    at = points_mm @ to_voxel[:3, :3].T + to_voxel[:3, 3] + (1.234e-6, 2.345e-6, 0)
    a, b, c = (at[faces[:, corner]] for corner in range(3))
    area = _twice_area(a, b, c)
    low = np.ceil(np.minimum(np.minimum(a, b), c)[:, :2]).astype(np.intp)
    high = np.floor(np.maximum(np.maximum(a, b), c)[:, :2]).astype(np.intp)
    low, high = np.maximum(low, 0), np.minimum(high, np.array(grid.shape[:2]) - 1)
    sides = np.maximum(high - low + 1, 0)
    changes = np.zeros((*grid.shape[:2], grid.shape[2] + 1), dtype=np.int16)
    for i in range(int(sides[:, 0].max(initial=0))):
        for j in range(int(sides[:, 1].max(initial=0))):
            column = low + np.array([i, j])
            use = (sides[:, 0] > i) & (sides[:, 1] > j) & (area != 0)
            p, q, r, whole = a[use], b[use], c[use], area[use]
            where = column[use]
            weights = [_twice_area(where, *s) / whole for s in ((q, r), (r, p), (p, q))]
            hit = (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)
            height = sum(w * s[:, 2] for w, s in zip(weights, (p, q, r), strict=True))[hit]
            k = np.clip(np.ceil(height), 0, grid.shape[2]).astype(np.intp)
            place = (where[hit, 0], where[hit, 1], k)
            np.add.at(changes, place, np.sign(whole[hit]).astype(np.int16))
    return np.asarray(np.cumsum(changes, axis=2)[:, :, :-1] != 0)


def _twice_area(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> Points:
    """Of triangles seen along k; negative where the corners run clockwise."""
    return np.asarray(
        (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    )
