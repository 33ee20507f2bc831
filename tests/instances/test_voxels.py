"""Lists of voxels against plain dense computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lesionwise.instances.voxels import (
    forward_neighbors,
    in_order_of_first,
    label_voxels,
    list_voxels,
    nearest_rows,
    neighbor_pairs,
    renumbered,
)

masks = arrays(np.bool_, st.tuples(*[st.integers(1, 6)] * 3))


@given(arrays(np.int16, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(-1, 1)))
def test_voxels_are_listed_in_c_order_whatever_the_memory_order(labels: np.ndarray) -> None:
    assert np.array_equal(list_voxels(labels), np.argwhere(labels))
    assert np.array_equal(list_voxels(np.asfortranarray(labels)), np.argwhere(labels))


@pytest.mark.parametrize(("connectivity", "count"), [(6, 3), (18, 9), (26, 13)])
def test_half_of_the_neighbors_lie_ahead(connectivity: int, count: int) -> None:
    steps = forward_neighbors(connectivity)
    assert len(steps) == count
    both = {tuple(s) for s in steps} | {tuple(-s) for s in steps}
    assert len(both) == 2 * count


def test_another_connectivity_is_refused() -> None:
    with pytest.raises(ValueError, match="8"):
        forward_neighbors(8)


def test_opposite_edges_of_the_volume_do_not_touch() -> None:
    index = np.array([[0, 0, 2], [0, 1, 0]])
    assert neighbor_pairs(index, (2, 2, 3), 26).shape == (2, 0)


@given(masks, st.sampled_from([(6, 1), (18, 2), (26, 3)]))
def test_pieces_are_those_of_a_dense_labelling(mask: np.ndarray, rule: tuple[int, int]) -> None:
    connectivity, order = rule
    structure = ndimage.generate_binary_structure(3, order)
    dense = ndimage.label(mask, structure)[0][mask]
    pieces = label_voxels(np.argwhere(mask), mask.shape, connectivity)
    assert np.array_equal(pieces, in_order_of_first(dense))


def test_unequal_values_do_not_connect() -> None:
    index = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 2]])
    assert label_voxels(index, (1, 1, 3), 6, np.array([4, 4, 9])).tolist() == [0, 0, 1]


def test_an_empty_list_has_no_pieces() -> None:
    assert label_voxels(np.empty((0, 3), dtype=np.int64), (4, 4, 4), 26).shape == (0,)


def test_values_are_numbered_as_they_occur() -> None:
    assert in_order_of_first(np.array([7, 3, 7, 5, 3])).tolist() == [0, 1, 0, 2, 1]


coordinates = st.integers(0, 4).map(float)


@settings(max_examples=200)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 6), st.just(3)), elements=coordinates),
    arrays(np.float64, st.tuples(st.integers(1, 40), st.just(3)), elements=coordinates),
)
def test_the_lowest_of_equally_near_rows_wins(points: np.ndarray, targets: np.ndarray) -> None:
    squared = ((points[:, None] - targets[None]) ** 2).sum(axis=2)
    row, apart = nearest_rows(points, targets)
    assert np.array_equal(row, squared.argmin(axis=1))
    assert np.array_equal(apart, np.sqrt(squared.min(axis=1)))


def test_more_ties_than_are_asked_for_at_first() -> None:
    axis = np.arange(-5, 6)
    lattice = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    shell = lattice[(lattice**2).sum(axis=1) == 25]
    assert len(shell) == 30
    far_first = np.concatenate([[[6, 0, 0]], shell])
    assert nearest_rows(np.zeros((1, 3)), far_first)[0].tolist() == [1]
    assert nearest_rows(np.zeros((1, 3)), far_first[::-1])[0].tolist() == [0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("background", [True, False])
def test_labels_are_renumbered_without_gaps(order, dtype, background):
    rng = np.random.default_rng(0)
    values = np.array([0, 3, 7, 200] if background else [3, 7, 200], dtype=dtype)
    labels = np.asarray(rng.choice(values, size=(5, 6, 7)), order=order)
    found, numbers = renumbered(labels)
    assert found.tolist() == [3, 7, 200]
    assert numbers.dtype == np.uint32
    np.testing.assert_array_equal(np.concatenate([[0], found])[numbers], labels)


def test_an_empty_map_has_no_numbers():
    found, numbers = renumbered(np.zeros((2, 3, 4), dtype=np.int32))
    assert not len(found)
    assert not numbers.any()
