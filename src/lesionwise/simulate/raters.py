"""Raters who disagree: masks of the same lesions, drawn wider, tighter, or without small ones."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from scipy import ndimage

from lesionwise.types import BoolArray, Volume


@dataclass(frozen=True)
class RaterStyle:
    """How a rater draws.

    Attributes:
        shift_mm: how far outside the truth the outline lies on average; negative is inside.
        shift_std_mm: how much that varies from lesion to lesion.
        missed: how often a lesion of no volume would be missed.
        missed_mm3: volume at which that has fallen to 37 %, as exp(-volume / missed_mm3).
    """

    shift_mm: float = 0.0
    shift_std_mm: float = 0.3
    missed: float = 0.1
    missed_mm3: float = 15.0


STYLES = (
    RaterStyle(),
    RaterStyle(shift_mm=0.8),
    RaterStyle(shift_mm=-0.8),
    RaterStyle(missed=0.9, missed_mm3=60.0),
)
"""As the truth; over-segmenting; under-segmenting; missing small lesions."""


def rater_mask(truth: Volume, style: RaterStyle, rng: np.random.Generator) -> BoolArray:
    """What a rater draws of a mask, (I, J, K).

    Each 26-connected lesion is moved outward or inward by a distance of its own, or missed. One
    that is seen keeps at least its innermost voxels. Nobody draws what is not there.

    Args:
        truth: mask on its grid.
        style: of the rater.
        rng: drawn from.

    Example:
        >>> from lesionwise.types import Grid
        >>> truth = np.zeros((12, 12, 12), dtype=np.bool_)
        >>> truth[4:8, 4:8, 4:8] = True
        >>> volume = Volume(truth, Grid(truth.shape, np.eye(4)))
        >>> exact = RaterStyle(shift_std_mm=0.0, missed=0.0)
        >>> bool((rater_mask(volume, exact, np.random.default_rng(0)) == truth).all())
        True
        >>> generous = RaterStyle(shift_mm=1.0, shift_std_mm=0.0, missed=0.0)
        >>> int(rater_mask(volume, generous, np.random.default_rng(0)).sum()) > int(truth.sum())
        True
    """
    mask = np.asarray(truth.array) > 0
    spacing = truth.grid.spacing_mm
    labels, count = cc3d.connected_components(mask, connectivity=26, return_N=True)
    drawn = np.zeros(mask.shape, dtype=np.bool_)
    for label, box in enumerate(ndimage.find_objects(labels, count), start=1):
        volume_mm3 = float((labels[box] == label).sum()) * truth.grid.voxel_volume_mm3
        shift = style.shift_mm + style.shift_std_mm * rng.standard_normal()
        if rng.random() < style.missed * np.exp(-volume_mm3 / style.missed_mm3):
            continue
        margin = [int(np.ceil(max(shift, 0) / s)) + 1 for s in spacing]
        around = tuple(
            slice(max(0, part.start - m), part.stop + m)
            for part, m in zip(box, margin, strict=True)
        )
        inside = np.pad(labels[around] == label, 1)
        # from voxel to voxel; the outline runs half a voxel before the next one
        depth = ndimage.distance_transform_edt(inside, sampling=spacing)
        depth -= ndimage.distance_transform_edt(~inside, sampling=spacing)
        depth -= np.sign(depth) * min(spacing) / 2
        core = inside & (depth >= depth.max())
        seen = (depth > -shift) | core
        drawn[around] |= seen[1:-1, 1:-1, 1:-1]
    return drawn


def simulated_raters(truth: Volume, count: int, seed: int) -> list[Volume]:
    """``count`` raters' masks on the grid of the truth; styles repeat after four.

    Example:
        >>> from lesionwise.types import Grid
        >>> truth = np.zeros((12, 12, 12), dtype=np.bool_)
        >>> truth[4:8, 4:8, 4:8] = True
        >>> masks = simulated_raters(Volume(truth, Grid(truth.shape, np.eye(4))), count=3, seed=0)
        >>> len(masks), all(bool(mask.array[5, 5, 5]) for mask in masks)
        (3, True)
    """
    return [
        Volume(
            rater_mask(truth, STYLES[n % len(STYLES)], np.random.default_rng([seed, n])),
            truth.grid,
        )
        for n in range(count)
    ]
