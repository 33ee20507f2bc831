"""Steps that are not taken, because their gradient is not a number."""

from __future__ import annotations

import math

from lesionwise.types import InputError

MAX_IN_A_ROW = 50
"""Steps left out one after the other after which a training is given up."""


class FiniteSteps:
    """Says which steps of a training may be taken, and counts those that may not.

    A gradient with NaN or infinity would make every weight NaN, and a network of such weights finds
    nothing, without a word. Its step is left out; the next batch may be better. After
    ``MAX_IN_A_ROW`` of them the weights themselves have diverged.

    Example:
        >>> steps = FiniteSteps()
        >>> [steps.may_take(norm) for norm in (1.5, float("nan"), 0.0)], steps.left_out
        ([True, False, True], 1)
    """

    def __init__(self) -> None:
        self.left_out = 0
        """Since ``take_count`` was last called."""
        self._in_a_row = 0

    def may_take(self, value: float) -> bool:
        """False where the norm of a step's gradient, or its loss, is not finite.

        Raises:
            InputError: If that is so for too many steps one after the other.
        """
        if math.isfinite(value):
            self._in_a_row = 0
            return True
        self.left_out += 1
        self._in_a_row += 1
        if self._in_a_row >= MAX_IN_A_ROW:
            raise InputError(
                f"the training diverged: loss or gradient were not finite in {MAX_IN_A_ROW} steps "
                "one after the other; try a smaller learning rate"
            )
        return False

    def take_count(self) -> int:
        """Steps left out since the last call."""
        count, self.left_out = self.left_out, 0
        return count
