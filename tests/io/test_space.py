import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.io.space import canonical, on_grid, same_space
from lesionwise.types import Grid, InputError, Volume

ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def rotation(angles_rad):
    a, b, c = angles_rad
    about_x = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
    about_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    return np.array(about_z) @ np.array(about_y) @ np.array(about_x)


def oriented(axes, signs, spacing_mm=(1.0, 2.0, 3.0), angles_rad=(0, 0, 0), shape=(2, 3, 4)):
    """A volume of distinct values whose voxel axis n runs along world axis axes[n]."""
    directions = np.zeros((3, 3))
    directions[list(axes), range(3)] = signs
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles_rad) @ directions * spacing_mm
    affine[:3, 3] = (-10, 20, 5)
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    return Volume(array, Grid(shape, affine))


def places_mm(volume):
    """World position of each value, in the order of values."""
    index = np.stack(np.unravel_index(np.argsort(volume.array, axis=None), volume.array.shape), 1)
    return volume.grid.world_mm(index)


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_canonical_axes_are_ras_and_no_voxel_moves(axes, signs):
    volume = oriented(axes, signs)
    turned = Volume(*canonical(volume.array, volume.grid))
    assert np.array_equal(np.diag(turned.grid.affine[:3, :3]), turned.grid.spacing_mm)
    np.testing.assert_allclose(places_mm(turned), places_mm(volume), atol=1e-12)


small = st.floats(-0.5, 0.5)


@given(
    st.sampled_from(ORIENTATIONS),
    st.tuples(small, small, small),
    st.tuples(*[st.floats(0.3, 4)] * 3),
)
def test_oblique_round_trip_is_exact(orientation, angles_rad, spacing_mm):
    volume = oriented(*orientation, spacing_mm, angles_rad)
    turned = Volume(*canonical(volume.array, volume.grid))
    np.testing.assert_allclose(places_mm(turned), places_mm(volume), atol=1e-9)
    back = on_grid(turned, volume.grid)
    assert np.array_equal(back.array, volume.array)
    assert back.grid is volume.grid
    assert same_space(turned.grid, volume.grid).same


@given(st.sampled_from(ORIENTATIONS), st.tuples(small, small, small), st.tuples(*[small] * 3))
def test_sheared_round_trip_is_exact(orientation, angles_rad, shear):
    volume = oriented(*orientation, angles_rad=angles_rad)
    leaning = np.eye(4)
    leaning[0, 1], leaning[0, 2], leaning[1, 2] = shear
    volume = Volume(volume.array, Grid(volume.grid.shape, volume.grid.affine @ leaning))
    turned = Volume(*canonical(volume.array, volume.grid))
    np.testing.assert_allclose(places_mm(turned), places_mm(volume), atol=1e-9)
    assert np.array_equal(on_grid(turned, volume.grid).array, volume.array)


@pytest.mark.parametrize(
    ("spacing_mm", "shift_mm", "kind"),
    [
        ((1, 1, 3), 0.016, "rounding"),
        ((1, 1, 3), 0.19, "rounding"),
        ((1, 1, 3), 0.21, "different"),
        ((0.5, 3, 3), 0.09, "rounding"),
        ((0.5, 3, 3), 0.11, "different"),
        ((4, 4, 4), 0.49, "rounding"),
        ((4, 4, 4), 0.51, "different"),
    ],
)
def test_rounding_is_less_than_a_fifth_of_a_voxel_and_half_a_millimeter(spacing_mm, shift_mm, kind):
    grid = oriented((0, 1, 2), (1, 1, 1), spacing_mm).grid
    moved = grid.affine.copy()
    moved[1, 3] += shift_mm
    assert same_space(grid, Grid(grid.shape, moved)).kind == kind


@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS))
def test_verdict_is_symmetric(a, b):
    one, other = oriented(*a).grid, oriented(*b).grid
    assert same_space(one, other).kind == same_space(other, one).kind


def test_identical_grids():
    grid = oriented((0, 1, 2), (1, 1, 1)).grid
    assert same_space(grid, grid).kind == "identical"
    assert same_space(grid, grid).reason == ""


def test_rounding_is_accepted_and_said():
    grid = Grid((50, 50, 50), np.eye(4))
    affine = np.eye(4)
    affine[0, 3] = 0.004
    verdict = same_space(grid, Grid((50, 50, 50), affine))
    assert verdict.kind == "rounding"
    assert "0.004 mm" in verdict.reason


def test_rounding_in_another_axis_order_is_accepted():
    volume = oriented((0, 1, 2), (1, 1, 1))
    affine = volume.grid.affine.copy()
    affine[:3, 3] += 0.004
    flipped = Volume(*canonical(volume.array, Grid(volume.grid.shape, -affine)))
    mirrored = Grid(flipped.grid.shape, -flipped.grid.affine)
    assert same_space(volume.grid, mirrored).kind == "reordered"


def test_a_shift_at_far_corners_is_not_rounding():
    tilted = np.eye(4)
    tilted[:3, :3] = rotation((0.001, 0, 0))
    near, far = (3, 3, 3), (200, 200, 200)
    assert same_space(Grid(near, np.eye(4)), Grid(near, tilted)).kind == "rounding"
    assert same_space(Grid(far, np.eye(4)), Grid(far, tilted)).kind == "different"


def different(shape=(4, 4, 4), scale=(1, 1, 1), angles_rad=(0, 0, 0), shift_mm=0.0):
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles_rad) * scale
    affine[0, 3] = shift_mm
    return same_space(Grid((4, 4, 4), np.eye(4)), Grid(shape, affine))


def test_what_differs_is_named():
    assert different(shape=(4, 4, 5)).reason == "shapes differ, 4 x 4 x 4 and 4 x 4 x 5 voxels"
    assert "spacings differ, 1 x 1 x 1 and 1 x 1 x 2 mm" in different(scale=(1, 1, 2)).reason
    assert "orientations differ by 5.73 degrees" in different(angles_rad=(0.1, 0, 0)).reason
    assert "2.5 mm apart" in different(shift_mm=2.5).reason


def test_mirror_images_are_not_the_same_voxels():
    grid = Grid((4, 4, 4), np.eye(4))
    mirrored = Grid((4, 4, 4), np.diag([-1, 1, 1, 1]))
    assert not same_space(grid, mirrored).same


def test_on_grid_refuses_another_space_by_name():
    volume = oriented((0, 1, 2), (1, 1, 1))
    other = Grid((2, 3, 5), volume.grid.affine)
    with pytest.raises(InputError, match=r"^mask\.nii: shapes differ, 2 x 3 x 4 and 2 x 3 x 5"):
        on_grid(volume, other, name="mask.nii")


def test_axes_of_equal_length_are_told_apart_by_direction():
    volume = oriented((1, 0, 2), (1, 1, 1), (1, 1, 1), shape=(3, 3, 3))
    straight = oriented((0, 1, 2), (1, 1, 1), (1, 1, 1), shape=(3, 3, 3)).grid
    assert np.array_equal(on_grid(volume, straight).array, volume.array.transpose(1, 0, 2))
