"""How alike two scans look."""

import numpy as np
import pytest
from scipy import ndimage

from lesionwise.preprocess.similarity import similarity
from lesionwise.types import Grid, Volume

SHAPE = (50, 60, 50)
GRID = Grid(SHAPE, np.diag([3.0, 3.0, 3.0, 1.0]))
STILL = np.eye(4)


def head(seed: int = 0) -> Volume:
    """An ellipsoid whose inside has structure of about 6 mm."""
    i, j, k = (np.linspace(-1, 1, n) for n in SHAPE)
    inside = (i[:, None, None] ** 2 + j[:, None] ** 2 + k**2) < 0.8
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, SHAPE), 1)
    return Volume(np.where(inside, 100 + 100 * texture, 0).astype(np.float32), GRID)


def brain(scan: Volume) -> Volume:
    return Volume(ndimage.binary_fill_holes(scan.array != 0), scan.grid)


def test_a_scan_is_like_itself_on_any_scale() -> None:
    scan = head()
    other = Volume(7 * scan.array + 3, scan.grid)
    assert similarity(scan, other, STILL, brain(scan), brain(scan)) == pytest.approx(1)


def test_a_bias_field_hardly_matters() -> None:
    scan = head()
    field = np.exp(np.linspace(-0.4, 0.4, SHAPE[1]))[:, None]
    other = Volume((scan.array * field).astype(np.float32), scan.grid)
    assert similarity(scan, other, STILL, brain(scan), brain(scan)) > 0.95


def test_two_heads_of_one_shape_are_not_alike() -> None:
    one, two = head(0), head(1)
    assert abs(similarity(one, two, STILL, brain(one), brain(two))) < 0.2


def test_opposite_contrasts_are_negative() -> None:
    scan = head()
    other = Volume(np.where(scan.array > 0, 300 - scan.array, 0), scan.grid)
    assert similarity(scan, other, STILL, brain(scan), brain(scan)) < -0.9


def test_the_world_matrix_brings_them_together() -> None:
    scan = head()
    shift = np.eye(4)
    shift[:3, 3] = (6, -9, 12)
    moved = Volume(scan.array, Grid(SHAPE, shift @ GRID.affine))
    mask = Volume(brain(scan).array, moved.grid)
    assert similarity(scan, moved, shift, brain(scan), mask) == pytest.approx(1, abs=1e-6)
    assert similarity(scan, moved, STILL, brain(scan), mask) < 0.4


def test_a_few_lesions_that_came_matter_little() -> None:
    scan = head()
    other = scan.array.copy()
    other[20:24, 20:24, 20:24] = other[30:33, 30:33, 30:33] = 1000
    assert similarity(scan, Volume(other, GRID), STILL, brain(scan), brain(scan)) > 0.9


def test_brains_that_do_not_meet_have_no_similarity() -> None:
    scan = head()
    far = np.eye(4)
    far[0, 3] = 1000
    assert similarity(scan, scan, far, brain(scan), brain(scan)) == 0


def test_without_masks_what_is_above_the_background_counts() -> None:
    scan = head()
    assert similarity(scan, scan, STILL) == pytest.approx(1)
