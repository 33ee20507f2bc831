"""Steps without a finite gradient."""

import math

import pytest

from lesionwise.learning.divergence import MAX_IN_A_ROW, FiniteSteps
from lesionwise.types import InputError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_step_that_is_not_finite_is_left_out_and_counted_once(value):
    steps = FiniteSteps()
    assert [steps.may_take(v) for v in (1.0, value, 0.0)] == [True, False, True]
    assert steps.take_count() == 1
    assert steps.take_count() == 0


def test_only_steps_one_after_the_other_end_a_training():
    steps = FiniteSteps()
    for _ in range(3):
        for _ in range(MAX_IN_A_ROW - 1):
            assert not steps.may_take(math.nan)
        assert steps.may_take(1.0)
    for _ in range(MAX_IN_A_ROW - 1):
        steps.may_take(math.nan)
    with pytest.raises(InputError, match=f"diverged.* {MAX_IN_A_ROW} steps one after the other"):
        steps.may_take(math.nan)
