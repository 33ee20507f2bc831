"""Size limits, connected pieces and relabelling on countable voxels."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lesionwise.instances.filters import (
    DropSmall,
    join_small_pieces,
    split_values,
)
from lesionwise.types import Grid, Instances

Partition = Callable[[np.ndarray], np.ndarray]
label_maps = arrays(np.int32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3))


def lesions(*sizes: tuple[int, int, int], spacing_mm: tuple[float, ...] = (1, 1, 1)) -> Instances:
    """One box a size, labelled 10, 20, … along i, two voxels apart."""
    labels = np.zeros((sum(size[0] + 2 for size in sizes), 30, 30), dtype=np.int32)
    at = 0
    for row, size in enumerate(sizes):
        labels[at : at + size[0], : size[1], : size[2]] = 10 * (row + 1)
        at += size[0] + 2
    return Instances(labels, Grid(labels.shape, np.diag([*spacing_mm, 1.0])))


def kept(step: DropSmall, instances: Instances) -> list[int]:
    return [int(n) for n in np.unique(step(instances).labels) if n]


def test_a_volume_exactly_on_the_limit_stays() -> None:
    on_and_below = lesions((3, 3, 3), (2, 13, 1))
    step = DropSmall(min_volume_mm3=27, min_extent_mm=0, relabel=False)
    assert kept(step, on_and_below) == [10]


def test_the_authors_drop_a_volume_on_the_limit() -> None:
    step = DropSmall(27, 0, drop_at_min_volume=True, relabel=False)
    assert kept(step, lesions((3, 3, 3), (4, 7, 1))) == [20]


def test_an_extent_exactly_on_the_limit_stays_and_any_axis_can_fail() -> None:
    instances = lesions((3, 3, 3), (2, 9, 9), (9, 2, 9), (9, 9, 2))
    assert kept(DropSmall(0, 3, relabel=False), instances) == [10]


def test_sizes_are_in_mm_of_each_axis() -> None:
    spacing_mm = (0.5, 1.0, 3.0)
    instances = lesions((6, 3, 1), (5, 9, 9), spacing_mm=spacing_mm)
    assert kept(DropSmall(0, 3, relabel=False), instances) == [10]
    assert kept(DropSmall(27.1, 0, relabel=False), instances) == [20]


def test_header_rounding_does_not_move_a_lesion_below_its_limits() -> None:
    spacing_mm = tuple(np.float32([1, 1, 1]) * np.float32(1 - 2e-7))
    assert kept(DropSmall(27, 3), lesions((3, 3, 3), spacing_mm=spacing_mm)) == [1]


def test_oblique_spacing_comes_from_the_columns_of_the_affine() -> None:
    turn = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.0, 1.0, 3.0])
    labels = np.zeros((9, 9, 9), dtype=np.int32)
    labels[:3, :3, :1] = 1
    assert DropSmall(27, 3)(Instances(labels, Grid(labels.shape, affine))).labels.any()


def test_what_stays_is_numbered_in_the_old_order() -> None:
    instances = lesions((1, 1, 1), (3, 3, 3), (4, 4, 4))
    labels = DropSmall()(instances).labels
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels[instances.labels == 20] == 1).all()
    assert labels.dtype == np.int32


def test_zero_limits_drop_nothing() -> None:
    instances = lesions((1, 1, 1), (3, 3, 3))
    assert np.array_equal(DropSmall(0, 0, relabel=False)(instances).labels, instances.labels)


def test_no_lesions() -> None:
    labels = np.zeros((2, 2, 2), dtype=np.int32)
    assert not DropSmall()(Instances(labels, Grid(labels.shape, np.eye(4)))).labels.any()


def split(labels: np.ndarray, connectivity: int = 26) -> np.ndarray:
    index = np.argwhere(labels)
    values = labels[tuple(index.T)].astype(np.int64)
    pieces = np.zeros(labels.shape, dtype=np.int64)
    pieces[tuple(index.T)] = split_values(index, labels.shape, values, connectivity)
    return pieces


def test_the_largest_piece_keeps_its_label() -> None:
    labels = np.array([5, 0, 5, 5, 0, 2, 0, 5, 0, 2], dtype=np.int32).reshape(1, 1, -1)
    # Pieces of 2 first, then those of 5; of equal pieces the first keeps the label.
    assert split(labels).reshape(-1).tolist() == [7, 0, 5, 5, 0, 2, 0, 8, 0, 6]


def test_connectivity_decides_what_a_piece_is() -> None:
    labels = np.zeros((2, 2, 2), dtype=np.int32)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert split(labels, 26).max() == 1
    assert split(labels, 18).max() == 2


@given(label_maps, st.sampled_from([(6, 1), (18, 2), (26, 3)]))
def test_pieces_are_those_of_each_label_alone(
    partition: Partition, labels: np.ndarray, rule: tuple[int, int]
) -> None:
    connectivity, order = rule
    expected = np.zeros(labels.shape, dtype=np.int64)
    for label in (1, 2, 3):
        pieces, _ = ndimage.label(labels == label, ndimage.generate_binary_structure(3, order))
        expected[pieces > 0] = pieces[pieces > 0] + expected.max()
    pieces = split(labels, connectivity)
    assert np.array_equal(partition(pieces), partition(expected))
    for label in (1, 2, 3):
        sizes = np.unique(pieces[labels == label], return_counts=True)
        if len(sizes[0]):
            assert sizes[1][sizes[0] == label] == sizes[1].max()


@pytest.mark.parametrize("side", ["ref", "pred"])
def test_reference_sizes(shared: Callable[[str], Path], side: str) -> None:
    checked = 0
    for folder in sorted(shared("oracle/cases").iterdir()):
        results = json.loads((folder / "small_removal.json").read_text())["results"]
        image = nib.load(folder / f"{side}_instances.nii.gz")
        labels = np.asarray(image.dataobj).astype(np.int32)
        instances = Instances(labels, Grid(labels.shape, image.affine))
        for name, expected in results.items():
            of, _, volume, extent = name.split("_")
            if of != side:
                continue
            step = DropSmall(
                float(volume.removesuffix("mm3")),
                float(extent.removesuffix("mm")),
                drop_at_min_volume=True,
                relabel=False,
            )
            assert kept(step, instances) == expected["kept_ids"], (folder.name, name)
            checked += 1
    assert checked > 0


def joined(row: list[int], below_vox: float) -> list[int]:
    """``join_small_pieces`` on a line of voxels; 0 marks a gap."""
    values = np.array(row, dtype=np.int64)
    index = np.stack([np.zeros_like(values), np.zeros_like(values), np.arange(len(values))], 1)
    filled = values > 0
    found = join_small_pieces(index[filled], (1, 1, len(row)), values[filled], 26, below_vox)
    values[filled] = found
    return values.tolist()


def test_a_small_piece_joins_its_neighbor_and_a_large_one_does_not() -> None:
    assert joined([1, 1, 1, 2, 2, 1, 2, 2, 2], 2) == [1, 1, 1, 4, 4, 2, 2, 2, 2]
    assert joined([1, 1, 1, 2, 2, 1, 2, 2, 2], 3) == [1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert joined([1, 1, 1, 2, 2, 1, 2, 2, 2], 0) == [1, 1, 1, 4, 4, 3, 2, 2, 2]


def test_fragments_join_through_other_fragments() -> None:
    assert joined([3, 3, 4, 5, 0, 4, 4, 5, 5], 2) == [3, 3, 3, 3, 0, 4, 4, 5, 5]


def test_fragments_that_touch_no_lesion_stay() -> None:
    assert joined([1, 1, 0, 1, 0, 2, 2], 9) == [1, 1, 0, 3, 0, 2, 2]


def test_the_largest_piece_is_no_fragment() -> None:
    assert joined([1, 2, 2, 2], 9) == [1, 2, 2, 2]


@given(label_maps, st.integers(0, 6))
def test_joining_only_ever_merges_pieces(labels: np.ndarray, below_vox: int) -> None:
    index = np.argwhere(labels)
    values = labels[tuple(index.T)].astype(np.int64)
    pieces = split_values(index, labels.shape, values, 26)
    merged = join_small_pieces(index, labels.shape, values, 26, below_vox)
    pairs = np.unique(np.stack([pieces, merged]), axis=1)
    assert len(pairs[0]) == len(np.unique(pieces))
    again = np.zeros(labels.shape, dtype=np.int64)
    again[tuple(index.T)] = merged
    assert np.array_equal(np.unique(split(again)), np.unique(again))
    if below_vox == 0:
        assert np.array_equal(pieces, merged)
