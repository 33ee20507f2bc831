"""What lies on both sides of a mask's border."""

import numpy as np
import pytest

from lesionwise.preprocess.brain_border import brain_border
from lesionwise.types import Grid, Volume

SHAPE = (56, 56, 30)
SPACING = (3.0, 3.0, 6.0)


@pytest.fixture(scope="module")
def head():
    """A brain of 60 mm radius in 6 mm of bone and 8 mm of fat, and each voxel's place."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -(np.array(SHAPE) - 1) / 2 * SPACING
    grid = Grid(SHAPE, affine)
    place = grid.world_mm(np.indices(SHAPE).reshape(3, -1).T).reshape(*SHAPE, 3)
    radius = np.linalg.norm(place, axis=3)
    array = np.select([radius < 60, radius < 67, radius < 76], [100.0, 5.0, 190.0], 2.0)
    return Volume(array.astype(np.float32), grid), radius, place


def border(head, mask):
    return brain_border(head[0], Volume(mask, head[0].grid))


def test_a_mask_that_ends_with_the_brain_is_closed_and_holds_nothing_else(head):
    found = border(head, head[1] < 60)
    assert max(found.open) < 0.05
    assert found.fat < 0.02
    assert found.skull < 0.02
    assert found.dark_rim < 0.15


def test_a_mask_out_to_the_scalp_holds_fat_above_bone(head):
    found = border(head, head[1] < 74)
    assert found.fat > 0.5
    assert found.skull > 0.5
    assert max(found.open) < 0.05


def test_a_mask_out_to_the_bone_has_a_dark_rim(head):
    found = border(head, head[1] < 66)
    assert found.dark_rim > 0.3
    assert found.fat < 0.02


@pytest.mark.parametrize(
    ("axis", "sign", "side"),
    [(0, 1, "right"), (0, -1, "left"), (1, 1, "front"), (1, -1, "back"), (2, 1, "top")],
)
def test_a_mask_that_lost_a_side_is_open_there(head, axis, sign, side):
    _, radius, place = head
    found = border(head, (radius < 60) & (sign * place[..., axis] < 20))
    assert found.widest_open[0] == side
    assert found.widest_open[1] > 0.6


def test_the_bottom_may_be_open_since_the_brainstem_leaves_there(head):
    _, radius, place = head
    found = border(head, (radius < 60) & (place[..., 2] > -20))
    assert found.open[5] > 0.6
    assert found.widest_open[1] < 0.05


def test_where_the_field_of_view_ends_no_side_is_open(head):
    scan, radius, _ = head
    keep = np.s_[:, :, :18]
    grid = Grid((56, 56, 18), scan.grid.affine)
    found = brain_border(Volume(scan.array[keep], grid), Volume((radius < 60)[keep], grid))
    assert found.widest_open[1] < 0.05


def test_the_unit_of_intensity_does_not_matter(head):
    scan, radius, _ = head
    mask = Volume(radius < 74, scan.grid)
    one = brain_border(scan, mask)
    other = brain_border(Volume(scan.array * 8, scan.grid), mask)
    np.testing.assert_allclose(one.open, other.open, atol=1e-3)
    assert other.fat == pytest.approx(one.fat, abs=1e-3)


def test_an_empty_mask_and_one_of_every_voxel_have_no_border(head):
    assert border(head, np.zeros(SHAPE, bool)) is None
    assert border(head, np.ones(SHAPE, bool)) is None


def test_in_a_box_of_the_same_tissue_every_side_is_open_alike():
    grid = Grid((40, 40, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[10:30, 10:30, 10:30] = True
    found = brain_border(Volume(np.full(grid.shape, 100.0), grid), Volume(mask, grid))
    assert found.open == (1.0,) * 6
