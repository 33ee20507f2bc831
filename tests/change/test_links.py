"""Which lesions of two visits are linked, and by what."""

import numpy as np
import pytest

from lesionwise.change.links import (
    LINK_COLUMNS,
    Lesions,
    link_lesions,
    nearest_distance_mm,
    overlapping_labels,
)
from lesionwise.types import Grid, Instances


def line(labels: list[int], spacing_mm: float = 1.0) -> Instances:
    """A row of voxels along k."""
    array = np.array(labels, dtype=np.int32).reshape(1, 1, -1)
    return Instances(array, Grid(array.shape, np.diag([1.0, 1.0, spacing_mm, 1.0])))


def linked(before: Instances, after: Instances, tolerance_mm: float = 2.0) -> list[tuple]:
    overlaps = overlapping_labels(before.labels, after.labels)
    links, _ = link_lesions(
        Lesions.of(before), Lesions.of(after), overlaps, tolerance_mm, min_overlap_fraction=0.25
    )
    assert tuple(links.columns) == LINK_COLUMNS
    return list(links[["label_before", "label_after", "kind"]].itertuples(index=False, name=None))


def test_the_table_counts_common_voxels_of_every_pair() -> None:
    before = line([0, 5, 5, 5, 2, 2, 0])
    after = line([1, 1, 3, 3, 3, 0, 0])
    table = overlapping_labels(before.labels, after.labels)
    assert table.to_numpy().tolist() == [[2, 3, 1], [5, 1, 1], [5, 3, 2]]


def test_maps_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        overlapping_labels(np.zeros((1, 1, 2), np.int32), np.zeros((1, 1, 3), np.int32))


def test_the_share_is_that_of_the_smaller_lesion() -> None:
    # 1 of 4 voxels of the smaller lesion is exactly the limit, 1 of 5 is below it.
    assert linked(line([1, 1, 1, 1, 0, 0, 0, 0, 0]), line([0, 0, 0, 2, 2, 2, 2, 2, 2])) == [
        (1, 2, "overlap")
    ]
    assert linked(line([1, 1, 1, 1, 1, 0, 0, 0, 0]), line([0, 0, 0, 0, 2, 2, 2, 2, 2])) == [
        (1, 2, "weak")
    ]


def test_nearness_is_in_mm_between_voxel_centers() -> None:
    before, after = [1, 0, 0], [0, 0, 2]
    assert linked(line(before), line(after)) == [(1, 2, "near")]
    assert linked(line(before, 1.01), line(after, 1.01)) == []


def test_weak_overlap_comes_before_nearness() -> None:
    before = line([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])
    after = line([0, 0, 0, 0, 2, 2, 2, 2, 2, 2])
    after.labels[0, 0, 9] = 3
    assert linked(before, after, tolerance_mm=9) == [(1, 2, "weak")]


def test_pairs_that_nearly_linked_are_returned() -> None:
    before, after = line([1, 1, 1, 0, 0, 0]), line([2, 2, 2, 0, 3, 3])
    links, loose = link_lesions(
        Lesions.of(before),
        Lesions.of(after),
        overlapping_labels(before.labels, after.labels),
        tolerance_mm=2.0,
        min_overlap_fraction=0.25,
    )
    assert links["label_after"].tolist() == [2]
    assert loose[["label_before", "label_after", "distance_mm"]].to_numpy().tolist() == [[1, 3, 2]]


def test_sizes_in_mm() -> None:
    lesions = Lesions.of(line([4, 4, 0, 9], spacing_mm=1.5))
    assert lesions.label.tolist() == [4, 9]
    assert lesions.volume_mm3.tolist() == [3, 1.5]
    assert lesions.across_mm.tolist() == [3, 1.5]
    assert lesions.large_enough(3.0).tolist() == [True, False]


def test_distance_to_the_nearest_other_lesion() -> None:
    here = Lesions.of(line([1, 0, 0, 0, 2], 2.0))
    there = Lesions.of(line([0, 3, 0, 0, 0], 2.0))
    assert nearest_distance_mm(here, there).tolist() == [2, 6]
    assert nearest_distance_mm(here, Lesions.of(line([0] * 5, 2.0))).tolist() == [np.inf, np.inf]
