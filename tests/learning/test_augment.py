"""Augmentation: targets stay right under every motion, intensities keep the background."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.learning.augment import (
    IntensityAugmentation,
    LesionContrast,
    Motion,
    SpatialAugmentation,
    along,
    crop,
    gaussian_matrix,
    rotation,
    spline_field,
    thick_slices,
    view,
)
from lesionwise.learning.targets import CentersAndOffsets, centers_of_mass

SIZE = (32, 32, 32)


def _ball(shape, center, radius, spacing=(1.0, 1.0, 1.0)):
    index = np.indices(shape)
    away = [(index[a] - center[a]) * spacing[a] for a in range(3)]
    return sum(d**2 for d in away) <= radius**2


def _two_balls():
    instances = np.zeros((48, 48, 48), dtype=np.int32)
    instances[_ball(instances.shape, (22, 25, 21), 4)] = 1
    instances[_ball(instances.shape, (29, 25, 27), 5)] = 2
    return instances


def _check_targets_agree(instances):
    made = CentersAndOffsets().make(instances, (1.0, 1.0, 1.0))
    for label in np.unique(instances)[1:]:
        voxels = np.argwhere(instances == label)
        center = voxels.mean(axis=0)
        votes = voxels + made["offsets"][:, instances == label].T
        np.testing.assert_allclose(votes, np.broadcast_to(center, votes.shape), atol=1e-4)
        peak = tuple(np.round(center).astype(int))
        assert made["heatmap"][(0, *peak)] > np.exp(-0.75 / 8) - 1e-6


def test_a_flip_mirrors_offsets_and_heatmap():
    instances = _two_balls()
    still = view([instances], instances, (8, 8, 8), SIZE, Motion(np.eye(3)))[1]
    flipped = view([instances], instances, (8, 8, 8), SIZE, Motion(np.diag([-1.0, 1, 1])))[1]
    before = CentersAndOffsets().make(still, (1.0, 1.0, 1.0))
    after = CentersAndOffsets().make(flipped, (1.0, 1.0, 1.0))
    mirrored = before["offsets"][:, ::-1].copy()
    mirrored[0] *= -1
    np.testing.assert_allclose(after["offsets"], mirrored, atol=1e-5)
    np.testing.assert_allclose(after["heatmap"], before["heatmap"][:, ::-1], atol=1e-6)


def test_a_rotation_turns_offsets_with_the_lesion():
    instances = np.zeros((49, 49, 49), dtype=np.int32)
    instances[24 - 8 : 24 + 9, 23:26, 23:26] = 1  # a rod along i
    quarter = rotation(np.array([0.0, 0.0, np.pi / 2]))
    turned = view([instances], instances, (8, 8, 8), (33, 33, 33), Motion(quarter))[1]
    offsets = CentersAndOffsets().make(turned, (1.0, 1.0, 1.0))["offsets"]
    length = turned.any(axis=(0, 2)).sum(), turned.any(axis=(1, 2)).sum()
    assert length == (17, 3)  # now along j
    assert abs(offsets[1]).max() == 8
    assert abs(offsets[0]).max() == 1


@pytest.mark.parametrize("seed", range(6))
def test_targets_fit_lesions_that_were_turned_scaled_and_bent(seed):
    spatial = SpatialAugmentation(affine=1.0, elastic=1.0)
    instances = _two_balls()
    rng = np.random.default_rng(seed)
    motion = spatial.draw(SIZE, (1.0, 1.0, 1.0), rng)
    seen = view([instances], instances, (8, 8, 8), SIZE, motion)[1]
    assert set(np.unique(seen)) == {0, 1, 2}
    _check_targets_agree(seen)


def test_image_and_labels_move_together():
    instances = _two_balls()
    image = (instances > 0).astype(np.float32)
    rng = np.random.default_rng(3)
    motion = SpatialAugmentation(affine=1.0, elastic=1.0).draw(SIZE, (1.0, 1.0, 1.0), rng)
    seen, labels = view([image], instances, (8, 8, 8), SIZE, motion)
    # Linear interpolation of a mask exceeds one half about where its nearest voxel is inside.
    assert np.mean((seen[0] > 0.5) != (labels > 0)) < 0.002


def test_a_ball_stays_a_ball_in_mm_on_thick_slices():
    spacing = (1.0, 1.0, 3.0)
    instances = _ball((64, 64, 24), (32, 32, 12), 9.0, spacing).astype(np.int32)
    turn = rotation(np.array([np.pi / 4, 0.0, 0.0]))
    step = np.diag(spacing)
    motion = Motion(np.linalg.inv(step) @ turn @ step)
    seen = view([instances], instances, (8, 8, 0), (48, 48, 24), motion)[1]
    extent = [np.ptp(np.argwhere(seen)[:, a]) * spacing[a] for a in range(3)]
    assert extent == pytest.approx([18, 18, 18], abs=3.1)


def test_an_affine_that_is_the_identity_copies_voxels():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((20, 20, 20)).astype(np.float32)
    labels = rng.integers(0, 5, (20, 20, 20))
    still = Motion(np.eye(3), bend=np.zeros((3, 12, 12, 12), dtype=np.float32))
    seen, moved = view([image], labels, (3, 4, 5), (12, 12, 12), still)
    np.testing.assert_allclose(seen[0], image[3:15, 4:16, 5:17], atol=1e-4)
    np.testing.assert_array_equal(moved, labels[3:15, 4:16, 5:17])


@given(
    start=st.tuples(*[st.integers(-9, 9)] * 3),
    size=st.tuples(*[st.integers(1, 8)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_is_zero_beyond_the_array(start, size):
    array = np.arange(1, 61).reshape(3, 4, 5)
    padded = np.pad(array, 20)
    box = tuple(slice(s + 20, s + 20 + n) for s, n in zip(start, size, strict=True))
    np.testing.assert_array_equal(crop(array, start, size), padded[box])


def test_background_stays_zero_and_the_seed_decides():
    rng = np.random.default_rng(1)
    image = rng.standard_normal((1, 24, 24, 24)).astype(np.float32)
    image[:, :10] = 0
    everything = IntensityAugmentation(1, 1, 1, 1, 1, 1)
    first = everything(image, np.random.default_rng(5))
    again = everything(image, np.random.default_rng(5))
    assert not first[:, :10].any()
    assert np.isfinite(first).all()
    assert not np.allclose(first, image)
    np.testing.assert_array_equal(first, again)


def test_intensity_changes_leave_an_empty_patch_alone():
    empty = np.zeros((1, 16, 16, 16), dtype=np.float32)
    changed = IntensityAugmentation(1, 1, 1, 1, 1, 1)(empty, np.random.default_rng(0))
    np.testing.assert_array_equal(changed, empty)


@pytest.mark.parametrize("matrix", [gaussian_matrix(30, 0.8), thick_slices(30, 3.3)])
def test_smoothing_keeps_a_constant(matrix):
    flat = torch.full((30, 2, 2), 3.0)
    torch.testing.assert_close(along(0, flat, matrix), flat)


def test_thick_slices_average_across():
    ramp = torch.arange(12.0).reshape(12, 1, 1)
    seen = along(0, ramp, thick_slices(12, 3.0)).flatten()
    assert seen[1].item() == pytest.approx(1.0)  # the middle of the first slice
    assert seen[7].item() == pytest.approx(7.0)
    assert seen[0].item() == pytest.approx(1.0)  # nothing beyond: held


def test_a_spline_field_of_equal_points_is_constant():
    field = spline_field(np.full((3, 6, 6, 6), 2.5), (20, 16, 12))
    np.testing.assert_allclose(field, 2.5, rtol=1e-5)


def test_centers_survive_a_scaling():
    instances = _two_balls()
    motion = Motion(np.eye(3) / 1.25)
    seen = view([instances], instances, (8, 8, 8), SIZE, motion)[1]
    _, before = centers_of_mass(crop(instances, (8, 8, 8), SIZE))
    _, after = centers_of_mass(seen)
    middle = (np.array(SIZE) - 1) / 2
    np.testing.assert_allclose(after - middle, (before - middle) * 1.25, atol=0.3)


def test_dimmed_lesions_keep_a_share_of_their_excess():
    image = np.zeros((1, 16, 16, 16), np.float32)
    lesions = np.zeros((16, 16, 16), bool)
    lesions[4:12, 4:12, 4:12] = True
    image[0, lesions] = 2.0
    image[0, 0, 0, 0] = -3.0
    dim = LesionContrast(probability=1.0, kept=(0.5, 0.5))
    out = dim(image, lesions, np.random.default_rng(0))
    assert out[0, 8, 8, 8] == pytest.approx(1.0, abs=1e-3)
    assert out[0, 0, 0, 0] == -3.0
    assert image[0, 8, 8, 8] == 2.0


def test_lesions_are_dimmed_only_when_asked_for():
    image = np.ones((1, 8, 8, 8), np.float32)
    rng = np.random.default_rng(0)
    assert LesionContrast()(image, image[0] > 0, rng) is image
    assert LesionContrast(probability=1.0)(image, image[0] > 2, rng) is image
