"""What happens to lesions between two consecutive visits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesionwise.change.alone import ALONE, Verdict, judge_alone
from lesionwise.change.evidence import ScanChange
from lesionwise.change.links import Lesions, link_lesions, nearest_distance_mm, overlap_table
from lesionwise.change.rules import TrackingRules
from lesionwise.types import FloatArray, Instances

ROW_COLUMNS: Mapping[str, str] = {
    "label": "int64",
    "state": "object",
    "volume_mm3": "float64",
    "change_mm3": "float64",
    "parents": "object",
    "overlap_share": "float64",
    "distance_mm": "float64",
    "change_z": "float64",
    "appeared": "float64",
    "confidence": "float64",
    "note": "object",
}


class Transition:
    """What happens between two consecutive visits, before lesions have names."""

    def __init__(
        self,
        at: int,
        before: Lesions,
        after: Lesions,
        visits: Sequence[Instances],
        rules: TrackingRules,
        probabilities: Sequence[FloatArray] | None = None,
        change: ScanChange | None = None,
    ) -> None:
        self.at, self.before, self.after, self.rules = at, before, after, rules
        self.change = change
        overlaps = overlap_table(visits[at - 1].labels, visits[at].labels)
        self.links, self.loose = link_lesions(
            before, after, overlaps, rules.tolerance_mm, rules.min_overlap_share
        )
        a = np.searchsorted(before.label, self.links["label_before"])
        b = np.searchsorted(after.label, self.links["label_after"])
        self.parents_of = [a[b == row] for row in range(len(after.label))]
        self.children_of = [b[a == row] for row in range(len(before.label))]
        total = len(before.label) + len(after.label)
        graph = coo_array((np.ones(len(a)), (a, len(before.label) + b)), shape=(total, total))
        _, family = connected_components(graph, directed=False)
        self.family_before = family[: len(before.label)]
        self.family_after = family[len(before.label) :]
        families = int(family.max(initial=-1)) + 1
        self.mm3_before = np.bincount(self.family_before, before.volume_mm3, families)
        self.mm3_after = np.bincount(self.family_after, after.volume_mm3, families)
        self.away_before = nearest_distance_mm(before, after)
        self.away_after = nearest_distance_mm(after, before)
        earlier, later = (None, None) if probabilities is None else probabilities[at - 1 : at + 1]
        lost = [row for row, children in enumerate(self.children_of) if not len(children)]
        came = [row for row, parents in enumerate(self.parents_of) if not len(parents)]
        self.lost = judge_alone("gone", before, lost, (earlier, later), change, rules)
        self.came = judge_alone("new", after, came, (later, earlier), change, rules)
        self.border_z = [self._border_z(number) for number in range(families)]
        self.becomes = {
            label: self._state(
                len(children),
                max((len(self.parents_of[child]) for child in children), default=0),
                self.family_before[row],
                ("split", "merged"),
                self.lost.get(row),
            )
            for row, (label, children) in enumerate(
                zip(before.label.tolist(), self.children_of, strict=True)
            )
        }
        self.children = {
            label: _joined(after.label[children])
            for label, children in zip(before.label.tolist(), self.children_of, strict=True)
        }

    def _state(
        self,
        partners: int,
        theirs: int,
        family: int,
        names: tuple[str, str],
        alone: Verdict | None,
    ) -> str:
        """State by the number of partners, the most that one of them has, and the volumes."""
        if alone is not None:
            return alone.state
        if partners > 1:
            return names[0]
        if theirs > 1:
            return names[1]
        if not self._resized(family) or self._recut(family):
            return "stable"
        return "growing" if self.mm3_after[family] > self.mm3_before[family] else "shrinking"

    def _resized(self, family: int) -> bool:
        """Whether the volume changed by more than an unchanged lesion's does."""
        # Volumes are sums of equal voxels: a change that only rounding puts beyond stays below.
        return self._change_by_limit(family) > 1 + 1e-9

    def _change_by_limit(self, family: int) -> float:
        """The change of volume by what it must exceed, which is less where the scans tell."""
        before, after = self.mm3_before[family], self.mm3_after[family]
        share = self.rules.shown_share if np.isfinite(self.border_z[family]) else 1.0
        limit = share * self.rules.limit_mm3(before, after)
        return float(abs(after - before) / max(limit, 1e-9))

    def _recut(self, family: int) -> bool:
        """Whether the scans show no change where the outlines differ."""
        growing = self.mm3_after[family] > self.mm3_before[family]
        z = self.border_z[family]
        return bool((z if growing else -z) < self.rules.border_z)

    def _border_z(self, family: int) -> float:
        """How much brighter what the larger outline adds to the smaller one became; NaN if
        unknown."""
        before, after = self.mm3_before[family], self.mm3_after[family]
        if self.change is None or before == 0 or after == 0 or before == after:
            return float(np.nan)
        shape = self.after.grid.shape
        sides = []
        for lesions, of in ((self.before, self.family_before), (self.after, self.family_after)):
            index = lesions.index[of[lesions.row] == family]
            sides.append(np.ravel_multi_index(tuple(index.T), shape))
        smaller, larger = sides if after > before else sides[::-1]
        added = np.setdiff1d(larger, smaller)
        return self.change.mean_z(np.stack(np.unravel_index(added, shape), axis=1))

    def rows(self) -> pd.DataFrame:
        """Rows of the later visit, without lineages: its lesions, then those gone."""
        rows = []
        for row, label in enumerate(self.after.label.tolist()):
            parents = self.parents_of[row]
            family = int(self.family_after[row])
            theirs = max((len(self.children_of[parent]) for parent in parents), default=0)
            alone = self.came.get(row)
            state = self._state(len(parents), theirs, family, ("merged", "split"), alone)
            link = self.links[self.links["label_after"] == label]
            loose = self.loose[self.loose["label_after"] == label]
            rows.append(
                self._row(state, family, link, loose, float(self.away_after[row]), alone)
                | {
                    "label": label,
                    "volume_mm3": float(self.after.volume_mm3[row]),
                    "parents": _joined(self.before.label[parents]),
                }
            )
        for row, label in enumerate(self.before.label.tolist()):
            if self.becomes[label] != "gone":
                continue
            none, family = self.links.iloc[:0], int(self.family_before[row])
            loose = self.loose[self.loose["label_before"] == label]
            rows.append(
                self._row("gone", family, none, loose, float(self.away_before[row]), self.lost[row])
                | {"label": 0, "volume_mm3": 0.0, "parents": str(label)}
            )
        table = pd.DataFrame(rows, columns=list(ROW_COLUMNS)).astype(ROW_COLUMNS)
        return table.assign(visit=self.at, children="", becomes="")

    def _row(
        self,
        state: str,
        family: int,
        link: pd.DataFrame,
        loose: pd.DataFrame,
        away_mm: float,
        alone: Verdict | None,
    ) -> dict[str, Any]:
        notes = self._notes(state, link, family, loose)
        if alone is not None and alone.note:
            notes.append(alone.note)
        return {
            "state": state,
            "change_mm3": float(self.mm3_after[family] - self.mm3_before[family]),
            "overlap_share": float(link["share_of_smaller"].max()) if len(link) else np.nan,
            "distance_mm": away_mm,
            "change_z": self.border_z[family] if alone is None else alone.evidence.z,
            "appeared": np.nan if alone is None else alone.evidence.appeared,
            "confidence": self._confidence(state, link, family, away_mm, alone),
            "note": "; ".join(notes),
        }

    def _notes(self, state: str, link: pd.DataFrame, family: int, loose: pd.DataFrame) -> list[str]:
        notes = []
        if state == "stable" and self._resized(family):
            larger = self.mm3_after[family] > self.mm3_before[family]
            outline, tissue = ("larger", "brighter") if larger else ("smaller", "darker")
            notes.append(f"outlined {outline}, but the tissue in question became hardly {tissue}")
        if (link["kind"] == "weak").any():
            notes.append("linked by little overlap")
        if (link["kind"] == "near").any():
            notes.append(f"linked without overlap, {link['distance_mm'].min():.1f} mm apart")
        befores = self.before.volume_mm3[self.family_before == family]
        afters = self.after.volume_mm3[self.family_after == family]
        if len(befores) > 1 and len(afters) > 1:
            notes.append("several lesions exchange parts")
        elif len(befores) > 1 or len(afters) > 1:
            parts = befores if len(befores) > 1 else afters
            if np.sort(parts)[-2] <= self.rules.rescan_mm3:
                notes.append("the smaller parts are within rescan variability")
        if len(link) == 0 and len(loose):
            notes.append("touches or overlaps a lesion that has another partner")
        return notes

    def _confidence(
        self,
        state: str,
        link: pd.DataFrame,
        family: int,
        away_mm: float,
        alone: Verdict | None,
    ) -> float:
        rules = self.rules
        if alone is not None:
            beyond = away_mm / rules.tolerance_mm if rules.tolerance_mm > 0 else np.inf
            apart = 0.5 * min(beyond, 2.0)
            if state in ALONE:
                return min(apart, alone.confidence)
            return alone.confidence if state == "faint" else min(apart, 0.5)
        least, share = rules.min_overlap_share, float(link["share_of_smaller"].max())
        if share < least:
            return float(0.5 * share / least)
        linked = 0.5 + 0.5 * (share - least) / (1 - least) if least < 1 else 1.0
        ratio = self._change_by_limit(family)
        z = abs(self.border_z[family])
        if state == "stable":
            if ratio <= 1 or not np.isfinite(z):
                return min(linked, max(1 - 0.5 * ratio, 0.5))
            recut = 1 - 0.5 * min(z / rules.border_z, 1.0) if not self._opposed(family) else 1.0
            return min(linked, recut)
        if state in ("growing", "shrinking"):
            changed = 1 - 0.5 / ratio
            if np.isfinite(z):
                changed = min(changed, 1 - 0.5 * rules.border_z / max(z, rules.border_z, 1e-9))
            return min(linked, changed)
        return linked

    def _opposed(self, family: int) -> bool:
        """Whether the border became darker while the outline grew, or brighter as it shrank."""
        growing = self.mm3_after[family] > self.mm3_before[family]
        return bool((self.border_z[family] > 0) != growing)


def _joined(labels: NDArray[Any]) -> str:
    return ",".join(str(label) for label in np.sort(labels).tolist())
