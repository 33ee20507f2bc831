"""Random views of a patch: one resampling for all geometry, then intensities.

Geometry moves image and instance map together; targets are made afterwards. Everything is
drawn from one generator, so a seed gives one patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lesionwise.types import FloatArray, LabelArray

Shape = tuple[int, int, int]
AIR = -4.0
"""A z-score about where the raw intensity is 0: the standard deviation of a brain on FLAIR is
about a quarter of its mean. Multiplicative effects (bias field, gain) act from here."""


class Spatial(Protocol):
    """Random geometry."""

    def order(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Which axis of the volume comes first, second, third."""

    def draw(
        self, size: Shape, spacing_mm: tuple[float, float, float], rng: np.random.Generator
    ) -> Motion:
        """One random motion for regions of ``size`` voxels, axes in that order."""


class Intensity(Protocol):
    """Random changes of intensities."""

    def __call__(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """A changed copy of (C, I, J, K); voxels that are exactly 0 stay so."""


@dataclass(frozen=True)
class SpatialAugmentation:
    """Mirrored, turned, scaled and bent patches.

    Attributes:
        flip: probability for each axis.
        affine: probability of a rotation with scaling.
        rotation_deg: largest angle about each axis.
        scale: smallest and largest magnification, drawn per patch with ± 5 % per axis.
        elastic: probability of a smooth bending.
        bend_mm: standard deviation of the control points' shifts.
        control_points: per axis.
    """

    flip: float = 0.5
    affine: float = 0.3
    rotation_deg: float = 20.0
    scale: tuple[float, float] = (0.8, 1.25)
    elastic: float = 0.15
    bend_mm: float = 3.0
    control_points: int = 6

    def order(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Axes stay in place."""
        return (0, 1, 2)

    def draw(
        self, size: Shape, spacing_mm: tuple[float, float, float], rng: np.random.Generator
    ) -> Motion:
        """One random motion for patches of ``size`` voxels."""
        matrix = np.eye(3)
        if rng.random() < self.affine:
            turn = random_rotation(self.rotation_deg, rng)
            scale = np.exp(rng.uniform(*np.log(self.scale))) * rng.uniform(0.95, 1.05, 3)
            matrix = in_voxels(turn @ np.diag(1 / scale), spacing_mm)
        flips = np.where(rng.random(3) < self.flip, -1.0, 1.0)
        bend = None
        if rng.random() < self.elastic:
            shape = (3, self.control_points, self.control_points, self.control_points)
            shifts = rng.normal(0.0, self.bend_mm, shape) / np.asarray(spacing_mm).reshape(
                3, 1, 1, 1
            )
            bend = spline_field(shifts, size)
        return Motion(matrix @ np.diag(flips), bend)


@dataclass(frozen=True, eq=False)
class Motion:
    """Where each voxel of a patch is read from.

    Voxel u of the patch is read at c + matrix · (u - m) + bend(u), with c the middle of the
    region in the volume and m the middle of the patch.

    Attributes:
        matrix: (3, 3), in voxels.
        bend: (3, I, J, K) voxels, or None.
    """

    matrix: NDArray[np.float64]
    bend: FloatArray | None = None

    @property
    def only_flips(self) -> bool:
        """True where voxels land on voxels and axes keep their order."""
        flips = np.diag(np.sign(np.diag(self.matrix)))
        return self.bend is None and bool(np.array_equal(self.matrix, flips))


def view(
    images: list[NDArray[Any]],
    labels: LabelArray,
    start: Shape,
    size: Shape,
    motion: Motion,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A patch of a volume as ``motion`` shows it.

    Images go by linear interpolation, labels by nearest neighbor, both once. Beyond the
    volume everything is 0. Pure flips copy voxels and interpolate nothing.

    Args:
        images: C arrays (I, J, K), possibly mapped from files.
        labels: (I, J, K), possibly mapped from a file.
        start: first voxel of the unmoved patch; may be negative.
        size: of the patch.
        motion: what to do.

    Returns:
        (C, *size) float32 and (*size) int32.
    """
    if motion.only_flips:
        order = tuple(slice(None, None, -1 if motion.matrix[a, a] < 0 else 1) for a in range(3))
        patch = np.stack([crop(image, start, size)[order] for image in images])
        return (
            np.ascontiguousarray(patch, dtype=np.float32),
            np.ascontiguousarray(crop(labels, start, size)[order], dtype=np.int32),
        )
    where = _source_of(start, size, motion)
    low = np.floor(where.reshape(3, -1).min(axis=1)).astype(int) - 1
    high = np.ceil(where.reshape(3, -1).max(axis=1)).astype(int) + 2
    room = tuple(int(n) for n in high - low)
    first = tuple(int(n) for n in low)
    sources = np.stack([crop(image, first, room) for image in images]).astype(np.float32)
    grid = np.empty((1, *size, 3), dtype=np.float32)
    for axis in range(3):  # grid_sample wants k, j, i and the region between -1 and 1
        grid[0, ..., 2 - axis] = (where[axis] - low[axis]) * (2.0 / (room[axis] - 1)) - 1.0
    at = torch.from_numpy(grid)
    seen = functional.grid_sample(
        torch.from_numpy(sources)[None], at, mode="bilinear", align_corners=True
    )
    nearest = functional.grid_sample(
        torch.from_numpy(crop(labels, first, room).astype(np.float32))[None, None],
        at,
        mode="nearest",
        align_corners=True,
    )
    return seen[0].numpy(), nearest[0, 0].numpy().astype(np.int32)


def _source_of(start: Shape, size: Shape, motion: Motion) -> NDArray[np.float32]:
    middle = (np.asarray(size) - 1) / 2
    shift = np.asarray(start) + middle
    axes = [
        np.arange(n, dtype=np.float32) - np.float32(m) for n, m in zip(size, middle, strict=True)
    ]
    where = np.empty((3, *size), dtype=np.float32)
    for row in range(3):
        a, b, c = motion.matrix[row].astype(np.float32)
        where[row] = (
            (a * axes[0])[:, None, None]
            + (b * axes[1])[None, :, None]
            + ((c * axes[2]) + np.float32(shift[row]))[None, None, :]
        )
    if motion.bend is not None:
        where += motion.bend
    return where


def crop(array: NDArray[Any], start: tuple[int, ...], size: tuple[int, ...]) -> NDArray[Any]:
    """The part of an (I, J, K) array that begins at ``start``; 0 beyond the array."""
    inside: list[slice] = []
    target: list[slice] = []
    for first, n, limit in zip(start, size, array.shape, strict=True):
        low, high = min(max(0, first), limit), max(0, min(limit, first + n))
        high = max(low, high)
        inside.append(slice(low, high))
        target.append(slice(low - first, high - first) if high > low else slice(0, 0))
    part = array[tuple(inside)]
    if part.shape == tuple(size):
        return np.asarray(part)
    padded = np.zeros(size, dtype=array.dtype)
    padded[tuple(target)] = part
    return padded


@dataclass(frozen=True)
class IntensityAugmentation:
    """Other scanners: each effect with its own probability, in this order.

    Images are z-scores with 0 outside the brain; voxels that are exactly 0 stay so.

    Attributes:
        low_resolution: thick slices along one axis, 1.5 to 4 voxels.
        blur: Gaussian, σ 0.4 to 1.0 voxels.
        bias: smooth gain, standard deviation of its logarithm up to 0.25.
        gamma: exponent 0.7 to 1.5, mean and standard deviation kept.
        contrast: gain 0.6 to 1.3 and a shift of up to 0.3.
        noise: Gaussian, σ up to 0.25.
    """

    low_resolution: float = 0.15
    blur: float = 0.15
    bias: float = 0.3
    gamma: float = 0.2
    contrast: float = 0.3
    noise: float = 0.2

    def __call__(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """A changed copy of (C, I, J, K); every channel has its own effects."""
        return np.stack([self._one(channel, rng) for channel in image])

    def _one(self, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        x = torch.from_numpy(image)
        outside = x == 0
        if rng.random() < self.low_resolution:
            axis = int(rng.integers(3))
            x = along(axis, x, thick_slices(x.shape[axis], rng.uniform(1.5, 4.0)))
        if rng.random() < self.blur:
            sigma = rng.uniform(0.4, 1.0)
            for axis in range(3):
                x = along(axis, x, gaussian_matrix(x.shape[axis], sigma))
        if rng.random() < self.bias:
            points = rng.normal(0.0, rng.uniform(0.05, 0.25), (1, 4, 4, 4))
            gain = np.exp(spline_field(points, (x.shape[0], x.shape[1], x.shape[2]))[0])
            x = (x - AIR) * torch.from_numpy(gain) + AIR
        if rng.random() < self.gamma:
            x = _gamma(x, outside, rng.uniform(0.7, 1.5))
        if rng.random() < self.contrast:
            x = x * rng.uniform(0.6, 1.3) + rng.uniform(-0.3, 0.3)
        if rng.random() < self.noise:
            sigma = rng.uniform(0.0, 0.25)
            x = x + torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32)) * sigma
        return torch.where(outside, torch.zeros(()), x.float()).numpy()


@dataclass(frozen=True)
class LesionContrast:
    """Dimmer lesions: what they stand out by is lowered, with a soft border.

    Simulated lesions stand out more than most of those that experts outline; a network that saw
    only such overlooks the faint ones.

    Attributes:
        probability: of a change, per patch.
        kept: smallest and largest share of the excess over 0, the tissue's mean, that stays.
    """

    probability: float = 0.0
    kept: tuple[float, float] = (0.3, 1.0)

    def __call__(
        self, image: NDArray[np.float32], lesions: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """A changed copy of (C, I, J, K), or the image itself; ``lesions`` is (I, J, K)."""
        if rng.random() >= self.probability or not lesions.any():
            return image
        near = torch.from_numpy(lesions.astype(np.float32))
        for axis in range(3):
            near = along(axis, near, gaussian_matrix(near.shape[axis], 1.0))
        lowered = (1 - rng.uniform(*self.kept)) * np.clip(2 * near.numpy(), 0, 1)
        return np.asarray(image - lowered * np.maximum(image, 0), dtype=np.float32)


def _gamma(x: torch.Tensor, outside: torch.Tensor, exponent: float) -> torch.Tensor:
    inside = x[~outside]
    if inside.numel() < 2:
        return x
    low, high = inside.min(), inside.max()
    bent = ((x - low) / (high - low + 1e-6)).clamp(0, 1) ** exponent
    after = bent[~outside]
    return (bent - after.mean()) / (after.std() + 1e-6) * inside.std() + inside.mean()


def rotation(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3): turns about i, then j, then k."""
    turned = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        turned = turn @ turned
    return turned


def random_rotation(largest_deg: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 3): ``rotation`` by angles between plus and minus ``largest_deg``."""
    return rotation(np.deg2rad(rng.uniform(-largest_deg, largest_deg, 3)))


def in_voxels(
    in_mm: NDArray[np.float64], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float64]:
    """(3, 3): a linear map of mm as one of voxels of that size."""
    step = np.diag(spacing_mm)
    return np.asarray(np.linalg.inv(step) @ in_mm @ step)


def spline_field(points: NDArray[np.float64], size: Shape) -> NDArray[np.float32]:
    """Cubic B-splines over a coarse lattice: (n, a, b, c) points to (n, I, J, K) float32.

    The lattice spans the patch with one point beyond each end, so the field is twice
    differentiable everywhere.
    """
    field = torch.from_numpy(points.astype(np.float32))
    for axis, n in enumerate(size):
        field = along(axis + 1, field, _spline_matrix(points.shape[axis + 1], n))
    return field.numpy()


def along(axis: int, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply an (m, n) matrix to axis ``axis`` of x, whose length n becomes m."""
    return torch.movedim(torch.tensordot(matrix, x, dims=([1], [axis])), 0, axis).contiguous()


def _spline_matrix(points: int, n: int) -> torch.Tensor:
    at = np.linspace(1.0, points - 2.0, n)[:, None]
    away = np.abs(at - np.arange(points)[None, :])
    near = 2 / 3 - away**2 + away**3 / 2
    far = np.clip(2 - away, 0, None) ** 3 / 6
    return torch.from_numpy(np.where(away < 1, near, far).astype(np.float32))


def gaussian_matrix(n: int, sigma_vox: float) -> torch.Tensor:
    """(n, n): Gaussian smoothing; each row adds up to 1, so edges keep their brightness."""
    index = np.arange(n)
    weight = np.exp(-((index[:, None] - index[None, :]) ** 2) / (2 * sigma_vox**2))
    return torch.from_numpy((weight / weight.sum(axis=1, keepdims=True)).astype(np.float32))


def thick_slices(n: int, thickness_vox: float) -> torch.Tensor:
    """(n, n): average over slices of the given thickness, then interpolate linearly back."""
    count = max(2, round(n / thickness_vox))
    edges = np.linspace(0, n, count + 1)
    index = np.arange(n)
    overlap = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
    down = np.clip(overlap, 0, None)
    down /= down.sum(axis=1, keepdims=True)
    middles = (edges[1:] + edges[:-1]) / 2
    up = np.stack([np.interp(index + 0.5, middles, unit) for unit in np.eye(count)], axis=1)
    return torch.from_numpy((up @ down).astype(np.float32))
