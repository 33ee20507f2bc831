import numpy as np
import pandas as pd

from lesionwise.report.edges import with_edges
from lesionwise.report.page import VisitView
from lesionwise.types import Grid, Instances, Volume

GRID = Grid((40, 40, 20), np.diag([2.0, 2.0, 6.0, 1.0]))


def _visit() -> VisitView:
    labels = np.zeros(GRID.shape, dtype=np.int32)
    labels[4:6, 4:6, 10] = 1  # inside
    labels[4:6, 4:6, 19] = 2  # in the last slice
    labels[20:22, 20:22, 17:19] = 3  # inside, next to it
    brain = np.ones(GRID.shape, dtype=bool)
    image = np.zeros(GRID.shape, dtype=np.float32)
    return VisitView("a", Volume(image, GRID), {"cc": Instances(labels, GRID)}, Volume(brain, GRID))


def _lesions() -> pd.DataFrame:
    return pd.DataFrame({"session": "a", "method": "cc", "label": [1, 2, 3]})


def test_lesions_in_the_last_slice_are_flagged() -> None:
    assert with_edges(_lesions(), [_visit()])["edge"].tolist() == [False, True, False]


def test_what_following_found_stays() -> None:
    known = _lesions().assign(edge=[True, None, None])
    assert with_edges(known, [_visit()])["edge"].tolist() == [True, True, False]


def test_no_lesions_give_no_rows() -> None:
    assert len(with_edges(_lesions().iloc[:0], [_visit()])) == 0
