import numpy as np
import pytest

from lesionwise.preprocess.slices import ResizeSlices
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def one(shape=(4, 6, 3)):
    grid = Grid(shape, np.diag([2.0, 1.0, 5.0, 1.0]))
    scan = Volume(np.random.default_rng(0).random(shape).astype(np.float32), grid)
    mask = Volume(np.ones(shape, bool), grid)
    return Study("a", (Visit({"flair": scan}, {"lesions": mask}, mask),))


def test_slices_get_their_size_and_keep_their_place():
    resized = ResizeSlices((8, 8))(one()).followup
    grid = resized.scans["flair"].grid
    assert grid.shape == (8, 8, 3)
    assert grid.spacing_mm == pytest.approx((1.0, 0.75, 5.0))
    # the outer faces stay: half a voxel before the first center
    first = grid.world_mm(np.array([[-0.5, -0.5, 0.0]]))[0]
    assert first == pytest.approx([-1.0, -0.5, 0.0])
    assert resized.labels["lesions"].array.all()
    assert resized.brain.array.shape == (8, 8, 3)


def test_slices_of_the_right_size_stay():
    before = one((4, 4, 2))
    after = ResizeSlices((4, 4))(before).followup.scans["flair"]
    np.testing.assert_allclose(after.array, before.followup.scans["flair"].array, atol=1e-6)


def test_a_slice_without_voxels_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        ResizeSlices((0, 4))(one())
