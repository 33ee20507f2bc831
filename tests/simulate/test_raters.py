import cc3d
import numpy as np
import pytest

from lesionwise.simulate.raters import STYLES, RaterStyle, rater_mask, simulated_raters
from lesionwise.types import Grid, Volume

EXACT, WIDE, TIGHT, BLIND = STYLES


def truth(spacing=(1.0, 1.0, 1.0)):
    """Two large lesions, one of two voxels at the border of the volume."""
    mask = np.zeros((30, 30, 30), dtype=bool)
    mask[4:11, 4:11, 4:11] = True
    mask[18:26, 18:26, 10:16] = True
    mask[0, 20, 28:30] = True
    return Volume(mask, Grid(mask.shape, np.diag([*spacing, 1.0])))


def drawn(style, seed=0, **changed):
    return rater_mask(truth(**changed), style, np.random.default_rng(seed))


def steady(shift):
    return RaterStyle(shift_mm=shift, shift_std_mm=0.0, missed=0.0)


def test_without_a_habit_a_rater_draws_the_truth():
    np.testing.assert_array_equal(drawn(steady(0.0)), truth().array)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0)])
def test_over_and_under_segmenting_enclose_the_truth(spacing):
    mask = truth(spacing).array
    wide, tight = drawn(steady(1.2), spacing=spacing), drawn(steady(-1.2), spacing=spacing)
    assert (mask & ~wide).sum() == 0
    assert (tight & ~mask).sum() == 0
    assert tight.sum() < mask.sum() < wide.sum()
    assert bool(wide[3, 7, 7])  # one voxel of 1 mm further
    assert bool(wide[7, 7, 3]) == (spacing[2] == 1.0)  # 3 mm are too far


def test_a_lesion_that_is_seen_is_never_drawn_as_nothing():
    tight = drawn(steady(-50.0))
    assert cc3d.connected_components(tight, connectivity=26).max() == 3


def test_small_lesions_are_missed_and_large_ones_are_not():
    seen = [drawn(BLIND, seed) for seed in range(40)]
    small = np.mean([mask[0, 20, 28:30].any() for mask in seen])
    assert small < 0.4
    assert all(mask[5:10, 5:10, 5:10].any() for mask in seen)


def test_four_raters_differ_and_the_same_seed_gives_the_same_masks():
    masks = [volume.array for volume in simulated_raters(truth(), 4, seed=5)]
    sizes = [int(mask.sum()) for mask in masks]
    assert sizes[2] < sizes[0] < sizes[1]
    again = simulated_raters(truth(), 4, seed=5)
    for mask, volume in zip(masks, again, strict=True):
        np.testing.assert_array_equal(mask, volume.array)


def test_where_nothing_is_new_nobody_draws_anything():
    empty = Volume(np.zeros((4, 4, 4), bool), Grid((4, 4, 4), np.eye(4)))
    assert not any(volume.array.any() for volume in simulated_raters(empty, 4, 0))
    assert simulated_raters(empty, 0, 0) == []
