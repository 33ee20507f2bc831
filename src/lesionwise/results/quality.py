"""How far an input can be trusted, as sidecars, tables and pages say it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from lesionwise.types import EMPTY

Grade = Literal["good", "fair", "poor"]
GRADES: tuple[Grade, ...] = ("good", "fair", "poor")
"""From the best to the worst."""


class QualityEntry(TypedDict):
    """A note as a sidecar holds it."""

    about: str
    grade: Grade
    reasons: list[str]
    measures: dict[str, float | None]


@dataclass(frozen=True)
class QualityNote:
    """How far an input can be trusted.

    Commands keep the notes, ``written``, in a list called ``Quality``: those of a scan in its
    mask's sidecar, those of what changed between visits in ``compare.json``.

    Attributes:
        about: what was judged, such as ``flair of M12`` or ``M00 to M12``.
        grade: good; fair: read with care; poor: results mean little.
        reasons: one short sentence for each problem, the most severe first.
        measures: what was measured, by name, with the unit at the end of the name.
    """

    about: str
    grade: Grade
    reasons: tuple[str, ...] = ()
    measures: Mapping[str, float] = field(default_factory=lambda: EMPTY)

    def written(self) -> QualityEntry:
        """As a sidecar holds it."""
        return {
            "about": self.about,
            "grade": self.grade,
            "reasons": list(self.reasons),
            "measures": dict(self.measures),
        }

    @staticmethod
    def read(entry: Mapping[str, Any]) -> QualityNote:
        """Back from a sidecar; earlier versions ended the names of fractions with ``_share``."""
        grade: Grade = entry["grade"]
        return QualityNote(
            str(entry["about"]),
            grade,
            tuple(str(reason) for reason in entry["reasons"]),
            {
                re.sub("_share$", "_fraction", str(name)): float("nan" if value is None else value)
                for name, value in entry["measures"].items()
            },
        )


def worst(grades: Iterable[str | None]) -> Grade | None:
    """The worst of the grades; None where there is none.

    Example:
        >>> worst(["good", "poor", "fair"])
        'poor'
    """
    present = set(grades)
    found = [GRADES.index(grade) for grade in GRADES if grade in present]
    return GRADES[max(found)] if found else None
