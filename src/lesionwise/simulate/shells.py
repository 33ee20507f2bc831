"""What surrounds a brain: fluid, skull, fat, skin, and a face and a neck below.

The template has none of it. Each shell follows the brain at a distance that varies
smoothly; face, neck, eyes and air spaces are simple solids in template space. It is meant
to be plausible to a network and to brain extraction, not to an anatomist.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesionwise.simulate.fields import Float, smooth_field

AIR, FLUID, BONE, DIPLOE, FAT, MUSCLE, SKIN, EYE = range(8)
"""Classes outside the brain."""

TABLE_MM = 1.6
SKIN_MM = 1.8
FACE_TOP_MM = 25.0
"""Above this height in the template there is nothing but the vault."""


def make_shells(rng: np.random.Generator, brain_mm: Float, where_mm: Float) -> NDArray[np.uint8]:
    """The class of every voxel outside the brain.

    Args:
        rng: where the thicknesses come from.
        brain_mm: (I, J, K) signed distance to the brain, negative inside.
        where_mm: (3, I, J, K) template position of each voxel.

    Returns:
        (I, J, K) uint8, ``AIR`` … ``EYE``; ``FLUID`` inside the brain too.
    """
    shape = brain_mm.shape
    vary = smooth_field(rng, shape, 45, fields=4)
    texture = smooth_field(rng, shape, 6)
    # the vault; below it lie the base of the skull and the neck
    top = np.clip((where_mm[2] + 30) / 25, 0, 1)
    gap = np.clip(np.float32(rng.uniform(0.8, 2.0)) + 0.5 * vary[0], 0.5, 4)
    skull = np.clip(np.float32(rng.uniform(4.5, 7.0)) + 1.2 * vary[1], 2.5, 10)
    fat = np.clip(np.float32(rng.uniform(1.5, 4.0)) + vary[2], 1.0, 8) * (0.5 + 0.5 * top)

    low = np.flatnonzero(where_mm[2].min(axis=(0, 1)) < FACE_TOP_MM)
    below = (slice(None), slice(None), slice(0, int(low.max()) + 1 if len(low) else 0))
    out = np.full(shape, MUSCLE, dtype=np.uint8)
    out[texture + 0.5 * vary[2] > 0.9] = FAT
    outline = brain_mm - (gap + skull + fat + SKIN_MM)
    if len(low):
        _face_and_neck(out[below], outline[below], where_mm[:, *below], texture[below])
    outline += 0.8 * vary[3]
    out[outline > -(fat + SKIN_MM)] = FAT
    out[outline > -SKIN_MM] = SKIN
    bone = gap + skull * (0.6 + 0.4 * top)
    out[brain_mm < bone] = BONE
    marrow = (brain_mm > gap + TABLE_MM) & (brain_mm < bone - TABLE_MM)
    out[marrow & (texture > -0.9)] = DIPLOE
    out[brain_mm < gap] = FLUID
    out[outline > 0] = AIR
    if len(low):
        x, y, z = (a[below] for a in where_mm)
        ear = (np.abs(np.abs(x) - 50) < 22) & (np.abs(y + 25) < 14) & (np.abs(z + 38) < 12)
        out[below][ear & (brain_mm[below] > gap[below] + 1) & (texture[below] > 0)] = AIR
    return out


def _face_and_neck(out: NDArray[np.uint8], outline: Float, where_mm: Float, texture: Float) -> None:
    """Add the solids below the vault to the outline (signed distance) and the classes, in place."""
    x, y, z = where_mm
    face = _ellipsoid(x, y, z, (0, 48, -55), (52, 48, 62))
    nose = _ellipsoid(x, y, z, (0, 92, -52), (13, 17, 24))
    neck = np.maximum(np.hypot(x / np.float32(1.05), y + 38) - 50, z + 30)
    solid = _smooth_min(_smooth_min(face, nose, 6), neck, 15)
    np.minimum(outline, solid, out=outline)
    out[(texture > 0.8) & (y > 25) & (z < -25) & (np.abs(x) < 28)] = AIR
    jaw = np.abs(_ellipsoid(x, y, z, (0, 40, -72), (40, 42, 30))) < 2.5
    out[jaw & (z < -55)] = BONE
    for side in (-1, 1):
        out[_ellipsoid(x, y, z, (side * 32, 60, -38), (19, 22, 18)) < 0] = FAT
        eye = _ellipsoid(x, y, z, (side * 32, 68, -38), (12.5, 12.5, 12.5))
        out[eye < 0] = EYE
        out[np.abs(eye) < 0.8] = MUSCLE


def _ellipsoid(
    x: Float, y: Float, z: Float, center: tuple[float, ...], radii: tuple[float, ...]
) -> Float:
    """About the signed distance to an ellipsoid, in mm, negative inside."""
    out: Float = np.square((x - np.float32(center[0])) / np.float32(radii[0]))
    out += np.square((y - np.float32(center[1])) / np.float32(radii[1]))
    out += np.square((z - np.float32(center[2])) / np.float32(radii[2]))
    np.sqrt(out, out=out)
    out -= 1
    out *= np.float32(min(radii))
    return out


def _smooth_min(a: Float, b: Float, width: float) -> Float:
    h = np.clip(0.5 + (b - a) * np.float32(0.5 / width), 0, 1)
    out: Float = b + (a - b) * h - np.float32(width) * h * (1 - h)
    return out
