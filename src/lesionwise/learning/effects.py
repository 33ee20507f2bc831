"""Effects on intensities, each with its own probability, put together as a list.

Every channel has its own effects: two visits come from two examinations. Voxels that are exactly
0 lie outside the brain and stay 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from lesionwise.learning.augment import along, gaussian_matrix, spline_field

Range = tuple[float, float]


class Effect(Protocol):
    """One change of an image (I, J, K) whose voxels within the brain are ``inside``.

    A call always changes the image; how often it is called lies with `applied`.
    """

    @property
    def probability(self) -> float:
        """Of being applied to an image."""

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        """The changed image (I, J, K), float; the input stays as it is."""


def applied(effect: Effect, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
    """The image after the effect, or with the complement of its probability as it was."""
    return effect(image, inside, rng) if rng.random() < effect.probability else image


@dataclass(frozen=True)
class Effects:
    """Effects in order; what augments (C, I, J, K) images in a training."""

    effects: tuple[Effect, ...]

    def __call__(self, image: NDArray[np.float32], rng: Generator) -> NDArray[np.float32]:
        """A changed copy, float32."""
        changed = []
        for channel in image:
            x = torch.from_numpy(np.ascontiguousarray(channel, dtype=np.float32))
            inside = x != 0
            for effect in self.effects:
                x = applied(effect, x, inside, rng)
            changed.append(torch.where(inside, x.float(), torch.zeros(())).numpy())
        return np.stack(changed)


@dataclass(frozen=True)
class OneOf:
    """One of several effects, each as likely as any other.

    Attributes:
        effects: to choose from.
        probability: of any.
    """

    effects: tuple[Effect, ...]
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        return applied(self.effects[rng.integers(len(self.effects))], image, inside, rng)


@dataclass(frozen=True)
class Blur:
    """A Gaussian of a random width, in voxels."""

    sigma_vox: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        return blurred(image, rng.uniform(*self.sigma_vox))


@dataclass(frozen=True)
class Sharpen:
    """Unsharp masking: what a Gaussian blur of a random width takes away is added once more."""

    sigma_vox: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        return 2 * image - blurred(image, rng.uniform(*self.sigma_vox))


@dataclass(frozen=True)
class AxialMean:
    """A mean filter along k over a random number of voxels, as thick axial slices have it.

    An even number reaches one voxel further down than up; at the ends fewer voxels are averaged.
    """

    sizes_vox: tuple[int, ...] = (2, 3, 4)
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        size = int(rng.choice(self.sizes_vox))
        n = image.shape[2]
        apart = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        within = ((apart <= size // 2) & (apart > size // 2 - size)).float()
        return along(2, image, within / within.sum(dim=1, keepdim=True))


@dataclass(frozen=True)
class BiasField:
    """A smooth gain.

    Attributes:
        log_deviation: smallest and largest standard deviation of the logarithm at the lattice
            points of a cubic spline.
        zero: the value on which the gain has no effect: 0 for raw intensities.
        points: of the lattice per axis.
    """

    log_deviation: Range
    probability: float = 1.0
    zero: float = 0.0
    points: int = 4

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        i, j, k = image.shape
        lattice = rng.normal(0.0, rng.uniform(*self.log_deviation), (1, *(self.points,) * 3))
        gain = torch.from_numpy(np.exp(spline_field(lattice, (i, j, k))[0]))
        return (image - self.zero) * gain + self.zero


@dataclass(frozen=True)
class Gamma:
    """A random power of the intensities within the brain, whose least and greatest value stay.

    Attributes:
        exponent: smallest and largest; drawn evenly on a logarithmic scale.
        keep_moments: restore the mean and the standard deviation instead.
    """

    exponent: Range
    probability: float = 1.0
    keep_moments: bool = False

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        power = float(np.exp(rng.uniform(*np.log(self.exponent))))
        values = image[inside]
        if values.numel() < 2:
            return image
        low, high = values.min(), values.max()
        bent = ((image - low) / (high - low + 1e-6)).clamp(0, 1) ** power
        if not self.keep_moments:
            return bent * (high - low) + low
        after = bent[inside]
        return (bent - after.mean()) / (after.std() + 1e-6) * values.std() + values.mean()


@dataclass(frozen=True)
class Contrast:
    """Distances from the brain's mean multiplied by a random factor."""

    factor: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        if not bool(inside.any()):
            return image
        mean = image[inside].mean()
        return (image - mean) * rng.uniform(*self.factor) + mean


@dataclass(frozen=True)
class Gain:
    """Intensities multiplied by a random factor."""

    factor: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        return image * rng.uniform(*self.factor)


@dataclass(frozen=True)
class Shift:
    """A random value added, in standard deviations of the brain."""

    deviations: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        return image + rng.uniform(*self.deviations) * deviation(image, inside)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise; its standard deviation is a random share of the brain's."""

    deviations: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        sigma = rng.uniform(*self.deviations) * deviation(image, inside)
        noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        return image + torch.from_numpy(noise) * sigma


def blurred(image: Tensor, sigma_vox: float) -> Tensor:
    """A Gaussian blur of (I, J, K); ends keep their brightness. σ 0 changes nothing."""
    if sigma_vox <= 0:
        return image
    for axis in range(3):
        image = along(axis, image, gaussian_matrix(image.shape[axis], sigma_vox))
    return image


def deviation(image: Tensor, inside: Tensor) -> float:
    """The standard deviation within the brain; 0 where fewer than two voxels lie in it."""
    values = image[inside]
    return float(values.std()) if values.numel() > 1 else 0.0
