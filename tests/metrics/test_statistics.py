"""Summaries, intervals and tests against hand-worked and published numbers."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lesionwise.metrics import statistics as ours

FINITE = st.floats(-100, 100).map(lambda value: round(value, 1))


def test_undefined_values_are_counted_and_left_out():
    summary = ours.summarize([1.0, None, 3.0, math.nan, math.inf])
    assert (summary.n, summary.undefined, summary.mean) == (2, 3, 2.0)


def test_summary_by_hand():
    summary = ours.summarize([1.0, 2.0, 3.0, 4.0, 10.0])
    assert summary.mean == 4.0
    assert summary.sd == pytest.approx(math.sqrt((9 + 4 + 1 + 0 + 36) / 4))
    assert (summary.q1, summary.median, summary.q3) == (2.0, 3.0, 4.0)
    assert (summary.minimum, summary.maximum) == (1.0, 10.0)


def test_nothing_defined_gives_no_numbers():
    assert ours.summarize([None, None]) == ours.Summary(n=0, undefined=2)


def test_one_value_has_no_spread():
    summary = ours.summarize([0.5])
    assert (summary.mean, summary.sd, summary.mean_ci, summary.median_ci) == (0.5, None, None, None)


def test_equal_values_have_an_interval_of_no_width():
    assert ours.bootstrap_ci([0.7] * 4) == (0.7, 0.7)


def test_same_seed_same_interval_and_another_seed_another():
    values = np.random.default_rng(1).random(20)
    assert ours.bootstrap_ci(values, seed=3) == ours.bootstrap_ci(values, seed=3)
    assert ours.bootstrap_ci(values, seed=3) != ours.bootstrap_ci(values, seed=4)


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(0).normal(10, 2, 400)
    low, high = ours.bootstrap_ci(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.2 * half)


@settings(max_examples=30, deadline=None)
@given(st.lists(FINITE, min_size=2, max_size=12))
def test_mean_interval_lies_between_the_extremes(values):
    low, high = ours.bootstrap_ci(values, resamples=199)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


def test_wilson_by_hand():
    # p = 1/2, n = 4, z = 1.959964: center 1/2, half z/(1 + z²/4) * sqrt(1/16 + z²/64)
    z2 = 1.959963984540054**2
    half = math.sqrt(z2) / (1 + z2 / 4) * math.sqrt(1 / 16 + z2 / 64)
    assert ours.wilson(2, 4) == pytest.approx((0.5 - half, 0.5 + half))


def test_wilson_of_nothing_is_undefined():
    assert ours.wilson(0, 0) is None


def test_wilcoxon_of_five_positive_differences_is_one_sixteenth():
    assert ours.wilcoxon_p([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)


def brute_force_p(differences, zeros):
    """Enumerate all signs."""
    values = np.asarray(differences, dtype=float)
    if zeros == "drop":
        values = values[values != 0]
    ranks = stats.rankdata(np.abs(values))[values != 0]
    signs = np.sign(values[values != 0])
    sums = np.array([(np.array(s) * ranks).sum() for s in product((0, 1), repeat=len(ranks))])
    seen = (ranks * (signs > 0)).sum()
    return min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.sampled_from(["pratt", "drop"]))
def test_wilcoxon_is_exact_with_ties_and_zeros(differences, zeros):
    assert ours.wilcoxon_p(differences, zeros) == pytest.approx(brute_force_p(differences, zeros))


def test_wilcoxon_agrees_with_scipy_without_ties():
    differences = np.random.default_rng(0).normal(0.2, 1, 40)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert ours.wilcoxon_p(differences) == pytest.approx(expected)


def test_wilcoxon_of_many_differences_is_the_normal_approximation():
    differences = np.random.default_rng(0).normal(0.1, 1, 400).round(1)
    expected = stats.wilcoxon(differences, zero_method="pratt", method="approx").pvalue
    assert ours.wilcoxon_p(differences) == pytest.approx(expected)


def test_wilcoxon_without_any_difference_is_one_and_of_nothing_undefined():
    assert ours.wilcoxon_p([0.0, 0.0]) == 1.0
    assert ours.wilcoxon_p([]) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=20))
def test_wilcoxon_does_not_mind_which_method_comes_first(differences):
    assert ours.wilcoxon_p(differences) == pytest.approx(ours.wilcoxon_p([-d for d in differences]))


def test_holm_by_hand():
    assert ours.holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_agrees_with_statsmodels(p_values):
    assert ours.holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_rank_biserial_by_hand():
    # ranks 1, 2, 3, 4 with signs -, +, +, +: (9 - 1) / 10
    assert ours.rank_biserial([-1, 2, 3, 4]) == pytest.approx(0.8)
    assert ours.rank_biserial([0, 0]) == 0.0


def test_cliffs_delta_by_hand():
    # pairs of (1, 2, 3) over (2, 2): 0, 0 | tie, tie | 1, 1 -> 2 above, 2 below
    assert ours.cliffs_delta([1, 2, 3], [2, 2]) == 0.0
    assert ours.cliffs_delta([3, 4], [1, 2]) == 1.0
    assert ours.cliffs_delta([1], []) is None


def test_cohen_dz_by_hand():
    assert ours.cohen_dz([1, 2, 3]) == pytest.approx(2.0)
    assert ours.cohen_dz([1, 1]) is None


def test_paired_comparison_leaves_out_cases_that_one_method_lacks():
    pair = ours.compare_pair("a", "b", [1.0, None, 3.0, 4.0], [0.0, 1.0, math.nan, 2.0])
    assert (pair.n, pair.undefined, pair.difference) == (2, 2, 1.5)


def test_paired_t_test_agrees_with_scipy():
    a, b = np.random.default_rng(2).random((2, 12))
    assert ours.paired_t_p(a - b) == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_differences_equal_but_for_rounding_have_no_t_test():
    differences = np.array([0.1, 0.2, 0.3, 0.7]) - np.array([0.0, 0.1, 0.2, 0.6])
    assert np.ptp(differences) > 0
    assert ours.paired_t_p(differences) is None
    assert ours.cohen_dz(differences) is None


def test_paired_values_of_different_length_are_refused():
    with pytest.raises(ValueError, match="as many"):
        ours.compare_pair("a", "b", [1.0], [1.0, 2.0])


def test_methods_are_corrected_over_their_pairs():
    values = {"a": [1.0, 2, 3, 4, 5, 6], "b": [0.0] * 6, "c": [1.5, 1.0, 3.5, 3.0, 5.5, 5.0]}
    pairs = ours.compare_methods(values)
    assert [(p.first, p.second) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [p.p_holm for p in pairs] == pytest.approx(ours.holm([p.wilcoxon_p for p in pairs]))


def test_critical_difference_as_published():
    # Demšar 2006, section 3.2.2: 4 methods on 14 data sets, q = 2.569, CD = 1.25
    values = {name: np.random.default_rng(i).random(14) for i, name in enumerate("abcd")}
    assert ours.rank_methods(values).critical_difference == pytest.approx(1.25, abs=0.005)


def test_best_method_has_rank_one_in_either_direction():
    values = {"low": [1.0, 2.0, 3.0], "high": [2.0, 3.0, 4.0], "mid": [1.5, 2.5, 3.5]}
    assert ours.rank_methods(values).mean_ranks == {"high": 1, "mid": 2, "low": 3}
    assert ours.rank_methods(values, higher_is_better=False).mean_ranks == {
        "low": 1,
        "mid": 2,
        "high": 3,
    }


def test_methods_that_always_tie_are_one_group():
    ranks = ours.rank_methods({name: [0.5, 0.6] for name in "abc"})
    assert (ranks.statistic, ranks.p) == (0.0, 1.0)
    assert ranks.groups == (("a", "b", "c"),)


def test_groups_hold_methods_within_the_critical_difference():
    assert ours._alike({"a": 1.0, "b": 2.0, "c": 3.5}, 1.6) == (("a", "b"), ("b", "c"))
    assert ours._alike({"a": 1.0, "b": 3.0}, 1.6) == (("a",), ("b",))


def test_two_methods_or_one_case_have_no_ranks():
    assert ours.rank_methods({"a": [1.0, 2.0], "b": [2.0, 1.0]}) is None
    assert ours.rank_methods({"a": [1.0], "b": [2.0], "c": [3.0]}) is None


def test_sessions_of_a_patient_are_averaged_and_n_counts_patients():
    values, whose = [0.2, 0.4, None, 0.9, 0.5], ["a", "a", "b", "c", "b"]
    summary = ours.summarize(values, whose)
    assert (summary.n, summary.cases, summary.undefined) == (3, 4, 1)
    assert summary.mean == pytest.approx((0.3 + 0.5 + 0.9) / 3)
    assert summary.sd == pytest.approx(np.std([0.3, 0.5, 0.9], ddof=1))


def test_one_case_a_patient_changes_nothing():
    values = [0.2, 0.4, None, 0.9, 0.5]
    assert ours.summarize(values, list("abcde")) == ours.summarize(values)


def test_repeating_every_session_makes_nothing_more_certain():
    a, b = [0.2, 0.4, 0.6, 0.9, 0.5], [0.1, 0.35, 0.5, 0.7, 0.5]
    once = ours.compare_pair("a", "b", a, b)
    often = ours.compare_pair("a", "b", a * 4, b * 4, list("vwxyz") * 4)
    assert (often.n, often.cases) == (5, 20)
    assert often.wilcoxon_p == once.wilcoxon_p
    assert often.difference_ci == pytest.approx(once.difference_ci)
    assert ours.compare_pair("a", "b", a * 4, b * 4).wilcoxon_p < once.wilcoxon_p / 10


def test_ranks_count_patients():
    values = {name: [0.1 * k, 0.2, 0.3, 0.4] for k, name in enumerate("abc", start=1)}
    ranks = ours.rank_methods(values, ["p", "p", "q", "q"])
    assert ranks.n == 2


def test_patients_and_values_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        ours.patient_means([0.5, 0.6], ["a"])
