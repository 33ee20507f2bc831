"""What happens to lesions between two consecutive visits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesionwise.change.links import Lesions, link_lesions, nearest_distance_mm, overlap_table
from lesionwise.types import FloatArray, Instances

STATES = (
    "stable",
    "new",
    "growing",
    "shrinking",
    "split",
    "merged",
    "gone",
    "too small",
    "baseline",
    "faint",
)
"""What a lesion is at a visit. Their place here, counted from 1, is the code in change maps.

``too small``: without a partner, but not large enough to be called new or gone.
``baseline``: at the first visit, with nothing to compare it to.
``faint``: without a partner, but the other visit's probability shows it below its threshold, so it
may have been there, or be there still; or hardly believed at its own visit.
"""


@dataclass(frozen=True)
class TrackingRules:
    """What counts as the same place and as a change.

    Attributes:
        tolerance_mm: error of registration: lesions without overlap can be the same place
            when voxel centers of theirs lie within it.
        min_overlap_share: share of the smaller lesion's voxels that must be common before two
            lesions count as the same place without doubt.
        min_across_mm: least size of a new or a gone lesion: the greatest extent of its
            bounding box along a voxel axis.
        rescan_boundary_mm, rescan_relative, rescan_mm3: how much an unchanged lesion varies
            from scan to scan. A change of volume is growth or shrinkage where it exceeds all
            three: what the boundary's uncertainty makes of the surface of a ball as large as
            the mean of the two volumes, a share of that mean, and a volume. The boundary
            decides in the usual range: 0.4 mm is 67 % of a lesion of 24 mm³, 42 % of 100 mm³
            and 19 % of 1000 mm³. ``benchmarks/bench_rescan.py`` measures it on real masks.
        faint_probability: a lesion without a partner is faint rather than new or gone where the
            other visit's mean probability in it exceeds this, and
        sure_probability: where its own visit's mean probability does not reach this. Both take
            effect where probabilities are given; 1 and 0 switch them off.
            ``benchmarks/track_changes.py`` shows what they do.
    """

    tolerance_mm: float = 2.0
    min_overlap_share: float = 0.25
    min_across_mm: float = 3.0
    rescan_boundary_mm: float = 0.4
    rescan_relative: float = 0.1
    rescan_mm3: float = 10.0
    faint_probability: float = 0.2
    sure_probability: float = 0.6

    def limit_mm3(self, before_mm3: float, after_mm3: float) -> float:
        """The change of volume that growth or shrinkage must exceed."""
        mean_mm3 = (before_mm3 + after_mm3) / 2
        surface_mm2 = (36 * np.pi) ** (1 / 3) * mean_mm3 ** (2 / 3)
        boundary_mm3 = self.rescan_boundary_mm * float(surface_mm2)
        return max(self.rescan_mm3, self.rescan_relative * mean_mm3, boundary_mm3)


ROW_COLUMNS: Mapping[str, str] = {
    "label": "int64",
    "state": "object",
    "volume_mm3": "float64",
    "change_mm3": "float64",
    "parents": "object",
    "overlap_share": "float64",
    "distance_mm": "float64",
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
    ) -> None:
        self.at, self.before, self.after, self.rules = at, before, after, rules
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
        names_before = _alone("gone", before, earlier, later, rules)
        self.names_after = _alone("new", after, later, earlier, rules)
        self.becomes = {
            label: self._state(
                len(children),
                max((len(self.parents_of[child]) for child in children), default=0),
                self.family_before[row],
                ("split", "merged", names_before[row]),
            )
            for row, (label, children) in enumerate(
                zip(before.label.tolist(), self.children_of, strict=True)
            )
        }
        self.children = {
            label: _joined(after.label[children])
            for label, children in zip(before.label.tolist(), self.children_of, strict=True)
        }

    def _state(self, partners: int, theirs: int, family: int, names: tuple[str, str, str]) -> str:
        """State by the number of partners, the most that one of them has, and the volumes."""
        if partners == 0:
            return names[2]
        if partners > 1:
            return names[0]
        if theirs > 1:
            return names[1]
        before, after = self.mm3_before[family], self.mm3_after[family]
        # Volumes are sums of equal voxels: a change that only rounding puts beyond stays below.
        if abs(after - before) <= self.rules.limit_mm3(before, after) * (1 + 1e-9):
            return "stable"
        return "growing" if after > before else "shrinking"

    def rows(self) -> pd.DataFrame:
        """Rows of the later visit, without lineages: its lesions, then those gone."""
        rows = []
        for row, label in enumerate(self.after.label.tolist()):
            parents = self.parents_of[row]
            family = int(self.family_after[row])
            theirs = max((len(self.children_of[parent]) for parent in parents), default=0)
            names = ("merged", "split", self.names_after[row])
            state = self._state(len(parents), theirs, family, names)
            link = self.links[self.links["label_after"] == label]
            loose = self.loose[self.loose["label_after"] == label]
            rows.append(
                self._row(state, family, link, loose, float(self.away_after[row]))
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
                self._row("gone", family, none, loose, float(self.away_before[row]))
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
    ) -> dict[str, Any]:
        return {
            "state": state,
            "change_mm3": float(self.mm3_after[family] - self.mm3_before[family]),
            "overlap_share": float(link["share_of_smaller"].max()) if len(link) else np.nan,
            "distance_mm": away_mm,
            "confidence": self._confidence(state, link, family, away_mm),
            "note": "; ".join(self._notes(link, family, loose)),
        }

    def _notes(self, link: pd.DataFrame, family: int, loose: pd.DataFrame) -> list[str]:
        notes = []
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

    def _confidence(self, state: str, link: pd.DataFrame, family: int, away_mm: float) -> float:
        rules = self.rules
        if state in ("new", "gone", "too small", "faint"):
            beyond = away_mm / rules.tolerance_mm if rules.tolerance_mm > 0 else np.inf
            apart = 0.5 * min(beyond, 2.0)
            return apart if state in ("new", "gone") else min(apart, 0.5)
        least, share = rules.min_overlap_share, float(link["share_of_smaller"].max())
        if share < least:
            return float(0.5 * share / least)
        linked = 0.5 + 0.5 * (share - least) / (1 - least) if least < 1 else 1.0
        before, after = self.mm3_before[family], self.mm3_after[family]
        ratio = float(abs(after - before) / max(rules.limit_mm3(before, after), 1e-9))
        if state == "stable":
            return min(linked, 1 - 0.5 * ratio)
        if state in ("growing", "shrinking"):
            return min(linked, 1 - 0.5 / ratio)
        return linked


def _alone(
    name: str,
    lesions: Lesions,
    own_visit: FloatArray | None,
    other_visit: FloatArray | None,
    rules: TrackingRules,
) -> list[str]:
    """What each lesion is called if it has no partner: ``name``, faint, or too small."""
    names = np.where(lesions.large_enough(rules.min_across_mm), name, "too small").astype(object)
    if own_visit is not None and other_visit is not None:
        # means are sums of float32: what only rounding puts beyond a limit stays within
        seen = lesions.mean_of(other_visit) > rules.faint_probability * (1 + 1e-6)
        unsure = lesions.mean_of(own_visit) < rules.sure_probability * (1 - 1e-6)
        names[(names == name) & (seen | unsure)] = "faint"
    return [str(each) for each in names]


def _joined(labels: NDArray[Any]) -> str:
    return ",".join(str(label) for label in np.sort(labels).tolist())
