"""Slice classification, and what document 003 prints against its own counts."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from lesionwise.metrics.slices import (
    balance,
    classify,
    hd95_in_plane,
    join,
    pixel_scores,
    plane_axis,
    scores_from_counts,
    slice_table,
    threshold_curves,
)
from lesionwise.types import Grid, Instances

UPRIGHT = np.diag([2.0, 1.0, 3.0, 1.0])


def instances(labels, affine=UPRIGHT):
    labels = np.asarray(labels, dtype=np.int32)
    return Instances(labels, Grid(labels.shape, affine))


def pair():
    """Five axial slices: found, barely touched, missed, false alarm, rightly empty."""
    truth = np.zeros((10, 4, 5), dtype=np.int32)
    found = np.zeros_like(truth)
    truth[:, 0, 0], found[:5, 0, 0] = 1, 1
    truth[:, 0, 1], found[:1, 0, 1] = 1, 1
    truth[:, 0, 2] = 2
    found[3, 3, 3] = 1
    return instances(truth), instances(found)


def percent(rate):
    return round(100 * rate.value, 1)


def interval(rate):
    return tuple(round(100 * bound, 1) for bound in rate.ci)


def test_center_one_of_document_003_from_its_counts():
    scores = scores_from_counts(146, 218 - 146, 217, 218 - 217)
    assert percent(scores.accuracy) == 83.3
    assert interval(scores.accuracy) == (79.5, 86.5)
    assert percent(scores.specificity) == 99.5  # printed as sensitivity
    assert percent(scores.npv) == 75.1  # printed as PPV
    assert percent(scores.ppv) == 99.3  # printed as NPV
    assert percent(scores.sensitivity) == 67.0  # not printed


def test_center_two_of_document_003_from_its_counts():
    scores = scores_from_counts(12, 23 - 12, 23, 0)
    assert percent(scores.accuracy) == 76.1
    assert interval(scores.accuracy) == (62.1, 86.1)
    assert percent(scores.specificity) == 100.0  # printed as sensitivity
    assert percent(scores.ppv) == 100.0  # printed as NPV
    assert percent(scores.npv) == 67.6  # printed as PPV, 67.7
    assert percent(scores.sensitivity) == 52.2  # not printed


@pytest.mark.parametrize(
    ("share", "slices", "printed"),
    [
        (217 / 218, 436, (98.3, 99.9)),
        (217 / 289, 436, (70.8, 78.9)),
        (146 / 147, 436, (98.0, 99.8)),
        (1.0, 46, (92.3, 100.0)),
        (23 / 34, 46, (53.2, 79.3)),  # printed as 53.2 to 79.4
    ],
)
def test_intervals_of_document_003_rest_on_all_slices_whatever_the_rate(share, slices, printed):
    low, high = proportion_confint(share * slices, slices, method="wilson")
    assert (round(100 * low, 1), round(100 * high, 1)) == printed


def test_its_intervals_on_the_right_denominators_are_wider():
    scores = scores_from_counts(146, 72, 217, 1)
    assert interval(scores.specificity) == (97.4, 99.9)
    assert interval(scores.npv) == (69.8, 79.7)
    assert interval(scores.ppv) == (96.2, 99.9)
    assert interval(scores_from_counts(12, 11, 23, 0).ppv) == (75.8, 100.0)


def test_each_kind_of_slice_is_counted():
    scores = classify(slice_table(*pair()), threshold=0.2)
    counts = (
        scores.true_positive,
        scores.false_negative,
        scores.true_negative,
        scores.false_positive,
    )
    assert counts == (1, 2, 1, 1)


def test_overlap_equal_to_the_threshold_counts():
    assert classify(slice_table(*pair()), threshold=0.1).true_positive == 2
    assert classify(slice_table(*pair()), threshold=0.5).true_positive == 1


def test_threshold_zero_still_asks_for_contact():
    truth, found = np.zeros((2, 4, 4, 1), dtype=np.int32)
    truth[0, 0], found[3, 3] = 1, 1
    scores = classify(slice_table(instances(truth), instances(found)), threshold=0.0)
    assert (scores.true_positive, scores.false_negative) == (0, 1)


def test_one_well_covered_lesion_finds_the_slice_unless_all_are_asked_for():
    truth, found = np.zeros((2, 30, 4, 1), dtype=np.int32)
    truth[:2, 0], truth[:, 3], found[:2, 0] = 1, 2, 1
    by_lesion = slice_table(instances(truth), instances(found))
    by_slice = slice_table(instances(truth), instances(found), overlap="slice")
    assert by_lesion.overlap == pytest.approx([1.0])
    assert by_slice.overlap == pytest.approx([2 / 32])


def test_axial_slices_follow_the_superior_axis_of_the_file():
    turned = np.zeros((4, 4))
    turned[2, 0], turned[0, 1], turned[1, 2], turned[3, 3] = -3.0, 1.0, 1.0, 1.0
    assert plane_axis(Grid((5, 6, 7), turned), "axial") == 0
    assert plane_axis(Grid((5, 6, 7), turned), "sagittal") == 1
    assert len(slice_table(*[instances(np.zeros((5, 6, 7)), turned)] * 2)) == 5


def test_oblique_grid_still_has_three_different_axes():
    c = np.cos(np.pi / 4)
    affine = np.array([[c, -c, 0, 0], [c / 2, c / 2, -c, 0], [c / 2, c / 2, c, 0], [0, 0, 0, 1.0]])
    grid = Grid((2, 2, 2), affine)
    assert {plane_axis(grid, p) for p in ("axial", "coronal", "sagittal")} == {0, 1, 2}


def test_distance_in_the_plane_is_in_mm():
    a, b = np.zeros((2, 9, 9), dtype=bool)
    a[1, 1], b[4, 5] = True, True
    assert hd95_in_plane(a, b, np.diag([2.0, 0.5])) == pytest.approx(np.hypot(3 * 2.0, 4 * 0.5))


def test_larger_directed_and_pooled_distances_differ():
    a, b = np.zeros((2, 12, 1), dtype=bool)
    a[0], b[:11] = True, True
    assert hd95_in_plane(a, b, np.eye(2)) == pytest.approx(9.5)  # 0 … 10 from b, 0 from a
    assert hd95_in_plane(a, b, np.eye(2), "pooled") == pytest.approx(
        np.percentile([0, *range(11)], 95)
    )


def test_distance_is_undefined_where_one_side_is_empty():
    table = slice_table(*pair())
    assert np.isnan(table.hd95_mm).tolist() == [False, False, True, True, True]


def test_as_many_normal_slices_as_positive_ones_are_drawn():
    truth = np.zeros((3, 3, 40), dtype=np.int32)
    truth[0, 0, :7] = 1
    table = slice_table(instances(truth), instances(truth))
    drawn = balance(table, seed=1)
    assert (len(drawn), drawn.positive.sum()) == (14, 7)
    assert drawn.index.tolist() == balance(table, seed=1).index.tolist()
    assert drawn.index.tolist() != balance(table, seed=2).index.tolist()


def test_too_few_normal_slices_all_stay():
    truth = np.zeros((3, 3, 5), dtype=np.int32)
    truth[0, 0, :4] = 1
    assert len(balance(slice_table(instances(truth), instances(truth)))) == 5


def test_sensitivity_never_rises_with_the_threshold():
    rng = np.random.default_rng(0)
    truth, found = rng.random((2, 8, 8, 30)) > 0.9
    curve = threshold_curves(slice_table(instances(truth), instances(found)))
    values = [scores.sensitivity.value for scores in curve]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_cases_are_joined_in_order():
    one = slice_table(*pair(), case="a")
    two = slice_table(*pair(), case="b")
    both = join([one, two])
    assert both.case.tolist() == ["a"] * 5 + ["b"] * 5
    assert both.index.tolist() == [0, 1, 2, 3, 4] * 2


def test_pixel_scores_average_over_positive_slices():
    scores = pixel_scores(slice_table(*pair()))
    assert scores["dsc"]["mean"] == pytest.approx((10 / 15 + 2 / 11 + 0) / 3)
    assert scores["ppv"] == {"mean": 1.0, "ci": (1.0, 1.0), "n": 2, "undefined": 1}


def test_no_slices_have_no_rates():
    scores = scores_from_counts(0, 0, 0, 0)
    assert scores.sensitivity.value is None
    assert scores.accuracy.ci is None


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        slice_table(instances(np.zeros((2, 2, 2))), instances(np.zeros((2, 2, 3))))


def test_distances_in_a_plane_follow_sheared_axes():
    affine = np.array([[1, 0.5, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])
    one, other = np.zeros((2, 9, 9, 1), dtype=np.int32)
    one[2, 2, 0], other[4, 5, 0] = 1, 1
    grid = Grid(one.shape, affine)
    table = slice_table(Instances(one, grid), Instances(other, grid))
    assert table.hd95_mm.tolist() == pytest.approx([np.hypot(2 + 3 * 0.5, 3 * 2)])
