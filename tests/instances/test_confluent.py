"""Splitting by curvature: exact in boxes, every mask voxel labelled, the reference vectors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from skimage.feature import hessian_matrix, hessian_matrix_eigvals

from lesionwise.instances.components import connected_components
from lesionwise.instances.confluent import Acls, acls_centers, summits_of_mask
from lesionwise.instances.filters import DropSmall
from lesionwise.types import Grid, LesionMaps

Partition = Callable[[np.ndarray], np.ndarray]
Vectors = Callable[[str], Any]


def maps_of(probability: np.ndarray, spacing_mm: tuple[float, ...] = (1, 1, 1)) -> LesionMaps:
    return LesionMaps(probability, Grid(probability.shape, np.diag([*spacing_mm, 1.0])))


def balls(*drawn: tuple[tuple[float, float, float], float]) -> np.ndarray:
    """Distance into the nearest of some balls, in voxels: positive inside."""
    index = np.indices((20, 20, 32))
    depth = [
        radius - np.sqrt(((index - np.array(center)[:, None, None, None]) ** 2).sum(axis=0))
        for center, radius in drawn
    ]
    return np.max(depth, axis=0)


def probability_of(depth: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-2 * depth))).astype(np.float32)


TOUCHING = (((10, 10, 9), 5), ((10, 10, 18), 5))


def test_two_touching_balls_are_two_lesions_of_their_own_halves() -> None:
    probability = probability_of(balls(*TOUCHING))
    mask = probability > 0.5
    assert connected_components(mask).max() == 1
    labels = Acls()(maps_of(probability), mask).labels
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels[..., :13][mask[..., :13]] == 1).all()
    assert (labels[..., 15:][mask[..., 15:]] == 2).all()


def test_a_plain_mask_is_split_too() -> None:
    mask = balls(*TOUCHING) > 0
    labels = Acls()(maps_of(mask.astype(np.float32)), mask).labels
    assert labels.max() == 2
    assert np.array_equal(labels > 0, mask)


def test_a_saturated_probability_does_not_shatter() -> None:
    depth = balls(((10, 10, 16), 7))
    probability = np.where(depth > 1, np.float32(1), probability_of(depth))
    mask = probability > 0.5
    rng = np.random.default_rng(0)
    rounded = probability * (1 - rng.integers(0, 2, mask.shape) * 6e-8)
    for map_ in (probability, rounded.astype(np.float32)):
        assert Acls()(maps_of(map_), mask).labels.max() == 1


def test_float_noise_moves_no_voxel() -> None:
    probability = probability_of(balls(*TOUCHING)).astype(np.float64)
    mask = probability > 0.5
    noise = np.random.default_rng(1).normal(0, 1e-12, mask.shape)
    exact, noisy = (Acls()(maps_of(p), mask).labels for p in (probability, probability + noise))
    assert np.array_equal(exact, noisy)


def test_a_region_without_a_center_is_a_lesion_of_its_own() -> None:
    probability = probability_of(balls(((10, 10, 12), 6)))
    probability[10, 10, 20] = 0.51  # Two voxels off the ball: drowned by it when smoothed.
    mask = probability > 0.5
    centers = acls_centers(probability, mask, 2.0)
    assert centers[:, 2].max() < 19
    labels = Acls(sigma_vox=2.0)(maps_of(probability), mask).labels
    assert labels.max() == 2
    assert (labels == labels[10, 10, 20]).sum() == 1


@pytest.mark.parametrize("connectivity", [None, 26])
def test_without_any_center_the_regions_are_the_lesions(connectivity: int | None) -> None:
    probability = np.linspace(0.6, 0.9, 16, dtype=np.float32).reshape(1, 1, 16)
    mask = np.ones((1, 1, 16), dtype=bool)
    mask[0, 0, 7] = False
    assert len(acls_centers(probability, mask, 1.0)) == 0
    labels = Acls(piece_connectivity=connectivity)(maps_of(probability), mask).labels
    assert np.array_equal(labels, connected_components(mask))


def test_equally_near_clusters_go_to_the_first() -> None:
    probability = probability_of(balls(((10, 10, 9), 4), ((10, 10, 19), 4)))
    probability[10, 10, 11:18] = 0.51
    mask = probability > 0.5
    centers = acls_centers(probability, mask, 1.0)
    gap = [
        int(centers[:, 2][centers[:, 2] < 14].max()),
        int(centers[:, 2][centers[:, 2] > 14].min()),
    ]
    assert sum(gap) == 28
    labels = Acls()(maps_of(probability), mask).labels
    assert labels[10, 10, 14] == labels[10, 10, 9] != labels[10, 10, 19]


def test_center_voxels_outside_the_mask_stay_in_only_on_request() -> None:
    probability = probability_of(balls(((10, 10, 16), 1.2)))
    mask = probability > 0.5
    centers = acls_centers(probability, mask, 1.5)
    outside = ~mask[tuple(centers.T)]
    assert outside.any()
    assert np.array_equal(Acls(1.5)(maps_of(probability), mask).labels > 0, mask)
    kept = Acls(1.5, keep_outside=True)(maps_of(probability), mask).labels > 0
    assert kept.sum() == mask.sum() + outside.sum()
    assert kept[tuple(centers.T)].all()


def test_empty_mask() -> None:
    probability = np.zeros((6, 6, 6), dtype=np.float32)
    assert not Acls()(maps_of(probability), probability > 0.5).labels.any()


def test_faults_are_named() -> None:
    probability = np.full((4, 4, 4), np.nan, dtype=np.float32)
    everywhere = np.ones((4, 4, 4), dtype=bool)
    with pytest.raises(ValueError, match="finite"):
        Acls()(maps_of(probability), everywhere)
    with pytest.raises(ValueError, match="sigma"):
        Acls(sigma_vox=0)(maps_of(np.ones((4, 4, 4))), everywhere)
    with pytest.raises(ValueError, match="fit"):
        Acls()(maps_of(np.ones((4, 4, 4))), np.ones((4, 4, 5), dtype=bool))


@st.composite
def random_maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(draw(st.integers(2, 24)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probability = rng.random(shape)
    return probability, rng.random(shape) < draw(st.sampled_from([0.001, 0.01, 0.1, 0.7]))


@settings(max_examples=60, deadline=None)
@given(random_maps(), st.sampled_from([0.4, 1.0, 1.7]))
def test_boxes_give_the_centers_of_the_whole_volume(
    drawn: tuple[np.ndarray, np.ndarray], sigma_vox: float
) -> None:
    probability, mask = drawn
    image = np.where(mask, probability, 0)
    hessian = hessian_matrix(image, sigma=sigma_vox, use_gaussian_derivatives=False)
    greatest = hessian_matrix_eigvals(hessian)[0]
    found = np.zeros(mask.shape, dtype=bool)
    found[tuple(acls_centers(probability, mask, sigma_vox).T)] = True
    clear = np.abs(greatest + 1e-7) > 1e-12
    assert np.array_equal(found[clear], (greatest < -1e-7)[clear])


@settings(max_examples=40, deadline=None)
@given(random_maps(), st.sampled_from([6, 26]))
def test_every_mask_voxel_and_no_other_gets_a_label(
    partition: Partition, drawn: tuple[np.ndarray, np.ndarray], connectivity: int
) -> None:
    probability, mask = drawn
    labels = Acls(piece_connectivity=connectivity)(maps_of(probability), mask).labels
    assert labels.dtype == np.int32
    assert np.array_equal(labels > 0, mask)
    assert np.array_equal(labels, partition(labels))


@settings(max_examples=40, deadline=None)
@given(random_maps())
def test_the_stand_in_for_a_plain_mask_is_the_root_of_the_depth(
    drawn: tuple[np.ndarray, np.ndarray],
) -> None:
    _, mask = drawn
    if mask.all():
        mask[0, 0, 0] = False
    depth = np.sqrt(distance_transform_edt(mask))
    expected = depth / max(depth.max(), 1)
    assert np.allclose(summits_of_mask(mask), expected, rtol=0, atol=1e-6)


def test_a_mask_that_fills_the_volume_has_no_depth() -> None:
    assert (summits_of_mask(np.ones((3, 3, 3), dtype=bool)) == 1).all()


def test_reference_vectors(vectors: Vectors, partition: Partition) -> None:
    for stored, facts in vectors("acls"):
        name, options = facts["id"], facts["options"]
        probability = stored["semantic_probability"]
        mask = probability > options["semantic_threshold"]
        centers = acls_centers(probability, mask, options["sigma"])
        assert np.array_equal(centers, np.argwhere(stored["expected_center_mask"])), name
        maps = maps_of(probability, facts["voxel_spacing"])
        as_published = Acls(options["sigma"], options["connectivity"], None, keep_outside=True)
        grouped = as_published(maps, mask)
        expected = stored["expected_instances_before_refinement"]
        assert np.array_equal(partition(grouped.labels), partition(expected)), name
        inside = Acls(options["sigma"], options["connectivity"], None)(maps, mask)
        assert np.array_equal(partition(inside.labels), partition(np.where(mask, expected, 0))), (
            name
        )
        split = Acls(options["sigma"], options["connectivity"], 6, keep_outside=True)(maps, mask)
        drop = DropSmall(
            options["minimum_instance_size"],
            options["minimum_size_along_axis"],
            drop_at_min_volume=True,
        )
        expected = stored["expected_instances"]
        assert np.array_equal(partition(drop(split).labels), partition(expected)), name
