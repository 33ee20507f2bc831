import numpy as np
import pytest

from lesionwise.preprocess.bet import bet_mask, icosphere, inside_of
from lesionwise.types import Grid, Volume


def grid(shape, spacing, origin=(0.0, 0.0, 0.0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def test_sphere_has_the_points_and_triangles_of_its_subdivisions():
    for times in (0, 1, 3):
        points, faces = icosphere(times)
        assert len(points) == 10 * 4**times + 2
        assert len(faces) == 20 * 4**times
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)


def test_triangles_face_outward():
    points, faces = icosphere(2)
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    assert (np.einsum("ni,ni->n", np.cross(b - a, c - a), a + b + c) > 0).all()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.5, 3.0)])
def test_inside_of_a_sphere_are_the_voxels_within_its_radius(spacing):
    where = grid((40, 30, 20), spacing, origin=(-20.0, -22.0, -30.0))
    points, faces = icosphere(4)
    found = inside_of(10 * points + (0.3, 0.2, 0.1), faces, where)
    at = where.world_mm(np.indices(where.shape).reshape(3, -1).T) - (0.3, 0.2, 0.1)
    radius = np.linalg.norm(at, axis=1).reshape(where.shape)
    # the sphere of triangles lies up to 0.04 mm within the round one
    assert found[radius < 9.95].all()
    assert not found[radius > 10].any()


def test_a_corner_on_a_column_counts_once():
    corners = np.array(
        [(4.0, 4.0, 0.5), (4.0, 4.0, 6.5), (1.0, 2.0, 4.0), (6.0, 1.0, 4.0), (4.0, 7.0, 4.0)]
    )
    faces = np.array([(0, 3, 2), (0, 4, 3), (0, 2, 4), (1, 2, 3), (1, 3, 4), (1, 4, 2)])
    found = inside_of(corners, faces, grid((9, 9, 9), (1.0, 1.0, 1.0)))
    assert found[4, 4].nonzero()[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert not found[:, :, 0].any()
    assert not found[:, :, 8].any()


def test_a_surface_beyond_the_volume_is_cut_off():
    where = grid((8, 8, 8), (1.0, 1.0, 1.0))
    points, faces = icosphere(3)
    assert inside_of(30 * points + 4, faces, where).all()
    assert not inside_of(3 * points + 40, faces, where).any()


def ball_in_a_shell(spacing):
    """A bright ball of 60 mm radius, a dark gap, and 6 mm of bright scalp."""
    shape = tuple(round(200 / s) for s in spacing)
    where = grid(shape, spacing, origin=(-97.0, -98.0, -99.0))
    radius = np.linalg.norm(where.world_mm(np.indices(shape).reshape(3, -1).T), axis=1)
    radius = radius.reshape(shape)
    array = np.where(radius < 60, 100.0, 0.0) + 80.0 * ((radius > 76) & (radius < 82))
    return Volume(array.astype(np.float32), where), radius


def test_surface_stops_where_the_brain_ends():
    scan, radius = ball_in_a_shell((2.5, 4.0, 5.0))
    found = bet_mask(scan, iterations=400)
    brain = radius < 60
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.93
    assert not found[radius > 70].any()


def test_mask_may_lie_on_another_grid():
    scan, _ = ball_in_a_shell((5.0, 5.0, 5.0))
    fine = grid((50, 50, 50), (3.0, 3.0, 3.0), origin=(-75.0, -75.0, -75.0))
    found = bet_mask(scan, iterations=200, on=fine)
    assert found.shape == fine.shape
    assert found[25, 25, 25]
    assert not found[0].any()


def test_a_constant_scan_has_no_brain():
    flat = Volume(np.full((6, 6, 6), 3.0, np.float32), grid((6, 6, 6), (10.0, 10.0, 10.0)))
    assert not bet_mask(flat).any()
