"""Sizes, boxes, centers and overlaps of lesions, counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionwise.instances.table import bounding_box, count_parts, lesion_table, overlap_table
from lesionwise.types import Grid

label_maps = arrays(np.int32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3))
SHEARED = np.array([[1, 0, 0.6, 10], [0, 1, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])


def grid_of(labels: np.ndarray, affine: np.ndarray | None = None) -> Grid:
    return Grid(labels.shape, np.eye(4) if affine is None else affine)


def test_a_lesion_by_hand_on_thick_slices() -> None:
    labels = np.zeros((6, 5, 4), dtype=np.int32)
    labels[1:3, 2, 1:4] = 7  # 2 x 1 x 3 voxels
    table = lesion_table(labels, grid_of(labels, np.diag([1.0, 2.0, 5.0, 1.0])))
    assert table.label.tolist() == [7]
    assert table.voxels.tolist() == [6]
    assert table.volume_mm3 == pytest.approx([60.0])
    assert table.extent_mm.tolist() == [[2.0, 2.0, 15.0]]
    assert table.center_vox.tolist() == [[1.5, 2.0, 2.0]]
    assert table.center_mm.tolist() == [[1.5, 4.0, 10.0]]


def test_a_lesion_by_hand_on_a_sheared_grid() -> None:
    labels = np.zeros((6, 5, 4), dtype=np.int32)
    labels[1, 2, 1:3] = 1
    table = lesion_table(labels, grid_of(labels, SHEARED))
    assert table.volume_mm3 == pytest.approx([2 * 3.0])  # base 1 mm², height 3 mm a voxel
    along_k = np.hypot(0.6, 3.0)
    assert table.extent_mm == pytest.approx(np.array([[1.0, 1.0, 2 * along_k]]))
    assert table.center_mm == pytest.approx(np.array([[10 + 1 + 0.9, 22.0, 30 + 4.5]]))


def test_labels_above_the_number_of_voxels_and_gaps_are_kept() -> None:
    labels = np.array([0, 2_000_000_000, 3, 3], dtype=np.int32).reshape(1, 1, 4)
    table = lesion_table(labels, grid_of(labels))
    assert table.label.tolist() == [3, 2_000_000_000]
    assert table.low[:, 2].tolist() == [2, 1]


def test_a_map_without_background_has_a_row_for_its_first_label() -> None:
    labels = np.full((2, 2, 2), 4, dtype=np.int32)
    assert lesion_table(labels, grid_of(labels)).voxels.tolist() == [8]


def test_an_empty_map_has_no_rows() -> None:
    labels = np.zeros((2, 3, 4), dtype=np.int32)
    table = lesion_table(labels, grid_of(labels))
    assert len(table) == 0
    assert table.extent_mm.shape == table.center_mm.shape == (0, 3)


@given(label_maps)
def test_the_table_is_that_of_counting(labels: np.ndarray) -> None:
    for array in (labels, np.asfortranarray(labels)):
        table = lesion_table(array, grid_of(labels))
        assert table.label.tolist() == [n for n in np.unique(labels) if n]
        for row, label in enumerate(table.label):
            at = np.argwhere(labels == label)
            assert table.voxels[row] == len(at)
            assert np.array_equal(table.low[row], at.min(axis=0))
            assert np.array_equal(table.high[row], at.max(axis=0) + 1)
            assert table.center_vox[row] == pytest.approx(at.mean(axis=0))


def test_boxes_are_widened_and_cut_at_the_edge() -> None:
    labels = np.zeros((9, 9, 9), dtype=np.int32)
    labels[0, 4:6, 8] = 1
    table = lesion_table(labels, grid_of(labels))
    expected = (slice(0, 3), slice(2, 8), slice(6, 9))
    assert table.boxes(margin_vox=2) == [expected]
    assert bounding_box(labels, 2) == expected
    assert bounding_box(labels > 0, (0, 1, 0)) == (slice(0, 1), slice(3, 7), slice(8, 9))


def test_nothing_has_no_box() -> None:
    assert bounding_box(np.zeros((3, 3, 3), dtype=bool)) is None


def test_parts_of_a_label_touch_at_corners() -> None:
    labels = np.zeros((5, 5, 5), dtype=np.int32)
    labels[0, 0, 0] = labels[1, 1, 1] = 4  # one part
    labels[2, 2, 2] = 5  # touches label 4, which does not join them
    labels[4, 4, 4] = labels[4, 0, 0] = 6
    assert count_parts(labels) == {4: 1, 5: 1, 6: 2}
    assert count_parts(np.zeros((2, 2, 2), dtype=np.int32)) == {}


@given(label_maps)
def test_exchanging_the_sides_transposes_the_table(labels: np.ndarray) -> None:
    other = np.roll(labels, 1, axis=0)
    one, back = overlap_table(labels, other), overlap_table(other, labels).transposed()
    rows = [
        sorted(
            zip(
                t.reference_rows.tolist(),
                t.prediction_rows.tolist(),
                t.common.tolist(),
                strict=True,
            )
        )
        for t in (one, back)
    ]
    assert rows[0] == rows[1]
    assert one.reference_voxels.tolist() == back.reference_voxels.tolist()
