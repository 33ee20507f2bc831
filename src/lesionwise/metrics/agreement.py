"""How a measured count or volume agrees with the reference, and which lesions are found.

Bland-Altman analysis of paired measurements, and the probability that a lesion is
detected as a function of its volume.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its part stats, which takes half a second, is imported when it is first used
from numpy.typing import NDArray
from scipy.special import expit

from lesionwise.metrics.statistics import Floats, Interval, Values, of_kept, patient_means, wilson


@dataclass(frozen=True)
class BlandAltman:
    """Agreement of a measurement with a reference over cases (Bland and Altman 1986, 1999).

    Where patients have several cases, the bias is the mean over patients, and the limits hold for
    a single case: their variance is that between patients plus that within them (Bland and Altman
    2007, by analysis of variance).

    Attributes:
        n: patients; cases, where each is a patient of its own.
        bias: mean of measured - reference, with its t interval over patients.
        sd: standard deviation of the difference of one case.
        lower, upper: limits of agreement, bias -+ 1.96 SD at the 95 % level, each with an
            interval by the delta method: variance SD² · (1/n + z²/(2(n - 1))).
        slope: change of the difference per unit of the mean of the two, by least squares,
            with its interval and p; None where all means are equal or n < 3. A slope away
            from 0 says that the bias grows with the size (proportional bias).
    """

    n: int
    bias: float
    bias_ci: Interval
    sd: float
    lower: float
    lower_ci: Interval
    upper: float
    upper_ci: Interval
    slope: float | None = None
    slope_ci: Interval | None = None
    slope_p: float | None = None


@dataclass(frozen=True)
class DetectionBin:
    """Lesions of one range of volumes: ``detected`` of ``n``, with Wilson's interval."""

    low_mm3: float
    high_mm3: float
    n: int
    detected: int
    share: float
    ci: Interval


@dataclass(frozen=True)
class DetectionByVolume:
    """How likely a lesion of a given volume is found.

    Attributes:
        bins: ranges of volume that hold about equally many lesions, ascending.
        slope: of the logit of detection per tenfold volume; None where there is no fit.
        slope_ci: 95 % interval, with standard errors clustered by patient where patients are given.
        intercept: logit of detection at 1 mm³.
        volume_at_half_mm3: volume found with probability one half; None where the fitted
            probability does not rise or crosses one half beyond the volumes seen.
        no_fit: why there is no fit, empty where there is one.
    """

    n: int
    detected: int
    bins: tuple[DetectionBin, ...]
    slope: float | None = None
    slope_ci: Interval | None = None
    intercept: float | None = None
    volume_at_half_mm3: float | None = None
    no_fit: str = ""

    def probability(self, volume_mm3: NDArray[np.floating[Any]]) -> Floats | None:
        """Fitted probability of detection at these volumes, None without a fit."""
        if self.slope is None or self.intercept is None:
            return None
        logit = self.intercept + self.slope * np.log10(np.asarray(volume_mm3, dtype=np.float64))
        return np.asarray(expit(logit))


def bland_altman(
    reference: Values,
    measured: Values,
    patients: Sequence[str] | None = None,
    level: float = 0.95,
) -> BlandAltman | None:
    """Bias and limits of agreement of paired measurements; None for fewer than two patients.

    Pairs with an undefined member are left out.

    Args:
        patients: whose case each pair is; None makes each case a patient of its own.

    Raises:
        ValueError: If the two are not of the same length.

    Example:
        >>> agreement = bland_altman([1.0, 2.0, 3.0], [1.5, 2.5, 3.5])
        >>> agreement.bias, agreement.sd
        (0.5, 0.0)
    """
    a = np.array([np.nan if v is None else v for v in reference], dtype=np.float64)
    b = np.array([np.nan if v is None else v for v in measured], dtype=np.float64)
    if len(a) != len(b):
        raise ValueError(f"paired values must be as many, got {len(a)} and {len(b)}")
    both = np.isfinite(a) & np.isfinite(b)
    whose = of_kept(patients, both)
    a, b = a[both], b[both]
    difference, mean = patient_means(b - a, whose), patient_means((a + b) / 2, whose)
    n = len(difference)
    if n < 2:
        return None
    bias, sd = float(difference.mean()), _sd_of_one(b - a, whose)
    z = float(scipy.stats.norm.ppf((1 + level) / 2))
    t = float(scipy.stats.t.ppf((1 + level) / 2, n - 1))
    limit_error = sd * math.sqrt(1 / n + z**2 / (2 * (n - 1)))
    lower, upper = bias - z * sd, bias + z * sd
    slope = slope_ci = slope_p = None
    if n > 2 and np.ptp(mean) > 0 and np.ptp(difference) > 0:
        line = scipy.stats.linregress(mean, difference)
        slope, slope_p = float(line.slope), float(line.pvalue)
        half = float(scipy.stats.t.ppf((1 + level) / 2, n - 2)) * float(line.stderr)
        slope_ci = (slope - half, slope + half)
    return BlandAltman(
        n=n,
        bias=bias,
        bias_ci=_around(bias, t * float(difference.std(ddof=1)) / math.sqrt(n)),
        sd=sd,
        lower=lower,
        lower_ci=_around(lower, t * limit_error),
        upper=upper,
        upper_ci=_around(upper, t * limit_error),
        slope=slope,
        slope_ci=slope_ci,
        slope_p=slope_p,
    )


def detection_by_volume(
    volumes_mm3: Sequence[float] | Floats,
    detected: Sequence[bool] | NDArray[np.bool_],
    patients: Sequence[str] | None = None,
    *,
    bins: int = 8,
) -> DetectionByVolume:
    """Detection probability of reference lesions against their volume.

    The curve is a logistic regression on log10 of the volume. Lesions of one patient
    resemble each other, so with ``patients`` the standard errors are clustered by patient.
    Bins hold about equally many lesions; equal volumes never fall into two bins.

    Args:
        volumes_mm3: (n,) positive volumes of reference lesions.
        detected: (n,) whether each was found.
        patients: whose lesion each is.

    Raises:
        ValueError: If a volume is not positive or the lengths differ.

    Example:
        >>> detected = [False, True, True, True]
        >>> detection = detection_by_volume([5.0, 10.0, 50.0, 100.0], detected, bins=2)
        >>> detection.n, detection.detected
        (4, 3)
    """
    volumes = np.asarray(volumes_mm3, dtype=np.float64)
    found = np.asarray(detected, dtype=bool)
    if len(volumes) != len(found) or (patients is not None and len(patients) != len(volumes)):
        raise ValueError("volumes, detections and patients must be as many")
    if not (np.isfinite(volumes).all() and (volumes > 0).all()):
        raise ValueError("lesion volumes must be positive and finite")
    n, total = len(found), int(found.sum())
    table = _bins(volumes, found, bins)
    reason = _no_fit(volumes, found)
    if reason:
        return DetectionByVolume(n, total, table, no_fit=reason)
    import statsmodels.api as sm

    design = sm.add_constant(np.log10(volumes))
    model = sm.GLM(found.astype(np.float64), design, family=sm.families.Binomial())
    clustered = patients is not None and len(set(patients)) > 1
    groups = np.unique(np.asarray(patients), return_inverse=True)[1] if clustered else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence is checked below
        try:
            fit = (
                model.fit(cov_type="cluster", cov_kwds={"groups": groups})
                if clustered
                else model.fit()
            )
        except np.linalg.LinAlgError:  # lesions nearly separated by volume
            return DetectionByVolume(n, total, table, no_fit="the logistic fit is singular")
    if not fit.converged or not np.isfinite(fit.params).all():
        return DetectionByVolume(n, total, table, no_fit="the logistic fit did not converge")
    intercept, slope = (float(value) for value in fit.params)
    low, high = (float(value) for value in fit.conf_int()[1])
    return DetectionByVolume(
        n=n,
        detected=total,
        bins=table,
        slope=slope,
        slope_ci=(low, high) if math.isfinite(low) and math.isfinite(high) else None,
        intercept=intercept,
        volume_at_half_mm3=_half(intercept, slope, volumes),
    )


def _sd_of_one(differences: Floats, patients: Sequence[str] | None) -> float:
    """Standard deviation of a single case: variance between patients plus that within them."""
    means = patient_means(differences, patients)
    n, total = len(means), len(differences)
    if n == total or patients is None:
        return float(differences.std(ddof=1))
    row = np.unique(patients, return_inverse=True)[1]
    size = np.bincount(row)
    own_mean = np.bincount(row, differences) / size
    within = float(((differences - own_mean[row]) ** 2).sum() / (total - n))
    spread = float((size * (own_mean - differences.mean()) ** 2).sum() / (n - 1))
    # Cases a patient where all have as many; for unequal numbers the value that makes the mean
    # squares unbiased.
    usual_size = (total - (size**2).sum() / total) / (n - 1)
    between = max(0.0, (spread - within) / usual_size)
    return math.sqrt(between + within)


def _around(center: float, half: float) -> Interval:
    return center - half, center + half


def _half(intercept: float, slope: float, volumes: Floats) -> float | None:
    exponent = -intercept / slope if slope > 0 else math.inf
    seen = np.log10(volumes)
    return float(10**exponent) if seen.min() <= exponent <= seen.max() else None


def _no_fit(volumes: Floats, found: NDArray[np.bool_]) -> str:
    """Why a logistic curve cannot be fitted, empty where it can."""
    if not len(found):
        return "no reference lesion"
    if found.all():
        return "every lesion was found"
    if not found.any():
        return "no lesion was found"
    if np.ptp(volumes) == 0:
        return "all lesions have the same volume"
    hit, missed = volumes[found], volumes[~found]
    if hit.min() >= missed.max() or hit.max() <= missed.min():
        return "one volume separates found from missed lesions"
    return ""


def _bins(volumes: Floats, found: NDArray[np.bool_], bins: int) -> tuple[DetectionBin, ...]:
    if not len(volumes):
        return ()
    edges = np.unique(np.quantile(volumes, np.linspace(0, 1, bins + 1), method="inverted_cdf"))
    # A bin holds the volumes above its lower edge up to its upper one; the first also its lower.
    index = np.searchsorted(edges[1:-1], volumes, side="left") if len(edges) > 2 else None
    rows = []
    for number in range(max(1, len(edges) - 1)):
        inside = np.ones(len(volumes), dtype=bool) if index is None else index == number
        n, hit = int(inside.sum()), int(found[inside].sum())
        if n:
            low, high = float(volumes[inside].min()), float(volumes[inside].max())
            ci = wilson(hit, n)
            assert ci is not None
            rows.append(DetectionBin(low, high, n, hit, hit / n, ci))
    return tuple(rows)
