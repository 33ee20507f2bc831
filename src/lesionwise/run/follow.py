"""Lesions followed through visits, from what was found in each and from the scans themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionwise.change.evidence import ScanChange, compare_scans
from lesionwise.change.partial_volume import Acquisition
from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import Tracks, track_lesions
from lesionwise.change.unmatched import rescued_lesions, subthreshold_lesions
from lesionwise.instances.table import lesion_table
from lesionwise.instances.voxels import Indices
from lesionwise.preprocess.edges import edge_voxels
from lesionwise.preprocess.geometry import Order, resample_to
from lesionwise.types import BoolArray, Grid, Instances, Matrix, Volume

POSSIBLE = 0.2
"""Probability above which a voxel is not taken for normal tissue."""


@dataclass(frozen=True, eq=False)
class VisitInput:
    """One visit as following needs it, all on the grid of its scan.

    Attributes:
        scan: as read, any scale.
        brain: bool.
        probability: of lesion.
        lesions: those to follow.
    """

    scan: Volume
    brain: Volume
    probability: Volume
    lesions: Instances


@dataclass(frozen=True, eq=False)
class TrackingResult:
    """What following lesions through visits gave.

    Attributes:
        tracks: every lesion through the visits.
        lesions: of each visit on its own grid, with those that only following found.
        shared: the same at the voxels of the common grid.
        rescued: of each visit, the labels that only following found.
    """

    tracks: Tracks
    lesions: tuple[Instances, ...]
    shared: tuple[Instances, ...]
    rescued: tuple[tuple[int, ...], ...]


def follow(
    visits: Sequence[VisitInput],
    to_common: Sequence[Matrix],
    common: Grid,
    rules: TrackingRules = TrackingRules(),  # noqa: B008  (frozen)
    first: Grid | None = None,
) -> TrackingResult:
    """Follow the lesions of all visits at the voxels of one grid, and ask the scans about changes.

    Volumes are those on each scan's own grid. A lesion that reaches no voxel of the common grid
    is equivocal.

    A later visit gains the lesions that its map shows below the threshold and that the scans show
    to be new (``change.unmatched.rescued_lesions``); they get the labels after its highest.

    Args:
        visits: in time order.
        to_common: world mm of ``common`` to world mm of each visit.
        common: where lesions are compared; ``covering_grid`` makes one that holds all of them.
        first: the grid of which ``covering_grid`` made it. Its voxels get the values that they get
            where it is the common grid, to the last bit.
    """
    on = _Resampled(common, common if first is None else first)
    maps = [
        on.common(visit.probability, world, order=1)
        for visit, world in zip(visits, to_common, strict=True)
    ]
    changes = _changes(visits, to_common, on, maps)
    lesions = [visits[0].lesions]
    shared = [on.labels(visits[0].lesions, to_common[0])]
    acquisitions = [
        Acquisition(visit.scan.grid, world) for visit, world in zip(visits, to_common, strict=True)
    ]
    edges = [on.edges(visit, world) for visit, world in zip(visits, to_common, strict=True)]
    rescued: list[tuple[int, ...]] = [()]
    for number, visit in enumerate(visits[1:], start=1):
        change, own = changes[number - 1], visit.lesions
        found: tuple[int, ...] = ()
        if change is not None and rules.rescue_probability < 1:
            below = subthreshold_lesions(visit.probability.array, own, rules.rescue_probability)
            there = on.labels(below, to_common[number])
            both = (maps[number], maps[number - 1])
            acquired = (acquisitions[number], acquisitions[number - 1])
            found = rescued_lesions(there, shared[-1], both, change, rules, acquired)
            own, found = _with_rescued(own, below, found)
        lesions.append(own)
        shared.append(on.labels(own, to_common[number]))
        rescued.append(found)
    tables = [lesion_table(own.labels, own.grid) for own in lesions]
    volumes = [dict(zip(t.label.tolist(), t.volume_mm3.tolist(), strict=True)) for t in tables]
    tracks = track_lesions(shared, rules, maps, changes, acquisitions, edges, volumes)
    return TrackingResult(_noted(tracks, rescued), tuple(lesions), tuple(shared), tuple(rescued))


def covering_grid(visits: Sequence[VisitInput], to_common: Sequence[Matrix], grid: Grid) -> Grid:
    """The grid, grown until it holds the brains and lesions of all visits.

    It keeps its voxels and gains whole layers of them, only at the sides where a visit reaches
    beyond it: what one visit does not show can be compared as well. Where none does, it is the
    grid as given.

    Args:
        to_common: world mm of ``grid`` to world mm of each visit.

    Example:
        >>> grid = Grid((5, 5, 5), np.eye(4))
        >>> image, brain = np.zeros(grid.shape), np.ones(grid.shape, dtype=np.bool_)
        >>> visit = VisitInput(
        ...     *(Volume(each, grid) for each in (image, brain, image)),
        ...     Instances(np.zeros(grid.shape, np.int32), grid),
        ... )
        >>> lower = np.eye(4)
        >>> lower[2, 3] = 2  # where ``grid`` begins, the scan shows its third layer
        >>> covering_grid([visit, visit], [np.eye(4), lower], grid).shape
        (5, 5, 7)
    """
    low, high = np.zeros(3, dtype=np.int64), np.array(grid.shape, dtype=np.int64)
    for visit, world in zip(visits, to_common, strict=True):
        inside: BoolArray = (visit.brain.array != 0) | (visit.lesions.labels > 0)
        ends = _ends(inside)
        if not len(ends):
            continue
        to_grid = np.linalg.inv(world @ grid.affine) @ visit.lesions.grid.affine
        centers = ends @ to_grid[:3, :3].T + to_grid[:3, 3]
        # From its center a voxel reaches so far along the axes of the grid.
        reach = np.abs(to_grid[:3, :3]).sum(axis=1) / 2
        first = np.ceil(centers.min(axis=0) - reach).astype(np.int64)
        last = np.floor(centers.max(axis=0) + reach).astype(np.int64)
        low, high = np.minimum(low, first), np.maximum(high, last + 1)
    if not low.any() and tuple(high.tolist()) == grid.shape:
        return grid
    affine = grid.affine.copy()
    affine[:3, 3] = grid.world_mm(low)
    i, j, k = (high - low).tolist()
    return Grid((i, j, k), affine)


def _ends(inside: BoolArray) -> Indices:
    """(n, 3) the first and the last voxel inside of every column along k.

    No voxel inside lies further out than these in any direction, and they are few.
    """
    i, j = np.nonzero(inside.any(axis=2))
    columns = inside[i, j]
    first = columns.argmax(axis=1)
    last = inside.shape[2] - 1 - columns[:, ::-1].argmax(axis=1)
    found: Indices = np.concatenate([np.stack([i, j, k], axis=1) for k in (first, last)])
    return found


def labels_on(instances: Instances, grid: Grid, world: Matrix) -> Instances:
    """The labels at the voxels of another grid, by nearest neighbor.

    Args:
        world: (4, 4), world mm of ``grid`` to world mm of the instances.
    """
    moved = resample_to(Volume(instances.labels, instances.grid), grid, order=0, world=world)
    return Instances(moved.array.astype(np.int32, copy=False), grid)


@dataclass(frozen=True, eq=False)
class _Resampled:
    """What visits hold, at the voxels of a grid and of a smaller one that it continues.

    Where a voxel's center lies on the border of two of a scan's, rounding decides, and that depends
    on where a grid begins. So the voxels of the smaller one are those that it has by itself.
    """

    grid: Grid
    inner: Grid

    def common(self, volume: Volume, world: Matrix, *, order: Order) -> NDArray[Any]:
        return self._whole(lambda grid: resample_to(volume, grid, order=order, world=world).array)

    def labels(self, instances: Instances, world: Matrix) -> Instances:
        labels = self._whole(lambda grid: labels_on(instances, grid, world).labels)
        return Instances(labels, self.grid)

    def edges(self, visit: VisitInput, world: Matrix) -> BoolArray:
        return self._whole(lambda grid: edge_voxels(visit.scan.grid, visit.brain, grid, world))

    def _whole(self, values: Callable[[Grid], NDArray[Any]]) -> NDArray[Any]:
        if self.grid is self.inner:
            return values(self.grid)
        whole = values(self.grid).copy()
        begin = np.linalg.solve(self.grid.affine, self.inner.affine)[:3, 3]
        i, j, k = np.rint(begin).astype(np.intp).tolist()
        part = values(self.inner)
        whole[i : i + part.shape[0], j : j + part.shape[1], k : k + part.shape[2]] = part
        return whole


def _changes(
    visits: Sequence[VisitInput],
    to_common: Sequence[Matrix],
    on: _Resampled,
    maps: Sequence[NDArray[np.float32]],
) -> list[ScanChange | None]:
    """What the scans of every two consecutive visits show."""
    scans, brains = [], []
    for visit, world in zip(visits, to_common, strict=True):
        scans.append(on.common(visit.scan, world, order=1))
        brain = on.common(visit.brain, world, order=0)
        brains.append(brain.astype(np.bool_, copy=False))
    return [
        compare_scans(
            scans[at - 1],
            scans[at],
            (brains[at - 1], brains[at]),
            (maps[at - 1] > POSSIBLE) | (maps[at] > POSSIBLE),
            on.grid,
        )
        for at in range(1, len(visits))
    ]


def _with_rescued(
    lesions: Instances, subthreshold: Instances, found: tuple[int, ...]
) -> tuple[Instances, tuple[int, ...]]:
    """The lesions with those of ``subthreshold`` that were found, and the labels these got."""
    if not found:
        return lesions, ()
    highest = int(lesions.labels.max(initial=0))
    name = np.zeros(int(subthreshold.labels.max()) + 1, dtype=np.int32)
    name[list(found)] = np.arange(1, len(found) + 1) + highest
    added = name[subthreshold.labels]
    both = np.where(added > 0, added, lesions.labels).astype(np.int32)
    return Instances(both, lesions.grid), tuple(range(highest + 1, highest + len(found) + 1))


def _noted(tracks: Tracks, rescued: Sequence[tuple[int, ...]]) -> Tracks:
    """The tracks with a note at each lesion that only following found."""
    rows = tracks.table
    for visit, labels in enumerate(rescued):
        here = (rows["visit"] == visit) & rows["label"].isin(list(labels))
        note = "below the threshold by itself, but its place became brighter"
        old = rows.loc[here, "note"]
        rows.loc[here, "note"] = [f"{each}; {note}" if each else note for each in old]
        rows.loc[here, "ambiguous"] = True
    return tracks
