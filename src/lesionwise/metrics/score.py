"""A metric's value, or the reason why it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Undefined:
    """Stands where a number would be: the metric is not defined for this case."""

    reason: str


Score: TypeAlias = float | Undefined


def ratio(numerator: float, denominator: float, reason: str) -> Score:
    """The quotient, or ``Undefined`` with the reason where the denominator is 0.

    Example:
        >>> ratio(1, 2, "no reference lesion"), ratio(1, 0, "no reference lesion")
        (0.5, Undefined(reason='no reference lesion'))
    """
    return Undefined(reason) if denominator == 0 else float(numerator / denominator)
