"""Colors and symbols shared by pages, pictures and charts.

The series colors are those of Okabe and Ito (Color Universal Design, 2008), distinct under the
common kinds of color blindness; the instance colors are lighter relatives that stand out on gray
scans. Nothing is said by color alone: lesions carry their number, and each kind of change has a
symbol and a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionwise.types import LabelArray

SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A6FF0", "#8C6D31")

INSTANCES = ("#FFB000", "#5CC8FF", "#2FD6A0", "#FF8A5B", "#F59AD0", "#FFF06A", "#9FA8FF")
"""For outlines on a gray scan; neighboring lesions never share one."""


@dataclass(frozen=True)
class ChangeLook:
    """How one kind of change is shown: symbol, color on the scan, and what it means."""

    symbol: str
    color: str
    meaning: str


COMPARED = (
    "new",
    "enlarging",
    "merged",
    "split",
    "shrinking",
    "disappeared",
    "equivocal",
    "stable",
)
"""The kinds of change that are counted at the top of a page, in this order."""

CHANGES: dict[str, ChangeLook] = {
    "new": ChangeLook("+", "#FF5A36", "only at follow-up"),
    "enlarging": ChangeLook("↑", "#FFB000", "larger at follow-up"),
    "merged": ChangeLook("⊃", "#F59AD0", "several lesions that became one"),
    "split": ChangeLook("⊂", "#9FA8FF", "one lesion that became several"),
    "shrinking": ChangeLook("↓", "#2FD6A0", "smaller at follow-up"),
    "disappeared": ChangeLook("\N{MULTIPLICATION SIGN}", "#5CC8FF", "only at baseline"),
    "stable": ChangeLook("=", "#E4E8EE", "no change beyond measurement error"),
    "too small": ChangeLook(
        "~", "#B9BFC9", "without a partner, too small to be called new or disappeared"
    ),
    "equivocal": ChangeLook(
        "≈", "#B9BFC9", "outlined at only one visit, but the scans do not show it come or go"
    ),
    "baseline": ChangeLook("\N{MIDDLE DOT}", "#E4E8EE", "first visit, nothing to compare it to"),
}
UNKNOWN_CHANGE = ChangeLook("?", "#C9CED6", "not followed")


def change_look(state: str) -> ChangeLook:
    """How a kind of change is shown; a neutral look for a word not known here."""
    return CHANGES.get(state, UNKNOWN_CHANGE)


def instance_colors(labels: LabelArray) -> dict[int, str]:
    """One color per lesion, by ascending label; lesions that touch or nearly touch differ.

    Two lesions count as neighbors when their voxels lie within two voxels along one axis.
    With more neighbors than colors the least used color among them is repeated.

    Args:
        labels: (I, J, K), 0 = background.
    """
    present = np.unique(labels)
    neighbors: dict[int, set[int]] = {int(label): set() for label in present if label != 0}
    for axis in range(3):
        for step in (1, 2):
            first = labels.take(range(labels.shape[axis] - step), axis=axis)
            second = labels.take(range(step, labels.shape[axis]), axis=axis)
            touching = (first != second) & (first != 0) & (second != 0)
            pairs = np.unique(np.stack([first[touching], second[touching]]), axis=1)
            for a, b in pairs.T.tolist():
                neighbors[a].add(b)
                neighbors[b].add(a)
    chosen: dict[int, int] = {}
    for rank, label in enumerate(neighbors):
        used = [chosen[other] for other in neighbors[label] if other in chosen]
        order = [(rank + step) % len(INSTANCES) for step in range(len(INSTANCES))]
        chosen[label] = min(order, key=used.count)
    return {label: INSTANCES[index] for label, index in chosen.items()}
