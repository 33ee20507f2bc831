"""What became brighter between two scans."""

import numpy as np
import pytest

from lesionwise.change.subtraction import attention_maps, ratio, subtraction


def test_ratio_says_nothing_where_a_value_is_not_positive():
    baseline = np.array([[[2.0, 0.0, -1.0, 3.0, 4.0]]])
    followup = np.array([[[3.0, 5.0, -2.0, 0.0, 2.0]]])
    assert ratio(baseline, followup).ravel().tolist() == [1.5, 1, 1, 1, 0.5]


def test_attention_is_zero_where_tissue_got_darker():
    baseline, followup = np.array([[[2, 9]]], np.uint8), np.array([[[5, 1]]], np.uint8)
    at_baseline, at_followup = attention_maps(baseline, followup)
    assert at_baseline.ravel().tolist() == [6, 0]
    assert at_followup.ravel().tolist() == [15, 0]


def test_subtraction_turns_its_sign_with_time():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(subtraction(a, b), -subtraction(b, a))
    assert subtraction(a, b).dtype == np.float32


@pytest.mark.parametrize("function", [subtraction, ratio, attention_maps])
def test_shapes_must_agree(function):
    with pytest.raises(ValueError, match="different shapes"):
        function(np.zeros((2, 2, 2)), np.zeros((1, 2, 2)))
