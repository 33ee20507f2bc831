"""Measurements of lesions, counted by hand."""

import numpy as np
import pytest

from lesionwise.instances.describe import describe_lesions
from lesionwise.types import Grid, Instances

GRID = Grid((6, 6, 6), np.array([[1.0, 0, 0, 10], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]]))


def two_lesions():
    labels = np.zeros((6, 6, 6), np.int32)
    labels[0:2, 0, 0] = 4
    labels[4, 3:6, 2] = 7
    return Instances(labels, GRID)


def test_volume_extent_and_center_are_in_mm():
    table = describe_lesions(two_lesions()).set_index("label")
    assert table["volume_mm3"].to_dict() == {4: 12.0, 7: 18.0}
    extents = table[["extent_i_mm", "extent_j_mm", "extent_k_mm"]]
    assert extents.loc[4].tolist() == [2, 2, 3]
    assert extents.loc[7].tolist() == [1, 6, 3]
    center = table[["center_x_mm", "center_y_mm", "center_z_mm"]]
    assert center.loc[4].tolist() == [10.5, 0, 0]
    assert center.loc[7].tolist() == [14, 8, 6]


def test_intensity_and_confidence_are_means_over_the_lesion():
    image = np.zeros((6, 6, 6), np.float32)
    image[0, 0, 0], image[1, 0, 0] = 10, 20
    table = describe_lesions(two_lesions(), image, image / 100).set_index("label")
    assert table.loc[4, "mean_intensity"] == pytest.approx(15)
    assert table.loc[4, "confidence"] == pytest.approx(0.15)
    assert np.isnan(describe_lesions(two_lesions())["confidence"]).all()


def test_touching_lesions_share_a_group_named_after_the_lowest():
    labels = two_lesions().labels.copy()
    labels[5, 3, 2] = 2
    table = describe_lesions(Instances(labels, GRID)).set_index("label")
    assert table["confluent_group"].to_dict() == {2: 2, 4: 0, 7: 2}


def test_no_lesion_gives_an_empty_table_with_all_columns():
    empty = describe_lesions(Instances(np.zeros((6, 6, 6), np.int32), GRID))
    assert len(empty) == 0
    assert list(empty.columns) == list(describe_lesions(two_lesions()).columns)
