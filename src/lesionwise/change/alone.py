"""Lesions that one visit holds and the other does not: new, gone, faint or too small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lesionwise.change.evidence import UNKNOWN, Evidence, ScanChange
from lesionwise.change.links import Lesions
from lesionwise.change.rules import TrackingRules
from lesionwise.instances.components import connected_components
from lesionwise.instances.filters import DropSmall
from lesionwise.types import FloatArray, Instances

ALONE = ("new", "gone")
NEARLY = 0.7
"""Share of a limit that evidence must reach before its failing is called a near miss."""


@dataclass(frozen=True)
class Verdict:
    """What a lesion without a partner is.

    Attributes:
        state: new or gone, faint, or too small.
        evidence: what the scans say.
        confidence: how far the evidence lies from the limits that decided: 0.5 on a limit, 1 far
            from it; 1 for new and gone, 0.5 for the others, where only the maps were asked.
        note: why another reading is possible; empty where none is.
    """

    state: str
    evidence: Evidence
    confidence: float
    note: str


def judge_alone(
    name: str,
    lesions: Lesions,
    rows: Sequence[int],
    probabilities: tuple[FloatArray | None, FloatArray | None],
    change: ScanChange | None,
    rules: TrackingRules,
) -> dict[int, Verdict]:
    """What each of the lesions in ``rows`` is.

    A lesion that is too small stays so. Where the scans are given, it is ``name`` if enough of its
    contrast came (or went) and its place became brighter (or darker) beyond the noise, and faint
    if not. Where the other visit's probability shows it, it is faint in any case. Without
    scans, and where too little normal tissue lies around it to tell its contrast, a lesion that its
    own visit hardly believes is faint too.

    Args:
        name: ``new`` or ``gone``.
        rows: into ``lesions``: those without a partner.
        probabilities: of the visit that holds them and of the other; None where unknown.
        change: from the earlier visit to the later.

    Returns:
        Verdicts by row.
    """
    large = lesions.large_enough(rules.min_across_mm)
    own, other = probabilities
    # means are sums of float32: what only rounding puts beyond a limit stays within
    seen = np.zeros(len(lesions.label), dtype=np.bool_)
    unsure = seen
    if own is not None and other is not None:
        seen = lesions.mean_of(other) > rules.faint_probability * (1 + 1e-6)
        unsure = lesions.mean_of(own) < rules.sure_probability * (1 - 1e-6)
    gone = name == "gone"
    verdicts = {}
    for row in rows:
        evidence = UNKNOWN
        if change is not None:
            index = lesions.index[lesions.row == row]
            evidence = change.of_lesion(index, gone=gone)
        if not large[row]:
            verdicts[row] = Verdict("too small", evidence, 0.5, "")
        elif change is None:
            state = "faint" if seen[row] or unsure[row] else name
            verdicts[row] = Verdict(state, evidence, 1.0 if state == name else 0.5, "")
        else:
            verdicts[row] = _by_scans(name, evidence, bool(seen[row]), bool(unsure[row]), rules)
    return verdicts


def weak_lesions(probability: FloatArray, lesions: Instances, least: float) -> Instances:
    """What a map shows weakly beside the lesions: parts above ``least`` that hold none of them.

    Args:
        probability: (I, J, K), on the grid of ``lesions``.

    Returns:
        26-connected parts of at least 14 mm³ and 3 mm, numbered from 1 in C order of their first
        voxels; there may be none.
    """
    parts = connected_components(probability > least)
    held = np.unique(parts[(lesions.labels > 0) & (parts > 0)])
    free = np.ones(int(parts.max(initial=0)) + 1, dtype=np.bool_)
    free[held] = False
    return DropSmall()(Instances(np.where(free[parts], parts, 0).astype(np.int32), lesions.grid))


def late_lesions(
    weak: Instances,
    before: Instances,
    probabilities: tuple[FloatArray, FloatArray],
    change: ScanChange,
    rules: TrackingRules,
) -> tuple[int, ...]:
    """Labels of those weakly seen lesions that the scans show to be new.

    Args:
        weak: as ``weak_lesions`` gives them, on the grid of the following.
        before: the lesions of the visit before, on that grid; what meets one of them is not new.
        probabilities: of this visit and of the one before.
        change: from the visit before to this one.
        rules: ``late_appeared`` and ``late_z`` decide.
    """
    lesions = Lesions.of(weak)
    met = np.bincount(
        lesions.row, before.labels[tuple(lesions.index.T)] > 0, minlength=len(lesions.label)
    )
    strict = replace(rules, least_appeared=rules.late_appeared, least_z=rules.late_z)
    rows = np.flatnonzero(met == 0).tolist()
    verdicts = judge_alone("new", lesions, rows, probabilities, change, strict)
    return tuple(
        int(lesions.label[row]) for row, verdict in verdicts.items() if verdict.state == "new"
    )


def _by_scans(
    name: str, evidence: Evidence, seen: bool, unsure: bool, rules: TrackingRules
) -> Verdict:
    verb, became = ("went", "darker") if name == "gone" else ("appeared", "brighter")
    z = -evidence.z if name == "gone" else evidence.z
    if not np.isfinite(z):
        return Verdict("faint", evidence, 0.5, "the other visit does not show this place")
    reached = [_of_limit(z, rules.least_z)]
    if np.isfinite(evidence.appeared):
        reached.append(_of_limit(evidence.appeared, rules.least_appeared))
    elif unsure:
        reached.append(0.0)
    least = min(reached)
    if least >= 1:
        if seen:
            note = f"became {became}, but the other visit's map holds it too"
            return Verdict("faint", evidence, 0.5, note)
        sure = 1 - 0.5 / reached[0]
        if np.isfinite(evidence.appeared) and 0 < rules.least_appeared < 1:
            above = min(evidence.appeared, 1.0) - rules.least_appeared
            sure = min(sure, 0.5 + 0.5 * above / (1 - rules.least_appeared))
        return Verdict(name, evidence, float(sure), "")
    note = ""
    if least >= NEARLY:
        share = f"{100 * evidence.appeared:.0f} % of its contrast {verb}"
        note = f"{share}, {z:.1f} times the noise" if np.isfinite(evidence.appeared) else ""
    return Verdict("faint", evidence, float(1 - 0.5 * max(least, 0.0)), note)


def _of_limit(value: float, limit: float) -> float:
    """The value as a share of its limit; without a limit every value is far beyond it."""
    return value / limit if limit > 0 else np.inf
