"""What happens to lesions between two consecutive visits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesionwise.change.evidence import ScanChange
from lesionwise.change.links import Lesions, link_lesions, nearest_distance_mm
from lesionwise.change.partial_volume import Acquisition
from lesionwise.change.rules import TrackingRules
from lesionwise.change.unmatched import UNMATCHED, Verdict, judge_unmatched
from lesionwise.types import FloatArray

ROW_COLUMNS: Mapping[str, str] = {
    "label": "int64",
    "state": "object",
    "form": "object",
    "volume_mm3": "float64",
    "change_mm3": "float64",
    "parents": "object",
    "overlap_fraction": "float64",
    "distance_mm": "float64",
    "change_z": "float64",
    "contrast_gain": "float64",
    "confidence": "float64",
    "note": "object",
}
Rows = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Families:
    """Lesions of two visits that are connected by links, directly or through others.

    Attributes:
        before, after: (m,), (n,) the family of each lesion.
        before_mm3, after_mm3: (f,) summed volume of each family at either visit.
        compared_mm3: (2, f) the same without what lies outside of the other visit's field of view;
            these volumes decide.
        border_z: (f,) how much brighter the tissue between the family's smaller and larger outline
            became; NaN where unknown or where there is nothing to compare.
    """

    before: NDArray[np.int32]
    after: NDArray[np.int32]
    before_mm3: NDArray[np.float64]
    after_mm3: NDArray[np.float64]
    compared_mm3: NDArray[np.float64]
    border_z: NDArray[np.float64]

    def grew(self, family: int) -> bool:
        """Whether its volume is larger at the later visit."""
        before, after = self.compared_mm3
        return bool(after[family] > before[family])


@dataclass(frozen=True, eq=False)
class Transition:
    """What happens between two consecutive visits, before lesions have tracks.

    Attributes:
        at: the later visit.
        before, after: its lesions and those of the visit before.
        links, loose: as ``links.link_lesions`` gives them.
        parents, children: of each lesion after and before, rows of the other visit.
        families: connected lesions.
        disappeared, appeared: verdicts on the lesions without a partner, by row.
        states_before, states_after: of each lesion, one of STATES.
        rules: the limits.
    """

    at: int
    before: Lesions
    after: Lesions
    links: pd.DataFrame
    loose: pd.DataFrame
    parents: tuple[Rows, ...]
    children: tuple[Rows, ...]
    families: Families
    disappeared: Mapping[int, Verdict]
    appeared: Mapping[int, Verdict]
    states_before: tuple[str, ...]
    states_after: tuple[str, ...]
    rules: TrackingRules

    @property
    def becomes(self) -> dict[int, str]:
        """The state in which each lesion of the visit before ends, by label."""
        return dict(zip(self.before.label.tolist(), self.states_before, strict=True))

    @property
    def children_labels(self) -> dict[int, str]:
        """Labels after, joined by commas, by label before."""
        labels = self.before.label.tolist()
        return {
            label: _joined(self.after.label[rows])
            for label, rows in zip(labels, self.children, strict=True)
        }


def find_transition(
    at: int,
    before: Lesions,
    after: Lesions,
    overlaps: pd.DataFrame,
    rules: TrackingRules,
    probabilities: tuple[FloatArray | None, FloatArray | None] = (None, None),
    change: ScanChange | None = None,
    acquisitions: tuple[Acquisition, Acquisition] | None = None,
) -> Transition:
    """The state of each lesion between the visit before ``at`` and that visit.

    Args:
        overlaps: as ``links.overlapping_labels`` gives them.
        probabilities, acquisitions: of the earlier and the later visit.

    Example:
        >>> from lesionwise.change.links import overlapping_labels
        >>> from lesionwise.types import Grid, Instances
        >>> maps = np.array([[[1, 1, 1, 0, 0, 0]]]), np.array([[[2, 2, 2, 0, 0, 5]]])
        >>> grid = Grid((1, 1, 6), np.eye(4))
        >>> before, after = (Lesions.of(Instances(labels, grid)) for labels in maps)
        >>> overlaps = overlapping_labels(*maps)
        >>> find_transition(1, before, after, overlaps, TrackingRules()).states_after
        ('stable', 'too small')
    """
    links, loose = link_lesions(
        before, after, overlaps, rules.tolerance_mm, rules.min_overlap_fraction
    )
    a = np.searchsorted(before.label, links["label_before"])
    b = np.searchsorted(after.label, links["label_after"])
    parents = tuple(a[b == row] for row in range(len(after.label)))
    children = tuple(b[a == row] for row in range(len(before.label)))
    families = _find_families(before, after, a, b, change, acquisitions)
    earlier, later = probabilities
    swapped = None if acquisitions is None else acquisitions[::-1]
    disappeared = judge_unmatched(
        "disappeared", before, _empty(children), (earlier, later), change, rules, acquisitions
    )
    appeared = judge_unmatched(
        "new", after, _empty(parents), (later, earlier), change, rules, swapped
    )
    return Transition(
        at=at,
        before=before,
        after=after,
        links=links,
        loose=loose,
        parents=parents,
        children=children,
        families=families,
        disappeared=disappeared,
        appeared=appeared,
        states_before=_states(
            children, parents, families, families.before, ("split", "merged"), disappeared, rules
        ),
        states_after=_states(
            parents, children, families, families.after, ("merged", "split"), appeared, rules
        ),
        rules=rules,
    )


def transition_rows(step: Transition) -> pd.DataFrame:
    """Rows of the later visit, without tracks: its lesions, then those before without a partner.

    The latter have label 0.

    Example:
        >>> from lesionwise.change.links import overlapping_labels
        >>> from lesionwise.types import Grid, Instances
        >>> maps = np.array([[[1, 1, 1, 0, 0, 0]]]), np.array([[[0, 0, 0, 0, 0, 0]]])
        >>> grid = Grid((1, 1, 6), np.eye(4))
        >>> before, after = (Lesions.of(Instances(labels, grid)) for labels in maps)
        >>> step = find_transition(1, before, after, overlapping_labels(*maps), TrackingRules())
        >>> transition_rows(step)[["label", "state", "parents"]].values.tolist()
        [[0, 'disappeared', '1']]
    """
    nearest = nearest_distance_mm(step.after, step.before)
    rows = []
    for row, label in enumerate(step.after.label.tolist()):
        link = step.links[step.links["label_after"] == label]
        loose = step.loose[step.loose["label_after"] == label]
        family, verdict = int(step.families.after[row]), step.appeared.get(row)
        rows.append(
            _row(step, step.states_after[row], family, link, loose, float(nearest[row]), verdict)
            | {
                "label": label,
                "volume_mm3": float(step.after.volume_mm3[row]),
                "parents": _joined(step.before.label[step.parents[row]]),
            }
        )
    nearest = nearest_distance_mm(step.before, step.after)
    for row, verdict in step.disappeared.items():
        label = int(step.before.label[row])
        none, family = step.links.iloc[:0], int(step.families.before[row])
        loose = step.loose[step.loose["label_before"] == label]
        rows.append(
            _row(step, verdict.state, family, none, loose, float(nearest[row]), verdict)
            | {"label": 0, "volume_mm3": 0.0, "parents": str(label)}
        )
    table = pd.DataFrame(rows, columns=list(ROW_COLUMNS)).astype(ROW_COLUMNS)
    return table.assign(visit=step.at, children="", becomes="")


def _find_families(
    before: Lesions,
    after: Lesions,
    a: Rows,
    b: Rows,
    change: ScanChange | None,
    acquisitions: tuple[Acquisition, Acquisition] | None,
) -> Families:
    """The connected lesions, by the links from rows ``a`` before to rows ``b`` after."""
    count = len(before.label)
    total = count + len(after.label)
    graph = coo_array((np.ones(len(a)), (a, count + b)), shape=(total, total))
    _, family = connected_components(graph, directed=False)
    families = int(family.max(initial=-1)) + 1
    of_before, of_after = family[:count], family[count:]
    before_mm3 = np.bincount(of_before, before.volume_mm3, families).astype(np.float64)
    after_mm3 = np.bincount(of_after, after.volume_mm3, families).astype(np.float64)
    compared_mm3 = np.zeros((2, families))
    others = (None, None) if acquisitions is None else acquisitions[::-1]
    np.add.at(compared_mm3[0], of_before, _shown_mm3(before, others[0]))
    np.add.at(compared_mm3[1], of_after, _shown_mm3(after, others[1]))
    border_z = np.full(families, np.nan)
    resized = (compared_mm3 > 0).all(axis=0) & (compared_mm3[0] != compared_mm3[1])
    for each in np.flatnonzero(resized).tolist() if change is not None else []:
        assert change is not None
        grew = compared_mm3[1, each] > compared_mm3[0, each]
        sides = (_voxels(before, of_before, each), _voxels(after, of_after, each))
        smaller, larger = sides if grew else sides[::-1]
        added = np.unravel_index(np.setdiff1d(larger, smaller), after.grid.shape)
        index = np.stack(added, axis=1)
        if acquisitions is not None:
            index = index[acquisitions[0 if grew else 1].shows(index, after.grid)]
        border_z[each] = change.mean_z(index)
    return Families(of_before, of_after, before_mm3, after_mm3, compared_mm3, border_z)


def _shown_mm3(lesions: Lesions, other: Acquisition | None) -> NDArray[np.float64]:
    """(m,) the volume of each lesion that lies in the field of view of the other visit."""
    if other is None:
        return lesions.volume_mm3
    count = len(lesions.label)
    shown = np.bincount(lesions.row, other.shows(lesions.index, lesions.grid), count)
    share = shown / np.maximum(np.bincount(lesions.row, minlength=count), 1)
    return np.asarray(lesions.volume_mm3 * share, dtype=np.float64)


def _voxels(lesions: Lesions, families: NDArray[np.int32], family: int) -> NDArray[np.int64]:
    """Flat positions of a family's voxels."""
    index = lesions.index[families[lesions.row] == family]
    flat: NDArray[np.int64] = np.ravel_multi_index(tuple(index.T), lesions.grid.shape).astype(
        np.int64
    )
    return flat


def _empty(partners: tuple[Rows, ...]) -> list[int]:
    return [row for row, others in enumerate(partners) if not len(others)]


def _states(
    partners: tuple[Rows, ...],
    theirs: tuple[Rows, ...],
    families: Families,
    family: NDArray[np.int32],
    names: tuple[str, str],
    verdicts: Mapping[int, Verdict],
    rules: TrackingRules,
) -> tuple[str, ...]:
    """The state of each lesion of one visit: first by its family's volume, then by partners.

    Args:
        partners: of each lesion, rows of the other visit; ``theirs``: of the other visit's lesions.
        names: what a lesion with several partners is called, and one whose partner has several.
    """
    states = []
    for row, others in enumerate(partners):
        each = int(family[row])
        if row in verdicts:
            states.append(verdicts[row].state)
        elif _is_resized(families, each, rules) and not _is_redrawn(families, each, rules):
            states.append("enlarging" if families.grew(each) else "shrinking")
        elif len(others) > 1:
            states.append(names[0])
        elif any(len(theirs[other]) > 1 for other in others):
            states.append(names[1])
        else:
            states.append("stable")
    return tuple(states)


def _is_resized(families: Families, family: int, rules: TrackingRules) -> bool:
    """Whether the volume changed by more than an unchanged lesion's does."""
    # Volumes are sums of equal voxels: a change that only rounding puts beyond stays below.
    return _change_by_limit(families, family, rules) > 1 + 1e-9


def _change_by_limit(families: Families, family: int, rules: TrackingRules) -> float:
    """The change of volume by what it must exceed, which is less where the scans tell."""
    before, after = map(float, families.compared_mm3[:, family])
    if not min(before, after):  # nothing of it lies where the other visit shows something
        return 0.0
    shown = rules.shown_fraction if np.isfinite(families.border_z[family]) else 1.0
    return abs(after - before) / max(shown * rules.limit_mm3(before, after), 1e-9)


def _is_cut(families: Families, family: int, rules: TrackingRules) -> bool:
    """Whether its whole volume changed more than an unchanged lesion's does."""
    before, after = float(families.before_mm3[family]), float(families.after_mm3[family])
    return abs(after - before) > rules.limit_mm3(before, after) * (1 + 1e-9)


def _is_redrawn(families: Families, family: int, rules: TrackingRules) -> bool:
    """Whether the scans show no change where the outlines differ."""
    z = families.border_z[family]
    return bool((z if families.grew(family) else -z) < rules.min_border_z)


def _row(
    step: Transition,
    state: str,
    family: int,
    link: pd.DataFrame,
    loose: pd.DataFrame,
    nearest_mm: float,
    verdict: Verdict | None,
) -> dict[str, Any]:
    families = step.families
    notes = _notes(step, state, link, family, loose)
    if verdict is not None and verdict.note:
        notes.append(verdict.note)
    return {
        "state": state,
        "form": _form(families, family),
        "change_mm3": float(families.after_mm3[family] - families.before_mm3[family]),
        "overlap_fraction": float(link["fraction_of_smaller"].max()) if len(link) else np.nan,
        "distance_mm": nearest_mm,
        "change_z": families.border_z[family] if verdict is None else verdict.evidence.z,
        "contrast_gain": np.nan if verdict is None else verdict.evidence.contrast_gain,
        "confidence": _confidence(step, state, link, family, nearest_mm, verdict),
        "note": "; ".join(notes),
    }


def _form(families: Families, family: int) -> str:
    """How many lesions of either visit the family holds, in a word; empty for one and one."""
    before = int((families.before == family).sum())
    after = int((families.after == family).sum())
    if before > 1 and after > 1:
        return "rearranged"
    if after > 1:
        return "in parts"
    return "merged" if before > 1 else ""


def _notes(
    step: Transition, state: str, link: pd.DataFrame, family: int, loose: pd.DataFrame
) -> list[str]:
    families, rules = step.families, step.rules
    notes = []
    unchanged = state in ("stable", "split", "merged")
    if unchanged and _is_resized(families, family, rules):
        grew = families.grew(family)
        outline, tissue = ("larger", "brighter") if grew else ("smaller", "darker")
        notes.append(f"outlined {outline}, but the tissue in question became hardly {tissue}")
    elif unchanged and _is_cut(families, family, rules):
        notes.append("partly outside of the other visit's field of view")
    if (link["kind"] == "weak").any():
        notes.append("linked by little overlap")
    if (link["kind"] == "near").any():
        notes.append(f"linked without overlap, {link['distance_mm'].min():.1f} mm apart")
    before_mm3 = step.before.volume_mm3[families.before == family]
    after_mm3 = step.after.volume_mm3[families.after == family]
    if len(before_mm3) > 1 and len(after_mm3) > 1:
        notes.append("several lesions exchange parts")
    elif unchanged and (len(before_mm3) > 1 or len(after_mm3) > 1):
        parts = before_mm3 if len(before_mm3) > 1 else after_mm3
        if np.sort(parts)[-2] <= rules.rescan_mm3:
            notes.append("the smaller parts are within rescan variability")
    if len(link) == 0 and len(loose):
        notes.append("touches or overlaps a lesion that has another partner")
    return notes


def _confidence(
    step: Transition,
    state: str,
    link: pd.DataFrame,
    family: int,
    nearest_mm: float,
    verdict: Verdict | None,
) -> float:
    families, rules = step.families, step.rules
    if verdict is not None:
        beyond = nearest_mm / rules.tolerance_mm if rules.tolerance_mm > 0 else np.inf
        apart = 0.5 * min(beyond, 2.0)
        if state in UNMATCHED:
            return min(apart, verdict.confidence)
        return verdict.confidence if state == "equivocal" else min(apart, 0.5)
    least, shared = rules.min_overlap_fraction, float(link["fraction_of_smaller"].max())
    if shared < least:
        return float(0.5 * shared / least)
    linked = 0.5 + 0.5 * (shared - least) / (1 - least) if least < 1 else 1.0
    ratio = _change_by_limit(families, family, rules)
    z = float(families.border_z[family])
    if state in ("enlarging", "shrinking"):
        changed = 1 - 0.5 / ratio
        if np.isfinite(z):
            limit = rules.min_border_z
            changed = min(changed, 1 - 0.5 * limit / max(abs(z), limit, 1e-9))
        return min(linked, changed)
    if state == "stable":
        if ratio <= 1 or not np.isfinite(z):
            return min(linked, max(1 - 0.5 * ratio, 0.5))
        opposed = (z > 0) != families.grew(family)
        redrawn = 1.0 if opposed else 1 - 0.5 * min(abs(z) / rules.min_border_z, 1.0)
        return min(linked, redrawn)
    return linked


def _joined(labels: NDArray[Any]) -> str:
    return ",".join(str(label) for label in np.sort(labels).tolist())
