"""Scans on comparable scales: bias field removed, normalized, clipped."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from lesionwise.preprocess.each_scan import (
    Within,
    above_otsu,
    from_zero,
    linear,
    on_scans,
    outside,
    values_of,
)
from lesionwise.preprocess.geometry import one_thread, resample_to, respaced
from lesionwise.preprocess.kept import kept
from lesionwise.types import BoolArray, FloatArray, Grid, InputError, Study, Volume


@dataclass(frozen=True)
class N4:
    """Every scan divided by its bias field, estimated within the brain.

    The field is smooth, so it is estimated on a copy with voxels of about ``working_mm``
    and its logarithm is interpolated back (cubic), which costs a fiftieth of the full
    size. The scan keeps its mean within the mask; its values begin at 0 (``from_zero``). Where a
    visit has no brain mask, the voxels above Otsu's threshold are used.

    Attributes:
        working_mm: voxel size of the copy; 4 shrinks a 1 mm scan by 4. An axis whose
            voxels are larger already keeps them.
        levels: resolution levels; each doubles the number of spline patches along each axis.
        iterations: at most so many at each level.
        tolerance: a level ends where the coefficient of variation of the change falls below.
        patches: spline patches along each axis at the first level.
        fwhm: width of the deconvolution kernel, in units of log intensity.

    Source: Tustison et al. 2010, N4ITK. Departure: N4 itself shrinks a scan by a whole number; the
    copy has voxels of about ``working_mm`` whatever the scan's.
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
            volume = Volume(from_zero(volume.array, mask), volume.grid)
            field = self.field(volume, mask)
            corrected = np.asarray(volume.array / field.array, dtype=np.float32)
            level = float(volume.array[mask].mean() / corrected[mask].mean())
            return np.multiply(corrected, np.float32(level), out=corrected)

        return on_scans(study, "brain", correct, otherwise=above_otsu)

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
        small = np.maximum(small, floor)
        # the spline needs more than one voxel along each axis
        for axis in range(3):
            if grid.shape[axis] == 1:
                small, small_mask = (np.repeat(a, 4, axis=axis) for a in (small, small_mask))
        inputs = (small, small_mask, grid, astuple(self))
        (log_field,) = kept("n4", inputs, lambda: (self._log_field(small, small_mask, grid),))
        full = resample_to(Volume(log_field, grid), volume.grid, order=3)
        return Volume(np.exp(full.array), volume.grid)

    def _log_field(
        self, array: NDArray[np.float32], mask: BoolArray, grid: Grid
    ) -> NDArray[np.float32]:
        """The logarithm of the field on the grid; the arrays may be longer than that."""
        image = SimpleITK.GetImageFromArray(array)
        mask_image = SimpleITK.GetImageFromArray(mask.astype(np.uint8))
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
        i, j, k = grid.shape
        return np.asarray(log_field[:i, :j, :k], dtype=np.float32)


@dataclass(frozen=True)
class ZScore:
    """Every scan with mean 0 and standard deviation 1 over the voxels named by ``within``.

    Voxels outside are transformed too, or set to 0 with ``zero_outside``; with ``tissue``, outside
    means outside the brain. Raises InputError for a constant scan.
    """

    within: Within = "brain"
    zero_outside: bool = False

    def __call__(self, study: Study) -> Study:
        def normalize(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            values = values_of(volume.array, mask, self.within, name)
            mean, std = values.mean(dtype=np.float64), values.std(dtype=np.float64)
            if not std > 1e-7 * max(1e-30, abs(mean)):
                raise InputError(f"{name}: every voxel has the same value")
            return outside(linear(volume.array, 1 / std, -mean / std), mask, self.zero_outside)

        return on_scans(study, self.within, normalize)


@dataclass(frozen=True)
class ZScoreSlices:
    """Every slice with mean 0 and standard deviation 1 over its voxels named by ``within``.

    Voxels outside are transformed too. A slice in which no voxel counts, or all are alike, becomes
    0. Raises InputError where that holds for every slice of a scan.

    Attributes:
        axis: the slices' normal: 2 for axial slices, 0 for sagittal, 1 for coronal.
        within: ``tissue`` is not defined for a slice.
    """

    axis: Literal[0, 1, 2] = 2
    within: Literal["brain", "nonzero", "all"] = "all"

    def __call__(self, study: Study) -> Study:
        others = tuple(axis for axis in range(3) if axis != self.axis)

        def normalize(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            array = np.asarray(volume.array, dtype=np.float32)
            count = np.maximum(mask.sum(axis=others, keepdims=True), 1)
            mean = array.sum(axis=others, keepdims=True, where=mask, dtype=np.float64) / count
            out: NDArray[np.float32] = array - mean.astype(np.float32)
            power = np.square(out).sum(axis=others, keepdims=True, where=mask, dtype=np.float64)
            std = np.sqrt(power / count)
            varies = std > 1e-6 * np.abs(mean)
            if not varies.any():
                raise InputError(f"{name}: every slice has one value only")
            scale = np.divide(1, std, out=np.zeros_like(std), where=varies)
            out *= scale.astype(np.float32)
            return out

        return on_scans(study, self.within, normalize)


@dataclass(frozen=True)
class DropNegative:
    """Every scan with its negative values set to 0.

    After ``ZScore`` the background becomes empty.
    """

    def __call__(self, study: Study) -> Study:
        def drop(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            return np.maximum(np.asarray(volume.array, dtype=np.float32), np.float32(0))

        return on_scans(study, "all", drop)


@dataclass(frozen=True)
class Rescale01:
    """Every scan mapped so that its least value over ``within`` is 0 and its greatest 1.

    Voxels outside are mapped alike and cut to [0, 1]. Raises InputError for a constant scan.
    """

    within: Within = "all"

    def __call__(self, study: Study) -> Study:
        def rescale(volume: Volume, mask: BoolArray, name: str) -> FloatArray:
            values = values_of(volume.array, mask, self.within, name)
            low, high = float(values.min()), float(values.max())
            if not high > low:
                raise InputError(f"{name}: every voxel has the same value")
            scaled = linear(volume.array, 1 / (high - low), -low / (high - low))
            return np.clip(scaled, 0, 1, out=scaled)

        return on_scans(study, self.within, rescale)
