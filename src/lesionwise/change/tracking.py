"""Every lesion through all visits: stable, new, growing, shrinking, split, merged or gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lesionwise.change.evidence import ScanChange
from lesionwise.change.links import LINK_COLUMNS, Lesions
from lesionwise.change.rules import STATES, TrackingRules
from lesionwise.change.transitions import Transition
from lesionwise.types import FloatArray, Instances, Volume

LINEAGE_COLUMNS = (
    "lineage",
    "visit",
    "label",
    "state",
    "volume_mm3",
    "change_mm3",
    "parents",
    "children",
    "becomes",
    "overlap_share",
    "distance_mm",
    "change_z",
    "appeared",
    "confidence",
    "ambiguous",
    "note",
)


@dataclass(frozen=True, eq=False)
class Tracks:
    """What became of every lesion.

    Attributes:
        lineages: one row a lesion and visit, sorted by visit and label, and one row with label 0
            for each lesion gone at a visit. Columns:

            lineage: the lesion's identity, the same at all visits, from 1;
            visit: from 0; label: its label at that visit, 0 where it is gone;
            state: against the visit before, one of STATES;
            volume_mm3; change_mm3: of the volume of its whole family, that is of all lesions
            connected to it by links between the two visits (NaN at the first visit);
            parents, children: labels at the visits before and after, ascending, joined by
            commas; becomes: what it will be at the next visit, as a state, empty at the last;
            overlap_share: with its main parent, of the smaller's voxels (NaN without parent);
            distance_mm: to the nearest lesion of the visit before; for a gone lesion, of this
            visit (inf if there is none, NaN at the first visit);
            change_z: where scans are given, how much brighter the tissue in question is than at the
            visit before, in standard deviations of the noise between the scans: of a lesion
            without a partner all its voxels, of others those that the larger outline of the
            family adds to the smaller (NaN where a visit does not show them);
            appeared: of a lesion without a partner, the share of its contrast that was not there
            before, or of a gone one that is not there any more (NaN where unknown);
            confidence: how far the decision lies from its limits, 0.5 on the limit, towards 1
            beyond, below 0.5 where only a rule of last resort decided; not a probability;
            ambiguous, note: whether another reading is possible, and which.
        links: the graph: visit_before, visit_after and the columns of LINK_COLUMNS.
        rules: as given.
    """

    lineages: pd.DataFrame
    links: pd.DataFrame
    rules: TrackingRules

    def counts(self) -> pd.DataFrame:
        """Number of rows of each state at each visit: visits × STATES."""
        counts = pd.crosstab(self.lineages["visit"], self.lineages["state"])
        return counts.reindex(columns=list(STATES), fill_value=0)


def track_lesions(
    visits: Sequence[Instances],
    rules: TrackingRules = TrackingRules(),  # noqa: B008  (frozen)
    probabilities: Sequence[FloatArray] | None = None,
    changes: Sequence[ScanChange | None] | None = None,
) -> Tracks:
    """Follow every lesion through the visits.

    Consecutive visits are compared pair by pair (``links.link_lesions``). Lesions linked one to
    one are stable, growing or shrinking. Several lesions with one parent are split, a lesion
    with several parents is merged, and where both hold it is merged and ambiguous. A lesion
    without a link is new, or gone at the next visit, when it is large enough, else too small; with
    ``probabilities`` it is faint where the other visit shows it below its threshold. With
    ``changes`` it is new (or gone) only where the scans show that it came (or went), else faint;
    and growth and shrinkage must show in the scans too (``change.evidence``).

    A lesion keeps its lineage along the link of greatest overlap: of a split the largest common
    part carries it on, of a merger the parent with the largest common part. The others
    begin or end there; ``parents`` and ``children`` tell. A lesion that was gone and overlaps
    what appears later at the same place gets its lineage back, as new and ambiguous, because
    it may have been missed in between.

    The result depends on no order of labels beyond the names in it, and reversing the visits
    exchanges new and gone, growing and shrinking, split and merged.

    Args:
        visits: in time order, on one grid; one or more. A visit may hold no lesion.
        rules: tolerances and limits.
        probabilities: of lesion, (I, J, K) each, on the same grid: what has no partner but shows
            at the other visit below its threshold is then faint, not new or gone.
        changes: between every two consecutive visits, on the same grid; None for two visits whose
            scans cannot be compared, which are then judged without.

    Raises:
        ValueError: If there is no visit, or the grids or numbers of maps or changes differ.
    """
    if not visits:
        raise ValueError("tracking needs at least one visit")
    for number, visit in enumerate(visits[1:], start=2):
        if not visit.grid.matches(visits[0].grid):
            raise ValueError(f"visit {number} does not lie on the grid of visit 1")
    if probabilities is not None and [p.shape for p in probabilities] != [
        visit.grid.shape for visit in visits
    ]:
        raise ValueError("there must be one probability map per visit, on the visits' grid")
    if changes is None:
        changes = [None] * (len(visits) - 1)
    if len(changes) != len(visits) - 1 or any(
        change is not None and not change.grid.matches(visits[0].grid) for change in changes
    ):
        raise ValueError("there must be one change per two visits, on the visits' grid")
    listed = [Lesions.of(visit) for visit in visits]
    rows = [_baseline_rows(listed[0])]
    links = []
    history = _History(visits, listed, rules)
    for at in range(1, len(visits)):
        step = Transition(
            at, listed[at - 1], listed[at], visits, rules, probabilities, changes[at - 1]
        )
        previous = rows[-1][rows[-1]["label"] > 0].set_index("label")
        labels = rows[-1]["label"].tolist()
        rows[-1]["becomes"] = [step.becomes.get(label, "") for label in labels]
        rows[-1]["children"] = [step.children.get(label, "") for label in labels]
        rows.append(history.named(step, previous["lineage"]))
        links.append(step.links.assign(visit_before=at - 1, visit_after=at))
    lineages = pd.concat(rows, ignore_index=True)[list(LINEAGE_COLUMNS)]
    columns = ["visit_before", "visit_after", *LINK_COLUMNS]
    graph = pd.concat(links, ignore_index=True) if links else pd.DataFrame(columns=columns)
    return Tracks(lineages, graph[columns], rules)


def change_map(visits: Sequence[Instances], tracks: Tracks, visit: int = -1) -> Volume:
    """Where each kind of change is, on the grid of the visits.

    Args:
        visits: as given to ``track_lesions``.
        tracks: its result.
        visit: the visit that is compared to the one before it; -1 is the last.

    Returns:
        uint8: 0 where there is no lesion, else 1 + the place of the lesion's state in STATES.
        Gone lesions are drawn where they were, under the lesions of the visit.
    """
    number = range(len(visits))[visit]
    rows = tracks.lineages[tracks.lineages["visit"] == number]
    present = rows[rows["label"] > 0]
    codes = present["state"].map(STATES.index).to_numpy(np.uint8) + np.uint8(1)
    drawn = _painted(visits[number], present["label"].to_numpy(), codes).astype(np.uint8)
    if number > 0:
        before = tracks.lineages[tracks.lineages["visit"] == number - 1]
        gone = before.loc[before["becomes"] == "gone", "label"].to_numpy()
        code = np.full(len(gone), STATES.index("gone") + 1)
        where = _painted(visits[number - 1], gone, code)
        drawn = np.where(drawn == 0, where, drawn).astype(np.uint8)
    return Volume(drawn, visits[number].grid)


def lineage_map(visits: Sequence[Instances], tracks: Tracks, visit: int = -1) -> Instances:
    """The lesions of a visit under their lineages: one number is one lesion at all visits."""
    number = range(len(visits))[visit]
    rows = tracks.lineages[(tracks.lineages["visit"] == number) & (tracks.lineages["label"] > 0)]
    labels = _painted(visits[number], rows["label"].to_numpy(), rows["lineage"].to_numpy())
    return Instances(labels, visits[number].grid)


def _painted(instances: Instances, labels: NDArray[Any], values: NDArray[Any]) -> NDArray[np.int32]:
    lesions = Lesions.of(instances)
    value = np.zeros(len(lesions.label), dtype=np.int32)
    value[np.searchsorted(lesions.label, labels)] = values
    drawn = np.zeros(instances.labels.shape, dtype=np.int32)
    drawn[tuple(lesions.index.T)] = value[lesions.row]
    return drawn


def _baseline_rows(lesions: Lesions) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "lineage": np.arange(1, len(lesions.label) + 1),
            "visit": 0,
            "label": lesions.label,
            "state": "baseline",
            "volume_mm3": lesions.volume_mm3,
            "change_mm3": np.nan,
            "parents": "",
            "children": "",
            "becomes": "",
            "overlap_share": np.nan,
            "distance_mm": np.nan,
            "change_z": np.nan,
            "appeared": np.nan,
            "confidence": np.nan,
            "ambiguous": False,
            "note": "",
        }
    )


class _History:
    """Gives lineages their numbers and remembers the lesions that are gone."""

    def __init__(
        self, visits: Sequence[Instances], listed: Sequence[Lesions], rules: TrackingRules
    ) -> None:
        self.visits, self.listed, self.rules = visits, listed, rules
        self.last = len(listed[0].label)
        self.away: dict[int, tuple[int, int]] = {}

    def named(self, step: Transition, lineage_before: pd.Series[int]) -> pd.DataFrame:
        """Rows of the later visit with their lineages, sorted by label, gone lesions last."""
        carried = self._carried(step.links, lineage_before)
        rows = step.rows()
        lineages, notes = [], rows["note"].tolist()
        columns = (rows[name].tolist() for name in ("label", "state", "parents"))
        for at, (label, state, parents) in enumerate(zip(*columns, strict=True)):
            returned = 0
            if state == "gone":
                lineage = int(lineage_before[int(parents)])
            elif label in carried:
                lineage = carried[label]
            elif not parents and (returned := self._returned(step.at, label)):
                lineage, (seen, _) = returned, self.away.pop(returned)
                place = f"at the place of lineage {lineage}, last seen at visit {seen}"
                notes[at] = "; ".join(filter(None, [notes[at], place]))
            else:
                self.last += 1
                lineage = self.last
            lineages.append(lineage)
        for label, state in step.becomes.items():
            if state in ("gone", "too small", "faint"):
                self.away[int(lineage_before[label])] = (step.at - 1, label)
        return rows.assign(
            lineage=np.array(lineages, dtype=np.int64),
            note=notes,
            ambiguous=[bool(note) for note in notes],
        )

    @staticmethod
    def _carried(links: pd.DataFrame, lineage_before: pd.Series[int]) -> dict[int, int]:
        """Lineages by later label: along greatest overlaps, each lineage and lesion once."""
        order = links.sort_values(
            ["overlap_mm3", "distance_mm", "label_before", "label_after"],
            ascending=[False, True, True, True],
        )
        carried: dict[int, int] = {}
        used: set[int] = set()
        for before, after in order[["label_before", "label_after"]].to_numpy().tolist():
            lineage = int(lineage_before[before])
            if after not in carried and lineage not in used:
                carried[after] = lineage
                used.add(lineage)
        return carried

    def _returned(self, at: int, label: int) -> int:
        """The vanished lineage whose last place this lesion overlaps most; 0 for none."""
        here = self.listed[at]
        row = int(np.searchsorted(here.label, label))
        place = tuple(here.index[here.row == row].T)
        best, found = 0.0, 0
        for lineage, (visit, old) in sorted(self.away.items()):
            then = self.listed[visit]
            volume = then.volume_mm3[np.searchsorted(then.label, old)]
            common = int((self.visits[visit].labels[place] == old).sum())
            common_mm3 = common * here.grid.voxel_volume_mm3
            share = common_mm3 / min(volume, here.volume_mm3[row])
            if common and share >= self.rules.min_overlap_share and common_mm3 > best:
                best, found = common_mm3, lineage
        return found
