"""Whether a scan is fit to be read: a grade and its reasons, before any result is believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import edt
import numpy as np
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import BoolArray, FloatArray, Visit, Volume

Grade = Literal["good", "fair", "poor"]

THICK_MM, TOO_THICK_MM = 4.0, 6.5
NOISY, TOO_NOISY = 15.0, 6.0
CUT_SHARE, TOO_CUT_SHARE = 0.05, 0.2
FLAT = 0.08
BRIGHT_TAIL = 0.5
"""Above the median, share of the range of brightness: 0.27 to 0.34 in FLAIR, 0.63 in T2w."""
SATURATED_SHARE = 0.02
CHANGED_SPACING = 1.25


@dataclass(frozen=True)
class Quality:
    """How far one scan can be trusted.

    Attributes:
        grade: good; fair: read with care; poor: results mean little.
        reasons: one short sentence for each fault, the gravest first; none for a good scan.
        measures: what was measured, by name, with the unit at the end of the name.
    """

    grade: Grade
    reasons: tuple[str, ...]
    measures: Mapping[str, float]


def scan_quality(scan: Volume, brain: Volume | None, *, flair: bool = True) -> Quality:
    """Grade one scan by coverage, spacing, noise, contrast and brightness.

    Args:
        scan: any scan, before its intensities were normalized.
        brain: brain mask on any grid; None measures spacing and emptiness alone.
        flair: whether the scan should be a FLAIR: then fluid has to be darker than tissue.

    Thresholds are this project's own, set so that the real scans at hand (0.57 x 0.57 x 3.3 to
    0.72 x 0.72 x 4 mm) are good and obviously spoilt copies of them are not.
    """
    values = scan.array
    if not np.isfinite(values).all():
        return Quality("poor", ("some voxels are not finite",), {})
    if not np.ptp(values) > 0:
        return Quality("poor", ("every voxel has the same value",), {})
    faults: list[tuple[bool, str]] = []
    measures = {"largest_spacing_mm": max(scan.grid.spacing_mm)}
    if measures["largest_spacing_mm"] > THICK_MM + 0.05:
        faults.append(
            (
                measures["largest_spacing_mm"] > TOO_THICK_MM,
                f"voxels are {measures['largest_spacing_mm']:.1f} mm long along one axis",
            )
        )
    if brain is not None:
        inside = resample_to(brain, scan.grid, order=0).array.astype(bool)
        if not inside.any():
            return Quality("poor", ("the brain mask is empty",), measures)
        _judge_brain(values, inside, scan.grid.spacing_mm, flair, measures, faults)
    return _graded(faults, measures)


def _judge_brain(
    values: FloatArray,
    inside: BoolArray,
    spacing_mm: tuple[float, float, float],
    flair: bool,
    measures: dict[str, float],
    faults: list[tuple[bool, str]],
) -> None:
    measures["brain_volume_ml"] = float(inside.sum() * np.prod(spacing_mm) / 1000)
    if not 700 <= measures["brain_volume_ml"] <= 2200:
        faults.append(
            (
                not 400 <= measures["brain_volume_ml"] <= 2600,
                f"the brain measures {measures['brain_volume_ml']:.0f} ml",
            )
        )
    measures["cut_share"] = cut_share(inside)
    if measures["cut_share"] > CUT_SHARE:
        faults.append(
            (measures["cut_share"] > TOO_CUT_SHARE, "the field of view cuts through the brain")
        )
    low, middle, high = np.percentile(values[inside], [5, 50, 95])
    noise = noise_level(values, inside)
    measures["signal_to_noise"] = float(middle / noise) if noise > 0 else np.inf
    if measures["signal_to_noise"] < NOISY:
        faults.append(
            (
                measures["signal_to_noise"] < TOO_NOISY,
                f"noisy: the signal is {measures['signal_to_noise']:.1f} times the noise",
            )
        )
    measures["contrast"] = float((high - low) / abs(middle)) if middle else np.inf
    if measures["contrast"] < FLAT:
        faults.append((True, "hardly any contrast within the brain"))
    top = float(values.max())
    measures["saturated_share"] = float((values[inside] >= top).mean())
    if measures["saturated_share"] > SATURATED_SHARE:
        faults.append((False, "bright voxels are cut off at the highest value"))
    _judge_brightness(values, inside, spacing_mm, flair, measures, faults)


def _judge_brightness(
    values: FloatArray,
    inside: BoolArray,
    spacing_mm: tuple[float, float, float],
    flair: bool,
    measures: dict[str, float],
    faults: list[tuple[bool, str]],
) -> None:
    """Air is darker than brain in every MRI; fluid is darker than tissue in FLAIR."""
    middle = float(np.median(values[inside]))
    far = edt.edt(~inside, anisotropy=spacing_mm, black_border=False) > 40
    if far.any():
        measures["air_to_brain"] = float(np.median(values[far]) / middle) if middle else np.inf
        if measures["air_to_brain"] > 1:
            faults.append((True, "inverted: the air is brighter than the brain"))
    dark, bright = np.percentile(values[inside], [1, 99])
    measures["bright_tail"] = float((bright - middle) / max(bright - dark, 1e-12))
    if flair and measures["bright_tail"] > BRIGHT_TAIL:
        faults.append((False, "fluid is brighter than tissue: not a FLAIR scan, or inverted"))


def cut_share(inside: BoolArray) -> float:
    """The largest part of any face of the volume that the brain fills, over its largest section.

    0 for a brain that touches no face. The lowest face is measured beyond a quarter of
    the largest section, since the brainstem may always leave through it.
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
    """
    kernel = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)[:, :, None]
    rough = np.asarray(ndimage.convolve(np.asarray(values, np.float32), kernel, mode="nearest"))
    # six times: the kernel's own norm; 0.6745: median of a standard normal's absolute value
    return float(np.median(np.abs(rough[inside])) / (6 * 0.6745))


def protocol_changes(visits: tuple[Visit, ...], scan: str = "flair") -> tuple[str, ...]:
    """What changed in the way one scan was taken between consecutive visits, as sentences.

    Compares voxel size and, where brains are known, contrast. Visits without it are passed over.
    """
    having = [visit for visit in visits if scan in visit.scans]
    changes = []
    for before, after in pairwise(having):
        names = f"{before.session or 'the first visit'} and {after.session or 'the next'}"
        one, two = before.scans[scan], after.scans[scan]
        ratios = np.sort(one.grid.spacing_mm) / np.sort(two.grid.spacing_mm)
        if max(ratios.max(), 1 / ratios.min()) > CHANGED_SPACING:
            changes.append(f"voxel sizes differ between {names}")
        tails = [
            scan_quality(volume, visit.brain).measures.get("bright_tail")
            for volume, visit in ((one, before), (two, after))
        ]
        if tails[0] is not None and tails[1] is not None and abs(tails[0] - tails[1]) > 0.2:
            changes.append(f"contrast differs between {names}")
    return tuple(changes)


def _graded(faults: list[tuple[bool, str]], measures: Mapping[str, float]) -> Quality:
    grave = [reason for is_grave, reason in faults if is_grave]
    light = [reason for is_grave, reason in faults if not is_grave]
    grade: Grade = "poor" if grave else "fair" if light else "good"
    return Quality(grade, (*grave, *light), measures)
