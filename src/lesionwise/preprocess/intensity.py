"""Scans on comparable scales: bias field removed, normalized, clipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from lesionwise.preprocess.geometry import one_thread, resample_to, respaced
from lesionwise.types import BoolArray, FloatArray, InputError, Study, Visit, Volume

Within = Literal["brain", "tissue", "nonzero", "all"]
"""The voxels a statistic is taken from: the brain mask, its tissue, what is not 0, or all.

``tissue`` is what is brighter, in the brain mask, than 0.6 of its median. On FLAIR that leaves out
the fluid, whose share depends on how tightly the mask fits: in one stripped scan, a mask with
sulci filled had 1.6 times the standard deviation of its tissue.
"""
TISSUE_SHARE = 0.6


@dataclass(frozen=True)
class N4:
    """Every scan divided by its bias field, estimated within the brain.

    The field is smooth, so it is estimated on a copy with voxels of about ``working_mm``
    and its logarithm is interpolated back (cubic), which costs a fiftieth of the full
    size. The scan keeps its mean within the mask. Where a visit has no brain mask, the
    voxels above Otsu's threshold are used.

    Attributes:
        working_mm: voxel size of the copy; 4 shrinks a 1 mm scan by 4. An axis whose
            voxels are larger already keeps them.
        levels: resolution levels; each doubles the number of spline patches along each axis.
        iterations: at most so many at each level.
        tolerance: a level ends where the coefficient of variation of the change falls below.
        patches: spline patches along each axis at the first level.
        fwhm: width of the deconvolution kernel, in units of log intensity.

    Source: Tustison et al. 2010, N4ITK. Used by B0, B1, B2, B3, B17, B22, B24, B26, B27, B29 and
    the challenge's common preprocessing.
    """

    working_mm: float = 4.0
    levels: int = 4
    iterations: int = 50
    tolerance: float = 1e-3
    patches: int = 1
    fwhm: float = 0.15

    def __call__(self, study: Study) -> Study:
        def correct(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            if not np.ptp(volume.array[mask]) > 0:
                raise InputError(f"{name}: every voxel has the same value")
            field = self.field(volume, mask)
            corrected = np.asarray(volume.array / field.array, dtype=np.float32)
            level = float(volume.array[mask].mean() / corrected[mask].mean())
            return np.multiply(corrected, np.float32(level), out=corrected)

        return _on_scans(study, "brain", correct, otherwise=_above_otsu)

    def field(self, volume: Volume, mask: BoolArray) -> Volume:
        """The bias field on the volume's grid: positive float32, to divide by."""
        spacing = [max(self.working_mm, s) for s in volume.grid.spacing_mm]
        grid = respaced(volume.grid, spacing)
        # a coarse voxel counts where most of it lies in the mask
        small_mask = resample_to(Volume(mask, volume.grid), grid, order=1).array > 0.5
        positive = Volume(np.maximum(np.asarray(volume.array, np.float32), 0), volume.grid)
        small = np.array(resample_to(positive, grid, order=1).array)
        small_mask &= small > 0
        if not small_mask.any():
            return Volume(np.ones(volume.grid.shape, np.float32), volume.grid)
        # N4 takes logarithms: values far below the brain's carry noise, not bias
        floor = 1e-3 * float(np.median(small[small_mask]))
        image = SimpleITK.GetImageFromArray(np.maximum(small, floor))
        mask_image = SimpleITK.GetImageFromArray(small_mask.astype(np.uint8))
        for each in (image, mask_image):
            each.SetSpacing(grid.spacing_mm[::-1])
        filter_ = SimpleITK.N4BiasFieldCorrectionImageFilter()
        filter_.SetMaximumNumberOfIterations([self.iterations] * self.levels)
        filter_.SetConvergenceThreshold(self.tolerance)
        filter_.SetNumberOfControlPoints([self.patches + 3] * 3)
        filter_.SetBiasFieldFullWidthAtHalfMaximum(self.fwhm)
        with one_thread():
            filter_.Execute(image, mask_image)
            log_field = SimpleITK.GetArrayFromImage(filter_.GetLogBiasFieldAsImage(image))
        full = resample_to(
            Volume(log_field.astype(np.float32, copy=False), grid), volume.grid, order=3
        )
        return Volume(np.exp(full.array), volume.grid)


@dataclass(frozen=True)
class ZScore:
    """Every scan with mean 0 and standard deviation 1 over the voxels named by ``within``.

    Voxels outside are transformed too, or set to 0 with ``zero_outside``; with ``tissue``, outside
    means outside the brain. Raises InputError for a constant scan.

    Used by A1 to A3 (tissue), B25 (non-zero) and most nnU-Net rows.
    """

    within: Within = "brain"
    zero_outside: bool = False

    def __call__(self, study: Study) -> Study:
        def normalize(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            values = volume.array[mask].astype(np.float64)
            if self.within == "tissue":
                values = values[values > TISSUE_SHARE * np.median(values)]
                if not len(values):
                    raise InputError(f"{name}: the brain's median is not positive")
            mean, deviation = values.mean(), values.std()
            if not deviation > 1e-7 * max(1e-30, abs(mean)):
                raise InputError(f"{name}: every voxel has the same value")
            return _outside(
                _linear(volume.array, 1 / deviation, -mean / deviation), mask, self.zero_outside
            )

        return _on_scans(study, self.within, normalize)


@dataclass(frozen=True)
class Rescale01:
    """Every scan mapped so that its least value over ``within`` is 0 and its greatest 1.

    Voxels outside are mapped alike and cut to [0, 1]. Raises InputError for a constant scan.

    Used by B6, B11.
    """

    within: Within = "all"

    def __call__(self, study: Study) -> Study:
        def rescale(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            values = volume.array[mask]
            low, high = float(values.min()), float(values.max())
            if not high > low:
                raise InputError(f"{name}: every voxel has the same value")
            scaled = _linear(volume.array, 1 / (high - low), -low / (high - low))
            return np.clip(scaled, 0, 1, out=scaled)

        return _on_scans(study, self.within, rescale)


@dataclass(frozen=True)
class ClipPercentiles:
    """Every scan cut to the values at two percentiles of the voxels named by ``within``.

    Attributes:
        low, high: percentiles, 0 <= low < high <= 100.
        onto: the range the two values are mapped to; None leaves the scale alone.

    Used by B13 (0.05 and 99.5, onto [-1, 1]).
    """

    low: float = 0.5
    high: float = 99.5
    within: Within = "brain"
    onto: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(
                f"percentiles must be ordered in [0, 100], got {self.low}, {self.high}"
            )

    def __call__(self, study: Study) -> Study:
        def clip(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            low, high = np.percentile(volume.array[mask], [self.low, self.high])
            if self.onto is None:
                return np.clip(volume.array, low, high).astype(np.float32, copy=False)
            if not high > low:
                raise InputError(f"{name}: every voxel between the percentiles has the same value")
            scale = (self.onto[1] - self.onto[0]) / (high - low)
            scaled = _linear(volume.array, scale, self.onto[0] - scale * low)
            return np.clip(scaled, *self.onto, out=scaled)

        return _on_scans(study, self.within, clip)


def _on_scans(
    study: Study,
    within: Within,
    change: Callable[[Volume, BoolArray, str], FloatArray],
    otherwise: Callable[[Volume], BoolArray] | None = None,
) -> Study:
    """Apply ``change(scan, mask, name for messages)`` to every scan of every visit."""

    def visit_with(visit: Visit) -> Visit:
        scans = {}
        for key, volume in visit.scans.items():
            name = " ".join(part for part in (study.subject, visit.session, key) if part)
            mask = _mask(visit, volume, within, name, otherwise)
            scans[key] = Volume(change(volume, mask, name), volume.grid)
        return replace(visit, scans=scans)

    return replace(study, visits=tuple(visit_with(visit) for visit in study.visits))


def _mask(
    visit: Visit,
    volume: Volume,
    within: Within,
    name: str,
    otherwise: Callable[[Volume], BoolArray] | None,
) -> BoolArray:
    if within == "all":
        return np.ones(volume.array.shape, dtype=bool)
    if within == "nonzero":
        mask: BoolArray = volume.array != 0
        if not mask.any():
            raise InputError(f"{name}: every voxel is zero")
        return mask
    if visit.brain is None:
        if otherwise is None:
            raise InputError(f"{name}: no brain mask")
        return otherwise(volume)
    mask = resample_to(visit.brain, volume.grid, order=0).array.astype(bool, copy=False)
    if not mask.any():
        raise InputError(f"{name}: the brain mask is empty")
    return mask


def _above_otsu(volume: Volume) -> BoolArray:
    from skimage.filters import threshold_otsu

    if not np.ptp(volume.array) > 0:
        return np.ones(volume.array.shape, dtype=bool)
    mask: BoolArray = volume.array > threshold_otsu(volume.array)
    return mask


def _linear(array: NDArray[Any], scale: float, shift: float) -> NDArray[np.float32]:
    """scale * array + shift, float32, with one temporary array."""
    out: NDArray[np.float32] = np.multiply(array, np.float32(scale), dtype=np.float32)
    out += np.float32(shift)
    return out


def _outside(array: NDArray[np.float32], mask: BoolArray, zero: bool) -> NDArray[np.float32]:
    if zero:
        np.multiply(array, mask, out=array)
    return array
