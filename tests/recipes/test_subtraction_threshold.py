"""The baseline that trained systems are compared with."""

import numpy as np

from lesionwise.recipes.subtraction_threshold import RECIPE
from lesionwise.types import Grid, RunContext, Study, Visit, Volume


def test_it_takes_what_rises_and_is_large_enough(tmp_path):
    grid = Grid((12, 12, 12), np.diag([1.0, 1.0, 2.0, 1.0]))
    before = np.zeros(grid.shape, dtype=np.float32)
    after = before.copy()
    after[2:5, 2:5, 2:5] = 3  # 54 mm³
    after[8:10, 8:10, 8] = 3  # 8 mm³
    after[8:11, 2:5, 8:11] = 1  # rises too little
    study = Study("a", tuple(Visit({"flair": Volume(a, grid)}) for a in (before, after)))
    maps = RECIPE.method.load(RunContext(tmp_path))(study)
    expected = np.zeros(grid.shape, dtype=bool)
    expected[2:5, 2:5, 2:5] = True
    np.testing.assert_array_equal(maps.probability > RECIPE.threshold, expected)


def test_it_finds_new_lesions_in_two_flair_scans():
    assert (RECIPE.scans, RECIPE.visits, RECIPE.task) == (("flair",), 2, "new")
