"""What surrounds a brain: fluid, skull, fat, skin, and a face and a neck below.

The template has none of it. Each shell follows the brain at a distance that varies
smoothly; face, neck, eyes and air spaces are simple solids in template space. It is meant
to be plausible to a network and to brain extraction, not to an anatomist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionwise.simulate.fields import Float, smooth_field

AIR, FLUID, BONE, DIPLOE, FAT, MUSCLE, SKIN, EYE, CORD = range(9)
"""Classes outside the brain."""

TABLE_MM = 1.6
SKIN_MM = 1.8
FACE_TOP_MM = 25.0
"""Above this height in the template there is nothing but the vault."""


@dataclass(frozen=True)
class ShellSettings:
    """Ranges that the mean thickness of each shell of a head is drawn from, in mm.

    Attributes:
        skull_mm: both tables and the marrow between them.
        fat_mm: under the skin of the vault.
        temporal_muscle_mm: at its thickest, beside the temples.
    """

    skull_mm: tuple[float, float] = (4.5, 7.0)
    fat_mm: tuple[float, float] = (1.5, 4.0)
    temporal_muscle_mm: tuple[float, float] = (0.0, 0.0)


USUAL_SHELLS = ShellSettings()
CLINICAL_SHELLS = ShellSettings((3.5, 10.0), (1.5, 9.0), (2.0, 16.0))
"""The spread that clinics see: thick marrow, thick scalp, thick temporal muscles."""


def make_shells(
    rng: np.random.Generator,
    brain_mm: Float,
    where_mm: Float,
    settings: ShellSettings = USUAL_SHELLS,
) -> NDArray[np.uint8]:
    """The class of every voxel outside the brain.

    Args:
        rng: where the thicknesses come from.
        brain_mm: (I, J, K) signed distance to the brain, negative inside.
        where_mm: (3, I, J, K) template position of each voxel.
        settings: how thick the shells are.

    Returns:
        (I, J, K) uint8, ``AIR`` … ``CORD``; ``FLUID`` inside the brain too.

    Example:
        >>> where_mm = np.stack(np.meshgrid([0.0], [0.0], np.arange(40.0, 100.0), indexing="ij"))
        >>> where_mm = where_mm.astype(np.float32)
        >>> shells = make_shells(np.random.default_rng(0), where_mm[2] - 60, where_mm)
        >>> shells.shape, int(shells[0, 0, 0]) == FLUID, int(shells[0, 0, -1]) == AIR
        ((1, 1, 60), True, True)
    """
    shape = brain_mm.shape
    vary = smooth_field(rng, shape, 45, fields=4)
    texture = smooth_field(rng, shape, 6)
    # the vault; below it lie the base of the skull and the neck
    top = np.clip((where_mm[2] + 30) / 25, 0, 1)
    gap = np.clip(np.float32(rng.uniform(0.8, 2.0)) + 0.5 * vary[0], 0.5, 4)
    skull = np.clip(np.float32(rng.uniform(*settings.skull_mm)) + 1.2 * vary[1], 2.5, 10)
    fat = np.clip(np.float32(rng.uniform(*settings.fat_mm)) + vary[2], 1.0, 8) * (0.5 + 0.5 * top)

    low = np.flatnonzero(where_mm[2].min(axis=(0, 1)) < FACE_TOP_MM)
    below = (slice(None), slice(None), slice(0, int(low.max()) + 1 if len(low) else 0))
    out = np.full(shape, MUSCLE, dtype=np.uint8)
    out[texture + 0.5 * vary[2] > 0.9] = FAT
    muscle = np.float32(rng.spawn(1)[0].uniform(*settings.temporal_muscle_mm)) * _beside_temples(
        where_mm
    )
    outline = brain_mm - (gap + skull + fat + SKIN_MM + muscle)
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
        _spine(out[below], brain_mm[below], where_mm[:, *below])
    return out


def _beside_temples(where_mm: Float) -> Float:
    """Where the temporal muscles lie: 1 at their middle, 0 away from them, (I, J, K)."""
    x, y, z = where_mm
    from_middle = np.square((y - 8) / 42) + np.square((z + 8) / 42)
    beside = np.clip((np.abs(x) - 45) / 15, 0, 1)
    out: Float = np.clip(1.3 - from_middle, 0, 1).astype(np.float32) * beside.astype(np.float32)
    return out


def _spine(out: NDArray[np.uint8], brain_mm: Float, where_mm: Float) -> None:
    """Draw the cervical cord, its canal and the vertebrae below the brainstem, in place."""
    x, y, z = where_mm
    middle = -45 + 0.12 * (z + 65)
    behind = y - middle
    low = (brain_mm > 0) & (z < -58) & (out != AIR)
    body = _ellipsoid(x, behind, 0 * z, (0, 20, 0), (15, 10, 1e4)) < 0
    ring = np.hypot(x, behind)
    disc = np.mod(z, 18) < 5
    out[low & (ring < 15)] = BONE
    out[low & body] = DIPLOE
    out[low & body & disc] = MUSCLE
    out[low & (ring < 10)] = FLUID
    out[low & (np.hypot(x / np.float32(1.3), behind) < 5.5)] = CORD


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
