"""Tissue classes from one scan and the template's probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess._ants import ants_alone, to_ants
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.template import template_maps, template_matrix
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import Grid, InputError, Study, Visit, Volume

FLUID, GRAY, WHITE = 1, 2, 3
PRIOR_BLUR_MM = 2.0
"""SD of the blur of the template's maps: an affine map leaves heads about 3 mm apart."""
MIN_PRIOR = 0.01
BRIGHT_SD = 1.5
FLUID_SD = 0.25
"""Largest SD of fluid, as a share of its distance from the tissues: half-full voxels are even."""


@dataclass(frozen=True)
class ClassifyTissue:
    """Every visit with ``labels["tissue"]``: 0 outside, 1 fluid, 2 gray, 3 white matter, uint8.

    The template's probabilities are brought to the scan by an affine registration, blurred,
    and weighed against its brightness within the brain mask. The scan is the visit's FLAIR, or
    its first; the labels lie on its grid. A lesion takes the class of where it lies: what is
    brighter than gray matter by 1.5 SD is judged by the probabilities of the place and by its
    neighbors, not by its brightness.

    Attributes:
        method: ``mixture``, ours: one Gaussian for each class, fitted by expectation
            maximization with the template as prior, then neighbors that vote; or ``atropos``,
            that of ANTs (the package antspyx), which knows no exception for lesions.
        iterations: of the fit.
        smoothness: weight of the neighbors' vote.

    Raises InputError where a visit has no brain mask or its scan is constant there. Fluid is
    expected darker than tissue, as on FLAIR and T1-weighted scans. Correct the bias field before.

    ``subtraction-radiomics`` uses it in place of SAMSEG. Source of the prior and the neighbors'
    vote: Zhang et al. 2001; Avants et al. 2011 (Atropos).
    """

    method: Literal["mixture", "atropos"] = "mixture"
    iterations: int = 15
    smoothness: float = 0.5

    def __call__(self, study: Study) -> Study:
        def classified(visit: Visit) -> Visit:
            key = "flair" if "flair" in visit.scans else next(iter(visit.scans))
            name = " ".join(part for part in (study.subject, visit.session, key) if part)
            if visit.brain is None:
                raise InputError(f"{name}: no brain mask")
            found = self.classes(visit.scans[key], visit.brain, name)
            return replace(visit, labels={**visit.labels, "tissue": found})

        return each_visit(study, classified)

    def classes(self, scan: Volume, brain: Volume, name: str = "scan") -> Volume:
        """The classes of one scan on its grid."""
        inside = resample_to(brain, scan.grid, order=0).array.astype(bool)
        if not inside.any():
            raise InputError(f"{name}: the brain mask is empty")
        if not np.ptp(scan.array[inside]) > 0:
            raise InputError(f"{name}: every voxel of the brain has the same value")
        priors = _tissue_priors(scan, brain, name)
        if self.method == "atropos":
            labels = atropos(scan, inside, priors, self.iterations, self.smoothness)
        else:
            labels = mixture(scan, inside, priors, self.iterations, self.smoothness)
        return Volume(labels, scan.grid)


def _tissue_priors(scan: Volume, brain: Volume, name: str = "scan") -> NDArray[np.float32]:
    """(3, I, J, K): the template's fluid, gray and white on the scan's grid; they sum to 1."""
    maps = template_maps()
    world = np.asarray(np.linalg.inv(template_matrix(scan, brain, name=name)), dtype=np.float64)
    laid = []
    for volume in (maps.fluid, maps.gray, maps.white):
        # outside the template's brain there is fluid for a brain that is larger than it
        array = np.where(maps.brain.array, volume.array, volume is maps.fluid).astype(np.float32)
        blurred = ndimage.gaussian_filter(array, PRIOR_BLUR_MM, truncate=3)
        laid.append(
            resample_to(
                Volume(blurred, volume.grid), scan.grid, order=1, world=world, antialias=False
            ).array
        )
    priors = np.maximum(np.stack(laid), MIN_PRIOR)
    return np.asarray(priors / priors.sum(axis=0), dtype=np.float32)


def mixture(
    scan: Volume,
    inside: NDArray[np.bool_],
    priors: NDArray[np.float32],
    iterations: int,
    smoothness: float,
) -> NDArray[np.uint8]:
    """Classes by three Gaussians, the place's probabilities and the neighbors' vote.

    Args:
        inside: (I, J, K), where classes are wanted; 0 elsewhere in the result.
        priors: (3, I, J, K) for fluid, gray and white, positive.

    Deterministic. Ties go to the lowest class.

    Example:
        >>> array = np.repeat([10.0, 12.0, 48.0, 50.0, 98.0, 100.0], 20).reshape(6, 20, 1)
        >>> scan = Volume(array, Grid(array.shape, np.eye(4)))
        >>> priors = np.full((3, *array.shape), 0.2, dtype=np.float32)
        >>> for tissue in range(3):
        ...     priors[tissue, 2 * tissue : 2 * tissue + 2] = 0.6
        ...
        >>> mixture(scan, array > 0, priors, iterations=5, smoothness=0)[:, 0, 0].tolist()
        [1, 1, 2, 2, 3, 3]
    """
    values = scan.array[inside].astype(np.float64)
    low, high = np.percentile(values, [0.5, 99.5])
    values = np.clip(values, low, high)
    log_prior = np.log(priors[:, inside].astype(np.float64))
    means, stds = _first_guess(values, np.exp(log_prior))
    for _ in range(iterations):
        likelihood = _log_likelihood(values, means, stds)
        posterior = _normalized(likelihood + log_prior)
        # what is bright beyond gray matter may be lesion and must not widen a tissue
        counted = posterior * (values <= _top(means, stds))
        weight = counted.sum(axis=1) + 1e-9
        means = counted @ values / weight
        spread = (counted * (values - means[:, None]) ** 2).sum(axis=1) / weight
        stds = np.sqrt(np.maximum(spread, (1e-2 * (high - low)) ** 2))
        # mixed voxels widen the fluid's Gaussian until it takes in what is mostly tissue
        gap = max(float(means[1:].min() - means[0]), 1e-2 * (high - low))
        stds[0] = min(stds[0], FLUID_SD * gap)
    likelihood = _log_likelihood(values, means, stds)
    posterior = _normalized(likelihood + log_prior)
    full = np.zeros((3, *inside.shape), dtype=np.float32)
    for _ in range(3 if smoothness else 0):
        full[:, inside] = posterior
        vote = np.stack([_neighbors(each, scan.grid.spacing_mm) for each in full])
        posterior = _normalized(likelihood + log_prior + 6 * smoothness * vote[:, inside])
    labels = np.zeros(inside.shape, dtype=np.uint8)
    labels[inside] = posterior.argmax(axis=0) + 1
    return labels


def _first_guess(
    values: NDArray[np.float64], priors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and deviations: tissues where the template is surest of them, fluid what is darkest."""
    tissues = []
    for prior in priors[1:]:
        sure = values[prior >= np.quantile(prior, 0.9)]
        tissues.append((np.median(sure), 1.4826 * np.median(np.abs(sure - np.median(sure)))))
    fluid = min(float(np.percentile(values, 2)), 0.5 * min(m for m, _ in tissues))
    gap = min(m for m, _ in tissues) - fluid
    means = np.array([fluid, *(m for m, _ in tissues)])
    least = 1e-2 * float(np.ptp(values))
    stds = np.array([FLUID_SD * gap, *(max(d, least) for _, d in tissues)])
    return means, stds


def _top(means: NDArray[np.float64], stds: NDArray[np.float64]) -> float:
    gray, white = GRAY - 1, WHITE - 1
    return float(max(means[gray] + BRIGHT_SD * stds[gray], means[white]))


def _log_likelihood(
    values: NDArray[np.float64], means: NDArray[np.float64], stds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(3, n); what is brighter than gray by 1.5 SD speaks for gray as for white."""
    out = np.stack(
        [-0.5 * ((values - m) / d) ** 2 - np.log(d) for m, d in zip(means, stds, strict=True)]
    )
    gray, white = GRAY - 1, WHITE - 1
    bright = values > _top(means, stds)
    best = out[[gray, white]][:, bright].max(axis=0)
    out[gray, bright] = best
    out[white, bright] = best
    # no fluid is brighter than the tissues' means
    out[0, values > min(means[gray], means[white])] -= 20.0
    return np.asarray(out)


def _normalized(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(logs - logs.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0))


def _neighbors(array: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
    """Mean over the six neighbors, each weighing as much as it is near."""
    weights = 1 / np.array(spacing_mm)
    weights /= 2 * weights.sum()
    kernel = np.zeros((3, 3, 3))
    kernel[[0, 2], 1, 1], kernel[1, [0, 2], 1], kernel[1, 1, [0, 2]] = weights
    return np.asarray(ndimage.convolve(array, kernel.astype(np.float32), mode="nearest"))


def atropos(
    scan: Volume,
    inside: NDArray[np.bool_],
    priors: NDArray[np.float32],
    iterations: int,
    smoothness: float,
) -> NDArray[np.uint8]:
    """As ``mixture``, by Atropos of ANTs: half its weight on the priors, a Markov random field.

    Example:
        >>> labels = atropos(scan, inside, priors, iterations=5, smoothness=0.5)  # doctest: +SKIP
        >>> labels.dtype, (labels[~inside] == 0).all()  # doctest: +SKIP
        (dtype('uint8'), np.True_)
    """
    with ants_alone('method "atropos"') as ants:
        # no turned axes: what it writes and reads again would differ from them by rounding
        grid = Grid(inside.shape, np.diag([*np.round(scan.grid.spacing_mm, 4), 1.0]))
        image, mask, *laid = (
            to_ants(ants, Volume(each, grid)) for each in (scan.array, inside, *priors)
        )
        found = ants.atropos(
            a=image,
            x=mask,
            i=laid,
            m=f"[{0.2 * smoothness:g},1x1x1]",
            c=f"[{iterations},0]",
            priorweight=0.5,
        )
        labels = found["segmentation"].numpy()
    return np.where(inside, labels, 0).astype(np.uint8)
