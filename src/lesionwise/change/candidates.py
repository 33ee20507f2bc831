"""Candidates for new lesions: clusters that are brighter at follow-up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.change.subtraction import ratio
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, connected_components
from lesionwise.instances.filters import SIZE_ROUNDING
from lesionwise.types import BoolArray, FloatArray, Grid, InputError, Study, scan_of, scan_of_both


@dataclass(frozen=True)
class BrighterAtFollowup:
    """Clusters of the brain in which the last visit exceeds the first by more than a limit.

    The scans are taken as they are, so they should be on one scale, such as z-scores.

    Attributes:
        above: least difference, exclusive; or several steps ``(information, limit)`` by rising
            information: the limit is that of the last step whose information does not exceed
            the pair's mutual information (``mutual_information``, in nats); the first step's
            where all do.
        min_vox: smaller clusters are left out.
        scan: which scan.
        connectivity: 6, 18 or 26.
    """

    above: float | tuple[tuple[float, float], ...]
    min_vox: int = 1
    scan: str = "flair"
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, study: Study) -> NDArray[np.int32]:
        """(I, J, K) labels 1 … n on the last visit's grid; 0 where nothing is proposed.

        Raises:
            InputError: If a visit lacks the scan, or the two do not lie on one grid.
        """
        before, after, brain, _ = scan_pair(study, self.scan)
        limit = self.limit(before, after, brain)
        return clusters((after - before > limit) & brain, self.min_vox, self.connectivity)

    def limit(self, before: FloatArray, after: FloatArray, brain: BoolArray) -> float:
        """The least difference that holds for this pair."""
        if not isinstance(self.above, tuple):
            return self.above
        information = mutual_information(before[brain], after[brain])
        reached = [limit for least, limit in self.above if least <= information]
        return reached[-1] if reached else self.above[0][1]


@dataclass(frozen=True)
class BoundaryShiftClusters:
    """Bright clusters of the subtraction of two scans, where new lesions can be.

    The scans are taken as they are: bias corrected intensities of one scale, not z-scores of each
    visit by itself, which would hide or create a difference in contrast. New lesions can be

    - inside the label ``template_brain``, eroded ``brain_erosions`` times,
    - outside the label ``ventricles``, eroded ``ventricle_erosions`` times,
    - where the first visit is not above its mean in the brain by more than ``bright_std``
      standard deviations.

    There the difference, last visit minus first, has to exceed its mean over the brain by more than
    ``min_difference_std`` standard deviations, in a cluster of at least ``min_vox`` voxels of which
    a voxel remains after ``cluster_erosions`` erosions; the whole cluster is kept. Erosions are
    through faces, and the end of the volume is no border. Both labels are those of the last visit;
    the brain that means are taken over is where both visits' masks agree.

    Source: the chapter of recipe ``bsi-lightgbm``. Silent on connectivity: the project's default.
    """

    bright_std: float = 1.0
    min_difference_std: float = 1.0
    min_vox: int = 6
    cluster_erosions: int = 1
    ventricle_erosions: int = 2
    brain_erosions: int = 1
    scan: str = "flair"
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, study: Study) -> NDArray[np.int32]:
        """(I, J, K) labels 1 … n on the last visit's grid; 0 where nothing is proposed.

        Raises:
            InputError: If a visit lacks the scan, the two do not lie on one grid, or the last visit
                lacks a label.
        """
        before, after, brain, grid = scan_pair(study, self.scan)
        template_brain = _label(study, "template_brain", grid)
        ventricles = _label(study, "ventricles", grid)
        if not brain.any():
            return np.zeros(brain.shape, dtype=np.int32)
        difference = after - before
        allowed = _eroded(template_brain, self.brain_erosions)
        allowed &= ~_eroded(ventricles, self.ventricle_erosions)
        allowed &= before <= _above(before[brain], self.bright_std)
        bright = allowed & (difference > _above(difference[brain], self.min_difference_std))
        labels = clusters(bright, self.min_vox, self.connectivity)
        core = _eroded(labels > 0, self.cluster_erosions)
        survives = np.zeros(labels.max(initial=0) + 1, dtype=np.bool_)
        survives[labels[core]] = True
        return _only(labels, survives)


@dataclass(frozen=True)
class RaisedRatio:
    """Clusters of the brain in which the last visit over the first exceeds a limit.

    The ratio counts inside the brain of both visits, eroded by ``brain_erosion_mm``. What exceeds
    the limit is opened by ``opening_mm``, which separates clusters joined by a few voxels, and
    clusters of at least ``min_volume_mm3`` are kept. Where a scan is not positive the ratio is 1.

    Attributes:
        above: least ratio, exclusive.
        opening_mm: radius of a ball, along each axis rounded to whole voxels (``ball``): 1 mm
            reaches one voxel of 1 mm and no slice of 3 mm. 0 opens nothing.
        min_volume_mm3: a cluster of exactly this volume, up to rounding, is kept.
        brain_erosion_mm: radius of a ball, as ``opening_mm``. The end of the volume is no border.
        scan: which scan.
        connectivity: 6, 18 or 26.

    Source: the chapter of recipe ``roi-filter``, section 1. Silent on connectivity: the project's
    default.
    """

    above: float = 1.15
    opening_mm: float = 1.0
    min_volume_mm3: float = 7.0
    brain_erosion_mm: float = 1.0
    scan: str = "flair"
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, study: Study) -> NDArray[np.int32]:
        """(I, J, K) labels 1 … n on the last visit's grid; 0 where nothing is proposed.

        Raises:
            InputError: If a visit lacks the scan, or the two do not lie on one grid.
        """
        before, after, brain, grid = scan_pair(study, self.scan)
        inner = _eroded_by(brain, self.brain_erosion_mm, grid)
        raised = (ratio(before, after) > self.above) & inner
        core = _eroded_by(raised, self.opening_mm, grid)
        if self.opening_mm > 0 and core.any():
            core = ndimage.binary_dilation(core, ball(self.opening_mm, grid.spacing_mm))
        min_vox = self.min_volume_mm3 / grid.voxel_volume_mm3 * (1 - SIZE_ROUNDING)
        labels = connected_components(np.asarray(core, dtype=np.bool_), self.connectivity)
        return _only(labels, np.bincount(labels.ravel()) >= min_vox)


@dataclass(frozen=True)
class MapComponents:
    """Connected components of a map of the last visit, such as a network's probability.

    Attributes:
        scan: name of the map among the last visit's scans.
        above: exclusive.
        min_vox: smaller components are left out.
        connectivity: 6, 18 or 26.
    """

    scan: str
    above: float = 0.5
    min_vox: int = 1
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, study: Study) -> NDArray[np.int32]:
        """(I, J, K) labels 1 … n on the map's grid; 0 where nothing is proposed.

        Raises:
            InputError: If the last visit lacks the map.
        """
        found = np.asarray(scan_of(study, study.followup, self.scan).array) > self.above
        return clusters(found, self.min_vox, self.connectivity)


def ball(radius_mm: float, spacing_mm: tuple[float, float, float]) -> BoolArray:
    """The voxels within a radius of the middle one, along each axis rounded to whole voxels.

    An ellipsoid. A half is rounded down, so slices at least twice as thick as the radius are not
    reached, and an opening does not take away what lies in two of them.

    Example:
        >>> ball(1.0, (1.0, 1.0, 3.0)).shape
        (3, 3, 1)
    """
    reach = [math.ceil(radius_mm / step - 0.5 - SIZE_ROUNDING) for step in spacing_mm]
    half = [max(radius_mm, n * step) for n, step in zip(reach, spacing_mm, strict=True)]
    axes = np.ogrid[tuple(slice(-n, n + 1) for n in reach)]
    squares = [(a * s / r) ** 2 for a, s, r in zip(axes, spacing_mm, half, strict=True)]
    return np.asarray(squares[0] + squares[1] + squares[2] <= 1 + 1e-6)


def _eroded_by(mask: BoolArray, radius_mm: float, grid: Grid) -> BoolArray:
    """Eroded with a ``ball``; the end of the volume is no border."""
    if not radius_mm > 0:
        return mask
    structure = ball(radius_mm, grid.spacing_mm)
    return np.asarray(ndimage.binary_erosion(mask, structure, border_value=1))


def _label(study: Study, name: str, grid: Grid) -> BoolArray:
    """A label of the last visit as a mask on the grid of its scan."""
    label = study.followup.labels.get(name)
    if label is None:
        raise InputError(f"sub-{study.subject}: no label {name}")
    if not label.grid.matches(grid):
        raise InputError(f"sub-{study.subject}: {name} is not on the grid of the scans")
    return np.asarray(label.array > 0)


def scan_pair(study: Study, scan: str) -> tuple[FloatArray, FloatArray, BoolArray, Grid]:
    """A scan of the first and the last visit as float32, the brain of both, and their grid.

    The brain is where both visits' masks agree; a visit without one counts as all brain.

    Raises:
        InputError: If a visit lacks the scan, or the two do not lie on one grid.

    Example:
        >>> from lesionwise.types import Visit, Volume
        >>> volume = Volume(np.ones((4, 4, 4), dtype=np.float32), Grid((4, 4, 4), np.eye(4)))
        >>> study = Study("a", (Visit({"flair": volume}), Visit({"flair": volume})))
        >>> first, last, brain, grid = scan_pair(study, "flair")
        >>> first.dtype, bool(brain.all())
        (dtype('float32'), True)
    """
    first, last = scan_of_both(study, scan)
    brain: BoolArray = np.ones(last.grid.shape, dtype=np.bool_)
    for visit in (study.baseline, study.followup):
        if visit.brain is not None:
            brain &= visit.brain.array > 0
    arrays = [np.asarray(volume.array, dtype=np.float32) for volume in (first, last)]
    return arrays[0], arrays[1], brain, last.grid


def clusters(
    mask: BoolArray, min_vox: int = 1, connectivity: int = DEFAULT_CONNECTIVITY
) -> NDArray[np.int32]:
    """Connected components of at least ``min_vox`` voxels, numbered 1 … n in C order.

    Example:
        >>> clusters(np.array([[[1, 0, 1, 1]]], dtype=bool), min_vox=2).tolist()
        [[[0, 0, 1, 1]]]
    """
    labels = connected_components(mask, connectivity)
    return _only(labels, np.bincount(labels.ravel()) >= min_vox)


def mutual_information(first: FloatArray, second: FloatArray, bins: int = 32) -> float:
    """Mutual information of paired values in nats, from a joint histogram.

    Each side is cut at its percentiles 0.1 and 99.9 and binned evenly between them, so that
    single voxels do not widen the bins. 0 for no values or a constant side.

    Args:
        first, second: (n,) values of the same voxels.

    Example:
        >>> values = np.arange(1000.0)
        >>> mutual_information(values, values) > mutual_information(values, np.ones(1000))
        True
    """
    if not len(first):
        return 0.0
    codes = []
    for values in (first, second):
        low, high = np.percentile(values, (0.1, 99.9))
        if not high > low:
            return 0.0
        scaled = (values.astype(np.float64) - low) * (bins / (high - low))
        codes.append(np.clip(scaled.astype(np.int64), 0, bins - 1))
    joint = np.bincount(codes[0] * bins + codes[1], minlength=bins * bins).reshape(bins, bins)
    share = joint / joint.sum()
    independent = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    found = share > 0
    return float((share[found] * np.log(share[found] / independent[found])).sum())


def _above(values: FloatArray, stds: float) -> float:
    values = values.astype(np.float64)
    return float(values.mean() + stds * values.std())


def _eroded(mask: BoolArray, times: int) -> BoolArray:
    """Through faces; the end of the volume is no border."""
    if times < 1:
        return mask.astype(np.bool_)
    return np.asarray(ndimage.binary_erosion(mask, iterations=times, border_value=1))


def _only(labels: NDArray[np.int32], kept: BoolArray) -> NDArray[np.int32]:
    """The labels with a True, numbered anew; ``kept`` is indexed by label."""
    kept = np.array(kept)
    kept[0] = False
    new = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return np.asarray(new[labels])
