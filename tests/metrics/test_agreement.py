"""Bland-Altman and detection against volume."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lesionwise.metrics.agreement import bland_altman, detection_by_volume


def test_bias_and_limits_by_hand():
    result = bland_altman([10, 20, 30], [11, 22, 33])
    assert result.bias == pytest.approx(2.0)
    assert result.sd == pytest.approx(1.0)
    assert (result.lower, result.upper) == pytest.approx((2 - 1.959964, 2 + 1.959964))
    # t(0.975, 2) = 4.302653, standard error 1 / sqrt(3)
    assert result.bias_ci == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    half = 4.302653 * math.sqrt(1 / 3 + 1.959964**2 / 4)
    assert result.upper_ci == pytest.approx((result.upper - half, result.upper + half))


def test_growing_difference_is_proportional_bias():
    result = bland_altman([10, 20, 30, 40], [11, 22, 33, 44])
    assert result.slope == pytest.approx(0.1 / 1.05)  # difference 0.1 r over mean 1.05 r
    assert result.slope_p < 1e-6


def test_constant_difference_has_no_slope_to_test():
    result = bland_altman([1, 2, 3], [2, 3, 4])
    assert (result.bias, result.sd, result.slope) == (1.0, 0.0, None)


def test_one_pair_is_too_few():
    assert bland_altman([1.0, None], [1.0, 2.0]) is None


def test_limits_of_several_visits_cover_variance_between_and_within_patients():
    # Differences 1, 3 of one patient and 5, 7 of the other: within 2, between (16 - 2) / 2 = 7.
    result = bland_altman([0, 0, 0, 0], [1, 3, 5, 7], ["a", "a", "b", "b"])
    assert (result.n, result.bias) == (2, 4.0)
    assert result.sd == pytest.approx(np.sqrt(2 + 7))
    half = stats.t.ppf(0.975, 1) * np.std([2, 6], ddof=1) / np.sqrt(2)
    assert result.bias_ci == pytest.approx((4 - half, 4 + half))


def test_one_visit_a_patient_is_the_usual_analysis():
    pair = [10, 20, 30, 40], [11, 22, 29, 44]
    assert bland_altman(*pair, list("abcd")) == bland_altman(*pair)


@pytest.mark.parametrize("volume", [float("nan"), float("inf"), -1.0, 0.0])
def test_volumes_that_are_none_are_refused(volume):
    with pytest.raises(ValueError, match="positive"):
        detection_by_volume([10.0, volume], [True, False])


def sample(n=4000, cases=20):
    rng = np.random.default_rng(0)
    volumes = 10 ** rng.uniform(0.5, 3, n)
    chance = 1 / (1 + np.exp(-(-4 + 3 * np.log10(volumes))))
    return volumes, rng.random(n) < chance, [str(c) for c in rng.integers(0, cases, n)]


def test_logistic_curve_is_recovered():
    volumes, found, cases = sample()
    result = detection_by_volume(volumes, found, cases)
    assert result.slope == pytest.approx(3, abs=0.3)
    assert result.slope_ci[0] < 3 < result.slope_ci[1]
    assert result.volume_at_half_mm3 == pytest.approx(10 ** (4 / 3), rel=0.15)
    at_half = result.probability(np.array([result.volume_at_half_mm3]))
    assert at_half == pytest.approx([0.5])


def test_bins_hold_every_lesion_once_and_equal_volumes_together():
    volumes = [1, 1, 1, 1, 2, 2, 5, 9]
    found = [0, 0, 1, 0, 1, 0, 1, 1]
    result = detection_by_volume(volumes, found, bins=4)
    assert sum(b.n for b in result.bins) == 8
    assert sum(b.detected for b in result.bins) == 4
    for before, after in zip(result.bins, result.bins[1:], strict=False):
        assert before.high_mm3 < after.low_mm3


@pytest.mark.parametrize(
    ("volumes", "found", "reason"),
    [
        ([], [], "no reference lesion"),
        ([1, 2], [True, True], "every lesion was found"),
        ([1, 2], [False, False], "no lesion was found"),
        ([3, 3], [True, False], "all lesions have the same volume"),
        ([1, 2, 3, 4], [False, False, True, True], "one volume separates"),
    ],
)
def test_a_curve_that_cannot_be_fitted_says_why(volumes, found, reason):
    result = detection_by_volume(volumes, found)
    assert result.slope is None
    assert reason in result.no_fit


def test_volumes_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        detection_by_volume([0.0], [True])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 3.0, 50.0]), st.booleans(), st.sampled_from("abc")),
        max_size=12,
    )
)
def test_any_lesions_give_a_curve_or_a_reason(rows):
    volumes, found, cases = zip(*rows, strict=True) if rows else ((), (), ())
    result = detection_by_volume(volumes, found, cases)
    assert (result.slope is None) == bool(result.no_fit)
    assert sum(b.n for b in result.bins) == len(rows)
