"""Agreement among raters and their consensus."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from lesionwise.metrics.raters import cohen_kappa, fleiss_kappa, majority, staple

MASKS = arrays(bool, (3, 2, 3, 2))


def drawn(seed=0, flips=(0.02, 0.05, 0.1)):
    rng = np.random.default_rng(seed)
    truth = np.zeros((12, 12, 12), dtype=bool)
    truth[3:8, 3:8, 3:8] = True
    return truth, [truth ^ (rng.random(truth.shape) < share) for share in flips]


def voxels(*patterns):
    """Masks of shape (n, 1, 1), one per rater, from one string of votes per voxel."""
    votes = np.array([[vote == "1" for vote in pattern] for pattern in patterns])
    return [column.reshape(-1, 1, 1) for column in votes.T]


def test_majority_needs_more_than_half():
    masks = voxels("000", "100", "110", "111")
    assert majority(masks).ravel().tolist() == [False, False, True, True]


def test_ties_follow_the_rule_asked_for():
    masks = voxels("10")
    assert not majority(masks).any()
    assert majority(masks, ties="lesion").all()


def test_cohen_kappa_by_hand():
    # both 2, first only 1, second only 0, neither 1: observed 3/4, chance 3/4·1/2 + 1/4·1/2
    assert cohen_kappa(*voxels("11", "11", "10", "00")) == pytest.approx(0.5)


def test_fleiss_kappa_by_hand():
    # agreement per voxel 1, 1, 1/3, 1/3; share of lesion 1/2: (2/3 - 1/2) / (1/2)
    assert fleiss_kappa(voxels("111", "000", "110", "100")) == pytest.approx(1 / 3)


def test_more_background_raises_kappa_and_a_region_holds_it():
    a, b = voxels("11", "10", "01", "00")
    far = np.zeros((100, 1, 1), dtype=bool)
    wide = [np.concatenate([mask, far]) for mask in (a, b)]
    inside = np.concatenate([np.ones_like(a), far])
    assert cohen_kappa(*wide) > cohen_kappa(a, b)
    assert cohen_kappa(*wide, inside) == pytest.approx(cohen_kappa(a, b))


def test_kappa_of_empty_masks_is_undefined():
    empty = np.zeros((2, 2, 2), dtype=bool)
    assert cohen_kappa(empty, empty) is None
    assert fleiss_kappa([empty, empty, empty]) is None


def test_staple_agrees_with_simpleitk():
    _, masks = drawn()
    ours = staple(masks)
    filter_ = sitk.STAPLEImageFilter()
    filter_.SetForegroundValue(1)
    image = filter_.Execute([sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in masks])
    assert ours.converged
    assert ours.sensitivity == pytest.approx(filter_.GetSensitivity(), abs=1e-6)
    assert ours.specificity == pytest.approx(filter_.GetSpecificity(), abs=1e-6)
    assert ours.probability == pytest.approx(sitk.GetArrayFromImage(image), abs=1e-5)


def test_staple_ranks_raters_by_how_often_they_err():
    truth, masks = drawn(flips=(0.01, 0.03, 0.06, 0.1, 0.15))
    result = staple(masks)
    assert list(result.sensitivity) == sorted(result.sensitivity, reverse=True)
    assert ((result.probability > 0.5) == truth).mean() > 0.98


def test_staple_outside_its_region_is_zero():
    _, masks = drawn()
    within = np.zeros(masks[0].shape, dtype=bool)
    within[2:9, 2:9, 2:9] = True
    probability = staple(masks, within).probability
    assert not probability[~within].any()
    cropped = staple([mask[2:9, 2:9, 2:9] for mask in masks]).probability
    assert probability[2:9, 2:9, 2:9] == pytest.approx(cropped)


def test_staple_of_empty_masks_is_empty_and_says_nothing_of_sensitivity():
    result = staple([np.zeros((2, 2, 2), dtype=bool)] * 3)
    assert not result.probability.any()
    assert result.sensitivity == (None, None, None)
    assert result.specificity == pytest.approx((1, 1, 1))


def test_staple_of_full_masks_is_full():
    result = staple([np.ones((2, 2, 2), dtype=bool)] * 2)
    assert (result.probability == 1).all()
    assert result.specificity == (None, None)


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_order_of_raters_does_not_matter(stack):
    masks = list(stack)
    assert np.array_equal(majority(masks), majority(masks[::-1]))
    assert fleiss_kappa(masks) == pytest.approx(fleiss_kappa(masks[::-1]))


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_staple_is_a_probability(stack):
    probability = staple(list(stack), max_iterations=50).probability
    assert ((probability >= 0) & (probability <= 1)).all()


def test_a_rate_of_1_and_a_rounding_error_makes_no_negative_probability():
    votes = [
        [[[0, 0], [0, 0], [1, 1], [0, 0]]],
        [[[1, 0], [0, 0], [0, 1], [1, 1]]],
        [[[1, 0], [1, 1], [0, 0], [1, 1]]],
        [[[0, 1], [1, 1], [0, 1], [1, 0]]],
    ]
    found = staple([np.array(mask, dtype=bool) for mask in votes], max_iterations=50)
    assert found.probability.min() >= 0
    assert max(*found.sensitivity, *found.specificity) <= 1


@settings(max_examples=40, deadline=None)
@given(arrays(bool, (2, 3, 2)))
def test_a_rater_agrees_with_itself(mask):
    kappa = cohen_kappa(mask, mask)
    assert kappa is None if mask.all() or not mask.any() else kappa == pytest.approx(1)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shapes differ"):
        majority([np.zeros((2, 2, 2), dtype=bool), np.zeros((2, 2, 3), dtype=bool)])
