"""Spatial transforms: targets stay right under every one, and planes stay planes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.learning.spatial_transforms import (
    RandomAffine,
    RandomElastic,
    SpatialAugmentation,
    SpatialTransform,
    VolumeAugmentation,
    crop,
    resample_patch,
    rotation,
    spline_field,
)
from lesionwise.learning.targets import CentersAndOffsets, Reference, centers_of_mass

SIZE = (32, 32, 32)


ALWAYS = SpatialAugmentation(
    affine=RandomAffine(1.0, rotation_deg=20.0, scale=(0.8, 1.25), scale_per_axis=(0.95, 1.05)),
    elastic=RandomElastic(1.0),
)
MM = (1.0, 1.0, 1.0)


def _resampled(image, labels, start, size, transform):
    images, maps = resample_patch([image], {"labels": labels}, start, size, transform)
    return images, maps["labels"]


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
    made = CentersAndOffsets().make(Reference(instances, (1.0, 1.0, 1.0)))
    for label in np.unique(instances)[1:]:
        voxels = np.argwhere(instances == label)
        center = voxels.mean(axis=0)
        votes = voxels + made["offsets"][:, instances == label].T
        np.testing.assert_allclose(votes, np.broadcast_to(center, votes.shape), atol=1e-4)
        peak = tuple(np.round(center).astype(int))
        assert made["heatmap"][(0, *peak)] > np.exp(-0.75 / 8) - 1e-6


def test_a_flip_mirrors_offsets_and_heatmap():
    instances = _two_balls()
    still = _resampled(instances, instances, (8, 8, 8), SIZE, SpatialTransform(np.eye(3)))[1]
    flipped = _resampled(
        instances, instances, (8, 8, 8), SIZE, SpatialTransform(np.diag([-1.0, 1, 1]))
    )[1]
    before = CentersAndOffsets().make(Reference(still, (1.0, 1.0, 1.0)))
    after = CentersAndOffsets().make(Reference(flipped, (1.0, 1.0, 1.0)))
    mirrored = before["offsets"][:, ::-1].copy()
    mirrored[0] *= -1
    np.testing.assert_allclose(after["offsets"], mirrored, atol=1e-5)
    np.testing.assert_allclose(after["heatmap"], before["heatmap"][:, ::-1], atol=1e-6)


def test_a_rotation_turns_offsets_with_the_lesion():
    instances = np.zeros((49, 49, 49), dtype=np.int32)
    instances[24 - 8 : 24 + 9, 23:26, 23:26] = 1  # a rod along i
    quarter = rotation(np.array([0.0, 0.0, np.pi / 2]))
    turned = _resampled(instances, instances, (8, 8, 8), (33, 33, 33), SpatialTransform(quarter))[1]
    offsets = CentersAndOffsets().make(Reference(turned, (1.0, 1.0, 1.0)))["offsets"]
    length = turned.any(axis=(0, 2)).sum(), turned.any(axis=(1, 2)).sum()
    assert length == (17, 3)  # now along j
    assert abs(offsets[1]).max() == 8
    assert abs(offsets[0]).max() == 1


@pytest.mark.parametrize("seed", range(6))
def test_targets_fit_lesions_that_were_turned_scaled_and_bent(seed):
    spatial = ALWAYS
    instances = _two_balls()
    rng = np.random.default_rng(seed)
    transform = spatial.draw(SIZE, (1.0, 1.0, 1.0), rng)
    seen = _resampled(instances, instances, (8, 8, 8), SIZE, transform)[1]
    assert set(np.unique(seen)) == {0, 1, 2}
    _check_targets_agree(seen)


def test_image_and_labels_move_together():
    instances = _two_balls()
    image = (instances > 0).astype(np.float32)
    rng = np.random.default_rng(3)
    transform = ALWAYS.draw(SIZE, (1.0, 1.0, 1.0), rng)
    seen, labels = _resampled(image, instances, (8, 8, 8), SIZE, transform)
    # Linear interpolation of a mask exceeds one half about where its nearest voxel is inside.
    assert np.mean((seen[0] > 0.5) != (labels > 0)) < 0.002


def test_a_ball_stays_a_ball_in_mm_on_thick_slices():
    spacing = (1.0, 1.0, 3.0)
    instances = _ball((64, 64, 24), (32, 32, 12), 9.0, spacing).astype(np.int32)
    turn = rotation(np.array([np.pi / 4, 0.0, 0.0]))
    step = np.diag(spacing)
    transform = SpatialTransform(np.linalg.inv(step) @ turn @ step)
    seen = _resampled(instances, instances, (8, 8, 0), (48, 48, 24), transform)[1]
    extent = [np.ptp(np.argwhere(seen)[:, a]) * spacing[a] for a in range(3)]
    assert extent == pytest.approx([18, 18, 18], abs=3.1)


def test_an_affine_that_is_the_identity_copies_voxels():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((20, 20, 20)).astype(np.float32)
    labels = rng.integers(0, 5, (20, 20, 20))
    still = SpatialTransform(np.eye(3), displacement=np.zeros((3, 12, 12, 12), dtype=np.float32))
    seen, moved = _resampled(image, labels, (3, 4, 5), (12, 12, 12), still)
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


def test_a_spline_field_of_equal_points_is_constant():
    field = spline_field(np.full((3, 6, 6, 6), 2.5), (20, 16, 12))
    np.testing.assert_allclose(field, 2.5, rtol=1e-5)


def test_centers_survive_a_scaling():
    instances = _two_balls()
    transform = SpatialTransform(np.eye(3) / 1.25)
    seen = _resampled(instances, instances, (8, 8, 8), SIZE, transform)[1]
    _, before = centers_of_mass(crop(instances, (8, 8, 8), SIZE))
    _, after = centers_of_mass(seen)
    middle = (np.array(SIZE) - 1) / 2
    np.testing.assert_allclose(after - middle, (before - middle) * 1.25, atol=0.3)


def test_all_48_orientations_occur_and_are_nothing_else():
    cube = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    rng = np.random.default_rng(0)
    augmentation = SpatialAugmentation(axes="permute", affine=None, elastic=None)
    seen = set()
    for _ in range(1500):
        order = augmentation.axis_permutation(rng)
        transform = augmentation.draw((3, 3, 3), MM, rng)
        assert transform.only_flips
        (image,), _ = resample_patch([cube.transpose(order)], {}, (0, 0, 0), (3,) * 3, transform)
        seen.add(image.tobytes())
        assert image[1, 1, 1] == 13
    assert len(seen) == 48


def _kind(transform):
    linear = not np.array_equal(np.abs(transform.matrix), np.eye(3))
    return linear, transform.displacement is not None


@pytest.mark.parametrize(
    ("exclusive", "expected"),
    [
        (True, {(True, False): 0.6, (False, True): 0.15, (False, False): 0.25}),
        (
            False,
            {(True, False): 0.51, (False, True): 0.06, (True, True): 0.09, (False, False): 0.34},
        ),
    ],
)
def test_affine_and_elastic_occur_as_often_as_asked(exclusive, expected):
    rng = np.random.default_rng(1)
    augmentation = SpatialAugmentation(
        affine=RandomAffine(0.6, rotation_deg=10.0),
        elastic=RandomElastic(0.15),
        exclusive=exclusive,
    )
    kinds = [_kind(augmentation.draw((4, 4, 4), MM, rng)) for _ in range(3000)]
    assert set(kinds) == set(expected)
    for kind, probability in expected.items():
        assert np.mean([k == kind for k in kinds]) == pytest.approx(probability, abs=0.04)


def test_exclusive_probabilities_above_1_are_refused():
    with pytest.raises(ValueError, match=r"add up to 1\.2"):
        SpatialAugmentation(affine=RandomAffine(0.6), elastic=RandomElastic(0.6), exclusive=True)


def test_flips_keep_to_their_axes():
    augmentation = SpatialAugmentation(1.0, affine=None, elastic=None, flip_axes=(1,))
    transform = augmentation.draw((4, 4, 4), MM, np.random.default_rng(0))
    np.testing.assert_array_equal(transform.matrix, np.diag([1.0, -1.0, 1.0]))


def test_shear_shifts_one_axis_along_another():
    matrix = RandomAffine(1.0, shear=0.2).draw(MM, np.zeros(3, bool), np.random.default_rng(0))
    assert np.allclose(np.diag(matrix), 1)
    assert 0 < np.abs(matrix - np.eye(3)).max() <= 0.2


def test_scales_stay_within_their_ranges():
    rng = np.random.default_rng(0)
    affine = RandomAffine(1.0, scale=(0.5, 2.0), scale_per_axis=(0.9, 1.1))
    free = np.zeros(3, bool)
    scales = 1 / np.array([np.diag(affine.draw(MM, free, rng)) for _ in range(300)])
    assert 0.45 <= scales.min() < 0.55
    assert 1.9 < scales.max() <= 2.2
    assert (scales.max(axis=1) / scales.min(axis=1)).max() <= 1.1 / 0.9 + 1e-9


def test_a_fixed_scale_is_kept():
    affine = RandomAffine(1.0, scale=(2.0, 2.0))
    matrix = affine.draw(MM, np.zeros(3, bool), np.random.default_rng(0))
    np.testing.assert_allclose(matrix, np.eye(3) / 2)


def test_control_points_are_displaced_uniformly_where_asked():
    elastic = RandomElastic(1.0, displacement_mm=7.5, distribution="uniform")
    free = np.zeros(3, bool)
    field = elastic.draw((24, 24, 24), (1.0, 1.0, 3.0), free, np.random.default_rng(0))
    assert np.abs(field[0]).max() <= 7.5  # a B-spline stays within its control points
    assert np.abs(field[2]).max() <= 2.5
    assert np.abs(field[0]).max() > 2


@given(
    seed=st.integers(0, 2**32 - 1),
    flat=st.integers(0, 2),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    exclusive=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_patch_of_one_slice_is_read_from_that_slice_alone(seed, flat, spacing, exclusive):
    size = tuple(1 if axis == flat else 14 for axis in range(3))
    augmentation = SpatialAugmentation(
        affine=RandomAffine(0.5, 40.0, (0.7, 1.4), (0.9, 1.1), 0.2),
        elastic=RandomElastic(0.5),
        exclusive=exclusive,
    )
    transform = augmentation.draw(size, spacing, np.random.default_rng(seed))
    corners = np.indices(size).reshape(3, -1) - (np.array(size)[:, None] - 1) / 2
    read_at = transform.matrix @ corners
    if transform.displacement is not None:
        read_at = read_at + transform.displacement.reshape(3, -1)
    np.testing.assert_allclose(read_at[flat], 0, atol=1e-6)
    in_plane = np.delete(np.delete(transform.matrix, flat, 0), flat, 1)
    np.testing.assert_allclose(abs(np.linalg.det(transform.matrix)), abs(np.linalg.det(in_plane)))


def test_a_slice_is_turned_in_its_plane():
    volume = np.zeros((33, 33, 5), dtype=np.int32)
    volume[8:25, 15:18, 2] = 1  # a rod along i in one slice
    volume[:, :, (1, 3)] = 2  # its neighbors
    quarter = SpatialTransform(rotation(np.array([0.0, 0.0, np.pi / 2])))
    seen = _resampled(volume, volume, (0, 0, 2), (33, 33, 1), quarter)[1]
    np.testing.assert_array_equal(seen[:, :, 0], volume[:, :, 2].T)


def test_a_stack_of_slices_keeps_its_slices_apart():
    augmentation = SpatialAugmentation(
        affine=RandomAffine(1.0, 40.0, (0.7, 1.4), (0.9, 1.1), 0.2),
        elastic=RandomElastic(1.0),
        flip_axes=(0, 1),
        fixed_axes=(2,),
    )
    volume = np.broadcast_to(np.arange(1, 6, dtype=np.float32), (64, 64, 5))
    transform = augmentation.draw((12, 12, 3), (1.0, 1.0, 4.0), np.random.default_rng(0))
    (image,), _ = resample_patch([volume], {}, (26, 26, 1), (12, 12, 3), transform)
    np.testing.assert_allclose(image, np.broadcast_to([2.0, 3.0, 4.0], image.shape), atol=1e-4)


@pytest.mark.parametrize("box", [None, ((-2, 3, 5), (9, 6, 8))])
def test_all_slices_across_a_fixed_axis_are_displaced_alike(box):
    elastic = RandomElastic(1.0, displacement_mm=3.0)
    size, fixed = (14, 12, 20), np.array([False, False, True])
    field = elastic.draw(size, (1.0, 1.0, 4.0), fixed, np.random.default_rng(0), box)
    assert field.shape == (3, *(size if box is None else box[1]))
    assert field[:2].std() > 0.1
    assert not field[2].any()
    np.testing.assert_array_equal(field, np.broadcast_to(field[..., :1], field.shape))
    one = elastic.draw((14, 12, 1), (1.0, 1.0, 4.0), fixed, np.random.default_rng(0))
    part = (slice(None), slice(0, 7), slice(3, 9))
    seen = field[part] if box is None else field[:, 2:, :]
    np.testing.assert_allclose(seen[..., 0], one[part][..., 0], atol=1e-5)


def test_a_stack_is_bent_as_one():
    bent = SpatialAugmentation(0.0, None, RandomElastic(1.0), fixed_axes=(2,))
    plane = np.random.default_rng(0).random((40, 40, 1)).astype(np.float32)
    volume = np.broadcast_to(plane, (40, 40, 5))
    transform = bent.draw((24, 24, 3), MM, np.random.default_rng(0))
    (image,), _ = resample_patch([volume], {}, (8, 8, 1), (24, 24, 3), transform)
    np.testing.assert_array_equal(image, np.broadcast_to(image[..., :1], image.shape))


@given(
    start=st.tuples(*[st.integers(-9, 9)] * 3),
    size=st.tuples(*[st.integers(1, 8)] * 3),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_repeats_the_nearest_voxel_where_asked(start, size):
    array = np.arange(1, 61).reshape(3, 4, 5)
    padded = np.pad(array, 20, mode="edge")
    box = tuple(slice(s + 20, s + 20 + n) for s, n in zip(start, size, strict=True))
    np.testing.assert_array_equal(crop(array, start, size, outside="edge"), padded[box])


@pytest.mark.parametrize("spatial", [ALWAYS, SpatialAugmentation(1.0, None, None)])
@pytest.mark.parametrize("whole", [False, True])
def test_images_go_on_beyond_the_volume_where_asked_and_labels_do_not(spatial, whole):
    shape, start, size = (16, 16, 16), (-6, 2, 9), (12, 12, 12)
    image, ones = np.full(shape, -0.9), np.ones(shape)
    for outside in ("zero", "edge"):
        drawn = replace(spatial, outside=outside)
        augmentation = VolumeAugmentation(drawn) if whole else drawn
        transform = augmentation.draw(size, MM, np.random.default_rng(0), (start, shape))
        maps = {"labels": ones.astype(np.int32), "soft": ones}
        (seen,), moved = resample_patch([image], maps, start, size, transform)
        if outside == "edge":
            np.testing.assert_allclose(seen, -0.9, rtol=1e-4)
        else:
            assert (seen == 0).any()
        assert set(np.unique(moved["labels"])) == {0, 1}
        assert float(moved["soft"].min()) == 0


def _maps():
    labels = np.zeros((24, 24, 24), dtype=np.uint8)
    labels[8:15, 8:15, 8:15] = 7
    return {"labels": labels, "brain": labels > 0, "soft": (labels / 7).astype(np.float16)}


def test_labels_go_by_nearest_neighbor_and_soft_labels_linearly():
    maps = _maps()
    half_voxel = np.full((3, 20, 20, 20), 0.5, np.float32)
    half_voxel[1:] = 0
    shifted = SpatialTransform(np.eye(3), half_voxel)
    image, seen = resample_patch([maps["soft"]], maps, (2, 2, 2), (20, 20, 20), shifted)
    assert list(seen) == ["labels", "brain", "soft"]
    assert [array.dtype for array in seen.values()] == [np.int32, bool, np.float32]
    assert set(np.unique(seen["labels"])) == {0, 7}
    np.testing.assert_array_equal(seen["brain"], seen["labels"] > 0)
    np.testing.assert_array_equal(seen["soft"], image[0])
    assert set(np.round(np.unique(seen["soft"]), 3)) == {0.0, 0.5, 1.0}


def test_flipped_maps_keep_their_kinds():
    flip = SpatialTransform(np.diag([1.0, 1.0, -1.0]))
    _, seen = resample_patch([_maps()["soft"]], _maps(), (7, 7, 7), (5, 5, 5), flip)
    assert [array.dtype for array in seen.values()] == [np.int32, bool, np.float32]
    np.testing.assert_array_equal(seen["labels"], _maps()["labels"][7:12, 7:12, 11:6:-1])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    start=st.tuples(*[st.integers(-3, 12)] * 3),
    size=st.tuples(st.integers(1, 10), st.integers(1, 10), st.integers(1, 3)),
    elastic=st.booleans(),
)
def test_a_patch_sees_its_part_of_the_augmented_volume(seed, start, size, elastic):
    shape = (13, 12, 11)
    rng = np.random.default_rng(seed)
    image, labels = rng.random(shape), rng.integers(0, 3, shape)
    spatial = SpatialAugmentation(
        flip=0.5,
        affine=RandomAffine(0.7, rotation_deg=30.0, scale=(0.8, 1.2)),
        elastic=RandomElastic(1.0, displacement_mm=2.0) if elastic else None,
    )
    whole = spatial.draw(shape, MM, np.random.default_rng(seed))
    expected, expected_labels = _resampled(image, labels, (0, 0, 0), shape, whole)
    part = VolumeAugmentation(spatial).draw(size, MM, np.random.default_rng(seed), (start, shape))
    found, found_labels = _resampled(image, labels, start, size, part)
    # where the patch lies within the volume; beyond it the volume has no part to compare with
    inside = tuple(
        slice(max(0, -a), max(0, min(n, m - a))) for a, n, m in zip(start, size, shape, strict=True)
    )
    wanted = tuple(slice(max(0, a), max(0, a + n)) for a, n in zip(start, size, strict=True))
    np.testing.assert_allclose(found[0][inside], expected[0][wanted], atol=2e-4)
    assert (found_labels[inside] == expected_labels[wanted]).mean() > 0.98 or not found_labels[
        inside
    ].size


def test_a_slice_of_a_turned_volume_shows_other_slices():
    image = np.zeros((21, 21, 21))
    image[:, :, 12] = 1.0
    turned = VolumeAugmentation(
        SpatialAugmentation(flip=0.0, affine=RandomAffine(1.0, rotation_deg=30.0), elastic=None)
    )
    transform = turned.draw((21, 21, 1), MM, np.random.default_rng(3), ((0, 0, 10), (21, 21, 21)))
    (seen,), _ = resample_patch([image], {}, (0, 0, 10), (21, 21, 1), transform)
    assert seen.any()


def test_a_volume_is_flipped_about_its_own_middle():
    image = np.arange(10.0).reshape(10, 1, 1) * np.ones((10, 4, 4))
    flipped = VolumeAugmentation(SpatialAugmentation(flip=1.0, affine=None, elastic=None))
    transform = flipped.draw((3, 4, 4), MM, np.random.default_rng(0), ((2, 0, 0), (10, 4, 4)))
    (seen,), _ = resample_patch([image], {}, (2, 0, 0), (3, 4, 4), transform)
    assert seen[:, 0, 0].tolist() == [7.0, 6.0, 5.0]
