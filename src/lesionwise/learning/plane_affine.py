"""Random affine transforms in the plane of slices, each with a probability of its own.

They act on i and j of a patch (I, J, S) and leave the slices apart. ``InTurn`` joins them to one
that ``SpatialAugmentation.affine`` takes, so that all are done in one interpolation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lesionwise.learning.spatial_transforms import Affine, Range, Spacing, in_voxels, rotation

Fixed = NDArray[np.bool_]
Matrix3 = NDArray[np.float64]


@dataclass(frozen=True)
class InTurn:
    """Several transforms one after the other, each with its own probability.

    Attributes:
        parts: in order, as they act on the image.
    """

    parts: tuple[Affine, ...]

    probability = 1.0
    """Each part has its own."""

    def draw(self, spacing_mm: Spacing, fixed: Fixed, rng: Generator) -> Matrix3:
        """One random (3, 3) matrix in voxels."""
        matrix = np.eye(3)
        for part in self.parts:
            if rng.random() < part.probability:
                matrix = matrix @ part.draw(spacing_mm, fixed, rng)
        return matrix


@dataclass(frozen=True)
class Rotate:
    """A turn in the plane to either side.

    Attributes:
        angle_deg: smallest and largest.
        probability: of being applied.
    """

    angle_deg: Range
    probability: float = 1.0

    def draw(self, spacing_mm: Spacing, fixed: Fixed, rng: Generator) -> Matrix3:
        """One random (3, 3) matrix in voxels."""
        angle = np.deg2rad(float(rng.choice((-1.0, 1.0))) * rng.uniform(*self.angle_deg))
        return in_voxels(rotation(np.array([0.0, 0.0, angle])), spacing_mm)


@dataclass(frozen=True)
class Zoom:
    """Both axes of the plane magnified alike, drawn evenly on a logarithmic scale.

    Attributes:
        factor: smallest and largest; above 1 things get larger.
        probability: of being applied.
    """

    factor: Range
    probability: float = 1.0

    def draw(self, spacing_mm: Spacing, fixed: Fixed, rng: Generator) -> Matrix3:
        """One random (3, 3) matrix in voxels."""
        factor = float(np.exp(rng.uniform(*np.log(self.factor))))
        return np.diag([1 / factor, 1 / factor, 1.0])


@dataclass(frozen=True)
class AspectRatio:
    """The plane stretched along i and shortened along j, or the reverse; areas stay.

    Attributes:
        ratio: smallest and largest of the two magnifications, drawn evenly on a logarithmic scale.
        probability: of being applied.
    """

    ratio: Range
    probability: float = 1.0

    def draw(self, spacing_mm: Spacing, fixed: Fixed, rng: Generator) -> Matrix3:
        """One random (3, 3) matrix in voxels."""
        half = float(np.exp(rng.uniform(*np.log(self.ratio)) / 2))
        return np.diag([1 / half, half, 1.0])


@dataclass(frozen=True)
class Transpose:
    """The axes i and j exchanged, voxel by voxel."""

    probability: float = 1.0

    def draw(self, spacing_mm: Spacing, fixed: Fixed, rng: Generator) -> Matrix3:
        """The (3, 3) matrix in voxels."""
        return np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
