import numpy as np
import pytest

from lesionwise.preprocess.common_brain import BaselineBrain
from lesionwise.types import Grid, InputError, Study, Visit, Volume

GRID = Grid((3, 3, 3), np.eye(4))


def visit(brain):
    scan = Volume(np.ones(GRID.shape, np.float32), GRID)
    return Visit({"flair": scan}, brain=None if brain is None else Volume(brain, GRID))


def test_every_visit_gets_the_first_ones_brain():
    first = np.zeros(GRID.shape, bool)
    first[1] = True
    made = BaselineBrain()(Study("a", (visit(first), visit(~first), visit(None))))
    for each in made.visits:
        np.testing.assert_array_equal(each.brain.array, first)


def test_a_first_visit_without_brain_is_named():
    with pytest.raises(InputError, match="sub-a: no brain mask at the first visit"):
        BaselineBrain()(Study("a", (visit(None), visit(np.ones(GRID.shape, bool)))))
