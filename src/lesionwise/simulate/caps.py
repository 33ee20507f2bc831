"""Caps and bands: bright tissue around the lateral ventricles that is not a lesion.

On FLAIR, white matter at the horns (caps) and along the walls (bands) is often as bright as a
lesion: less dense myelin and interstitial fluid. Readers call it normal: it lies on the wall,
tapers, and left and right are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionwise.simulate.anatomy import Anatomy
from lesionwise.simulate.fields import smooth_field

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Caps:
    """How caps and bands look in a patient.

    Attributes:
        brightness: their highest excess over white matter, as a share of that of lesions.
        reach_mm: thickness of a cap, from the wall; bands have about half of it.
        share: part of the wall that is covered, in (0, 1).
    """

    brightness: float
    reach_mm: float
    share: float


def draw_caps(rng: np.random.Generator) -> Caps:
    """Caps between faint and striking.

    In five clinical scans in which a reader outlined them, half of their voxels exceeded white
    matter by 0.9 to 1.4 times as much as half of the lesions' did, they were up to 5 mm thick in
    the plane, and they covered 12 to 33 % of the wall. The brightness here is that of the wall
    before slices are averaged, so it is higher.

    Example:
        >>> draw_caps(np.random.default_rng(0)).share <= 0.5
        True
    """
    return Caps(
        brightness=float(rng.uniform(1.0, 2.4)),
        reach_mm=float(rng.uniform(1.8, 4.0)),
        share=float(rng.uniform(0.12, 0.5)),
    )


def caps_layer(anatomy: Anatomy, caps: Caps, rng: np.random.Generator) -> Float:
    """How bright each voxel is made, in [0, 1] of the caps' excess: (I, J, K) float32.

    Caps lie at the front and the back end of the lateral ventricles, bands where a random field
    of both sides, three parts alike and one part each side's own, is highest; an end may have no
    cap where that is low. Within a ventricle the layer means nothing, since only tissue is made
    brighter. 0 everywhere without ventricles.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> layer = caps_layer(anatomy, draw_caps(rng), rng)  # doctest: +SKIP
        >>> layer.shape == anatomy.white.shape  # doctest: +SKIP
        True
    """
    x, y, _ = anatomy.template_mm
    wall = anatomy.ventricle_mm
    inside = (wall < 0) & ~anatomy.infratentorial
    at_wall = (np.abs(wall) < 1.5) & ~anatomy.infratentorial & anatomy.brain
    if not inside.any() or not at_wall.any():
        return np.zeros(wall.shape, dtype=np.float32)
    back, front = (float(q) for q in np.percentile(y[inside], [1, 99]))
    horn = np.maximum(
        np.exp(-(((y - front) / 7) ** 2)), 0.8 * np.exp(-((np.clip(y - back, 0, None) / 14) ** 2))
    )
    both, own = smooth_field(rng, wall.shape, 14, fields=2)
    field = 0.67 * (both + both[::-1]) + 0.33 * own + 2.5 * horn
    limit = float(np.quantile(field[at_wall], 1 - caps.share))
    amount = np.clip(0.5 + (field - limit) / 0.8, 0, 1)
    reach = caps.reach_mm * (0.45 + 0.55 * horn) * (0.6 + 0.4 * amount)
    depth = np.clip(wall, 0, None) / reach
    away_from_middle = np.clip((np.abs(x) - 2) / 3, 0, 1)  # the septum and the fornix stay as is
    out: Float = amount * np.clip(1.3 * (1 - depth**2), 0, 1) * away_from_middle
    out[anatomy.infratentorial] = 0
    return out
