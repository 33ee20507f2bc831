"""What the scans themselves say about a change: did the place become brighter, beyond rescan noise?

Lesions found at one visit only may have been overlooked at the other. Two scans on one grid decide:
the earlier one is put on the later one's intensity scale, and at each place the difference is
compared to how much unchanged tissue differs between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.change.subtraction import subtraction
from lesionwise.instances.table import bounding_box
from lesionwise.instances.voxels import Indices, list_voxels
from lesionwise.types import BoolArray, FloatArray, Grid

Float32 = NDArray[np.float32]
MARGIN_MM = 3.0
"""Unchanged tissue is looked for this deep inside the brain: its border moves with the mask."""
DOUBT_MM = 2.0
"""Tissue this near to what either visit takes for a possible lesion is not taken for normal."""
FADE_MM = 12.0
"""Differences smoother than this belong to the coil or the scanner, not to a lesion."""
RING_MM = (2.0, 6.0)
"""Normal tissue between these distances around a lesion is what it is compared to."""
MIN_RING_VOX = 10
MIN_TISSUE_VOX = 1000
SCALE_QUANTILES, EDGE_BINS = 60, 20
ROUNDS = 2
"""The scale is matched again without the first guess of the field, which had blurred it."""


@dataclass(frozen=True)
class Evidence:
    """What two scans say about one place.

    Attributes:
        z: mean over its voxels of later minus earlier, in units of the noise between two scans of
            unchanged tissue; positive where it became brighter. NaN where a visit does not show it.
        contrast_gain: fraction of its contrast to the normal tissue around it that it did not have
            at the earlier visit or, for what disappeared, no longer has at the later: 1 all of it,
            0 none. NaN where it is not brighter than that tissue, or there is too little of
            it.
    """

    z: float
    contrast_gain: float


UNKNOWN = Evidence(np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class ScanChange:
    """Two scans of one patient on one grid and one intensity scale.

    Attributes:
        earlier, later: (I, J, K) float32, both on the later scan's scale, its bias field taken to
            the earlier one's.
        z: (I, J, K) float32, later minus earlier over the noise.
        normal: brain that neither visit takes for a possible lesion.
        shown: brain of both visits.
        grid: where they lie.
    """

    earlier: Float32
    later: Float32
    z: Float32
    normal: BoolArray
    shown: BoolArray
    grid: Grid

    def mean_z(self, index: Indices) -> float:
        """Mean of ``z`` over (n, 3) voxels; NaN where both visits show less than half of them."""
        at = tuple(index.T)
        shown = self.shown[at]
        if 2 * int(shown.sum()) < len(index) or not len(index):
            return float(np.nan)
        return float(self.z[at][shown].mean())

    def of_lesion(self, index: Indices, *, disappeared: bool = False) -> Evidence:
        """What the scans say about a lesion that only one visit holds.

        Args:
            index: (n, 3) its voxels.
            disappeared: True where the earlier visit holds it.
        """
        z = self.mean_z(index)
        if not np.isfinite(z):
            return UNKNOWN
        ring = self._ring(index)
        holds, lacks = (self.earlier, self.later) if disappeared else (self.later, self.earlier)
        if len(ring) < MIN_RING_VOX:
            return Evidence(z, np.nan)
        at, around = tuple(index[self.shown[tuple(index.T)]].T), tuple(ring.T)
        contrast = float(holds[at].mean() - np.median(holds[around]))
        before = float(lacks[at].mean() - np.median(lacks[around]))
        return Evidence(z, 1 - before / contrast if contrast > 0 else np.nan)

    def _ring(self, index: Indices) -> Indices:
        """(n, 3) normal voxels around a lesion."""
        spacing_mm = np.array(self.grid.spacing_mm)
        reach = np.ceil(RING_MM[1] / spacing_mm).astype(int) + 1
        low = np.maximum(index.min(axis=0) - reach, 0)
        high = np.minimum(index.max(axis=0) + reach + 1, self.grid.shape)
        box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
        free = np.ones(high - low, dtype=np.bool_)
        free[tuple((index - low).T)] = False
        distance = ndimage.distance_transform_edt(free, sampling=spacing_mm)
        ring = (distance > RING_MM[0]) & (distance <= RING_MM[1]) & self.normal[box]
        around: Indices = list_voxels(ring) + low
        return around


def compare_scans(
    earlier: FloatArray,
    later: FloatArray,
    brains: tuple[BoolArray, BoolArray],
    doubtful: BoolArray,
    grid: Grid,
) -> ScanChange | None:
    """What became brighter between two scans, in units of how much unchanged tissue varies.

    The earlier scan is put on the later one's scale (``match_scale``). What is left of the
    difference and smoother than 12 mm is taken for a change of the bias field and removed. The
    noise is a robust standard deviation of the difference in normal tissue, separately for 20
    bins of the later scan's gradient and rising with it, since misplacement and partial volume show
    at edges.

    Args:
        earlier, later: (I, J, K), registered, on ``grid``; any scale.
        brains: bool, of either visit.
        doubtful: where either visit may show a lesion; kept out of all estimates.

    Returns:
        None where both brains share too little normal tissue to say anything.

    Example:
        >>> rng, grid = np.random.default_rng(0), Grid((24, 24, 24), np.eye(4))
        >>> earlier, noise = rng.normal(100, 5, (24, 24, 24)), rng.normal(0, 1, (24, 24, 24))
        >>> later = earlier + noise
        >>> later[10:14, 10:14, 10:14] += 50
        >>> brain = np.ones(grid.shape, dtype=np.bool_)
        >>> change = compare_scans(earlier, later, (brain, brain), later > 130, grid)
        >>> bool(change.z[11, 11, 11] > 10), bool(abs(change.z[4, 11, 11]) < 10)
        (True, True)
    """
    shown = brains[0] & brains[1]
    box = bounding_box(shown)
    if box is None:
        return None
    tissue = _deeper_than(shown[box], MARGIN_MM, grid) & _deeper_than(
        ~doubtful[box], DOUBT_MM, grid
    )
    if int(tissue.sum()) < MIN_TISSUE_VOX:
        return None
    before = np.array(earlier[box], dtype=np.float32)
    after = np.array(later[box], dtype=np.float32)
    for _ in range(ROUNDS):
        mapped = match_scale(before, after, tissue)
        after -= _smooth(subtraction(mapped, after), tissue, FADE_MM, grid)
    difference = subtraction(mapped, after)
    sigma_vox = [1.0 / step for step in grid.spacing_mm]
    edges = ndimage.gaussian_gradient_magnitude(after, sigma_vox)
    noise = _noise(difference, edges, tissue)

    normal = np.zeros(grid.shape, dtype=np.bool_)
    normal[box] = tissue

    def whole(part: Float32) -> Float32:
        array: Float32 = np.zeros(grid.shape, dtype=np.float32)
        array[box] = part
        return array

    return ScanChange(whole(mapped), whole(after), whole(difference / noise), normal, shown, grid)


def match_scale(earlier: Float32, later: Float32, tissue: BoolArray) -> Float32:
    """The earlier scan on the later one's intensity scale: by matching quantiles of ``tissue``.

    Beyond the outer 0.5 % at either end it continues with the slope between the 5 % and 95 %
    quantiles. Values brighter than all normal tissue, such as lesions, depend on this slope.

    Example:
        >>> scan = np.linspace(0, 1, 1000, dtype=np.float32).reshape(10, 10, 10)
        >>> matched = match_scale(scan, 3 * scan, np.ones(scan.shape, dtype=bool))
        >>> bool(np.allclose(matched, 3 * scan, atol=0.02))
        True
    """
    shares = [0.05, 0.95, *np.linspace(0.005, 0.995, SCALE_QUANTILES)]
    low_from, high_from, *source = np.quantile(earlier[tissue], shares)
    low_to, high_to, *target = np.quantile(later[tissue], shares)
    slope = (high_to - low_to) / (high_from - low_from) if high_from > low_from else 1.0
    mapped = np.interp(earlier, source, target)
    mapped += slope * (np.maximum(earlier - source[-1], 0) - np.maximum(source[0] - earlier, 0))
    result: Float32 = mapped.astype(np.float32)
    return result


def _noise(difference: Float32, edges: Float32, tissue: BoolArray) -> Float32:
    """Robust standard deviation of the difference by strength of edge, never falling with it."""
    strength = edges[tissue]
    cuts = np.unique(np.quantile(strength, np.linspace(0, 1, EDGE_BINS + 1)))
    middle = (cuts[1:] + cuts[:-1]) / 2 if len(cuts) > 1 else cuts
    rows = np.digitize(strength, cuts[1:-1])
    spread = _by_bin(difference[tissue], rows, len(middle), _robust_sd)
    known = np.isfinite(spread)
    rising = np.maximum.accumulate(spread[known])
    least = 1e-6 * max(float(np.abs(difference[tissue]).max()), 1e-6)
    noise: Float32 = np.maximum(np.interp(edges, middle[known], rising), least).astype(np.float32)
    return noise


def _smooth(array: Float32, inside: BoolArray, sigma_mm: float, grid: Grid) -> Float32:
    """Mean of what lies inside, weighted nearly as by a Gaussian: a moving mean taken three times.

    0 far from all that lies inside.
    """
    width = [max(round(float(np.sqrt(4 * (sigma_mm / a) ** 2 + 1))), 1) for a in grid.spacing_mm]
    total, weight = np.where(inside, array, np.float32(0)), inside.astype(np.float32)
    for _ in range(3):
        total = ndimage.uniform_filter(total, width, mode="constant")
        weight = ndimage.uniform_filter(weight, width, mode="constant")
    smooth: Float32 = total / np.maximum(weight, np.float32(1e-3))
    return smooth


def _by_bin(
    values: FloatArray,
    rows: NDArray[np.intp],
    bins: int,
    measure: Callable[[FloatArray], float],
) -> NDArray[np.float64]:
    """(bins,) a measure of the values in each bin; NaN where a bin is empty."""
    order = np.argsort(rows, kind="stable")
    cuts = np.searchsorted(rows[order], np.arange(1, bins))
    parts = np.split(values[order], cuts)
    return np.array([measure(part) if len(part) else np.nan for part in parts])


def _robust_sd(values: FloatArray) -> float:
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _deeper_than(mask: BoolArray, by_mm: float, grid: Grid) -> BoolArray:
    """Voxels further than that from every voxel outside the mask; beyond it does not count."""
    if mask.all():
        return mask
    depth: Float32 = edt.edt(np.ascontiguousarray(mask), anisotropy=grid.spacing_mm)
    deep: BoolArray = depth > by_mm
    return deep
