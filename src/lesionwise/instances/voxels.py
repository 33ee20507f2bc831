"""Lists of voxels: neighbors and nearest points without arrays the size of the volume.

Lesions fill about one voxel in two hundred of a brain scan, so what separates them works on
the list of their voxels. A list is (n, 3) int64 of indices i, j, k in C order (k fastest).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as graph_components
from scipy.spatial import cKDTree

Indices = NDArray[np.int64]
NEAREST_ASKED = 8
"""Neighbors asked of the tree at first: more than the usual number of equally near voxels."""


def list_voxels(array: NDArray[Any]) -> Indices:
    """Indices of the voxels that are not 0: (n, 3) in C order, whatever the memory order.

    Example:
        >>> list_voxels(np.array([[[0, 1, 1]]])).tolist()
        [[0, 0, 1], [0, 0, 2]]
    """
    # Much faster than np.argwhere, which walks three-dimensional indices from the start.
    filled = array if array.dtype == np.bool_ else array != 0
    flat = np.flatnonzero(filled)
    return np.stack(np.unravel_index(flat, array.shape), axis=1).astype(np.int64, copy=False)


def check_connectivity(connectivity: int) -> None:
    """Raise ValueError unless it is 6 (faces), 18 (and edges) or 26 (and corners).

    Example:
        >>> check_connectivity(26)
    """
    if connectivity not in (6, 18, 26):
        raise ValueError(f"connectivity must be 6, 18 or 26, got {connectivity!r}")


def forward_neighbors(connectivity: int) -> Indices:
    """One of each pair of opposite steps to a neighbor: 3, 9 or 13 rows of (i, j, k).

    Example:
        >>> len(forward_neighbors(6)), len(forward_neighbors(26))
        (3, 13)
    """
    check_connectivity(connectivity)
    reach = {6: 1, 18: 2, 26: 3}[connectivity]
    steps = [s for s in product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]
    return np.array([s for s in steps if np.abs(s).sum() <= reach], dtype=np.int64)


def renumbered(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint32]]:
    """The labels of a map without gaps: those there are, ascending, and a map of 1, 2, … for them.

    Only voxels that are not 0 are sorted, which in a map of lesions are few.

    Args:
        labels: integers, 0 background, of any shape.

    Returns:
        (n,) the distinct labels but 0, of the map's type; the numbers, uint32, of the map's shape.

    Example:
        >>> found, numbers = renumbered(np.array([[[0, 70, 5, 70]]]))
        >>> found.tolist(), numbers.tolist()
        ([5, 70], [[[0, 2, 1, 2]]])
    """
    filled = labels != 0
    found, row = np.unique(labels[filled], return_inverse=True)
    numbers = np.zeros(labels.shape, dtype=np.uint32)
    numbers[filled] = row + 1
    return found, numbers


def in_order_of_first(values: NDArray[Any]) -> Indices:
    """Number the distinct values 0, 1, … by where each occurs first; (n,) as ``values``.

    Example:
        >>> in_order_of_first(np.array([7, 3, 7])).tolist()
        [0, 1, 0]
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def padded_position(index: Indices, shape: tuple[int, ...]) -> Indices:
    """Position of each voxel in a volume one voxel wider on every side.

    A step to a neighbor is then one constant to add, and never wraps around an edge.

    Example:
        >>> padded_position(np.array([[0, 0, 0]]), (2, 2, 2)).tolist()
        [21]
    """
    wide = np.array(shape, dtype=np.int64) + 2
    position: Indices = ((index[:, 0] + 1) * wide[1] + index[:, 1] + 1) * wide[2]
    return position + index[:, 2] + 1


def neighbor_pairs(index: Indices, shape: tuple[int, ...], connectivity: int) -> Indices:
    """Every pair of touching voxels once.

    Args:
        index: (n, 3), in C order, without repeats.
        shape: of the volume.
        connectivity: 6, 18 or 26.

    Returns:
        (2, m) rows of ``index``.

    Example:
        >>> neighbor_pairs(np.array([[0, 0, 0], [0, 0, 1]]), (1, 1, 2), 6).tolist()
        [[0], [1]]
    """
    position = padded_position(index, shape)
    steps = padded_position(forward_neighbors(connectivity) - 1, shape)
    pairs = [np.empty((2, 0), dtype=np.int64)]
    last = len(position) - 1
    for step in steps if last >= 0 else ():
        found = np.minimum(np.searchsorted(position, position + step), last)
        here = np.flatnonzero(position[found] == position + step)
        pairs.append(np.stack([here, found[here]]))
    return np.concatenate(pairs, axis=1)


def label_voxels(
    index: Indices,
    shape: tuple[int, ...],
    connectivity: int,
    values: NDArray[Any] | None = None,
) -> Indices:
    """Number the connected pieces of a voxel list 0, 1, … in C order of their first voxels.

    Args:
        index: (n, 3), in C order, without repeats; n may be 0.
        shape: of the volume.
        connectivity: 6, 18 or 26.
        values: (n,); where given, only voxels of equal value connect.

    Returns:
        (n,) the piece each voxel belongs to.

    Example:
        >>> label_voxels(np.array([[0, 0, 0], [0, 0, 2]]), (1, 1, 3), 26).tolist()
        [0, 1]
    """
    start, end = neighbor_pairs(index, shape, connectivity)
    if values is not None:
        same = values[start] == values[end]
        start, end = start[same], end[same]
    graph = coo_array(
        (np.ones(len(start), dtype=np.bool_), (start, end)), shape=(len(index), len(index))
    )
    _, piece = graph_components(graph, directed=False)
    return in_order_of_first(piece)


def nearest_rows(
    points: NDArray[Any], targets: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each point the nearest target by Euclidean distance; ties go to the lowest row.

    A tie is equality of the squared distances as computed in float64, so it is exact for
    integer coordinates.

    Args:
        points: (n, 3), finite.
        targets: (m, 3), m at least 1.

    Returns:
        (n,) rows of ``targets`` and (n,) distances.

    Example:
        >>> rows, squared = nearest_rows(np.array([[0, 0, 0]]), np.array([[0, 0, 3], [0, 0, 2]]))
        >>> rows.tolist(), squared.tolist()
        ([1], [2.0])
    """
    points = np.asarray(points, dtype=np.float64)
    unique, row_of = np.unique(np.asarray(targets, np.float64), axis=0, return_index=True)
    tree = cKDTree(unique)
    asked = min(NEAREST_ASKED, len(unique))
    near, found = tree.query(points, k=np.arange(1, asked + 1))
    row, squared = _lowest_nearest(points, unique, row_of, found)
    if asked < len(unique):
        # The tree rounds too: a little more than its own distance holds every tied target.
        open_ = np.flatnonzero(near[:, -1] <= near[:, 0] * (1 + 1e-9))
        reach = near[open_, 0] * (1 + 1e-9)
        for at, tied in zip(open_, tree.query_ball_point(points[open_], reach), strict=True):
            candidates = np.array(tied, dtype=np.int64)[None]
            row[at : at + 1], squared[at : at + 1] = _lowest_nearest(
                points[at : at + 1], unique, row_of, candidates
            )
    return row, np.sqrt(squared)


def _lowest_nearest(
    points: NDArray[Any], targets: NDArray[Any], row_of: Indices, candidates: Indices
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    squared = ((points[:, None] - targets[candidates]) ** 2).sum(axis=2)
    smallest = squared.min(axis=1)
    rows = np.where(squared == smallest[:, None], row_of[candidates], np.iinfo(np.int64).max)
    return rows.min(axis=1), smallest
