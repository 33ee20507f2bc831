"""Lesions followed through visits, from what was found in each and from the scans themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionwise.change.evidence import ScanChange, compare_scans
from lesionwise.change.partial_volume import Acquisition
from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import Tracks, track_lesions
from lesionwise.change.unmatched import rescued_lesions, subthreshold_lesions
from lesionwise.instances.table import lesion_table
from lesionwise.preprocess.edges import edge_voxels
from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import Grid, Instances, Matrix, Volume

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
) -> TrackingResult:
    """Follow the lesions of all visits at the voxels of one grid, and ask the scans about changes.

    Volumes are those on each scan's own grid.

    A later visit gains the lesions that its map shows below the threshold and that the scans show
    to be new (``change.unmatched.rescued_lesions``); they get the labels after its highest.

    Args:
        visits: in time order.
        to_common: world mm of ``common`` to world mm of each visit.
        common: where lesions are compared.
    """
    maps = [
        resample_to(visit.probability, common, order=1, world=world).array
        for visit, world in zip(visits, to_common, strict=True)
    ]
    changes = _changes(visits, to_common, common, maps)
    lesions = [visits[0].lesions]
    shared = [labels_on(visits[0].lesions, common, to_common[0])]
    acquisitions = [
        Acquisition(visit.scan.grid, world) for visit, world in zip(visits, to_common, strict=True)
    ]
    edges = [
        edge_voxels(visit.scan.grid, visit.brain, common, world)
        for visit, world in zip(visits, to_common, strict=True)
    ]
    rescued: list[tuple[int, ...]] = [()]
    for number, visit in enumerate(visits[1:], start=1):
        change, own = changes[number - 1], visit.lesions
        found: tuple[int, ...] = ()
        if change is not None and rules.rescue_probability < 1:
            below = subthreshold_lesions(visit.probability.array, own, rules.rescue_probability)
            there = labels_on(below, common, to_common[number])
            both = (maps[number], maps[number - 1])
            acquired = (acquisitions[number], acquisitions[number - 1])
            found = rescued_lesions(there, shared[-1], both, change, rules, acquired)
            own, found = _with_rescued(own, below, found)
        lesions.append(own)
        shared.append(labels_on(own, common, to_common[number]))
        rescued.append(found)
    tables = [lesion_table(own.labels, own.grid) for own in lesions]
    volumes = [dict(zip(t.label.tolist(), t.volume_mm3.tolist(), strict=True)) for t in tables]
    tracks = track_lesions(shared, rules, maps, changes, acquisitions, edges, volumes)
    return TrackingResult(_noted(tracks, rescued), tuple(lesions), tuple(shared), tuple(rescued))


def labels_on(instances: Instances, grid: Grid, world: Matrix) -> Instances:
    """The labels at the voxels of another grid, by nearest neighbor.

    Args:
        world: (4, 4), world mm of ``grid`` to world mm of the instances.
    """
    moved = resample_to(Volume(instances.labels, instances.grid), grid, order=0, world=world)
    return Instances(moved.array.astype(np.int32, copy=False), grid)


def _changes(
    visits: Sequence[VisitInput],
    to_common: Sequence[Matrix],
    common: Grid,
    maps: Sequence[NDArray[np.float32]],
) -> list[ScanChange | None]:
    """What the scans of every two consecutive visits show."""
    scans, brains = [], []
    for visit, world in zip(visits, to_common, strict=True):
        scans.append(resample_to(visit.scan, common, order=1, world=world).array)
        brain = resample_to(visit.brain, common, order=0, world=world).array
        brains.append(brain.astype(np.bool_, copy=False))
    return [
        compare_scans(
            scans[at - 1],
            scans[at],
            (brains[at - 1], brains[at]),
            (maps[at - 1] > POSSIBLE) | (maps[at] > POSSIBLE),
            common,
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
