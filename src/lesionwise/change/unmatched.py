"""Lesions that one visit shows and the other does not: new, disappeared, equivocal or too small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lesionwise.change.evidence import UNKNOWN, Evidence, ScanChange
from lesionwise.change.links import Lesions
from lesionwise.change.partial_volume import Acquisition, relative_visibility
from lesionwise.change.rules import TrackingRules
from lesionwise.instances.components import connected_components
from lesionwise.instances.filters import DropSmall
from lesionwise.types import FloatArray, Instances

UNMATCHED = ("new", "disappeared")
NEAR_LIMIT = 0.7
"""Fraction of a limit that evidence must reach before its failing is called a near miss."""
NOT_SHOWN = "the other visit does not show this place"
NO_VOXEL = "too small for the voxels on which visits are compared, or outside of them"


@dataclass(frozen=True)
class Verdict:
    """What a lesion without a partner is.

    Attributes:
        state: new or disappeared, equivocal, or too small.
        evidence: what the scans say.
        confidence: how far the evidence lies from the limits that decided: 0.5 on a limit, 1 far
            from it; 1 for new and disappeared, 0.5 for the others, where only the maps were asked.
        note: why another reading is possible; empty where none is.
    """

    state: str
    evidence: Evidence
    confidence: float
    note: str


def judge_unmatched(
    name: str,
    lesions: Lesions,
    rows: Sequence[int],
    probabilities: tuple[FloatArray | None, FloatArray | None],
    change: ScanChange | None,
    rules: TrackingRules,
    acquisitions: tuple[Acquisition, Acquisition] | None = None,
) -> dict[int, Verdict]:
    """What each of the lesions in ``rows`` is.

    A lesion without a voxel here is equivocal, and one that is too small stays so. Where the scans
    are given, it is ``name`` if enough of its contrast appeared (or disappeared) and its place
    became brighter (or darker) beyond the noise, and equivocal if not. Where the other visit's
    probability shows it, or the other visit's voxels are too large to show it or lie elsewhere, it
    is equivocal in any case. Without scans, and where too little normal tissue lies around it to
    tell its contrast, a lesion that has a low probability at its own visit is equivocal too.

    Args:
        name: ``new`` or ``disappeared``.
        rows: into ``lesions``: those without a partner.
        probabilities: of the visit that shows them and of the other; None where unknown.
        change: from the earlier visit to the later.
        acquisitions: of the visit that shows them and of the other; None where unknown.

    Returns:
        Verdicts by row.

    Example:
        >>> from lesionwise.types import Grid
        >>> labels = np.array([[[1, 1, 1, 0, 2]]])
        >>> lesions = Lesions.of(Instances(labels, Grid(labels.shape, np.eye(4))))
        >>> maps_unknown, scans_unknown = (None, None), None
        >>> found = judge_unmatched(
        ...     "new", lesions, [0, 1], maps_unknown, scans_unknown, TrackingRules()
        ... )
        >>> {row: verdict.state for row, verdict in found.items()}
        {0: 'new', 1: 'too small'}
    """
    large = lesions.large_enough(rules.min_across_mm)
    own, other = probabilities
    # means are sums of float32: what only rounding puts beyond a limit stays within
    seen = np.zeros(len(lesions.label), dtype=np.bool_)
    unsure = seen
    if own is not None and other is not None:
        seen = lesions.mean_of(other) > rules.max_other_probability * (1 + 1e-6)
        unsure = lesions.mean_of(own) < rules.min_own_probability * (1 - 1e-6)
    disappeared = name == "disappeared"
    verdicts = {}
    for row in rows:
        evidence = UNKNOWN
        index = lesions.voxels_of(row)
        if not len(index):
            verdicts[row] = Verdict("equivocal", evidence, 0.5, NO_VOXEL)
            continue
        if change is not None:
            evidence = change.of_lesion(index, disappeared=disappeared)
        if not large[row]:
            verdicts[row] = Verdict("too small", evidence, 0.5, "")
        elif change is None:
            state = "equivocal" if seen[row] or unsure[row] else name
            verdicts[row] = Verdict(state, evidence, 1.0 if state == name else 0.5, "")
        else:
            verdicts[row] = _by_scans(name, evidence, bool(seen[row]), bool(unsure[row]), rules)
        if acquisitions is not None and verdicts[row].state == name:
            visible = relative_visibility(index, lesions.grid, *acquisitions)
            least = rules.min_visible_fraction
            if least > 0 and visible <= least * (1 + 1e-6):  # a mask lies above its limit
                note = _too_thick(visible) if visible > 0 else NOT_SHOWN
                verdicts[row] = Verdict("equivocal", evidence, 0.5, note)
    return verdicts


def subthreshold_lesions(
    probability: FloatArray, lesions: Instances, min_probability: float
) -> Instances:
    """What a map shows below its threshold: parts above ``min_probability`` that hold no lesion.

    Args:
        probability: (I, J, K), on the grid of ``lesions``.

    Returns:
        26-connected parts of at least 14 mm³ and 3 mm, numbered from 1 in C order of their first
        voxels; there may be none.

    Example:
        >>> from lesionwise.types import Grid
        >>> probability = np.zeros((9, 9, 9), dtype=np.float32)
        >>> probability[2:6, 2:6, 2:6] = 0.4
        >>> none = Instances(np.zeros((9, 9, 9), dtype=np.int32), Grid((9, 9, 9), np.eye(4)))
        >>> int(subthreshold_lesions(probability, none, 0.2).labels.max())
        1
    """
    parts = connected_components(probability > min_probability)
    held = np.unique(parts[(lesions.labels > 0) & (parts > 0)])
    free = np.ones(int(parts.max(initial=0)) + 1, dtype=np.bool_)
    free[held] = False
    return DropSmall()(Instances(np.where(free[parts], parts, 0).astype(np.int32), lesions.grid))


def rescued_lesions(
    subthreshold: Instances,
    before: Instances,
    probabilities: tuple[FloatArray, FloatArray],
    change: ScanChange,
    rules: TrackingRules,
    acquisitions: tuple[Acquisition, Acquisition] | None = None,
) -> tuple[int, ...]:
    """Labels of those lesions below the threshold that the scans show to be new.

    Args:
        subthreshold: as ``subthreshold_lesions`` gives them, on the grid of the following.
        before: the lesions of the visit before, on that grid; what meets one of them is not new.
        probabilities: of this visit and of the one before.
        change: from the visit before to this one.
        rules: ``rescue_contrast_gain`` and ``rescue_z`` decide.
        acquisitions: of this visit and of the one before; None where unknown.

    Example:
        >>> from lesionwise.types import Grid
        >>> labels = np.zeros((24, 24, 24), dtype=np.int32)
        >>> grid, none = Grid(labels.shape, np.eye(4)), labels.copy()
        >>> labels[10:14, 10:14, 10:14] = 3
        >>> later, earlier = labels.astype(np.float32), none.astype(np.float32)
        >>> everywhere = np.ones(labels.shape, dtype=np.bool_)
        >>> change = ScanChange(earlier, later, 9 * later, everywhere, everywhere, grid)
        >>> maps = Instances(labels, grid), Instances(none, grid)
        >>> rescued_lesions(*maps, (later, earlier), change, TrackingRules())
        (3,)
    """
    lesions = Lesions.of(subthreshold)
    met = np.bincount(
        lesions.row, before.labels[tuple(lesions.index.T)] > 0, minlength=len(lesions.label)
    )
    strict = replace(rules, min_contrast_gain=rules.rescue_contrast_gain, min_z=rules.rescue_z)
    rows = np.flatnonzero(met == 0).tolist()
    verdicts = judge_unmatched("new", lesions, rows, probabilities, change, strict, acquisitions)
    return tuple(
        int(lesions.label[row]) for row, verdict in verdicts.items() if verdict.state == "new"
    )


def _by_scans(
    name: str, evidence: Evidence, seen: bool, unsure: bool, rules: TrackingRules
) -> Verdict:
    disappeared = name == "disappeared"
    verb, became = ("disappeared", "darker") if disappeared else ("appeared", "brighter")
    z = -evidence.z if disappeared else evidence.z
    gain = evidence.contrast_gain
    if not np.isfinite(z):
        return Verdict("equivocal", evidence, 0.5, NOT_SHOWN)
    reached = [_of_limit(z, rules.min_z)]
    if np.isfinite(gain):
        reached.append(_of_limit(gain, rules.min_contrast_gain))
    elif unsure:
        reached.append(0.0)
    least = min(reached)
    if least >= 1:
        if seen:
            note = f"became {became}, but the other visit's map shows it too"
            return Verdict("equivocal", evidence, 0.5, note)
        sure = 1 - 0.5 / reached[0]
        if np.isfinite(gain) and 0 < rules.min_contrast_gain < 1:
            above = min(gain, 1.0) - rules.min_contrast_gain
            sure = min(sure, 0.5 + 0.5 * above / (1 - rules.min_contrast_gain))
        return Verdict(name, evidence, float(sure), "")
    note = ""
    if least >= NEAR_LIMIT and np.isfinite(gain):
        note = f"{100 * gain:.0f} % of its contrast {verb}, {z:.1f} times the noise"
    return Verdict("equivocal", evidence, float(1 - 0.5 * max(least, 0.0)), note)


def _too_thick(visible: float) -> str:
    return (
        f"the other visit's voxels are too large for it: they would show {100 * visible:.0f} % "
        "of its contrast"
    )


def _of_limit(value: float, limit: float) -> float:
    """The value as a fraction of its limit; without a limit every value is far beyond it."""
    return value / limit if limit > 0 else np.inf
