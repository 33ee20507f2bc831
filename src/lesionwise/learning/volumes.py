"""Volumes augmented as a whole and normalized afterwards; patches are cut last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lesionwise.learning.augment import Motion, Shape, in_voxels, random_rotation, spline_field


class Normalizer(Protocol):
    """What is done to each channel of a volume after augmentation, and in prediction."""

    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """A changed copy of (I, J, K)."""


@dataclass(frozen=True)
class ClipToRange:
    """Intensities cut to two percentiles of all voxels and mapped onto a range.

    An image whose percentiles coincide becomes the middle of the range.

    Source: p1557 (B13): 0.05 and 99.5, onto [-1, 1].
    """

    low: float = 0.05
    high: float = 99.5
    onto: tuple[float, float] = (-1.0, 1.0)

    def __call__(self, image: NDArray[Any]) -> NDArray[np.float32]:
        low, high = (float(v) for v in np.percentile(image, [self.low, self.high]))
        start, end = self.onto
        if not high > low:
            return np.full(image.shape, (start + end) / 2, dtype=np.float32)
        scaled = (np.clip(image, low, high) - low) * ((end - start) / (high - low)) + start
        return np.asarray(scaled, dtype=np.float32)


@dataclass(frozen=True)
class WholeVolume:
    """Every patch is cut from a volume that was augmented, then normalized, as a whole.

    So a patch shows what a prediction would see: percentiles are those of the volume, not of
    the patch.

    Attributes:
        normalize: of each channel.
    """

    normalize: Normalizer


@dataclass(frozen=True)
class Orientations:
    """Axes exchanged and mirrored at random, then perhaps turned and scaled, or bent.

    Attributes:
        moved: probability of a bending or an affine transform.
        elastic: share of the bendings among those.
        rotation_deg: largest angle about each axis.
        scale: smallest and largest magnification along each axis.
        bend_mm: largest shift of a control point along each axis.
        control_points: per axis.
        permute: exchange axes too: 48 orientations, otherwise 8.

    Source: p1557 (B13), which names the probabilities alone.
    """

    moved: float = 0.75
    elastic: float = 0.2
    rotation_deg: float = 10.0
    scale: tuple[float, float] = (0.9, 1.1)
    bend_mm: float = 7.5
    control_points: int = 7
    permute: bool = True

    def order(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Which axis of the volume comes first, second, third."""
        if not self.permute:
            return (0, 1, 2)
        i, j, k = (int(axis) for axis in rng.permutation(3))
        return i, j, k

    def draw(
        self, size: Shape, spacing_mm: tuple[float, float, float], rng: np.random.Generator
    ) -> Motion:
        """One random motion of a region of ``size`` voxels whose axes are in order."""
        matrix, bend = np.eye(3), None
        if rng.random() < self.moved:
            if rng.random() < self.elastic:
                lattice = (3, *(self.control_points,) * 3)
                spacing = np.asarray(spacing_mm).reshape(3, 1, 1, 1)
                shifts = rng.uniform(-self.bend_mm, self.bend_mm, lattice) / spacing
                bend = spline_field(shifts, size)
            else:
                turn = random_rotation(self.rotation_deg, rng)
                matrix = in_voxels(turn @ np.diag(1 / rng.uniform(*self.scale, 3)), spacing_mm)
        flips = np.where(rng.random(3) < 0.5, -1.0, 1.0)
        return Motion(matrix @ np.diag(flips), bend)


@dataclass(frozen=True)
class AffineAugmentation:
    """Mirrored, turned, scaled and sheared patches.

    Attributes:
        flip: probability for each axis.
        probability: of the rest, all at once.
        rotation_deg: largest angle about each axis.
        scale: smallest and largest magnification along each axis.
        shear: largest shift along one axis per step along another.
    """

    flip: float = 0.5
    probability: float = 0.5
    rotation_deg: float = 15.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0

    def order(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Axes stay in place."""
        return (0, 1, 2)

    def draw(
        self, size: Shape, spacing_mm: tuple[float, float, float], rng: np.random.Generator
    ) -> Motion:
        """One random motion."""
        matrix = np.eye(3)
        if rng.random() < self.probability:
            turn = random_rotation(self.rotation_deg, rng)
            sheared = np.eye(3)
            apart = ~np.eye(3, dtype=bool)
            sheared[apart] = rng.uniform(-self.shear, self.shear, 6)
            scaled = np.diag(1 / rng.uniform(*self.scale, 3))
            matrix = in_voxels(turn @ sheared @ scaled, spacing_mm)
        flips = np.where(rng.random(3) < self.flip, -1.0, 1.0)
        return Motion(matrix @ np.diag(flips))
