"""Offset voting: peaks, votes and what becomes of regions without a center."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lesionwise.instances.components import connected_components
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.offsets import OffsetVoting, find_centers, offset_bias
from lesionwise.types import Grid, LesionMaps

Partition = Callable[[np.ndarray], np.ndarray]
Vectors = Callable[[str], Any]


def maps_of(
    heatmap: np.ndarray, offsets_vox: np.ndarray, spacing_mm: tuple[float, ...] = (1, 1, 1)
) -> LesionMaps:
    grid = Grid(heatmap.shape, np.diag([*spacing_mm, 1.0]))
    return LesionMaps(np.ones(heatmap.shape, np.float32), grid, heatmap, offsets_vox)


def row_of_voxels(length: int, centers: list[int]) -> tuple[LesionMaps, np.ndarray]:
    """A line of voxels along k with centers at 1.0 and offsets 0."""
    heatmap = np.zeros((1, 1, length), dtype=np.float32)
    heatmap[0, 0, centers] = 1
    return maps_of(heatmap, np.zeros((3, 1, 1, length), np.float32)), heatmap > 2


# Centers


def test_a_center_must_exceed_the_threshold() -> None:
    heatmap = np.zeros((3, 3, 3))
    heatmap[1, 1, 1] = 0.1
    assert len(find_centers(heatmap, 0.1, 3)) == 0
    assert find_centers(heatmap, 0.099, 3).tolist() == [[1, 1, 1]]


def test_a_peak_at_the_edge_of_the_volume_counts() -> None:
    heatmap = -np.ones((3, 3, 3))
    heatmap[0, 2, 1] = -0.5
    assert find_centers(heatmap, -0.9, 5).tolist() == [[0, 2, 1]]


def test_the_window_decides_how_near_two_centers_may_lie() -> None:
    heatmap = np.zeros((1, 1, 9))
    heatmap[0, 0, [2, 4]] = 0.9, 0.8
    assert find_centers(heatmap, 0.1, 3)[:, 2].tolist() == [2, 4]
    assert find_centers(heatmap, 0.1, 5)[:, 2].tolist() == [2]


def test_a_plateau_keeps_the_voxel_nearest_to_its_centroid() -> None:
    heatmap = np.zeros((1, 3, 7))
    heatmap[0, 1, 1:6] = 1
    assert find_centers(heatmap, 0.5, 3).tolist() == [[0, 1, 3]]


def test_equally_near_voxels_of_a_plateau_go_to_the_first() -> None:
    heatmap = np.zeros((4, 4, 4))
    heatmap[1:3, 1:3, 1:3] = 1
    assert find_centers(heatmap, 0.5, 3).tolist() == [[1, 1, 1]]


def test_peaks_that_touch_at_an_edge_stay_two() -> None:
    heatmap = np.zeros((1, 3, 3))
    heatmap[0, 0, 0] = heatmap[0, 1, 1] = 1
    assert len(find_centers(heatmap, 0.5, 3)) == 2


def test_top_k_keeps_what_equals_the_kth() -> None:
    heatmap = np.zeros((1, 1, 9))
    heatmap[0, 0, [0, 2, 4, 6]] = 0.9, 0.5, 0.5, 0.3
    assert find_centers(heatmap, 0.1, 3, top_k=1)[:, 2].tolist() == [0]
    assert find_centers(heatmap, 0.1, 3, top_k=2)[:, 2].tolist() == [0, 2, 4]
    assert len(find_centers(heatmap, 0.1, 3, top_k=9)) == 4


def test_a_mask_restricts_centers_but_not_their_rivals() -> None:
    heatmap = np.zeros((1, 1, 5))
    heatmap[0, 0, :3] = 0.5, 0.9, 0.5
    mask = np.zeros((1, 1, 5), dtype=bool)
    mask[0, 0, 0] = True
    assert len(find_centers(heatmap, 0.1, 3, mask=mask)) == 0


@pytest.mark.parametrize("size", [0, 2, -3])
def test_the_window_is_odd(size: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        find_centers(np.zeros((2, 2, 2)), 0.1, size)


@given(
    arrays(np.float32, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 20).map(float)),
    st.sampled_from([1, 3, 5]),
)
def test_centers_lie_where_maximum_filtering_changes_nothing(
    heatmap: np.ndarray, size: int
) -> None:
    filtered = ndimage.maximum_filter(heatmap, size, mode="constant", cval=-np.inf)
    peaks = (heatmap == filtered) & (heatmap > 2)
    plateaus, count = ndimage.label(peaks)
    centers = find_centers(heatmap, 2, size)
    assert sorted(plateaus[tuple(centers.T)]) == list(range(1, count + 1))


# Votes


def test_offsets_are_ordered_i_j_k() -> None:
    heatmap = np.zeros((3, 4, 5), dtype=np.float32)
    heatmap[1, 2, 3], heatmap[1, 2, 0] = 0.9, 0.9
    offsets_vox = np.zeros((3, 3, 4, 5), dtype=np.float32)
    offsets_vox[2, 1, 2, 3] = -3  # along k only
    mask = heatmap > 0
    together = OffsetVoting(connectivity=None)(maps_of(heatmap, offsets_vox), mask)
    assert together.labels[1, 2, 3] == together.labels[1, 2, 0] == 1


def test_offsets_outside_the_mask_are_not_read() -> None:
    maps, mask = row_of_voxels(3, [1])
    maps.offsets_vox[..., [0, 2]] = np.nan
    mask[0, 0, 1] = True
    assert OffsetVoting()(maps, mask).labels.reshape(-1).tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="finite"):
        OffsetVoting()(maps, ~mask)


def test_the_bias_is_the_mean_offset_at_centers() -> None:
    offsets_vox = np.zeros((3, 1, 1, 4))
    offsets_vox[1] = [1, 9, 9, 2]
    assert offset_bias(offsets_vox, np.array([[0, 0, 0], [0, 0, 3]])).tolist() == [0, 1.5, 0]
    assert offset_bias(offsets_vox, np.empty((0, 3), dtype=int)).tolist() == [0, 0, 0]


# The whole step


def test_two_touching_lesions_are_told_apart() -> None:
    maps, mask = row_of_voxels(8, [1, 5])
    mask[0, 0, :8] = True
    labels = OffsetVoting()(maps, mask).labels.reshape(-1)
    assert labels.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]


def test_distances_are_in_voxels_whatever_the_spacing() -> None:
    heatmap = np.zeros((4, 1, 4), dtype=np.float32)
    heatmap[3, 0, 0] = heatmap[0, 0, 2] = 1
    mask = np.ones((4, 1, 4), dtype=bool)
    offsets_vox = np.zeros((3, 4, 1, 4), dtype=np.float32)
    isotropic = OffsetVoting()(maps_of(heatmap, offsets_vox), mask).labels
    flat = OffsetVoting()(maps_of(heatmap, offsets_vox, (0.5, 0.5, 3.0)), mask).labels
    assert np.array_equal(isotropic, flat)


def test_a_region_without_a_center_is_a_lesion_of_its_own() -> None:
    maps, mask = row_of_voxels(30, [2, 20])
    mask[0, 0, [*range(5), *range(9, 14), *range(18, 23)]] = True
    labels = OffsetVoting()(maps, mask).labels.reshape(-1)
    assert [np.unique(labels[a:b]).tolist() for a, b in ((0, 5), (9, 14), (18, 23))] == [
        [1],
        [2],
        [3],
    ]
    as_published = OffsetVoting(connectivity=6, reach_vox=None)(maps, mask).labels.reshape(-1)
    assert len(np.unique(as_published[9:14])) == 2


def test_a_center_beside_a_bent_lesion_may_claim_it() -> None:
    heatmap = np.zeros((5, 5, 1), dtype=np.float32)
    mask = np.zeros((5, 5, 1), dtype=bool)
    mask[:, [0, 4]] = mask[4] = True
    heatmap[2, 2, 0] = 1
    index = np.argwhere(mask)
    offsets_vox = np.zeros((3, 5, 5, 1), dtype=np.float32)
    offsets_vox[(slice(None), *index.T)] = (np.array([2, 2, 0]) - index).T
    lesions = OffsetVoting(connectivity=None, reach_vox=1.0)(maps_of(heatmap, offsets_vox), mask)
    assert np.array_equal(lesions.labels > 0, mask)
    assert lesions.labels.max() == 1


def test_without_centers_the_regions_are_the_lesions() -> None:
    maps, mask = row_of_voxels(6, [])
    mask[0, 0, [0, 1, 4]] = True
    assert np.array_equal(OffsetVoting()(maps, mask).labels, connected_components(mask))
    assert not OffsetVoting(reach_vox=None)(maps, mask).labels.any()


def test_pieces_of_one_center_become_lesions_unless_kept_together() -> None:
    maps, mask = row_of_voxels(9, [4])
    mask[0, 0, [2, 3, 4, 6]] = True
    apart = OffsetVoting(reach_vox=9)(maps, mask).labels.reshape(-1)
    assert apart[[2, 3, 4, 6]].tolist() == [1, 1, 1, 2]
    together = OffsetVoting(reach_vox=9, connectivity=None)(maps, mask).labels.reshape(-1)
    assert together[[2, 3, 4, 6]].tolist() == [1, 1, 1, 1]


def noisy_pair() -> tuple[LesionMaps, np.ndarray]:
    """Two touching lesions; one voxel deep in the first points to the second's center."""
    maps, mask = row_of_voxels(12, [2, 9])
    mask[:] = True
    assert maps.offsets_vox is not None
    maps.offsets_vox[2, 0, 0, 1] = 8
    return maps, mask


def test_a_fragment_joins_the_lesion_it_touches() -> None:
    maps, mask = noisy_pair()
    labels = OffsetVoting()(maps, mask).labels.reshape(-1)
    assert labels.tolist() == [1] * 6 + [2] * 6


def test_a_fragment_is_a_lesion_when_fragments_may_be() -> None:
    maps, mask = noisy_pair()
    labels = OffsetVoting(fragment_mm3=0)(maps, mask).labels.reshape(-1)
    # The cut through the first lesion leaves a second fragment at its end.
    assert labels.tolist() == [1, 2] + [3] * 4 + [4] * 6


def test_what_a_fragment_is_is_measured_in_mm3() -> None:
    maps, mask = noisy_pair()
    wide = replace(maps, grid=Grid(mask.shape, np.diag([2.0, 2.0, 3.5, 1.0])))
    assert OffsetVoting()(wide, mask).labels.max() == 4
    assert OffsetVoting(fragment_mm3=14.1)(wide, mask).labels.max() == 2


def test_calibration_removes_a_common_shift_of_the_offsets() -> None:
    maps, mask = row_of_voxels(8, [1, 5])
    mask[:] = True
    assert maps.offsets_vox is not None
    exact = OffsetVoting()(maps, mask).labels
    shifted = maps.offsets_vox.copy()
    shifted[2] += 1.5
    wrong = replace(maps, offsets_vox=shifted)
    assert np.array_equal(OffsetVoting(calibrate=True)(wrong, mask).labels, exact)
    assert not np.array_equal(OffsetVoting()(wrong, mask).labels, exact)


def test_an_empty_mask_has_no_lesions() -> None:
    maps, mask = row_of_voxels(6, [2])
    assert not OffsetVoting()(maps, mask).labels.any()


def test_maps_without_offsets_are_refused() -> None:
    maps, mask = row_of_voxels(6, [2])
    with pytest.raises(ValueError, match="offsets"):
        OffsetVoting()(replace(maps, offsets_vox=None), mask)


@st.composite
def random_lesions(draw: st.DrawFn) -> tuple[LesionMaps, np.ndarray]:
    shape = tuple(draw(st.integers(1, 7)) for _ in range(3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Distinct values and irrational-looking offsets: no plateaus and no ties.
    heatmap = rng.permutation(np.prod(shape)).reshape(shape).astype(np.float32) / np.prod(shape)
    offsets_vox = rng.normal(0, 2, (3, *shape)).astype(np.float32)
    return maps_of(heatmap, offsets_vox), rng.random(shape) < draw(st.sampled_from([0.2, 0.5, 0.9]))


@settings(max_examples=60)
@given(random_lesions(), st.sampled_from([None, 6, 26]))
def test_every_mask_voxel_and_no_other_gets_a_label(
    partition: Partition, drawn: tuple[LesionMaps, np.ndarray], connectivity: int | None
) -> None:
    maps, mask = drawn
    labels = OffsetVoting(connectivity=connectivity)(maps, mask).labels
    assert labels.dtype == np.int32
    assert np.array_equal(labels > 0, mask)
    assert np.array_equal(labels, partition(labels))
    if connectivity is not None:
        for label in range(1, labels.max() + 1):
            assert connected_components(labels == label, connectivity).max() == 1


@settings(max_examples=60)
@given(random_lesions(), st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3))
def test_axes_may_be_permuted_and_flipped(
    partition: Partition,
    drawn: tuple[LesionMaps, np.ndarray],
    order: list[int],
    flips: tuple[bool, bool, bool],
) -> None:
    maps, mask = drawn
    assert maps.center_heatmap is not None
    assert maps.offsets_vox is not None
    flipped = [axis for axis in range(3) if flips[axis]]

    def moved(array: np.ndarray) -> np.ndarray:
        return np.flip(array.transpose(order), flipped)

    offsets_vox = np.stack([moved(maps.offsets_vox[axis]) for axis in order])
    offsets_vox[flipped] *= -1
    # Without fragments: to which of two lesions an equally touching fragment goes follows C order.
    step = OffsetVoting(fragment_mm3=0)
    there = step(maps_of(moved(maps.center_heatmap), offsets_vox), moved(mask)).labels
    here = step(maps, mask).labels
    assert np.array_equal(partition(there), partition(moved(here)))


@settings(max_examples=30)
@given(random_lesions())
def test_memory_order_changes_nothing(drawn: tuple[LesionMaps, np.ndarray]) -> None:
    maps, mask = drawn
    assert maps.center_heatmap is not None
    assert maps.offsets_vox is not None
    fortran = maps_of(np.asfortranarray(maps.center_heatmap), np.asfortranarray(maps.offsets_vox))
    there = OffsetVoting()(fortran, np.asfortranarray(mask)).labels
    assert np.array_equal(there, OffsetVoting()(maps, mask).labels)


# The reference vectors


def reference_step(options: dict[str, Any], connectivity: int | None) -> OffsetVoting:
    return OffsetVoting(
        center_threshold=options["heatmap_threshold"],
        nms_size_vox=options["nms_kernel_size"],
        top_k=options["top_k"],
        calibrate=options["calibrate_offsets"],
        connectivity=connectivity,
        reach_vox=None,
        fragment_mm3=0,
    )


def test_reference_vectors(vectors: Vectors, partition: Partition) -> None:
    for stored, facts in vectors("pp"):
        if "expected_centers" not in stored:
            continue
        name, options = facts["id"], facts["options"]
        spacing_mm = facts["voxel_spacing"]
        maps = maps_of(
            stored["center_heatmap"],
            stored["offsets"].astype(np.float32),
            spacing_mm or (1, 1, 1),
        )
        mask = stored["semantic_probability"].astype(np.float32) > options["semantic_threshold"]
        centers = find_centers(
            stored["center_heatmap"],
            options["heatmap_threshold"],
            options["nms_kernel_size"],
            options["top_k"],
        )
        assert np.array_equal(centers, stored["expected_centers"]), name
        grouped = reference_step(options, None)(maps, mask)
        expected = stored["expected_instances_before_refinement"]
        assert np.array_equal(partition(grouped.labels), partition(expected)), name
        if spacing_mm is None:  # The authors skip splitting and filtering then.
            refined = grouped
        else:
            refined = DropSmall(
                options["minimum_instance_size"],
                options["minimum_size_along_axis"],
                drop_at_min_volume=True,
            )(reference_step(options, 6)(maps, mask))
        expected = stored["expected_instances"]
        assert np.array_equal(partition(refined.labels), partition(expected)), name


def test_plateaus_give_one_of_the_random_outcomes(vectors: Vectors, partition: Partition) -> None:
    ((stored, facts),) = vectors("pp11")
    options = facts["options"]
    centers = find_centers(stored["center_heatmap"], 0.1, 3, options["top_k"])
    assert any(np.array_equal(centers, other) for other in stored["alternative_centers"])
    maps = maps_of(stored["center_heatmap"], stored["offsets"].astype(np.float32))
    mask = stored["semantic_probability"] > options["semantic_threshold"]
    lesions = DropSmall(14, 3, drop_at_min_volume=True)(reference_step(options, 6)(maps, mask))
    found = partition(lesions.labels)
    others = stored["alternative_instances"]
    assert any(np.array_equal(found, partition(other)) for other in others)


def test_where_half_the_centers_are_missing_ours_labels_every_voxel(vectors: Vectors) -> None:
    ((stored, facts),) = vectors("pp06")
    maps = maps_of(stored["center_heatmap"], stored["offsets"].astype(np.float32))
    mask = stored["semantic_probability"] > facts["options"]["semantic_threshold"]
    lesions = OffsetVoting()(maps, mask).labels
    regions = connected_components(mask)
    without_center = [
        region
        for region in range(1, regions.max() + 1)
        if not any(regions[tuple(c)] == region for c in stored["expected_centers"])
    ]
    assert without_center
    for region in without_center:
        assert len(np.unique(lesions[regions == region])) == 1
