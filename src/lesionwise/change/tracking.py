"""Every lesion through all visits: stable, new, enlarging, shrinking, split, merged …"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lesionwise.change.evidence import ScanChange
from lesionwise.change.links import LINK_COLUMNS, Lesions, overlapping_labels
from lesionwise.change.partial_volume import Acquisition
from lesionwise.change.rules import STATES, TrackingRules
from lesionwise.change.transitions import Transition, find_transition, transition_rows
from lesionwise.types import BoolArray, FloatArray, Instances, Volume

TRACK_COLUMNS = (
    "track",
    "visit",
    "label",
    "state",
    "form",
    "volume_mm3",
    "change_mm3",
    "parents",
    "children",
    "becomes",
    "overlap_fraction",
    "distance_mm",
    "change_z",
    "contrast_gain",
    "confidence",
    "ambiguous",
    "note",
    "edge",
)


@dataclass(frozen=True, eq=False)
class Tracks:
    """The states of all lesions.

    Attributes:
        table: one row a lesion and visit, sorted by visit and label, and one row with label 0
            for each lesion of the visit before that has no partner at a visit. Columns:

            track: the lesion's identity, the same at all visits, from 1;
            visit: from 0; label: its label at that visit, 0 where it has none;
            state: against the visit before, one of STATES;
            form: of its family, that is of all lesions connected to it by links between the two
            visits: empty for one lesion at either visit, ``in parts`` where one became several,
            ``merged`` where several became one, ``rearranged`` where several became several;
            volume_mm3; change_mm3: of the summed volume of its family (NaN at the first visit);
            parents, children: labels at the visits before and after, ascending, joined by
            commas; becomes: what it will be at the next visit, as a state, empty at the last;
            overlap_fraction: with its main parent, of the smaller's voxels (NaN without parent);
            distance_mm: to the nearest lesion of the visit before; where the label is 0, of this
            visit (inf if there is none, NaN at the first visit);
            change_z: where scans are given, how much brighter the tissue in question is than at the
            visit before, in standard deviations of the noise between the scans: of a lesion
            without a partner all its voxels, of others those that the larger outline of the
            family adds to the smaller (NaN where a visit does not show them);
            contrast_gain: of a lesion without a partner, the fraction of its contrast that was not
            there before, or of one of the visit before, that is not there any more (NaN where
            unknown);
            confidence: how far the decision lies from its limits, 0.5 on the limit, towards 1
            beyond, below 0.5 where only a rule of last resort decided; not a probability;
            ambiguous, note: whether another reading is possible, and which;
            edge: whether at least half of it lies in ``edges`` of this visit or the one before.
        links: the graph: visit_before, visit_after and the columns of LINK_COLUMNS.
        rules: as given.
        visits: how many there are, also where they hold no lesion.
    """

    table: pd.DataFrame
    links: pd.DataFrame
    rules: TrackingRules
    visits: int

    def counts(self) -> pd.DataFrame:
        """Number of lesions by state at each visit: visits × STATES.

        The lesions of a visit are counted once each, and under ``disappeared`` those of the visit
        before. All others sum to the number of lesions of the visit.
        """
        present = self.table["label"] > 0
        rows = self.table[present | (self.table["state"] == "disappeared")]
        return self._counted(rows, "state", range(self.visits))

    def counts_before(self) -> pd.DataFrame:
        """What the lesions of the visit before each visit ended as: later visits × STATES.

        They sum to the number of lesions of the visit before: every parent of a merger counts.
        """
        before = self.table[(self.table["label"] > 0) & (self.table["becomes"] != "")]
        rows = before.assign(visit=before["visit"] + 1)
        return self._counted(rows, "becomes", range(1, self.visits))

    @staticmethod
    def _counted(rows: pd.DataFrame, column: str, visits: range) -> pd.DataFrame:
        counts = pd.crosstab(rows["visit"], rows[column])
        return counts.reindex(index=visits, columns=list(STATES), fill_value=0)


def track_lesions(
    visits: Sequence[Instances],
    rules: TrackingRules = TrackingRules(),  # noqa: B008  (frozen)
    probabilities: Sequence[FloatArray] | None = None,
    changes: Sequence[ScanChange | None] | None = None,
    acquisitions: Sequence[Acquisition] | None = None,
    edges: Sequence[BoolArray] | None = None,
    volumes_mm3: Sequence[Mapping[int, float]] | None = None,
) -> Tracks:
    """Follow every lesion through the visits.

    Consecutive visits are compared pair by pair (``links.link_lesions``). All lesions that links
    connect are a family, and the family's summed volume decides first: beyond rescan variability
    every lesion of it is enlarging or shrinking, whether it became several or several became it.
    Else several lesions with one parent are split, a lesion with several parents is merged, and
    where both hold it is merged and ambiguous; one to one is stable. A lesion without a link is
    new, or disappeared at the next visit, when it is large enough, else too small; with
    ``probabilities`` it is equivocal where the other visit shows it below its threshold. With
    ``changes`` it is new (or disappeared) only where the scans show that, else equivocal; and
    growth and shrinkage must show in the scans too (``change.evidence``). With ``acquisitions``
    it is equivocal where the other visit's voxels are too large to show it
    (``change.partial_volume``) or lie elsewhere, and of a family only what lies in the field of
    view of the other visit decides.

    Every lesion has one state against the visit before, and ends in one against the visit after.

    A lesion keeps its track along the link of greatest overlap: of a split the largest common
    part carries it on, of a merger the parent with the largest common part. The others
    begin or end there; ``parents`` and ``children`` tell. A lesion that had disappeared and
    overlaps what appears later at the same place gets its track back, as new and ambiguous,
    because it may have been missed in between; of several the one with the largest common part.
    Ties go to the lesions whose first voxels come first in C order.

    The result depends on no order of labels beyond the names in it, and reversing the visits
    exchanges new and disappeared, enlarging and shrinking, split and merged.

    Args:
        visits: in time order, on one grid; one or more. A visit may hold no lesion.
        rules: tolerances and limits.
        probabilities: of lesion, (I, J, K) each, on the same grid: what has no partner but shows
            at the other visit below its threshold is then equivocal, not new or disappeared.
        changes: between every two consecutive visits, on the same grid; None for two visits whose
            scans cannot be compared, which are then judged without.
        acquisitions: of each visit, the voxels it was acquired with.
        edges: of each visit, (I, J, K) bool on the same grid: where findings are less certain.
        volumes_mm3: of each visit, the volume of each label on the grid where it was found, which
            decides and is written; a label without a voxel here is equivocal. None: that of its
            voxels here.

    Raises:
        ValueError: If there is no visit, or the grids or numbers of maps or changes differ.

    Example:
        >>> from lesionwise.types import Grid
        >>> grid = Grid((8, 8, 8), np.eye(4))
        >>> before, after = np.zeros((2, 8, 8, 8), np.int32)
        >>> after[2:6, 2:6, 2:6] = 1
        >>> tracks = track_lesions([Instances(before, grid), Instances(after, grid)])
        >>> tracks.table["state"].tolist()
        ['new']
    """
    changes = _checked(visits, probabilities, changes, acquisitions, edges)
    volumes = [None] * len(visits) if volumes_mm3 is None else volumes_mm3
    listed = [Lesions.of(visit, known) for visit, known in zip(visits, volumes, strict=True)]
    rows = [_baseline_rows(listed[0])]
    links = []
    history = _History(visits, listed, rules)
    for at in range(1, len(visits)):
        step = find_transition(
            at,
            listed[at - 1],
            listed[at],
            overlapping_labels(visits[at - 1].labels, visits[at].labels),
            rules,
            (None, None) if probabilities is None else (probabilities[at - 1], probabilities[at]),
            changes[at - 1],
            None if acquisitions is None else (acquisitions[at - 1], acquisitions[at]),
        )
        previous = rows[-1][rows[-1]["label"] > 0].set_index("label")
        labels = rows[-1]["label"].tolist()
        becomes, children = step.becomes, step.children_labels
        rows[-1]["becomes"] = [becomes.get(label, "") for label in labels]
        rows[-1]["children"] = [children.get(label, "") for label in labels]
        rows.append(history.named(step, previous["track"]))
        links.append(step.links.assign(visit_before=at - 1, visit_after=at))
    table = pd.concat(rows, ignore_index=True)
    table = table.assign(edge=_at_edge(table, listed, edges))[list(TRACK_COLUMNS)]
    columns = ["visit_before", "visit_after", *LINK_COLUMNS]
    graph = pd.concat(links, ignore_index=True) if links else pd.DataFrame(columns=columns)
    return Tracks(table, graph[columns], rules, len(visits))


def change_map(visits: Sequence[Instances], tracks: Tracks, visit: int = -1) -> Volume:
    """Where each kind of change is, on the grid of the visits.

    Args:
        visits: as given to ``track_lesions``.
        tracks: its result.
        visit: the visit that is compared to the one before it; -1 is the last.

    Returns:
        uint8: 0 where there is no lesion, else 1 + the position of the lesion's state in STATES.
        Disappeared lesions are drawn where they were, under the lesions of the visit.

    Example:
        >>> from lesionwise.types import Grid
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[1:4, 1:4, 1:4] = 1
        >>> grid = Grid((8, 8, 8), np.eye(4))
        >>> visits = [Instances(np.zeros_like(labels), grid), Instances(labels, grid)]
        >>> int((change_map(visits, track_lesions(visits)).array > 0).sum())
        27
    """
    number = range(len(visits))[visit]
    rows = tracks.table[tracks.table["visit"] == number]
    present = rows[rows["label"] > 0]
    codes = present["state"].map(STATES.index).to_numpy(np.uint8) + np.uint8(1)
    drawn = _painted(visits[number], present["label"].to_numpy(), codes).astype(np.uint8)
    if number > 0:
        before = tracks.table[tracks.table["visit"] == number - 1]
        labels = before.loc[before["becomes"] == "disappeared", "label"].to_numpy()
        code = np.full(len(labels), STATES.index("disappeared") + 1)
        where = _painted(visits[number - 1], labels, code)
        drawn = np.where(drawn == 0, where, drawn).astype(np.uint8)
    return Volume(drawn, visits[number].grid)


def _checked(
    visits: Sequence[Instances],
    probabilities: Sequence[FloatArray] | None,
    changes: Sequence[ScanChange | None] | None,
    acquisitions: Sequence[Acquisition] | None,
    edges: Sequence[BoolArray] | None,
) -> Sequence[ScanChange | None]:
    """The changes, one for every two visits; ValueError where anything does not fit."""
    if not visits:
        raise ValueError("tracking needs at least one visit")
    grid = visits[0].grid
    for number, visit in enumerate(visits[1:], start=2):
        if not visit.grid.matches(grid):
            raise ValueError(f"visit {number} does not lie on the grid of visit 1")
    for arrays, what in ((probabilities, "probability map"), (edges, "edge mask")):
        if arrays is not None and [a.shape for a in arrays] != [grid.shape] * len(visits):
            raise ValueError(f"there must be one {what} per visit, on the visits' grid")
    if acquisitions is not None and len(acquisitions) != len(visits):
        raise ValueError("there must be one acquisition per visit")
    changes = [None] * (len(visits) - 1) if changes is None else changes
    if len(changes) != len(visits) - 1 or any(
        change is not None and not change.grid.matches(grid) for change in changes
    ):
        raise ValueError("there must be one change per two visits, on the visits' grid")
    return changes


def _at_edge(
    table: pd.DataFrame, listed: Sequence[Lesions], edges: Sequence[BoolArray] | None
) -> list[bool]:
    """Of each row, whether half of its lesion or more lies at an edge of either visit."""
    if edges is None:
        return [False] * len(table)
    found = []
    for visit, label, parents in zip(table["visit"], table["label"], table["parents"], strict=True):
        either = edges[visit] | edges[visit - 1] if visit else edges[visit]
        lesions = listed[visit] if label else listed[visit - 1]
        index = lesions.voxels_of(int(np.searchsorted(lesions.label, label or int(parents))))
        found.append(len(index) > 0 and bool(2 * int(either[tuple(index.T)].sum()) >= len(index)))
    return found


def _painted(instances: Instances, labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int32]:
    lesions = Lesions.of(instances)
    value = np.zeros(len(lesions.label), dtype=np.int32)
    drawn = np.isin(labels, lesions.label)
    value[np.searchsorted(lesions.label, labels[drawn])] = values[drawn]
    painted = np.zeros(instances.labels.shape, dtype=np.int32)
    painted[tuple(lesions.index.T)] = value[lesions.row]
    return painted


def _baseline_rows(lesions: Lesions) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "track": np.arange(1, len(lesions.label) + 1),
            "visit": 0,
            "label": lesions.label,
            "state": "baseline",
            "form": "",
            "volume_mm3": lesions.volume_mm3,
            "change_mm3": np.nan,
            "parents": "",
            "children": "",
            "becomes": "",
            "overlap_fraction": np.nan,
            "distance_mm": np.nan,
            "change_z": np.nan,
            "contrast_gain": np.nan,
            "confidence": np.nan,
            "ambiguous": False,
            "note": "",
        }
    )


class _History:
    """Gives tracks their numbers and remembers the lesions that disappeared."""

    def __init__(
        self, visits: Sequence[Instances], listed: Sequence[Lesions], rules: TrackingRules
    ) -> None:
        self.visits, self.listed, self.rules = visits, listed, rules
        self.last = len(listed[0].label)
        self.away: dict[int, tuple[int, int]] = {}

    def named(self, step: Transition, track_before: pd.Series[int]) -> pd.DataFrame:
        """Rows of the later visit with their tracks, sorted by label, those without one last."""
        carried = self._carried(step, track_before)
        returned = self._returned(step)
        rows = transition_rows(step)
        numbers, notes = [], rows["note"].tolist()
        columns = (rows[name].tolist() for name in ("label", "parents"))
        for at, (label, parents) in enumerate(zip(*columns, strict=True)):
            if label == 0:
                track = int(track_before[int(parents)])
            elif label in carried:
                track = carried[label]
            elif label in returned:
                track = returned[label]
                seen, _ = self.away.pop(track)
                place = f"at the place of track {track}, last seen {step.at - seen} visits before"
                notes[at] = "; ".join(filter(None, [notes[at], place]))
            else:
                self.last += 1
                track = self.last
            numbers.append(track)
        for label, state in step.becomes.items():
            if state in ("disappeared", "too small", "equivocal"):
                self.away[int(track_before[label])] = (step.at - 1, label)
        return rows.assign(
            track=np.array(numbers, dtype=np.int64),
            note=notes,
            ambiguous=[bool(note) for note in notes],
        )

    @staticmethod
    def _carried(step: Transition, track_before: pd.Series[int]) -> dict[int, int]:
        """Tracks by later label: along greatest overlaps, each track and lesion once."""
        links = step.links
        first_before = step.before.first[np.searchsorted(step.before.label, links["label_before"])]
        first_after = step.after.first[np.searchsorted(step.after.label, links["label_after"])]
        order = np.lexsort((first_after, first_before, links["distance_mm"], -links["overlap_mm3"]))
        pairs = links[["label_before", "label_after"]].to_numpy()[order].tolist()
        return _each_once((int(track_before[before]), after) for before, after in pairs)

    def _returned(self, step: Transition) -> dict[int, int]:
        """Tracks that had ended, by the later label that overlaps their last place most.

        Only lesions without a parent get one, and each track and lesion is taken once.
        """
        here = step.after
        common: list[tuple[float, int, int, int, int, int]] = []
        for track, (visit, old) in self.away.items():
            then = self.listed[visit]
            old_row = int(np.searchsorted(then.label, old))
            there = self.visits[step.at].labels[tuple(then.voxels_of(old_row).T)]
            for label, voxels in zip(*np.unique(there[there > 0], return_counts=True), strict=True):
                row = int(np.searchsorted(here.label, label))
                common_mm3 = float(voxels) * here.grid.voxel_volume_mm3
                smaller_mm3 = min(then.drawn_mm3[old_row], here.drawn_mm3[row])
                enough = common_mm3 / smaller_mm3 >= self.rules.min_overlap_fraction
                if enough and not len(step.parents[row]):
                    first = int(then.first[old_row]), int(here.first[row])
                    common.append((-common_mm3, *first, -visit, track, int(label)))
        return _each_once((track, label) for *_, track, label in sorted(common))


def _each_once(pairs: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Tracks by label: of pairs (track, label) those of which nothing was taken before."""
    taken: dict[int, int] = {}
    used: set[int] = set()
    for track, label in pairs:
        if label not in taken and track not in used:
            taken[label] = track
            used.add(track)
    return taken
