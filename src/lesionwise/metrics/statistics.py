"""Statistics over a set of cases: summaries with intervals, and tests between methods.

Every function takes one value per case. ``None``, NaN and infinities count as
undefined: they are left out and counted, never replaced. Whatever is random takes a seed.

Sessions of one patient are not independent, so the unit of every interval and test is the
patient: where ``patients`` says whose case each value belongs to, the values of a patient are
averaged first, and n counts patients. With one case a patient nothing changes. Patient means
are chosen over a cluster bootstrap because the signed-rank test, the ranks and the bootstrap
then all rest on the same n independent values, and a patient with many sessions does not
outweigh the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy  # its part stats, which takes half a second, is imported when it is first used
from numpy.typing import NDArray

Values: TypeAlias = Sequence[float | None] | NDArray[np.floating[Any]]
Floats: TypeAlias = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

RESAMPLES = 9999
EXACT_UP_TO = 200
"""Largest number of pairs for which the Wilcoxon distribution is worked out exactly."""


@dataclass(frozen=True)
class Summary:
    """One metric over a cohort; a statistic that needs more cases than there are is None.

    Attributes:
        n: patients with a value; cases, where each is a patient of its own.
        undefined: cases without a value.
        cases: cases with a value.
        sd: with n - 1; None for fewer than two values.
        q1, q3: quartiles by linear interpolation.
        mean_ci: bootstrap interval of the mean; None for fewer than two values.
        median_ci: percentile bootstrap interval of the median, likewise.
    """

    n: int
    undefined: int
    mean: float | None = None
    sd: float | None = None
    median: float | None = None
    q1: float | None = None
    q3: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    mean_ci: Interval | None = None
    median_ci: Interval | None = None
    cases: int = 0


@dataclass(frozen=True)
class PairedComparison:
    """Statistics of the paired differences first - second; None where there are too few.

    Attributes:
        n: patients with a case on which both methods have a value.
        undefined: cases left out because one of the two has none.
        cases: cases on which both methods have a value.
        difference: mean of first - second, with its bootstrap interval.
        wilcoxon_p: signed-rank test, two-sided, zeros by Pratt's rule.
        t_p: paired t-test, two-sided; None where all differences are equal.
        rank_biserial: matched pairs, in [-1, 1]; positive where the first is larger.
        cliffs_delta: over all pairs of cases, in [-1, 1].
        cohen_dz: mean difference over its standard deviation; None where that is 0.
        p_holm: wilcoxon_p corrected over the pairs of methods compared on this metric.
    """

    first: str
    second: str
    n: int
    undefined: int
    difference: float | None = None
    difference_ci: Interval | None = None
    wilcoxon_p: float | None = None
    t_p: float | None = None
    rank_biserial: float | None = None
    cliffs_delta: float | None = None
    cohen_dz: float | None = None
    p_holm: float | None = None
    cases: int = 0


@dataclass(frozen=True)
class RankComparison:
    """Friedman's test over three or more methods, and Nemenyi's critical difference.

    Attributes:
        n: patients with a case on which every method has a value.
        mean_ranks: by method, 1 = best; tied methods share their mean rank.
        critical_difference: methods whose mean ranks differ by less do not differ significantly.
        groups: largest sets of methods that do not differ significantly, best first.
    """

    n: int
    statistic: float
    p: float
    mean_ranks: Mapping[str, float]
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]


def defined(values: Values) -> Floats:
    """The finite values, in their order, float64.

    Example:
        >>> defined([0.5, None, float("nan"), 0.7]).tolist()
        [0.5, 0.7]
    """
    array = _array(values)
    return np.asarray(array[np.isfinite(array)], dtype=np.float64)


def patient_means(values: Values, patients: Sequence[str] | None) -> Floats:
    """The mean of each patient's defined values, in order of first appearance.

    Args:
        values: one per case.
        patients: whose case each is; None makes each case a patient of its own.

    Returns:
        One value for each patient that has a defined one.

    Raises:
        ValueError: If the two are not of the same length.

    Example:
        >>> patient_means([0.5, 0.7, None, 0.9], ["a", "a", "b", "c"]).tolist()
        [0.6, 0.9]
    """
    if patients is None:
        return defined(values)
    of_patient: dict[str, list[float]] = {}
    for value, patient in zip(_array(values), patients, strict=True):
        if np.isfinite(value):
            of_patient.setdefault(patient, []).append(float(value))
    return np.array([np.mean(found) for found in of_patient.values()], dtype=np.float64)


def of_kept(patients: Sequence[str] | None, kept: NDArray[np.bool_]) -> list[str] | None:
    """The patients of the cases that are kept; None stays None.

    Example:
        >>> of_kept(["a", "a", "b"], np.array([True, False, True]))
        ['a', 'b']
    """
    if patients is None:
        return None
    return [patient for patient, stays in zip(patients, kept, strict=True) if stays]


def summarize(
    values: Values,
    patients: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Summary:
    """Mean, spread, quartiles and bootstrap intervals of one metric over patients.

    The interval of the mean is bias-corrected and accelerated (BCa, Efron 1987), that of
    the median by percentiles, since the jackknife BCa needs fails for medians.

    Args:
        values: one per case.
        patients: whose case each is; None makes each case a patient of its own.

    Example:
        >>> summary = summarize([0.5, 0.6, 0.7, None], seed=1)
        >>> summary.n, summary.undefined, round(summary.mean, 3)
        (3, 1, 0.6)
    """
    cases = len(defined(values))
    undefined = len(values) - cases
    array = patient_means(values, patients)
    if not len(array):
        return Summary(0, undefined)
    q1, median, q3 = (float(q) for q in np.percentile(array, (25, 50, 75)))
    several = len(array) > 1
    return Summary(
        n=len(array),
        undefined=undefined,
        mean=float(array.mean()),
        sd=float(array.std(ddof=1)) if several else None,
        median=median,
        q1=q1,
        q3=q3,
        minimum=float(array.min()),
        maximum=float(array.max()),
        mean_ci=bootstrap_ci(array, level=level, resamples=resamples, seed=seed),
        median_ci=bootstrap_ci(
            array, "median", level=level, resamples=resamples, seed=seed, method="percentile"
        ),
        cases=cases,
    )


def bootstrap_ci(
    values: Values,
    statistic: Literal["mean", "median"] = "mean",
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Literal["BCa", "percentile"] = "BCa",
) -> Interval | None:
    """Bootstrap interval of a mean or median over cases; None for fewer than two values.

    Where all values are equal the interval is that value twice.

    Example:
        >>> low, high = bootstrap_ci([0.4, 0.5, 0.6, 0.7, 0.8], seed=1)
        >>> low < 0.6 < high
        True
    """
    array = defined(values)
    if len(array) < 2:
        return None
    if np.ptp(array) == 0:
        return float(array[0]), float(array[0])
    result = scipy.stats.bootstrap(
        (array,),
        np.mean if statistic == "mean" else np.median,
        confidence_level=level,
        n_resamples=resamples,
        method=method,
        batch=max(1, 2_000_000 // len(array)),
        random_state=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return float(low), float(high)


def wilson(successes: int, total: int, level: float = 0.95) -> Interval | None:
    """Wilson's score interval of a proportion; None where the total is 0.

    Example:
        >>> tuple(round(end, 3) for end in wilson(8, 10))
        (0.49, 0.943)
    """
    if total == 0:
        return None
    interval = scipy.stats.binomtest(successes, total).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def wilcoxon_p(differences: Values, zeros: Literal["pratt", "drop"] = "pratt") -> float | None:
    """Two-sided p of the Wilcoxon signed-rank test on paired differences.

    Absolute differences are ranked, ties sharing their mean rank. Zeros are ranked with
    the others and then carry no sign (``pratt``), or leave before the ranking (``drop``,
    Wilcoxon's own rule). Up to 200 signed differences the distribution of the rank sum
    over all signs is exact, ties and zeros included; above, the normal approximation
    with the variance corrected for ties, without continuity correction.

    Returns 1 where every difference is zero, None where there is none.

    Example:
        >>> wilcoxon_p([0.1, 0.2, 0.3, 0.4, 0.5])
        0.0625
    """
    values = defined(differences)
    if not len(values):
        return None
    ranks, signs = _signed_ranks(values, zeros)
    if not len(ranks):
        return 1.0
    positive = ranks[signs > 0].sum()
    if len(ranks) > EXACT_UP_TO:
        z = (positive - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)
        return float(2 * scipy.stats.norm.sf(abs(z)))
    doubled = np.rint(2 * ranks).astype(np.int64)  # mean ranks of ties end in .5
    chance = np.zeros(doubled.sum() + 1)
    chance[0] = 1.0
    for rank in doubled:
        with_rank = np.zeros_like(chance)
        with_rank[rank:] = chance[: len(chance) - rank]
        chance = (chance + with_rank) / 2
    observed = round(2 * positive)
    tail = min(chance[: observed + 1].sum(), chance[observed:].sum())
    return float(min(1.0, 2 * tail))


def paired_t_p(differences: Values) -> float | None:
    """Two-sided p of the paired t-test; None for fewer than two values or equal ones.

    Example:
        >>> round(paired_t_p([0.1, 0.2, 0.3, 0.2]), 4)
        0.0163
    """
    values = defined(differences)
    if len(values) < 2 or _equal(values):
        return None
    return float(scipy.stats.ttest_1samp(values, 0.0).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over a family of tests; a None stays None and is not counted.

    Example:
        >>> holm([0.01, 0.04, None, 0.03])
        [0.03, 0.06, None, 0.06]
    """
    from statsmodels.stats.multitest import multipletests  # slow to import

    tested = [p for p in p_values if p is not None]
    corrected = iter(multipletests(tested, method="holm")[1].tolist() if tested else ())
    return [None if p is None else float(next(corrected)) for p in p_values]


def rank_biserial(differences: Values, zeros: Literal["pratt", "drop"] = "pratt") -> float | None:
    """Matched-pairs rank-biserial correlation: (R+ - R-) / (R+ + R-) (Kerby 2014).

    1 where every difference is positive, 0 where all are zero, None where there is none.

    Example:
        >>> rank_biserial([1.0, 2.0, -3.0])
        0.0
    """
    values = defined(differences)
    if not len(values):
        return None
    ranks, signs = _signed_ranks(values, zeros)
    return float((ranks * signs).sum() / ranks.sum()) if len(ranks) else 0.0


def cliffs_delta(first: Values, second: Values) -> float | None:
    """P(first > second) - P(first < second) over all pairs of values; None without pairs.

    Example:
        >>> cliffs_delta([2.0, 3.0], [1.0, 2.0])
        0.75
    """
    a, b = defined(first), np.sort(defined(second))
    if not len(a) or not len(b):
        return None
    below = np.searchsorted(b, a, side="left").sum()
    above = (len(b) - np.searchsorted(b, a, side="right")).sum()
    return float(int(below) - int(above)) / (len(a) * len(b))


def cohen_dz(differences: Values) -> float | None:
    """Mean difference over the standard deviation (n - 1) of the differences.

    Example:
        >>> cohen_dz([1.0, 2.0, 3.0])
        2.0
    """
    values = defined(differences)
    if len(values) < 2 or _equal(values):
        return None
    return float(values.mean() / values.std(ddof=1))


def compare_pair(
    first: str,
    second: str,
    first_values: Values,
    second_values: Values,
    patients: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedComparison:
    """Tests and effect sizes of first - second over the cases both have a value for.

    Args:
        patients: whose case each value is; None makes each case a patient of its own.

    Raises:
        ValueError: If the two are not of the same length.

    Example:
        >>> compared = compare_pair("a", "b", [0.6, 0.7, 0.8], [0.5, 0.5, 0.7], resamples=200)
        >>> compared.n, round(compared.difference, 3)
        (3, 0.133)
    """
    a, b = _array(first_values), _array(second_values)
    if len(a) != len(b):
        raise ValueError(f"paired values must be as many, got {len(a)} and {len(b)}")
    both = np.isfinite(a) & np.isfinite(b)
    cases = int(both.sum())
    if not cases:
        return PairedComparison(first, second, 0, len(both))
    whose = of_kept(patients, both)
    a, b = patient_means(a[both], whose), patient_means(b[both], whose)
    differences = a - b
    return PairedComparison(
        first=first,
        second=second,
        n=len(a),
        undefined=len(both) - cases,
        difference=float(differences.mean()),
        difference_ci=bootstrap_ci(differences, level=level, resamples=resamples, seed=seed),
        wilcoxon_p=wilcoxon_p(differences),
        t_p=paired_t_p(differences),
        rank_biserial=rank_biserial(differences),
        cliffs_delta=cliffs_delta(a, b),
        cohen_dz=cohen_dz(differences),
        cases=cases,
    )


def compare_methods(
    values: Mapping[str, Values],
    patients: Sequence[str] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[PairedComparison]:
    """Every pair of methods on one metric, Wilcoxon corrected by Holm over these pairs.

    Args:
        values: by method, one value per case in the same order.
        patients: whose case each is; None makes each case a patient of its own.

    Example:
        >>> values = {"a": [0.6, 0.7, 0.8], "b": [0.5, 0.5, 0.7], "c": [0.4, 0.6, 0.6]}
        >>> [(pair.first, pair.second) for pair in compare_methods(values, resamples=200)]
        [('a', 'b'), ('a', 'c'), ('b', 'c')]
    """
    how = {"level": level, "resamples": resamples, "seed": seed}
    pairs = [
        compare_pair(a, b, values[a], values[b], patients, **how)  # type: ignore[arg-type]
        for a, b in combinations(values, 2)
    ]
    corrected = holm([pair.wilcoxon_p for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def rank_methods(
    values: Mapping[str, Values],
    patients: Sequence[str] | None = None,
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
) -> RankComparison | None:
    """Friedman's test and Nemenyi's critical difference (Demšar 2006) over methods.

    Cases that lack a value for any method are left out. Where all methods tie on every
    case the statistic is 0 and p is 1.

    Returns None for fewer than three methods or fewer than two complete cases.

    Example:
        >>> values = {"a": [0.6, 0.7, 0.8], "b": [0.5, 0.5, 0.7], "c": [0.4, 0.3, 0.6]}
        >>> rank_methods(values).mean_ranks
        {'a': 1.0, 'b': 2.0, 'c': 3.0}
    """
    names = list(values)
    if len(names) < 3:
        return None
    table = np.stack([_array(values[name]) for name in names], axis=1)
    whole = np.asarray(np.isfinite(table).all(axis=1))
    whose = of_kept(patients, whole)
    table = np.stack([patient_means(column, whose) for column in table[whole].T], axis=1)
    n, k = table.shape
    if n < 2:
        return None
    ranks = scipy.stats.rankdata(-table if higher_is_better else table, axis=1)
    if (np.ptp(table, axis=1) == 0).all():
        statistic, p = 0.0, 1.0
    else:
        test = scipy.stats.friedmanchisquare(*ranks.T)
        statistic, p = float(test.statistic), float(test.pvalue)
    quantile = scipy.stats.studentized_range.ppf(1 - alpha, k, np.inf) / math.sqrt(2)
    critical = float(quantile * math.sqrt(k * (k + 1) / (6 * n)))
    mean_ranks = dict(
        sorted(zip(names, map(float, ranks.mean(axis=0)), strict=True), key=lambda item: item[1])
    )
    return RankComparison(n, statistic, p, mean_ranks, critical, _alike(mean_ranks, critical))


def _alike(mean_ranks: Mapping[str, float], critical: float) -> tuple[tuple[str, ...], ...]:
    """Runs of methods, by rank, whose first and last differ by less than the critical one."""
    names = list(mean_ranks)
    runs: list[tuple[str, ...]] = []
    end_before = 0
    for start in range(len(names)):
        limit = mean_ranks[names[start]] + critical
        end = max(i for i in range(start, len(names)) if i == start or mean_ranks[names[i]] < limit)
        if end + 1 > end_before:
            runs.append(tuple(names[start : end + 1]))
            end_before = end + 1
    return tuple(runs)


def _equal(values: Floats) -> bool:
    """True where values differ by no more than rounding, so that their spread means nothing."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _array(values: Values) -> Floats:
    """Float64 with None as NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _signed_ranks(values: Floats, zeros: Literal["pratt", "drop"]) -> tuple[Floats, Floats]:
    """Ranks of the absolute values and their signs, zeros removed after or before ranking."""
    if zeros == "drop":
        values = values[values != 0]
    ranks = scipy.stats.rankdata(np.abs(values))
    signed = values != 0
    return ranks[signed], np.sign(values[signed])
