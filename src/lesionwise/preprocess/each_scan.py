"""What the intensity steps share: a change of every scan, taken over the voxels that count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import BoolArray, InputError, Study, Visit, Volume

Within = Literal["brain", "tissue", "nonzero", "all"]
"""The voxels a statistic is taken from: the brain mask, its tissue, what is not 0, or all.

``tissue`` is what is brighter, in the brain mask, than 0.6 of its median. On FLAIR that leaves out
the fluid, whose share depends on how tightly the mask fits: in one stripped scan, a mask with
sulci filled had 1.6 times the standard deviation of its tissue.
"""
TISSUE_FRACTION = 0.6
MIN_BACKGROUND = 0.2
"""Share of the voxels that hold one value where that value is background."""
MAX_NEGATIVE = 0.01
"""Share of the brain below 0 from which a scan's zero is not that of the scanner."""

Change = Callable[[Volume, BoolArray, str], NDArray[Any]]
"""change(scan, voxels that count, name for messages) -> the scan's new array."""


def on_scans(
    study: Study,
    within: Within,
    change: Change,
    otherwise: Callable[[Volume], BoolArray] | None = None,
) -> Study:
    """The study with ``change`` applied to every scan of every visit; all else stays.

    Args:
        within: what ``change`` gets as the voxels that count; for ``tissue`` it gets the brain,
            see ``values_of``.
        otherwise: those voxels where a visit has no brain mask.

    Raises:
        InputError: If a scan is not finite, or has no voxel that counts.

    Example:
        >>> from lesionwise.types import Grid
        >>> scan = Volume(np.array([[[1.0, 3.0]]]), Grid((1, 1, 2), np.eye(4)))
        >>> study = Study("01", (Visit({"flair": scan}),))
        >>> changed = on_scans(study, "all", lambda volume, mask, name: volume.array - 1)
        >>> changed.visits[0].scans["flair"].array.tolist()
        [[[0.0, 2.0]]]
    """

    def visit_with(visit: Visit) -> Visit:
        scans = {}
        for key, volume in visit.scans.items():
            name = scan_name(study, visit, key)
            volume = as_numbers(volume)
            mask = mask_of(visit, volume, within, name, otherwise)
            scans[key] = Volume(change(volume, mask, name), volume.grid)
        return replace(visit, scans=scans)

    return each_visit(study, visit_with)


def as_numbers(volume: Volume) -> Volume:
    """The scan itself, or 0 and 1 as float32 where it holds truth values.

    Example:
        >>> from lesionwise.types import Grid
        >>> mask = Volume(np.array([[[True, False]]]), Grid((1, 1, 2), np.eye(4)))
        >>> as_numbers(mask).array.tolist()
        [[[1.0, 0.0]]]
    """
    if volume.array.dtype != np.bool_:
        return volume
    return Volume(volume.array.astype(np.float32), volume.grid)


def scan_name(study: Study, visit: Visit, key: str) -> str:
    """Subject, session and scan, for messages.

    Example:
        >>> visit = Visit({}, session="M12")
        >>> scan_name(Study("01", (visit,)), visit, "flair")
        '01 M12 flair'
    """
    return " ".join(part for part in (study.subject, visit.session, key) if part)


def mask_of(
    visit: Visit,
    volume: Volume,
    within: Within,
    name: str,
    otherwise: Callable[[Volume], BoolArray] | None = None,
) -> BoolArray:
    """(I, J, K) bool: the voxels of a scan that count.

    Raises:
        InputError: If the scan is not finite, the brain mask is missing or empty, or all is zero.

    Example:
        >>> from lesionwise.types import Grid
        >>> scan = Volume(np.array([[[0.0, 3.0, 5.0]]]), Grid((1, 1, 3), np.eye(4)))
        >>> mask_of(Visit({"flair": scan}), scan, "nonzero", "01 flair").tolist()
        [[[False, True, True]]]
    """
    check_finite(volume, name)
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


def values_of(array: NDArray[Any], mask: BoolArray, within: Within, name: str) -> NDArray[Any]:
    """(n,): the values a statistic is taken from, given the mask of ``mask_of``.

    Raises:
        InputError: If tissue is asked for and the brain's median is not positive.

    Example:
        >>> brain = np.array([10.0, 100.0, 110.0, 120.0])  # fluid and tissue
        >>> values_of(brain, brain > 0, "tissue", "01 flair").tolist()
        [100.0, 110.0, 120.0]
    """
    values: NDArray[Any] = array[mask]
    if within == "tissue":
        values = values[values > TISSUE_FRACTION * np.median(values)]
        if not len(values):
            raise InputError(f"{name}: the brain's median is not positive")
    return values


def has_background(array: NDArray[Any]) -> bool:
    """True where at least a fifth of the voxels hold the value of the first one.

    Example:
        >>> has_background(np.array([[[0, 0, 7, 8, 9]]]))
        True
        >>> has_background(np.array([[[1, 2, 3, 4, 5, 6]]]))
        False
    """
    return bool((array == array[0, 0, 0]).mean() >= MIN_BACKGROUND)


def from_zero(array: NDArray[Any], mask: BoolArray) -> NDArray[Any]:
    """A scan whose values begin at 0 again, as magnitude images do.

    A scan that was z-scored, or stored with an offset, has its zero elsewhere; what takes
    logarithms or ratios of intensities would be wrong there. The lowest value becomes 0: that of
    the background, where one value fills a fifth of the scan, or of the brain. Background stays
    at 0 in any case. The array itself comes back where its zero is right: at most one in a
    hundred voxels of the brain is negative, and there is no background, or it is 0 or brighter
    than some of the brain.

    Args:
        mask: voxels that count, at least one.

    Example:
        >>> scan = np.array([[[-1.0, -1.0, 0.5, 2.0]]])
        >>> from_zero(scan, scan > -1).tolist()
        [[[0.0, 0.0, 1.5, 3.0]]]
    """
    background = array[0, 0, 0] if has_background(array) else None
    inside = array[mask]
    negative = bool((inside < 0).mean() > MAX_NEGATIVE)
    lowest = inside.min()
    if not negative and (background is None or background == 0 or background > lowest):
        return array
    if background is not None:
        lowest = min(background, lowest)
    shifted: NDArray[Any] = np.subtract(array, lowest, dtype=np.float32)
    if background is not None:
        shifted[array == background] = 0
    return shifted


def check_finite(volume: Volume, name: str) -> None:
    """Raise InputError for a scan with NaN or infinity; its sum tells, in one pass.

    Example:
        >>> from lesionwise.types import Grid
        >>> scan = Volume(np.array([[[1.0, np.nan]]]), Grid((1, 1, 2), np.eye(4)))
        >>> check_finite(scan, "01 flair")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: 01 flair: some voxels are not finite
    """
    array = volume.array
    if array.dtype.kind == "f" and not np.isfinite(array.sum(dtype=np.float64)):
        raise InputError(f"{name}: some voxels are not finite")


def linear(array: NDArray[Any], scale: float, shift: float) -> NDArray[np.float32]:
    """scale * array + shift, float32, with one temporary array.

    Example:
        >>> linear(np.array([1, 2]), scale=10, shift=5).tolist()
        [15.0, 25.0]
    """
    out: NDArray[np.float32] = np.multiply(array, np.float32(scale), dtype=np.float32)
    out += np.float32(shift)
    return out


def outside(array: NDArray[np.float32], mask: BoolArray, zero: bool) -> NDArray[np.float32]:
    """The array itself, set to 0 outside the mask where ``zero`` says so.

    Example:
        >>> mask = np.array([True, False])
        >>> outside(np.array([3.0, 4.0], dtype=np.float32), mask, zero=True).tolist()
        [3.0, 0.0]
    """
    if zero:
        np.multiply(array, mask, out=array)
    return array


def above_otsu(volume: Volume) -> BoolArray:
    """The voxels brighter than Otsu's threshold; all of a constant scan.

    Example:
        >>> from lesionwise.types import Grid
        >>> above_otsu(Volume(np.array([[[0, 1, 1, 9, 10]]]), Grid((1, 1, 5), np.eye(4)))).tolist()
        [[[False, False, False, True, True]]]
    """
    from skimage.filters import threshold_otsu

    if not np.ptp(volume.array) > 0:
        return np.ones(volume.array.shape, dtype=bool)
    mask: BoolArray = volume.array > threshold_otsu(volume.array)
    return mask
