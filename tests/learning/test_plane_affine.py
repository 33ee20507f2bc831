"""Affine transforms in the plane of slices."""

import numpy as np
import pytest

from lesionwise.learning.plane_affine import AspectRatio, InTurn, Rotate, Transpose, Zoom
from lesionwise.learning.spatial_transforms import SpatialAugmentation, resample_patch

MM = (1.0, 1.0, 3.0)
FIXED = np.array([False, False, True])
EVERY = (
    Rotate((1.0, 45.0)),
    Zoom((0.8, 1.25)),
    AspectRatio((0.5, 2.0)),
    Transpose(),
)


def drawn(part, seed=0, spacing=MM):
    return part.draw(spacing, FIXED, np.random.default_rng(seed))


@pytest.mark.parametrize("part", EVERY, ids=lambda p: type(p).__name__)
def test_slices_stay_apart(part):
    for seed in range(20):
        matrix = drawn(part, seed)
        np.testing.assert_allclose(matrix[2], [0, 0, 1])
        np.testing.assert_allclose(matrix[:, 2], [0, 0, 1])


def test_angles_lie_between_the_two_on_either_side():
    angles = [np.degrees(np.arctan2(m[1, 0], m[0, 0])) for m in map(turn, range(200))]
    assert min(abs(a) for a in angles) >= 1.0
    assert max(abs(a) for a in angles) <= 45.0
    assert min(angles) < 0 < max(angles)


def turn(seed):
    return drawn(Rotate((1.0, 45.0)), seed)


def test_a_turn_keeps_lengths_in_mm_of_oblong_voxels():
    spacing = (0.5, 2.0, 1.0)
    matrix = drawn(Rotate((30.0, 30.0)), spacing=spacing)
    step = np.diag(spacing)
    in_mm = step @ matrix @ np.linalg.inv(step)
    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)


def test_an_aspect_ratio_keeps_areas():
    for seed in range(50):
        matrix = drawn(AspectRatio((0.5, 2.0)), seed)
        assert np.linalg.det(matrix) == pytest.approx(1.0)
        assert 0.5 <= matrix[1, 1] / matrix[0, 0] <= 2.0


def test_parts_act_one_after_the_other():
    parts = InTurn((Zoom((2.0, 2.0)), Transpose()))
    np.testing.assert_allclose(drawn(parts), [[0, 0.5, 0], [0.5, 0, 0], [0, 0, 1]])
    assert parts.probability == 1.0
    never = InTurn((Zoom((2.0, 2.0), probability=0.0),))
    np.testing.assert_allclose(drawn(never), np.eye(3))


def test_each_part_comes_as_often_as_its_own_probability_says():
    parts = InTurn((Transpose(probability=0.3),))
    count = sum(drawn(parts, seed)[0, 1] for seed in range(1000))
    assert 250 < count < 350


def test_a_transposed_patch_is_the_transpose_voxel_by_voxel():
    image = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    spatial = SpatialAugmentation(
        flip=0.0, affine=InTurn((Transpose(),)), elastic=None, fixed_axes=(2,)
    )
    transform = spatial.draw((8, 8, 3), MM, np.random.default_rng(0))
    (seen,), _ = resample_patch([image], {}, (0, 0, 0), (8, 8, 3), transform)
    np.testing.assert_allclose(seen, image.transpose(1, 0, 2), atol=1e-5)
