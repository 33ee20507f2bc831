"""Scans that a visit lacks become empty ones."""

import numpy as np
import pytest

from lesionwise.preprocess.missing_scans import FillMissingScans
from lesionwise.types import Grid, InputError, Study, Visit, Volume

GRID = Grid((4, 5, 6), np.diag([1.0, 1.0, 3.0, 1.0]))


def volume(value, grid=GRID):
    return Volume(np.full(grid.shape, value, np.float32), grid)


def study(*scans):
    return Study("07", tuple(Visit(each, session=str(n)) for n, each in enumerate(scans, 1)))


def test_what_is_missing_is_empty_and_what_is_there_stays():
    filled = FillMissingScans(("flair", "t1w", "t2w"))(
        study({"flair": volume(1)}, {"flair": volume(2), "t2w": volume(3)})
    )
    first, last = filled.visits
    assert set(first.scans) == set(last.scans) == {"flair", "t1w", "t2w"}
    assert not first.scans["t1w"].array.any()
    assert not first.scans["t2w"].array.any()
    assert (last.scans["t2w"].array == 3).all()
    assert first.scans["t1w"].grid.matches(GRID)


def test_a_visit_without_the_scan_they_are_like_is_refused():
    with pytest.raises(InputError, match="07 1 flair: missing"):
        FillMissingScans(("t1w",))(study({"t1w": volume(1)}))


def test_scans_on_several_grids_are_refused():
    other = Grid((4, 5, 6), np.diag([1.0, 1.0, 2.0, 1.0]))
    with pytest.raises(InputError, match="07 1 t1w: not on the grid"):
        FillMissingScans(("t1w", "t2w"))(study({"flair": volume(1), "t1w": volume(2, other)}))
