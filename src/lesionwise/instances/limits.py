"""Checks of the limits that functions and steps take."""

from __future__ import annotations

import math

from lesionwise.types import InputError


def check_limits(*, most: float = math.inf, **limits: float | None) -> None:
    """Refuse limits that would silently switch a rule off or on everywhere.

    Args:
        most: the largest value that makes sense, such as 1 for a fraction.
        limits: by name; None is no limit.

    Raises:
        InputError: If one is NaN, infinite, negative or above ``most``.

    Example:
        >>> check_limits(most=1, threshold=0.5)
    """
    for name, value in limits.items():
        if value is None or (math.isfinite(value) and 0 <= value <= most):
            continue
        upper = "" if most == math.inf else f" to {most:g}"
        raise InputError(f"{name}: {value} is not a finite number from 0{upper or ' up'}")
