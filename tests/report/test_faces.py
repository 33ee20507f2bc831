import numpy as np
import pytest

from lesionwise.report import faces
from lesionwise.report.display import prepare
from lesionwise.types import Grid, Volume

GRID = Grid((30, 40, 30), np.diag([3.0, 3.0, 3.0, 1.0]))


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Volume:
    """A brain in the back of a head; what finds it is known to this test."""
    array = np.zeros(GRID.shape, dtype=np.float32)
    array[2:28, 2:38, 2:28] = 30 + np.arange(26)
    array[8:22, 6:22, 10:24] = 100
    brain = Volume(array == 100, GRID)
    array[8:22, 6:22, 10:24] += np.arange(14)
    monkeypatch.setattr(faces, "brain_mask", lambda image, name: brain)
    return Volume(array, GRID)


def test_nothing_of_the_face_is_shown(head: Volume) -> None:
    whole = Volume(head.array > 0, GRID)
    shown = prepare(head, {}, faces.brain_without_face(head, whole))
    assert (shown.gray > 0).sum() > 0
    front_mm = shown.grid.world_mm(np.argwhere(shown.gray > 0))[:, 1].max()
    assert front_mm <= 3.0 * 21 + 3.0
    without = prepare(head, {}, whole)
    assert without.grid.world_mm(np.argwhere(without.gray > 0))[:, 1].max() > 100


def test_a_mask_of_the_brain_is_never_made_larger(head: Volume) -> None:
    small = np.zeros(GRID.shape, dtype=bool)
    small[10:12, 8:10, 12:14] = True
    assert np.array_equal(faces.brain_without_face(head, Volume(small, GRID)).array, small)
