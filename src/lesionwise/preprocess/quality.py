"""Whether a scan is fit to be read: a grade and its reasons, before any result is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import cc3d
import edt
import numpy as np
from scipy import ndimage

from lesionwise.preprocess.brain_border import brain_border
from lesionwise.preprocess.brain_pose import brain_pose
from lesionwise.preprocess.each_scan import from_zero
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.slice_motion import slice_shift_mm
from lesionwise.types import BoolArray, FloatArray, Visit, Volume

Grade = Literal["good", "fair", "poor"]

THICK_MM, TOO_THICK_MM = 4.0, 8.5
"""Clinical 2D scans reach 8.1 mm, gap included, and lesions are found in them."""
NOISY, TOO_NOISY = 15.0, 6.0
CUT_FRACTION, TOO_CUT_FRACTION = 0.05, 0.4
"""A brain cut where its section is 0.4 of the largest lacks about 3 % of its volume."""
USUAL_ML, POSSIBLE_ML = (900, 1850), (700, 2100)
"""Volume of a whole brain; 1154 to 1761 ml in the real masks measured."""
OPEN, TOO_OPEN = 0.2, 0.3
"""Of ``BrainBorder.open``, the widest side but the bottom.

The limits here are measured in docs/measurements/quality.md."""
FAT, TOO_FAT = 0.03, 0.08
SKULL, TOO_SKULL = 0.04, 0.1
DARK_RIM, TOO_DARK_RIM = 0.16, 0.25
"""Of ``BrainBorder``, in FLAIR; measured in docs/measurements/quality.md."""
ON_ITS_SIDE, BACKWARD_MM = 0.03, 8.0
"""By how much a brain is more symmetric along another axis, and its cerebellum lies in front."""
NOT_UPRIGHT = -8.0
"""Of ``BrainPose.upright``: -5 and more in the masks of 17 real scans, the negative upside down."""
FLAT = 0.08
BRIGHT_TAIL = 0.58
"""Above the median, share of the range: 0.26 to 0.53 in FLAIR, 0.64 to 0.73 in T2w."""
GRAY_ABOVE_WHITE = -0.085
"""Of ``tissue_order``: -0.04 to 0.15 in FLAIR, -0.32 to -0.13 in T1w."""
GHOSTED, TOO_GHOSTED = 0.004, 0.04
"""Of ``ghost_fraction``: at most 0.0014 in the real scans."""
SHIFTED_MM, TOO_SHIFTED_MM = 0.3, 1.0
"""Of ``slice_shift_mm``; measured in docs/measurements/quality.md."""
SATURATED_FRACTION = 0.02
CHANGED_SPACING = 1.25
CHANGED_NOISE = 2.0
CHANGED_TAIL = 0.2
MIN_AIR_VOX = 200
MIN_EVENNESS = 1.75
"""Of ``_evenness``: at most 1.58 in the air of fifteen scans without ghosts, 1.92 with."""
RICIAN_MEAN = 1.2533
"""Mean of the magnitude of noise alone, over its SD in each of the two channels."""


@dataclass(frozen=True)
class Quality:
    """How far one scan can be trusted.

    Attributes:
        grade: good; fair: read with care; poor: results mean little.
        reasons: one short sentence for each problem, the most severe first; none for a good scan.
        measures: what was measured, by name, with the unit at the end of the name.
    """

    grade: Grade
    reasons: tuple[str, ...]
    measures: Mapping[str, float]


@dataclass
class _Found:
    """What the judges of a scan measured, and what they object to: severe or not, and why."""

    measures: dict[str, float] = field(default_factory=dict)
    problems: list[tuple[bool, str]] = field(default_factory=list)

    def problem(self, reason: str, *, severe: bool = True) -> None:
        self.problems.append((severe, reason))


def scan_quality(scan: Volume, brain: Volume | None, *, flair: bool = True) -> Quality:
    """Grade one scan by coverage, spacing, noise, motion, contrast and kind.

    Args:
        scan: any scan, before its intensities were normalized.
        brain: brain mask on any grid; None measures spacing and emptiness alone, and so does a
            mask that holds every voxel.
        flair: whether the scan should be a FLAIR: then fluid has to be darker than tissue, and
            gray matter no darker than white matter.

    Thresholds are this project's own, set so that the real scans measured (0.57 x 0.57 x 3.3 to
    0.72 x 0.72 x 4 mm, and two of 1 mm) are good and obviously degraded copies of them are not.

    Example:
        >>> from lesionwise.types import Grid
        >>> grid = Grid((2, 2, 2), np.diag([1.0, 1.0, 6.0, 1.0]))
        >>> found = scan_quality(Volume(np.arange(8.0).reshape(2, 2, 2), grid), brain=None)
        >>> found.grade, found.reasons
        ('fair', ('voxels are 6.0 mm long along one axis',))
    """
    values = scan.array
    if not np.isfinite(values).all():
        return Quality("poor", ("some voxels are not finite",), {})
    if not np.ptp(values) > 0:
        return Quality("poor", ("every voxel has the same value",), {})
    found = _Found()
    longest_mm = found.measures["largest_spacing_mm"] = max(scan.grid.spacing_mm)
    if longest_mm > THICK_MM + 0.05:
        text = f"voxels are {longest_mm:.1f} mm long along one axis"
        found.problem(text, severe=longest_mm > TOO_THICK_MM)
    if brain is not None and not brain.array.all():
        inside = resample_to(brain, scan.grid, order=0).array.astype(bool)
        if not inside.any():
            return Quality("poor", ("the brain mask is empty",), found.measures)
        values = from_zero(values, inside)
        scan = Volume(values, scan.grid)
        _judge_border(scan, Volume(inside, scan.grid), flair, found)
        _judge_pose(Volume(inside, scan.grid), found)
        _judge_brain(values, inside, scan.grid.spacing_mm, flair, found)
    return graded(found.problems, found.measures)


def _judge_border(scan: Volume, brain: Volume, flair: bool, found: _Found) -> None:
    """Whether the mask ends where the brain does; what is dark is known in FLAIR alone."""
    border = brain_border(scan, brain)
    if border is None:
        return
    side, share = border.widest_open
    found.measures["open_border_fraction"] = share
    if share > OPEN:
        text = f"the brain continues beyond its mask at the {side}"
        found.problem(text, severe=share > TOO_OPEN)
    if not flair:
        return
    for name, value, limits, what in (
        ("fat_border_fraction", border.fat, (FAT, TOO_FAT), "fat in the brain mask"),
        ("skull_border_fraction", border.skull, (SKULL, TOO_SKULL), "skull in the brain mask"),
        (
            "dark_rim_fraction",
            border.dark_rim,
            (DARK_RIM, TOO_DARK_RIM),
            "the brain mask is too wide: much of its rim is dark",
        ),
    ):
        found.measures[name] = value
        if value > limits[0]:
            found.problem(what, severe=value > limits[1])


def _judge_pose(brain: Volume, found: _Found) -> None:
    """Whether the head lies as its header says; not asked of a brain that is cut or too small."""
    milliliters = float(brain.array.sum()) * brain.grid.voxel_volume_mm3 / 1000
    pose = brain_pose(brain)
    whole = milliliters >= USUAL_ML[0] and cut_fraction(brain.array) <= TOO_CUT_FRACTION
    if pose is None or not whole:
        return
    i, j, k = pose.symmetry
    found.measures["side_symmetry"] = i - max(j, k)
    found.measures["cerebellum_behind_mm"] = pose.backward_mm
    found.measures["upright"] = pose.upright
    if i < max(j, k) - ON_ITS_SIDE:
        found.problem("by its header the head lies on its side or looks sideways")
    elif pose.backward_mm < -BACKWARD_MM:
        found.problem("by its header the head is upside down or looks backward")
    elif pose.upright < NOT_UPRIGHT:
        found.problem("by its header the head is upside down")


def _judge_brain(
    values: FloatArray,
    inside: BoolArray,
    spacing_mm: tuple[float, float, float],
    flair: bool,
    found: _Found,
) -> None:
    milliliters = float(inside.sum() * np.prod(spacing_mm) / 1000)
    found.measures["brain_volume_ml"] = milliliters
    cut = found.measures["cut_fraction"] = cut_fraction(inside)
    if not USUAL_ML[0] <= milliliters <= USUAL_ML[1]:
        odd = not POSSIBLE_ML[0] <= milliliters <= POSSIBLE_ML[1]
        what = "small" if milliliters < USUAL_ML[0] else "large"
        text = f"the brain mask is {what} for a brain: {milliliters:.0f} ml"
        found.problem(text, severe=odd)
    if cut > CUT_FRACTION:
        found.problem("the field of view cuts through the brain", severe=cut > TOO_CUT_FRACTION)
    low, middle, high = np.percentile(values[inside], [5, 50, 95])
    air = air_levels(values, inside, spacing_mm)
    noise = noise_level(values, inside)
    if air is not None:  # noise whose neighbors are alike is plain to see in the air alone
        noise = max(noise, air.corners * float(middle) / RICIAN_MEAN)
    ratio = found.measures["signal_to_noise"] = float(middle / noise) if noise > 0 else np.inf
    if ratio < NOISY:
        text = f"noisy: the signal is {ratio:.1f} times the noise"
        found.problem(text, severe=ratio < TOO_NOISY)
    found.measures["contrast"] = float((high - low) / abs(middle)) if middle else np.inf
    if found.measures["contrast"] < FLAT:
        found.problem("hardly any contrast within the brain")
    ghost = None if air is None else ghost_fraction(air)
    if ghost is not None:
        found.measures["ghost_fraction"] = ghost
        if ghost > GHOSTED:
            percent = f"{100 * ghost:.1f} % as bright as the brain"
            text = f"motion: ghosts beside the head, {percent}"
            found.problem(text, severe=ghost > TOO_GHOSTED)
    shift = slice_shift_mm(values, inside, spacing_mm)
    if shift is not None:
        found.measures["slice_shift_mm"] = shift
        if shift > SHIFTED_MM:
            text = f"motion: slices are shifted by {shift:.1f} mm"
            found.problem(text, severe=shift > TOO_SHIFTED_MM)
    top = float(values.max())
    found.measures["saturated_fraction"] = float((values[inside] >= top).mean())
    if found.measures["saturated_fraction"] > SATURATED_FRACTION:
        found.problem("bright voxels are cut off at the highest value", severe=False)
    _judge_brightness(values, inside, spacing_mm, flair, found)


def _judge_brightness(
    values: FloatArray,
    inside: BoolArray,
    spacing_mm: tuple[float, float, float],
    flair: bool,
    found: _Found,
) -> None:
    """Air is darker than brain in every MRI; fluid is darker than tissue in FLAIR."""
    middle = float(np.median(values[inside]))
    far = edt.edt(~inside, anisotropy=spacing_mm, black_border=False) > 40
    if far.any():
        air = float(np.median(values[far]) / middle) if middle else np.inf
        found.measures["air_to_brain"] = air
        if air > 1:
            found.problem("inverted: the air is brighter than the brain")
    dark, bright = np.percentile(values[inside], [1, 99])
    found.measures["bright_tail"] = float((bright - middle) / max(bright - dark, 1e-12))
    if flair and found.measures["bright_tail"] > BRIGHT_TAIL:
        found.problem("fluid is brighter than tissue: not a FLAIR scan, or inverted")
    found.measures["tissue_order"] = tissue_order(values, inside, spacing_mm)
    if flair and found.measures["tissue_order"] < GRAY_ABOVE_WHITE:
        found.problem("gray matter is darker than white matter: T1-weighted, not FLAIR")


def tissue_order(
    values: FloatArray, inside: BoolArray, spacing_mm: tuple[float, float, float]
) -> float:
    """Above 0 where gray matter is brighter than white matter, below where it is darker.

    The sum of two shares of the tissue's brightness: how much brighter the outer 3 to 9 mm of
    the brain are than what lies 14 to 25 mm deep, after slow changes (20 mm) were divided out;
    and how far the median lies above the mode, which is that of white matter. 0 where the
    brain is too thin to have both. Tissue is what lies between 0.55 and 2 times the median.

    Example:
        >>> inside = np.zeros((40, 40, 40), dtype=np.bool_)
        >>> inside[5:35, 5:35, 5:35] = True
        >>> depth_mm = edt.edt(inside, anisotropy=(2.0, 2.0, 2.0))
        >>> tissue_order(np.where(depth_mm < 8, 120.0, 100.0), inside, (2.0, 2.0, 2.0)) > 0
        True
        >>> tissue_order(np.where(depth_mm < 8, 80.0, 100.0), inside, (2.0, 2.0, 2.0)) < 0
        True
    """
    step = tuple(max(1, round(2 / s)) for s in spacing_mm)
    thinned = tuple(slice(None, None, n) for n in step)
    values = np.asarray(values[thinned], dtype=np.float32)
    inside = np.ascontiguousarray(inside[thinned])
    coarse_mm = [n * s for n, s in zip(step, spacing_mm, strict=True)]
    middle = float(np.median(values[inside])) if inside.any() else 0.0
    if middle <= 0:
        return 0.0
    tissue = inside & (values > 0.55 * middle) & (values < 2 * middle)
    sigma = [20 / s for s in coarse_mm]
    share = ndimage.gaussian_filter(tissue.astype(np.float32), sigma)
    slow = ndimage.gaussian_filter(np.where(tissue, values, 0), sigma) / np.maximum(share, 1e-3)
    even = values / np.maximum(slow, 1e-6)
    depth_mm = edt.edt(inside, anisotropy=coarse_mm, black_border=False)
    outer = even[tissue & (depth_mm > 3) & (depth_mm < 9)]
    deep = even[tissue & (depth_mm > 14) & (depth_mm < 25)]
    if not len(outer) or not len(deep):
        return 0.0
    counts, edges = np.histogram(values[tissue], 64)
    highest = int(ndimage.gaussian_filter1d(counts.astype(np.float64), 1.5).argmax())
    mode = float(edges[highest] + edges[highest + 1]) / 2
    return float(np.median(outer) - np.median(deep)) + (middle - mode) / middle


@dataclass(frozen=True)
class AirLevels:
    """Mean signal of the air beside the head along i, along j, and at the corners; brain = 1."""

    beside_i: float
    beside_j: float
    corners: float


def air_levels(
    values: FloatArray, inside: BoolArray, spacing_mm: tuple[float, float, float]
) -> AirLevels | None:
    """How bright the air is around a head; None where the head fills the picture.

    Air lies 8 mm and more outside the head, which is the connected part of what is a quarter as
    bright as the brain. Beside along i means: the head lies further along i, nothing of it along
    j; at the corners neither. Slices whose brain section is below 0.4 of the largest are left
    out, and so are areas of zeros only, which no scanner measured: blanked margins, or a face
    that was removed. Where that leaves nothing of the corners, their level is the mean that the
    noise within the brain would have in air. Air beside the head that varies from voxel to voxel
    more than copies of a head do is noise: its level is that of the corners, which scanners
    often darken. All are 0 in a scan whose air was set to 0.

    Example:
        >>> values = np.full((64, 64, 8), 2.0)
        >>> values[:, 17:47] = 10  # copies of the head along i
        >>> values[22:42, 22:42] = 100
        >>> air = air_levels(values, values == 100, (2.0, 2.0, 2.0))
        >>> round(air.beside_i, 2), round(air.beside_j, 2), round(air.corners, 2)
        (0.1, 0.02, 0.02)
    """
    sections = inside.sum(axis=(0, 1))
    middle = float(np.median(values[inside]))
    if middle <= 0:
        return None
    along = [max(1, round(2 / s)) for s in spacing_mm[:2]]
    thinned = np.s_[:: along[0], :: along[1], sections >= 0.4 * sections.max()]
    air_and_head = np.asarray(values[thinned], dtype=np.float32)
    bright = ndimage.uniform_filter(air_and_head, (3, 3, 1)) > 0.25 * middle
    regions = cc3d.connected_components(bright | inside[thinned], connectivity=6)
    counts = np.bincount(regions.ravel())
    counts[0] = 0
    margin = max(1, round(8 / (along[0] * spacing_mm[0])))
    cross = ndimage.generate_binary_structure(2, 1)[:, :, None]
    head = ndimage.binary_dilation(regions == counts.argmax(), cross, iterations=margin)
    beside_i = ~head & head.any(axis=0, keepdims=True)
    beside_j = ~head & head.any(axis=1, keepdims=True)
    found = (beside_i & ~beside_j, beside_j & ~beside_i, ~head & ~beside_i & ~beside_j)
    if min(int(region.sum()) for region in found) < MIN_AIR_VOX:
        return None
    measured = ndimage.maximum_filter(air_and_head != 0, (5, 5, 1))
    seen = [region & measured for region in found]
    known = [int(region.sum()) >= MIN_AIR_VOX for region in seen]
    corners = 0.0
    if known[2]:
        corners = float(air_and_head[seen[2]].mean()) / middle
    elif any(known):
        corners = RICIAN_MEAN * noise_level(values, inside) / middle
    beside = [
        float(air_and_head[region].mean()) / middle
        if enough and _evenness(air_and_head, region) >= MIN_EVENNESS
        else corners
        for region, enough in zip(seen[:2], known[:2], strict=True)
    ]
    return AirLevels(beside[0], beside[1], corners)


def _evenness(values: FloatArray, region: BoolArray) -> float:
    """Median over a region of the mean within 5 x 5 voxels over the standard deviation there.

    1.91 for the noise of a magnitude image (Rayleigh), about 1.4 where a filter sharpened it,
    and 1.9 to 2.3 for copies of a head; 0 where no neighborhood lies within the region.
    """
    part = ndimage.uniform_filter(region.astype(np.float32), (5, 5, 1))
    share = np.maximum(part, 1e-3)
    within = np.where(region, values, 0).astype(np.float32)
    mean = ndimage.uniform_filter(within, (5, 5, 1)) / share
    variance = ndimage.uniform_filter(within**2, (5, 5, 1)) / share - mean**2
    whole = region & (part > 0.8)
    if not whole.any():
        return 0.0
    # 25/24: the variance of 25 voxels about their own mean is that much too small
    std = np.sqrt(np.maximum(variance[whole] * 25 / 24, 1e-12))
    return float(np.median(mean[whole] / std))


def ghost_fraction(air: AirLevels) -> float:
    """How much brighter the air beside the head is than that at the corners, brain = 1.

    A patient who moves, and blood that flows, leave copies of the head along the direction of
    phase encoding: in the air beside the head along i or along j, never at the corners, where
    noise alone is. The larger of the two directions counts. Ghosts along k are not seen, and none
    in a scan whose air was set to 0.

    Example:
        >>> round(ghost_fraction(AirLevels(beside_i=0.1, beside_j=0.02, corners=0.02)), 2)
        0.08
    """
    return max(air.beside_i - air.corners, air.beside_j - air.corners, 0.0)


def cut_fraction(inside: BoolArray) -> float:
    """The largest part of any face of the volume that the brain fills, over its largest section.

    0 for a brain that touches no face. The lowest face is measured beyond a quarter of
    the largest section, since the brainstem may always leave through it.

    Example:
        >>> inside = np.zeros((6, 6, 6), dtype=np.bool_)
        >>> inside[1:5, 1:5, 1:5] = True
        >>> cut_fraction(inside)
        0.0
        >>> cut_fraction(inside[2:])
        1.0
    """
    share = 0.0
    for axis in range(3):
        sections = inside.sum(axis=tuple(a for a in range(3) if a != axis))
        largest = float(sections.max())
        first, last = sections[0] / largest, sections[-1] / largest
        if axis == 2:
            first = max(0.0, first - 0.25)
        share = max(share, float(first), float(last))
    return share


def noise_level(values: FloatArray, inside: BoolArray) -> float:
    """Standard deviation of the noise within a mask, in the scan's own units.

    Second differences along i and j cancel what is smooth; their median absolute value
    ignores edges. Source: Immerkaer 1996, with a median for the mean, slice by slice.

    Example:
        >>> scan = np.random.default_rng(0).normal(100, 5, (24, 24, 24))
        >>> round(noise_level(scan, scan > 0))
        5
    """
    kernel = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)[:, :, None]
    rough = np.asarray(ndimage.convolve(np.asarray(values, np.float32), kernel, mode="nearest"))
    # six times: the kernel's own norm; 0.6745: median of a standard normal's absolute value
    return float(np.median(np.abs(rough[inside])) / (6 * 0.6745))


def protocol_changes(
    visits: Sequence[Visit], scan: str = "flair", grades: Sequence[Quality] | None = None
) -> tuple[str, ...]:
    """What changed in the way one scan was taken between consecutive visits, as sentences.

    Compares voxel size and, where brains are known, contrast and noise. Visits without the scan
    are passed over.

    Args:
        grades: of each visit's scan, where they are known already.

    Example:
        >>> from lesionwise.types import Grid
        >>> visits = []
        >>> for session, slice_mm in (("M00", 3.0), ("M12", 1.0)):
        ...     grid = Grid((2, 2, 2), np.diag([1.0, 1.0, slice_mm, 1.0]))
        ...     scan = Volume(np.arange(8.0).reshape(2, 2, 2), grid)
        ...     visits.append(Visit({"flair": scan}, session=session))
        ...
        >>> protocol_changes(visits)
        ('voxel sizes differ between M00 and M12',)
    """
    if grades is None:
        grades = [
            scan_quality(visit.scans[scan], visit.brain, flair=scan == "flair")
            if scan in visit.scans
            else Quality("good", (), {})
            for visit in visits
        ]
    having = [pair for pair in zip(visits, grades, strict=True) if scan in pair[0].scans]
    changes = []
    for (before, first), (after, second) in pairwise(having):
        names = f"{before.session or 'the first visit'} and {after.session or 'the next'}"
        one, two = before.scans[scan], after.scans[scan]
        ratios = np.sort(one.grid.spacing_mm) / np.sort(two.grid.spacing_mm)
        if max(ratios.max(), 1 / ratios.min()) > CHANGED_SPACING:
            changes.append(f"voxel sizes differ between {names}")

        def both(name: str, a: Quality = first, b: Quality = second) -> tuple[float, float] | None:
            if name in a.measures and name in b.measures:
                return float(a.measures[name]), float(b.measures[name])
            return None

        tails = both("bright_tail")
        if tails is not None and abs(tails[0] - tails[1]) > CHANGED_TAIL:
            changes.append(f"contrast differs between {names}")
        noise = both("signal_to_noise")
        if noise is not None and max(noise) > CHANGED_NOISE * min(noise):
            changes.append(f"noise differs between {names}")
    return tuple(changes)


def graded(problems: Sequence[tuple[bool, str]], measures: Mapping[str, float]) -> Quality:
    """Poor if a problem (severe, reason) is severe, fair if there is any, else good.

    Example:
        >>> graded([(False, "the scan is noisy")], {}).grade, graded([], {}).grade
        ('fair', 'good')
    """
    severe = [reason for is_severe, reason in problems if is_severe]
    light = [reason for is_severe, reason in problems if not is_severe]
    grade: Grade = "poor" if severe else "fair" if light else "good"
    return Quality(grade, (*severe, *light), measures)
