"""Connected components and confluent units on countable voxels and the reference vectors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionwise.instances.components import (
    ConnectedComponents,
    confluent_groups,
    confluent_units,
    connected_components,
)
from lesionwise.instances.filters import DropSmall
from lesionwise.types import Grid, LesionMaps

Shared = Callable[[str], Path]
Vectors = Callable[[str], Any]
Partition = Callable[[np.ndarray], np.ndarray]
masks = arrays(np.bool_, st.tuples(*[st.integers(1, 6)] * 3))


def contact(step: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[0, 0, 0] = True
    mask[step] = True
    return mask


@pytest.mark.parametrize(
    ("step", "regions"),
    [
        ((0, 0, 1), (1, 1, 1)),
        ((0, 1, 1), (2, 1, 1)),
        ((1, 1, 1), (2, 2, 1)),
        ((0, 0, 2), (2, 2, 2)),
    ],
)
def test_faces_edges_and_corners(step: tuple[int, int, int], regions: tuple[int, ...]) -> None:
    found = [connected_components(contact(step), c).max() for c in (6, 18, 26)]
    assert tuple(found) == regions


@given(masks, st.sampled_from([6, 18, 26]))
def test_labels_follow_the_first_voxels_in_any_memory_order(
    partition: Partition, mask: np.ndarray, connectivity: int
) -> None:
    labels = connected_components(mask, connectivity)
    assert labels.dtype == np.int32
    assert np.array_equal(labels > 0, mask)
    assert np.array_equal(labels, partition(labels))
    fortran = connected_components(np.asfortranarray(mask), connectivity)
    assert np.array_equal(labels, fortran)


def test_an_empty_mask_has_no_lesions() -> None:
    assert connected_components(np.zeros((2, 3, 4), dtype=bool)).sum() == 0


def test_a_mask_must_be_bool() -> None:
    with pytest.raises(ValueError, match="bool"):
        connected_components(np.ones((2, 2, 2), dtype=np.uint8))


def test_reference_components(vectors: Vectors, partition: Partition) -> None:
    for stored, facts in vectors("cc"):
        options = facts["options"]
        probability = stored["semantic_probability"]
        grid = Grid(probability.shape, np.diag([*facts["voxel_spacing"], 1]))
        mask = probability > options["semantic_threshold"]
        found = ConnectedComponents(connectivity=6)(LesionMaps(probability, grid), mask)
        drop = DropSmall(
            options["minimum_instance_size"],
            options["minimum_size_along_axis"],
            drop_at_min_volume=True,
        )
        expected = partition(stored["expected_instances"])
        assert np.array_equal(partition(drop(found).labels), expected), facts["id"]


def touching_pair_and_a_loner() -> np.ndarray:
    labels = np.zeros((3, 3, 9), dtype=np.int32)
    labels[0, 0, 0] = 5
    labels[0, 0, 1] = 2
    labels[0, 0, 5] = 9
    return labels


def test_units_share_a_region() -> None:
    assert confluent_units(touching_pair_and_a_loner()) == [2, 5]


def test_groups_are_named_after_their_lowest_label() -> None:
    assert confluent_groups(touching_pair_and_a_loner()) == {2: 2, 5: 2, 9: 0}


def test_a_lesion_in_two_pieces_joins_the_groups_of_both() -> None:
    labels = np.zeros((1, 1, 8), dtype=np.int32)
    labels[0, 0] = [3, 4, 0, 0, 4, 6, 0, 8]
    assert confluent_groups(labels) == {3: 3, 4: 3, 6: 3, 8: 0}


def test_two_pieces_of_one_lesion_are_not_confluent() -> None:
    labels = np.zeros((1, 1, 4), dtype=np.int32)
    labels[0, 0, [0, 2]] = 1
    assert confluent_units(labels, 6) == []


def test_no_lesions_no_groups() -> None:
    nothing = np.zeros((2, 2, 2), dtype=np.int32)
    assert confluent_units(nothing, 6) == []
    assert confluent_groups(nothing) == {}


@given(arrays(np.int32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 4)))
def test_units_are_the_labels_with_a_group(labels: np.ndarray) -> None:
    groups = confluent_groups(labels, 6)
    assert confluent_units(labels, 6) == [label for label, group in groups.items() if group]


def test_reference_confluent_units(shared: Shared) -> None:
    checked = 0
    for folder in sorted(shared("oracle/cases").iterdir()):
        stored = json.loads((folder / "conflunet.json").read_text())
        labels = np.asarray(nib.load(folder / "ref_instances.nii.gz").dataobj).astype(np.int32)
        for name, expected in stored["confluent"].items():
            tier, connectivity = (int(part) for part in name.split("_")[1::2])
            if tier:  # dilated first; not offered here
                continue
            units = confluent_units(labels, connectivity)
            assert units == sorted(expected), (folder.name, name)
            checked += 1
    assert checked > 0
