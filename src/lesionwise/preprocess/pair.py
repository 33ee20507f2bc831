"""Visits of one patient on one intensity scale.

Every step here compares visits voxel by voxel or gray level by gray level, so it needs two visits
or more; those that compare voxels need them on one grid. A scan that not every visit has stays
as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.each_scan import as_numbers, linear, mask_of, scan_name
from lesionwise.preprocess.geometry import one_thread, resample_to, respaced
from lesionwise.types import BoolArray, FloatArray, Grid, InputError, Study, Volume

PairWithin = Literal["brain", "nonzero", "all"]


@dataclass(frozen=True)
class DifferentialBias:
    """Visits with one common bias field in place of each its own.

    For each visit, the logarithm of its scan over the geometric mean of all visits' scans is taken
    within the brains' overlap, filtered by a median over a cube, and its exponential divided
    out: with two visits each takes half of the difference. So smooth differences go, and one of the
    whole level goes too, while what fills less than half the cube stays: lesions. One as large as
    the cube is lost: a real new lesion of 2.5 ml kept F / B of 1.15 of its 1.54, and 1.48 with
    ``width_mm=41, working_mm=4``.

    The median is taken on a copy of about ``working_mm`` and interpolated back (linear), which
    costs a few percent of the full size. Outside the overlap the nearest voxel of it counts.

    Attributes:
        width_mm: side of the cube; 11 mm are 11 voxels of 1 mm, a radius of 5, as in the source.
        working_mm: voxel size of the copy; an axis whose voxels are larger keeps them.

    Raises InputError for one visit only, for visits on different grids, and where the
    brains do not overlap or hold nothing positive.

    Source: Lewis and Fox 2004, for more than two visits Leung et al. 2012.
    """

    width_mm: float = 11.0
    working_mm: float = 2.0

    def __post_init__(self) -> None:
        if not self.width_mm > 0 or not self.working_mm > 0:
            raise ValueError("width_mm and working_mm must be positive")

    def __call__(self, study: Study) -> Study:
        def correct(volumes: list[Volume], masks: list[BoolArray], names: list[str]) -> list[Any]:
            overlap = np.logical_and.reduce(masks)
            _refuse_without_overlap(overlap, names)
            arrays = [np.asarray(volume.array, dtype=np.float32) for volume in volumes]
            logs = []
            for array, name in zip(arrays, names, strict=True):
                middle = float(np.median(array[overlap]))
                if not middle > 0:
                    raise InputError(f"{name}: the brain's median is not positive")
                # far below the brain's values there is noise, which the logarithm would blow up
                logs.append(np.log(np.maximum(array, np.float32(1e-2 * middle))))
            mean = sum(logs[1:], start=logs[0]) / np.float32(len(logs))
            return [
                array / np.exp(self._smooth(log - mean, overlap, volumes[0].grid))
                for array, log in zip(arrays, logs, strict=True)
            ]

        return _on_common_scans(study, "brain", correct)

    def _smooth(
        self, difference: NDArray[np.float32], mask: BoolArray, grid: Grid
    ) -> NDArray[np.float32]:
        coarse = respaced(grid, [max(self.working_mm, s) for s in grid.spacing_mm])
        # only what lies in the mask counts towards a coarse voxel
        weight = resample_to(Volume(mask, grid), coarse, order=1).array
        small = np.array(resample_to(Volume(difference * mask, grid), coarse, order=1).array)
        inside = weight > 0.5 if (weight > 0.5).any() else weight >= weight.max()
        np.divide(small, weight, out=small, where=inside)
        nearest = ndimage.distance_transform_edt(
            ~inside, sampling=coarse.spacing_mm, return_distances=False, return_indices=True
        )
        filled = small[tuple(nearest)]
        radius = [int((self.width_mm / s - 1) / 2 + 0.5) for s in coarse.spacing_mm]
        with one_thread():
            median = SimpleITK.GetArrayFromImage(
                SimpleITK.Median(SimpleITK.GetImageFromArray(filled), radius[::-1])
            )
        return np.asarray(resample_to(Volume(median, coarse), grid, order=1).array)


@dataclass(frozen=True)
class JointRescale:
    """Every later visit scaled linearly, so that y = x fits its joint histogram with the first.

    Scale and shift give it the first visit's mean and standard deviation over the overlap of the
    brains. Then y = x is the line of total least squares: no other line has a smaller sum of
    squared perpendicular distances to the voxels' pairs of values. No other shift and positive
    scale do that, provided that the visits correlate.

    Departure: the source asks for the best fit of y = x in the least square sense and says neither
    which distance is squared nor which scan is scaled. Ordinary least squares, which takes the
    first visit's values for exact, would bring the pairs nearer to y = x, but only by making the
    later scan flatter by the correlation of the two, new lesions with it, and it treats the visits
    unlike. The follow-up is scaled, since it is registered to the baseline.

    Raises InputError for one visit only, for visits on different grids, brains that do not
    overlap, and constant scans.
    """

    within: PairWithin = "brain"

    def __call__(self, study: Study) -> Study:
        def rescale(volumes: list[Volume], masks: list[BoolArray], names: list[str]) -> list[Any]:
            overlap = np.logical_and.reduce(masks)
            _refuse_without_overlap(overlap, names)
            moments = []
            for volume, name in zip(volumes, names, strict=True):
                values = volume.array[overlap]
                mean = float(values.mean(dtype=np.float64))
                std = float(values.std(dtype=np.float64))
                if not std > 1e-7 * max(1e-30, abs(mean)):
                    raise InputError(f"{name}: every voxel has the same value")
                moments.append((mean, std))
            mean, std = moments[0]
            return [
                np.asarray(volume.array, dtype=np.float32)
                if number == 0
                else linear(volume.array, std / own[1], mean - std / own[1] * own[0])
                for number, (volume, own) in enumerate(zip(volumes, moments, strict=True))
            ]

        return _on_common_scans(study, self.within, rescale)


@dataclass(frozen=True)
class MatchHistograms:
    """Every other visit with the gray levels of the follow-up, or of the baseline.

    Quantiles of a scan over its own brain go to those of the reference over its brain, linearly in
    between; beyond the least and the greatest, the outermost slope goes on. The visits need not
    lie on one grid.

    Attributes:
        to: the visit that stays as it is.
        points: quantiles between the least and the greatest value.
        within: the voxels the quantiles are taken from.

    Raises InputError for one visit only, and for constant scans.
    """

    to: Literal["followup", "baseline"] = "followup"
    points: int = 64
    within: PairWithin = "brain"

    def __post_init__(self) -> None:
        if self.points < 0:
            raise ValueError(f"points must not be negative, got {self.points}")

    def __call__(self, study: Study) -> Study:
        fractions = np.linspace(0, 1, self.points + 2)
        chosen = 0 if self.to == "baseline" else len(study.visits) - 1

        def match(volumes: list[Volume], masks: list[BoolArray], names: list[str]) -> list[Any]:
            quantiles = []
            for volume, mask, name in zip(volumes, masks, names, strict=True):
                found = np.quantile(volume.array[mask].astype(np.float64), fractions)
                if not found[-1] > found[0]:
                    raise InputError(f"{name}: every voxel has the same value")
                quantiles.append(found)
            return [
                np.asarray(volume.array, dtype=np.float32)
                if number == chosen
                else piecewise_linear(volume.array, own, quantiles[chosen])
                for number, (volume, own) in enumerate(zip(volumes, quantiles, strict=True))
            ]

        return _on_common_scans(study, self.within, match, one_grid=False)


@dataclass(frozen=True)
class Quantize:
    """Scans in a few gray levels, 1 to ``levels``, the same in every visit; 0 outside the brain.

    The range between two percentiles of all visits' brains together is cut into ``levels`` equal
    steps; what lies beyond goes to the first or the last. A value on the border of two steps goes
    to the upper. Works for one visit too.

    Attributes:
        levels: how many; at least 2.
        low, high: percentiles.

    Raises InputError where all voxels between the percentiles are alike.
    """

    levels: int = 6
    low: float = 0.5
    high: float = 99.5
    within: PairWithin = "brain"

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"levels must be at least 2, got {self.levels}")
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(
                f"percentiles must be ordered in [0, 100], got {self.low}, {self.high}"
            )

    def __call__(self, study: Study) -> Study:
        def quantize(volumes: list[Volume], masks: list[BoolArray], names: list[str]) -> list[Any]:
            values = [v.array[m] for v, m in zip(volumes, masks, strict=True)]
            low, high = np.percentile(np.concatenate(values), [self.low, self.high])
            if not high > low:
                raise InputError(
                    f"{names[0]}: every voxel between the percentiles has the same value"
                )
            out = []
            for volume, mask in zip(volumes, masks, strict=True):
                scale = self.levels / (high - low)
                level = np.floor(linear(volume.array, scale, 1 - low * scale))
                np.clip(level, 1, self.levels, out=level)
                out.append(np.multiply(level, mask, out=level))
            return out

        return _on_common_scans(study, self.within, quantize, min_visits=1, one_grid=False)


def piecewise_linear(
    array: NDArray[Any], source: FloatArray, target: FloatArray
) -> NDArray[np.float32]:
    """float32: values at ``source`` go to ``target``, linearly between and beyond.

    Args:
        array: any shape.
        source: (n,) values that do not fall; those nearer to each other than a millionth of their
            range are one, and the mean of their targets counts.
        target: (n,) values that do not fall.

    Raises:
        ValueError: If fewer than two values of ``source`` differ.

    Example:
        >>> source, target = np.array([0.0, 10.0]), np.array([0.0, 100.0])
        >>> piecewise_linear(np.array([0.0, 5.0, 20.0]), source, target).tolist()
        [0.0, 50.0, 200.0]
    """
    apart = np.diff(source) > 1e-6 * (source[-1] - source[0])
    if not apart.any():
        raise ValueError("a map needs two different values at least")
    place = np.concatenate([[0], np.cumsum(apart)])
    count = np.bincount(place)
    knots = np.bincount(place, weights=source) / count
    levels = np.bincount(place, weights=target) / count
    slopes = np.diff(levels) / np.diff(knots)
    low, high = float(array.min()), float(array.max())
    if low < knots[0]:
        levels = np.concatenate([[levels[0] - slopes[0] * (knots[0] - low)], levels])
        knots = np.concatenate([[low], knots])
    if high > knots[-1]:
        levels = np.concatenate([levels, [levels[-1] + slopes[-1] * (high - knots[-1])]])
        knots = np.concatenate([knots, [high]])
    return np.asarray(np.interp(array, knots, levels), dtype=np.float32)


def _on_common_scans(
    study: Study,
    within: PairWithin,
    change: Callable[[list[Volume], list[BoolArray], list[str]], list[NDArray[Any]]],
    *,
    min_visits: int = 2,
    one_grid: bool = True,
) -> Study:
    """Apply ``change(volumes, masks, names) -> arrays`` to each scan that every visit has."""
    if len(study.visits) < min_visits:
        raise InputError(f"{study.subject}: only one visit, but this step compares visits")
    new: list[dict[str, Volume]] = [dict(visit.scans) for visit in study.visits]
    for key in study.baseline.scans:
        if not all(key in visit.scans for visit in study.visits):
            continue
        volumes = [as_numbers(visit.scans[key]) for visit in study.visits]
        names = [scan_name(study, visit, key) for visit in study.visits]
        if one_grid:
            require_one_grid(names, volumes)
        masks = [
            mask_of(visit, volume, within, name)
            for visit, volume, name in zip(study.visits, volumes, names, strict=True)
        ]
        arrays = change(volumes, masks, names)
        for scans, volume, array in zip(new, volumes, arrays, strict=True):
            scans[key] = Volume(array, volume.grid)
    visits = zip(study.visits, new, strict=True)
    return replace(study, visits=tuple(replace(visit, scans=scans) for visit, scans in visits))


def require_one_grid(names: Sequence[str], volumes: Sequence[Volume]) -> None:
    """Raise InputError, naming the first that departs, unless all volumes lie on one grid.

    Example:
        >>> volumes = [Volume(np.zeros((1, 1, n)), Grid((1, 1, n), np.eye(4))) for n in (3, 4)]
        >>> require_one_grid(["01 M00 flair", "01 M12 flair"], volumes)
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: 01 M12 flair: not on the grid of 01 M00 flair; register the \
visits first
    """
    for name, volume in zip(names[1:], volumes[1:], strict=True):
        if not volume.grid.matches(volumes[0].grid):
            raise InputError(f"{name}: not on the grid of {names[0]}; register the visits first")


def _refuse_without_overlap(overlap: BoolArray, names: list[str]) -> None:
    if not overlap.any():
        raise InputError(f"{names[-1]}: the visits' brains do not overlap")
