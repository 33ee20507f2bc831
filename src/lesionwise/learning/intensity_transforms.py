"""Random changes of intensities.

An effect changes one image (I, J, K); a transform applies effects to the channels (C, I, J, K) of
a patch. Channels have names, "flair@followup": the scan, then the visit. By default every channel
has its own random numbers: two visits come from two examinations. Voxels that are exactly 0 lie
outside the brain and stay 0. A patch may have one slice, (I, J, 1): nothing is blurred or
averaged across it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from lesionwise.learning.spatial_transforms import Range, apply_along_axis, spline_field

Image = NDArray[np.float32]
AIR_Z_SCORE = -4.0
"""About where the raw intensity is 0 in a z-scored FLAIR: the standard deviation of a brain is
about a quarter of its mean. Multiplicative effects such as a bias field act from here."""


class IntensityTransform(Protocol):
    """A random change of a patch's intensities."""

    def __call__(self, image: Image, channels: tuple[str, ...], rng: Generator) -> Image:
        """A changed copy of (C, I, J, K), float32.

        Args:
            image: (C, I, J, K); 0 lies outside the brain.
            channels: C names, such as "flair@baseline"; the part before @ is the scan.
            rng: drawn from.
        """


class Effect(Protocol):
    """One change of an image (I, J, K) whose voxels within the brain are ``inside``.

    A call always changes the image; `_apply_effect` looks at the probability.
    """

    @property
    def probability(self) -> float:
        """Of being applied to an image."""

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        """The changed image (I, J, K), float; the input stays as it is."""


def _apply_effect(effect: Effect, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
    """The image after the effect with its probability, else the image itself.

    An effect of probability 1 draws no random number for that.
    """
    if effect.probability >= 1 or rng.random() < effect.probability:
        return effect(image, inside, rng)
    return image


@dataclass(frozen=True)
class Compose:
    """Effects in order, on every channel.

    Attributes:
        effects: applied in order, each with its own probability.
        together: every channel gets the same random numbers, noise included.

    Example:
        ``Compose((Blur((0.5, 1.5), probability=0.2), Noise((0.0, 0.1), probability=0.5)))``
    """

    effects: tuple[Effect, ...]
    together: bool = False

    def __call__(self, image: Image, channels: tuple[str, ...], rng: Generator) -> Image:
        every = (True,) * len(channels)
        return _apply_to(image, every, self.effects, self.together, rng)


@dataclass(frozen=True)
class OnChannels:
    """Effects in order, on the channels of some scans; the others stay bit for bit.

    Attributes:
        scans: names of scans, or of channels: "flair" means "flair@baseline" and "flair@followup".
        effects, together: as those of `Compose`.

    Raises:
        ValueError: When called, if none of the channels shows one of the scans.
    """

    scans: tuple[str, ...]
    effects: tuple[Effect, ...]
    together: bool = False

    def __call__(self, image: Image, channels: tuple[str, ...], rng: Generator) -> Image:
        chosen = tuple({c, c.partition("@")[0]} & set(self.scans) != set() for c in channels)
        if not any(chosen):
            raise ValueError(f"no channel of {', '.join(self.scans)} among {', '.join(channels)}")
        return _apply_to(image, chosen, self.effects, self.together, rng)


@dataclass(frozen=True)
class DropChannels:
    """Some channels set to 0, so that a network learns to do without them.

    Which ones is drawn evenly among those that are not empty; one of these always stays.

    Attributes:
        counts: how many, each number being equally likely.
    """

    counts: tuple[int, ...] = (0, 1, 2)

    def __call__(self, image: Image, channels: tuple[str, ...], rng: Generator) -> Image:
        result = np.array(image, dtype=np.float32)
        filled = [n for n, channel in enumerate(result) if channel.any()]
        count = min(int(rng.choice(self.counts)), max(0, len(filled) - 1))
        result[rng.permutation(filled)[:count].astype(int)] = 0
        return result


def _apply_to(
    image: Image,
    chosen: tuple[bool, ...],
    effects: tuple[Effect, ...],
    together: bool,
    rng: Generator,
) -> Image:
    seed = int(rng.integers(2**63)) if together else 0
    result = np.array(image, dtype=np.float32)
    for channel, is_chosen in zip(result, chosen, strict=True):
        if not is_chosen:
            continue
        random = np.random.default_rng(seed) if together else rng
        x = torch.from_numpy(channel.copy())
        inside = x != 0
        for effect in effects:
            x = _apply_effect(effect, x, inside, random)
        channel[:] = torch.where(inside, x.float(), torch.zeros(())).numpy()
    return result


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
        return _apply_effect(self.effects[rng.integers(len(self.effects))], image, inside, rng)


@dataclass(frozen=True)
class AllOf:
    """Several effects in order, under one probability.

    Attributes:
        effects: each with its own probability besides.
        probability: of any.
    """

    effects: tuple[Effect, ...]
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        for effect in self.effects:
            image = _apply_effect(effect, image, inside, rng)
        return image


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
        offset = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        within = ((offset <= size // 2) & (offset > size // 2 - size)).float()
        return apply_along_axis(2, image, within / within.sum(dim=1, keepdim=True))


@dataclass(frozen=True)
class LowResolution:
    """Thick slices along a random axis of more than one voxel, interpolated back.

    Attributes:
        thickness_vox: smallest and largest, in voxels.
    """

    thickness_vox: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        axes = [axis for axis in range(3) if image.shape[axis] > 1]
        if not axes:
            return image
        axis = axes[int(rng.integers(len(axes)))]
        matrix = thick_slice_matrix(image.shape[axis], rng.uniform(*self.thickness_vox))
        return apply_along_axis(axis, image, matrix)


@dataclass(frozen=True)
class BiasField:
    """A smooth factor.

    Attributes:
        log_std: smallest and largest standard deviation of the factor's logarithm at the lattice
            points of a cubic spline.
        zero: the value on which the factor has no effect: 0 for raw intensities.
        points: of the lattice per axis.
    """

    log_std: Range
    probability: float = 1.0
    zero: float = 0.0
    points: int = 4

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        i, j, k = image.shape
        lattice = rng.normal(0.0, rng.uniform(*self.log_std), (1, *(self.points,) * 3))
        factor = torch.from_numpy(np.exp(spline_field(lattice, (i, j, k))[0]))
        return (image - self.zero) * factor + self.zero


@dataclass(frozen=True)
class Gamma:
    """A random power of the intensities within the brain, whose smallest and largest value stay.

    Attributes:
        exponent: smallest and largest.
        keep_moments: restore the mean and the standard deviation instead.
        drawn: the exponent, evenly on a logarithmic or on a linear scale.
    """

    exponent: Range
    probability: float = 1.0
    keep_moments: bool = False
    drawn: Literal["log", "linear"] = "log"

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        if self.drawn == "log":
            power = float(np.exp(rng.uniform(*np.log(self.exponent))))
        else:
            power = rng.uniform(*self.exponent)
        values = image[inside]
        if values.numel() < 2:
            return image
        low, high = values.min(), values.max()
        changed = ((image - low) / (high - low + 1e-6)).clamp(0, 1) ** power
        if not self.keep_moments:
            return changed * (high - low) + low
        after = changed[inside]
        return (changed - after.mean()) / (after.std() + 1e-6) * values.std() + values.mean()


@dataclass(frozen=True)
class Contrast:
    """Distances from the brain's mean multiplied by a random factor."""

    factor: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        factor = rng.uniform(*self.factor)
        if not bool(inside.any()):
            return image
        mean = image[inside].mean()
        return (image - mean) * factor + mean


@dataclass(frozen=True)
class Brightness:
    """Intensities multiplied by a random factor."""

    factor: Range
    probability: float = 1.0

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        return image * rng.uniform(*self.factor)


@dataclass(frozen=True)
class Shift:
    """A random value added.

    Attributes:
        shift: smallest and largest.
        relative: they are in standard deviations of the brain, else in the image's units.
    """

    shift: Range
    probability: float = 1.0
    relative: bool = True

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        unit = _brain_std(image, inside) if self.relative else 1.0
        return image + rng.uniform(*self.shift) * unit


@dataclass(frozen=True)
class Noise:
    """Gaussian noise.

    Attributes:
        std: smallest and largest standard deviation.
        relative: they are fractions of the brain's, else in the image's units.
    """

    std: Range
    probability: float = 1.0
    relative: bool = True

    def __call__(self, image: Tensor, inside: Tensor, rng: Generator) -> Tensor:
        std = rng.uniform(*self.std) * (_brain_std(image, inside) if self.relative else 1.0)
        noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        return image + torch.from_numpy(noise) * std


def other_scanners(
    low_resolution: float = 0.15,
    blur: float = 0.15,
    bias: float = 0.3,
    gamma: float = 0.2,
    contrast: float = 0.3,
    noise: float = 0.2,
) -> Compose:
    """Effects of other scanners on z-scores; the default augmentation.

    Args:
        low_resolution: probability of thick slices along one axis, 1.5 to 4 voxels.
        blur: of a Gaussian, σ 0.4 to 1.0 voxels.
        bias: of a smooth factor, standard deviation of its logarithm up to 0.25.
        gamma: of an exponent of 0.7 to 1.5, mean and standard deviation kept.
        contrast: of a factor of 0.6 to 1.3 and a shift of up to 0.3.
        noise: of Gaussian noise, σ up to 0.25.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> image = rng.standard_normal((1, 8, 8, 8)).astype(np.float32)
        >>> changed = other_scanners(noise=1.0)(image, ("flair@baseline",), rng)
        >>> changed.shape, bool((changed == image).all())
        ((1, 8, 8, 8), False)
    """
    factor_and_shift = (Brightness((0.6, 1.3)), Shift((-0.3, 0.3), relative=False))
    return Compose(
        (
            LowResolution((1.5, 4.0), probability=low_resolution),
            Blur((0.4, 1.0), probability=blur),
            BiasField((0.05, 0.25), probability=bias, zero=AIR_Z_SCORE),
            Gamma((0.7, 1.5), probability=gamma, keep_moments=True, drawn="linear"),
            AllOf(factor_and_shift, probability=contrast),
            Noise((0.0, 0.25), probability=noise, relative=False),
        )
    )


@dataclass(frozen=True)
class LesionContrast:
    """Fainter lesions: their excess over 0 is reduced, with a soft border.

    Simulated lesions stand out more than most of those that experts outline; a network that saw
    only such misses the faint ones.

    Attributes:
        probability: of a change, per patch.
        kept_fraction: smallest and largest fraction of the excess over 0, the tissue's mean,
            that stays.
    """

    probability: float = 0.0
    kept_fraction: Range = (0.3, 1.0)

    def __call__(self, image: Image, lesions: NDArray[np.bool_], rng: Generator) -> Image:
        """A changed copy of (C, I, J, K), or the image itself; ``lesions`` is (I, J, K)."""
        if rng.random() >= self.probability or not lesions.any():
            return image
        near = blurred(torch.from_numpy(lesions.astype(np.float32)), 1.0).numpy()
        lowered = (1 - rng.uniform(*self.kept_fraction)) * np.clip(2 * near, 0, 1)
        return np.asarray(image - lowered * np.maximum(image, 0), dtype=np.float32)


def blurred(image: Tensor, sigma_vox: float) -> Tensor:
    """A Gaussian blur of (I, J, K); ends keep their brightness. σ 0 changes nothing.

    Example:
        >>> image = torch.zeros(1, 1, 5)
        >>> image[0, 0, 2] = 1
        >>> [round(v, 2) for v in blurred(image, 0.5).flatten().tolist()]
        [0.0, 0.11, 0.79, 0.11, 0.0]
    """
    if sigma_vox <= 0:
        return image
    for axis, n in enumerate(image.shape):
        if n > 1:
            image = apply_along_axis(axis, image, gaussian_matrix(n, sigma_vox))
    return image


def _brain_std(image: Tensor, inside: Tensor) -> float:
    """The standard deviation within the brain; 0 where fewer than two voxels lie in it."""
    values = image[inside]
    return float(values.std()) if values.numel() > 1 else 0.0


def gaussian_matrix(n: int, sigma_vox: float) -> Tensor:
    """(n, n): Gaussian smoothing; each row adds up to 1, so edges keep their brightness.

    Example:
        >>> matrix = gaussian_matrix(4, 1.0)
        >>> matrix.shape, [round(v, 4) for v in matrix.sum(dim=1).tolist()]
        (torch.Size([4, 4]), [1.0, 1.0, 1.0, 1.0])
    """
    index = np.arange(n)
    weight = np.exp(-((index[:, None] - index[None, :]) ** 2) / (2 * sigma_vox**2))
    return torch.from_numpy((weight / weight.sum(axis=1, keepdims=True)).astype(np.float32))


def thick_slice_matrix(n: int, thickness_vox: float) -> Tensor:
    """(n, n): average over slices of the given thickness, then interpolate linearly back.

    Example:
        >>> matrix = thick_slice_matrix(6, 3.0)
        >>> (matrix @ torch.tensor([0.0, 0.0, 0.0, 3.0, 3.0, 3.0])).round(decimals=3).tolist()
        [0.0, 0.0, 1.0, 2.0, 3.0, 3.0]
    """
    count = max(2, round(n / thickness_vox))
    edges = np.linspace(0, n, count + 1)
    index = np.arange(n)
    overlap = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
    down = np.clip(overlap, 0, None)
    down /= down.sum(axis=1, keepdims=True)
    middles = (edges[1:] + edges[:-1]) / 2
    up = np.stack([np.interp(index + 0.5, middles, unit) for unit in np.eye(count)], axis=1)
    return torch.from_numpy((up @ down).astype(np.float32))
