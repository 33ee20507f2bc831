"""Random changes of intensities as photographs have them, in the plane of slices (I, J, S).

All slices of a stack are changed alike. They are effects of ``learning.intensity_transforms``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lesionwise.learning.intensity_transforms import Effect, thick_slice_matrix
from lesionwise.learning.spatial_transforms import Range, apply_along_axis


@dataclass(frozen=True)
class EachSlice:
    """An effect on every slice by itself, each time with the same random numbers.

    Nothing is blurred or averaged across slices then. For noise, which should differ between
    slices, take the effect itself.

    Attributes:
        effect: its own probability plays no part.
        probability: of being applied.
    """

    effect: Effect
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        seed = int(rng.integers(2**63))
        slices = [
            self.effect(
                image[:, :, k : k + 1], inside[:, :, k : k + 1], np.random.default_rng(seed)
            )
            for k in range(image.shape[2])
        ]
        return torch.cat(slices, dim=2)


@dataclass(frozen=True)
class DownsampleSlices:
    """Slices averaged to fewer pixels along i and j, and interpolated back.

    Attributes:
        factor: smallest and largest size of a pixel, in voxels.
    """

    factor: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        factor = rng.uniform(*self.factor)
        for axis in (0, 1):
            if image.shape[axis] > 1:
                matrix = thick_slice_matrix(image.shape[axis], factor)
                image = apply_along_axis(axis, image, matrix)
        return image


@dataclass(frozen=True)
class LocalContrast:
    """Contrast limited adaptive histogram equalization (CLAHE) of every slice.

    The stack's smallest and largest value within the brain stay. A stack of one value stays as
    it is.

    Attributes:
        clip_limit: smallest and largest limit of a histogram's bins, as a share of its pixels;
            that of OpenCV is 256 times as large.

    Source: Zuiderveld, Contrast limited adaptive histogram equalization (1994), as scikit-image
    computes it, with eight tiles along each side.
    """

    clip_limit: Range = (0.01, 0.01)
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        from skimage.exposure import equalize_adapthist

        limit = rng.uniform(*self.clip_limit)
        values = image[inside]
        if values.numel() < 2 or not bool(values.max() > values.min()):
            return image
        low, high = float(values.min()), float(values.max())
        scaled = ((image - low) / (high - low)).clamp(0, 1).double().numpy()
        equalized = np.stack(
            [equalize_adapthist(scaled[:, :, k], clip_limit=limit) for k in range(scaled.shape[2])],
            axis=2,
        )
        return torch.from_numpy(equalized.astype(np.float32)) * (high - low) + low


@dataclass(frozen=True)
class Exposure:
    """Slices multiplied by a random factor, as a photograph gets brighter with more light.

    Attributes:
        factor: smallest and largest.
        zero: the value on which the factor has no effect: 0 for raw intensities.
    """

    factor: Range
    probability: float = 1.0
    zero: float = 0.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        return (image - self.zero) * rng.uniform(*self.factor) + self.zero


@dataclass(frozen=True)
class LinearGradient:
    """Slices that get brighter or darker along i or along j.

    The factor runs in a straight line from one end to the other, around 1 in the middle.

    Attributes:
        change: smallest and largest difference of the factor between the two ends; the brighter
            end is drawn too.
        zero: the value on which the factor has no effect: 0 for raw intensities.
    """

    change: Range
    probability: float = 1.0
    zero: float = 0.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        axis, sign = int(rng.integers(2)), float(rng.choice((-1.0, 1.0)))
        change = sign * rng.uniform(*self.change)
        shape = [1, 1, 1]
        shape[axis] = image.shape[axis]
        factor = 1 + change * torch.linspace(-0.5, 0.5, image.shape[axis]).reshape(shape)
        return (image - self.zero) * factor + self.zero


@dataclass(frozen=True)
class RadialGradient:
    """Slices that get brighter or darker away from a random point of the plane.

    The factor is 1 at that point and changes in proportion to the distance from it.

    Attributes:
        change: smallest and largest difference of the factor at the corner furthest away; whether
            that is brighter is drawn too.
        zero: the value on which the factor has no effect: 0 for raw intensities.
    """

    change: Range
    probability: float = 1.0
    zero: float = 0.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        i, j, _ = image.shape
        middle = rng.uniform(0, i - 1 or 1), rng.uniform(0, j - 1 or 1)
        change = float(rng.choice((-1.0, 1.0))) * rng.uniform(*self.change)
        away = torch.hypot(
            torch.arange(i)[:, None] - float(middle[0]), torch.arange(j)[None, :] - float(middle[1])
        )
        factor = 1 + change * away / away.max().clamp(min=1e-6)
        return (image - self.zero) * factor[:, :, None].float() + self.zero
