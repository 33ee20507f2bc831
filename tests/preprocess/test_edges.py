"""Where findings are less certain: the ends of a scan and the brainstem's border."""

import numpy as np

from lesionwise.preprocess.edges import brainstem_border, edge_voxels
from lesionwise.types import Grid, Volume

GRID = Grid((60, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
NO_BRAIN = Volume(np.zeros(GRID.shape, dtype=bool), GRID)


def test_the_outermost_slices_of_a_scan_are_its_edges() -> None:
    thick = Grid((60, 60, 20), np.diag([2.0, 2.0, 6.0, 1.0]))
    found = edge_voxels(thick, NO_BRAIN, GRID, np.eye(4))[30, 30]
    # slices 0 and 19 are centered at 0 and 114 mm; half a slice beyond are 3 and 111 mm
    assert np.flatnonzero(~found).tolist() == list(range(2, 56))


def test_what_a_scan_does_not_reach_is_its_edge_too() -> None:
    shift = np.eye(4)
    shift[0, 3] = -20.0
    found = edge_voxels(GRID, NO_BRAIN, GRID, shift)[:, 30, 30]
    assert np.flatnonzero(~found).tolist() == list(range(11, 60))


def test_the_brainstems_border_is_low_and_in_the_middle() -> None:
    brain = np.zeros(GRID.shape, dtype=bool)
    brain[10:50, 10:50, 30:55] = True
    brain[26:34, 26:34, 6:30] = True
    border = brainstem_border(Volume(brain, GRID))
    assert not border[~brain].any()
    assert border[26, 30, 20]
    assert not border[29:31, 29:31, 12:30].any()
    assert border[26:34, 26:34, 6:8].all()
    assert not border[10, 30, 40]
    assert not border[..., 32:].any()


def test_without_a_brain_there_is_no_border() -> None:
    assert not brainstem_border(NO_BRAIN).any()
