"""Random geometry of a patch: flips, affine and elastic transforms in one resampling.

Images and label maps are transformed together; targets are made afterwards. All random numbers
come from one generator, so a seed gives one patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from lesionwise.types import FloatArray

Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Range = tuple[float, float]
Box = tuple[Shape, Shape]
"""First voxel and size."""
Outside = Literal["zero", "edge"]
"""What images show beyond the volume: 0, or the volume's nearest voxel."""


@dataclass(frozen=True, eq=False)
class SpatialTransform:
    """Where each voxel of a patch is read from.

    Voxel u of the patch is read at s + m + matrix · (u - m) + displacement(u), with s the first
    voxel of the patch in the volume and m the middle of the patch, or ``about_vox``.

    Attributes:
        matrix: (3, 3), in voxels.
        displacement: (3, I, J, K) in voxels, or None.
        about_vox: the point that stays, counted from the patch's first voxel, a multiple of one
            half; it may lie outside of the patch. None is the patch's middle.
        outside: what images show beyond the volume.
    """

    matrix: NDArray[np.float64]
    displacement: FloatArray | None = None
    about_vox: tuple[float, float, float] | None = None
    outside: Outside = "zero"

    def middle(self, size: Shape) -> NDArray[np.float64]:
        """(3,): the point of a patch of that size that stays."""
        return (np.asarray(size) - 1) / 2 if self.about_vox is None else np.array(self.about_vox)

    @classmethod
    def identity(cls) -> SpatialTransform:
        """Every voxel stays where it is."""
        return cls(np.eye(3))

    @property
    def only_flips(self) -> bool:
        """True where voxels land on voxels and axes keep their order."""
        flips = np.diag(np.sign(np.diag(self.matrix)))
        return self.displacement is None and bool(np.array_equal(self.matrix, flips))


class Affine(Protocol):
    """A random linear map of a patch.

    Attributes:
        probability: of being applied.
    """

    @property
    def probability(self) -> float: ...

    def draw(
        self, spacing_mm: Spacing, fixed: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """One random (3, 3) matrix in voxels, which leaves the coordinates of ``fixed`` axes."""


@dataclass(frozen=True)
class RandomAffine:
    """A rotation with shear and scaling.

    Attributes:
        probability: of being applied.
        rotation_deg: largest angle about each axis.
        scale: smallest and largest magnification of all axes alike, drawn evenly on a
            logarithmic scale.
        scale_per_axis: smallest and largest further magnification of each axis.
        shear: largest shift along one axis per step along another.
    """

    probability: float
    rotation_deg: float = 0.0
    scale: Range = (1.0, 1.0)
    scale_per_axis: Range = (1.0, 1.0)
    shear: float = 0.0

    def draw(
        self, spacing_mm: Spacing, fixed: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """One random (3, 3) matrix in voxels, which leaves the coordinates of ``fixed`` axes."""
        free = ~fixed
        angles = np.deg2rad(rng.uniform(-self.rotation_deg, self.rotation_deg, 3))
        shear = np.eye(3)
        if self.shear:
            shear[~np.eye(3, dtype=bool)] = rng.uniform(-self.shear, self.shear, 6)
        scale = 1.0
        if self.scale[0] != self.scale[1]:
            scale = float(np.exp(rng.uniform(*np.log(self.scale))))
        elif self.scale[0] != 1:
            scale = self.scale[0]
        per_axis = scale * rng.uniform(*self.scale_per_axis, 3)
        turns_free_axes = np.array([free[np.arange(3) != axis].all() for axis in range(3)])
        shear[np.outer(free, free) == 0] = 0
        np.fill_diagonal(shear, 1)
        turned = rotation(np.where(turns_free_axes, angles, 0.0))
        return in_voxels(turned @ shear @ np.diag(np.where(free, 1 / per_axis, 1.0)), spacing_mm)


@dataclass(frozen=True)
class RandomElastic:
    """A smooth displacement: cubic B-splines over a coarse lattice of random control points.

    Attributes:
        probability: of being applied.
        displacement_mm: of a control point along each axis: the standard deviation of a normal
            distribution, or the largest of a uniform one.
        distribution: of the control points' displacements.
        control_points: per axis.
    """

    probability: float
    displacement_mm: float = 3.0
    distribution: Literal["normal", "uniform"] = "normal"
    control_points: int = 6

    def draw(
        self,
        size: Shape,
        spacing_mm: Spacing,
        fixed: NDArray[np.bool_],
        rng: np.random.Generator,
        box: Box | None = None,
    ) -> NDArray[np.float32]:
        """One random displacement (3, I, J, K) in voxels, for ``box`` only that part of it.

        Nothing moves along ``fixed`` axes, and all places along them move alike.
        """
        lattice = (3, *(self.control_points,) * 3)
        if self.distribution == "normal":
            points = rng.normal(0.0, self.displacement_mm, lattice)
        else:
            points = rng.uniform(-self.displacement_mm, self.displacement_mm, lattice)
        points = points / np.asarray(spacing_mm).reshape(3, 1, 1, 1)
        points[fixed] = 0
        starts, sizes = ((0, 0, 0), size) if box is None else box
        # A fixed axis counts as one voxel, whatever its length, and what holds there is repeated.
        i, j, k = np.where(fixed, 1, size)
        a, b, c = np.where(fixed, 0, starts)
        x, y, z = np.where(fixed, 1, sizes)
        field = spline_field(points, (i, j, k), ((a, b, c), (x, y, z)))
        return np.ascontiguousarray(np.broadcast_to(field, (3, *sizes)))


@dataclass(frozen=True)
class SpatialAugmentation:
    """Flips, affine and elastic transforms at random.

    Along axes on which the patch has one voxel nothing is rotated, sheared, scaled or displaced,
    so a patch of one slice (I, J, 1) is transformed in its plane.

    Attributes:
        flip: probability for each of ``flip_axes``.
        affine, elastic: None leaves one out.
        exclusive: at most one of the two is applied, each with its probability. Otherwise they
            are drawn independently of each other.
        axes: "permute" exchanges the volume's axes too, all six orders being equally likely; with
            flips of all axes that makes 48 orientations.
        flip_axes: of the patch.
        fixed_axes: of the patch, treated as if they had one voxel: (2,) transforms a stack of
            slices (I, J, 3) in plane. Flips go by ``flip_axes`` alone.
        outside: what images show beyond the volume: "zero", or "edge", the volume's nearest voxel,
            for scans whose air is not 0. Labels are 0 there.

    Example:
        ``SpatialAugmentation(flip=0.5, affine=RandomAffine(0.5, rotation_deg=15), elastic=None)``
    """

    flip: float = 0.5
    affine: Affine | None = RandomAffine(
        0.3, rotation_deg=20.0, scale=(0.8, 1.25), scale_per_axis=(0.95, 1.05)
    )
    elastic: RandomElastic | None = RandomElastic(0.15)
    exclusive: bool = False
    axes: Literal["keep", "permute"] = "keep"
    flip_axes: tuple[int, ...] = (0, 1, 2)
    fixed_axes: tuple[int, ...] = ()
    outside: Outside = "zero"

    def __post_init__(self) -> None:
        total = sum(part.probability for part in (self.affine, self.elastic) if part is not None)
        if self.exclusive and total > 1:
            raise ValueError(f"exclusive affine and elastic: probabilities add up to {total:g}")

    def axis_permutation(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """Which axis of the volume comes first, second, third."""
        if self.axes == "keep":
            return (0, 1, 2)
        i, j, k = (int(axis) for axis in rng.permutation(3))
        return i, j, k

    def draw(
        self,
        size: Shape,
        spacing_mm: Spacing,
        rng: np.random.Generator,
        volume: Box | None = None,
    ) -> SpatialTransform:
        """One random transform of a patch.

        Args:
            size: of the patch in voxels.
            spacing_mm: along the patch's axes, after ``axis_permutation``.
            rng: drawn from.
            volume: where the patch lies in the volume, and the volume's size; plays no part.
        """
        return self._drawn(size, spacing_mm, rng)

    def _drawn(
        self,
        size: Shape,
        spacing_mm: Spacing,
        rng: np.random.Generator,
        box: Box | None = None,
    ) -> SpatialTransform:
        fixed = np.array([n == 1 or axis in self.fixed_axes for axis, n in enumerate(size)])
        affine, elastic = self.affine, self.elastic
        if self.exclusive:
            affine, elastic = self._one_of(affine, elastic, rng)
        elif affine is not None and rng.random() >= affine.probability:
            affine = None
        displacement = None
        if self.exclusive and elastic is not None:
            displacement = elastic.draw(size, spacing_mm, fixed, rng, box)
        matrix = np.eye(3) if affine is None else affine.draw(spacing_mm, fixed, rng)
        flipped = rng.random(3) < self.flip
        flips = [-1.0 if axis in self.flip_axes and flipped[axis] else 1.0 for axis in range(3)]
        if not self.exclusive and elastic is not None and rng.random() < elastic.probability:
            displacement = elastic.draw(size, spacing_mm, fixed, rng, box)
        return SpatialTransform(matrix @ np.diag(flips), displacement, outside=self.outside)

    @staticmethod
    def _one_of(
        affine: Affine | None, elastic: RandomElastic | None, rng: np.random.Generator
    ) -> tuple[Affine | None, RandomElastic | None]:
        p_affine = 0.0 if affine is None else affine.probability
        p_elastic = 0.0 if elastic is None else elastic.probability
        if rng.random() >= p_affine + p_elastic:
            return None, None
        if rng.random() < p_elastic / (p_affine + p_elastic):
            return None, elastic
        return affine, None


@dataclass(frozen=True)
class VolumeAugmentation:
    """The geometry of a whole volume, of which a patch sees its part.

    A slice may thus be an oblique one of the volume, turned about the volume's middle, and what
    neighboring patches of one volume would see fits together. Only the patch is computed.

    Attributes:
        spatial: drawn as for a patch of the volume's size.
    """

    spatial: SpatialAugmentation

    def axis_permutation(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """As of ``spatial``."""
        return self.spatial.axis_permutation(rng)

    def draw(
        self,
        size: Shape,
        spacing_mm: Spacing,
        rng: np.random.Generator,
        volume: Box | None = None,
    ) -> SpatialTransform:
        """One random transform of a patch.

        Args:
            size: of the patch in voxels.
            spacing_mm: along the patch's axes, after ``axis_permutation``.
            rng: drawn from.
            volume: first voxel of the patch in the volume, and the volume's size.
        """
        start, shape = ((0, 0, 0), size) if volume is None else volume
        drawn = self.spatial._drawn(shape, spacing_mm, rng, (start, size))
        i, j, k = ((n - 1) / 2 - first for n, first in zip(shape, start, strict=True))
        return replace(drawn, about_vox=(i, j, k))


def resample_patch(
    images: Sequence[NDArray[Any]],
    maps: Mapping[str, NDArray[Any]],
    start: Shape,
    size: Shape,
    transform: SpatialTransform,
) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """A patch of a volume after a spatial transform; everything is resampled once.

    Images and maps of floating point numbers (soft labels) are interpolated linearly; integer
    and boolean maps (labels) take their nearest neighbor. Beyond the volume maps are 0, and images
    what ``transform.outside`` says. Pure flips copy voxels and interpolate nothing.

    Args:
        images: C arrays (I, J, K), possibly mapped from files; integers count as intensities.
        maps: further arrays (I, J, K) by name.
        start: first voxel of the patch before the transform; may be negative.
        size: of the patch.
        transform: where voxels are read from.

    Returns:
        The images (C, *size) float32, and the maps (*size) by name: float32, int32 or bool.
        Labels above 2**24 lose their last digits where voxels are interpolated.

    Example:
        >>> image, size = np.arange(4.0).reshape(1, 1, 4), (1, 1, 4)
        >>> flip = SpatialTransform(np.diag([1.0, 1.0, -1.0]))
        >>> patch, labels = resample_patch([image], {"lesions": image > 2}, (0, 0, 0), size, flip)
        >>> patch.tolist(), labels["lesions"].tolist()
        ([[[[3.0, 2.0, 1.0, 0.0]]]], [[[True, False, False, False]]])
    """
    if transform.only_flips:
        mirrored = np.diag(transform.matrix) < 0
        flips = tuple(slice(None, None, -1 if flip else 1) for flip in mirrored)
        across = np.where(mirrored, 2 * transform.middle(size) - (np.asarray(size) - 1), 0)
        first = tuple(int(n) for n in np.asarray(start) + np.rint(across).astype(int))
        patch = np.stack([crop(image, first, size, transform.outside)[flips] for image in images])
        return np.ascontiguousarray(patch, dtype=np.float32), {
            name: np.ascontiguousarray(crop(array, first, size)[flips], dtype=_dtype_of(array))
            for name, array in maps.items()
        }
    positions = _source_positions(start, size, transform)
    low = np.floor(positions.reshape(3, -1).min(axis=1)).astype(int) - 1
    high = np.ceil(positions.reshape(3, -1).max(axis=1)).astype(int) + 2
    shape = tuple(int(n) for n in high - low)
    first = tuple(int(n) for n in low)
    grid = np.empty((1, *size, 3), dtype=np.float32)
    for axis in range(3):  # grid_sample wants k, j, i and the region between -1 and 1
        grid[0, ..., 2 - axis] = (positions[axis] - low[axis]) * (2.0 / (shape[axis] - 1)) - 1.0

    def sampled(parts: list[NDArray[Any]], mode: str) -> NDArray[np.float32]:
        source = np.stack(parts).astype(np.float32)
        values = functional.grid_sample(
            torch.from_numpy(source)[None], torch.from_numpy(grid), mode=mode, align_corners=True
        )
        return np.asarray(values[0].numpy())

    soft = [name for name, array in maps.items() if _dtype_of(array) == np.float32]
    hard = [name for name in maps if name not in soft]
    parts = [crop(image, first, shape, transform.outside) for image in images]
    linear = sampled([*parts, *(crop(maps[name], first, shape) for name in soft)], "bilinear")
    transformed: dict[str, NDArray[Any]] = dict(zip(soft, linear[len(images) :], strict=True))
    if hard:
        nearest = sampled([crop(maps[name], first, shape) for name in hard], "nearest")
        for name, values in zip(hard, nearest, strict=True):
            transformed[name] = values.astype(_dtype_of(maps[name]))
    return linear[: len(images)], {name: transformed[name] for name in maps}


def _dtype_of(array: NDArray[Any]) -> np.dtype[Any]:
    if array.dtype == bool:
        return np.dtype(bool)
    return np.dtype(np.float32 if np.issubdtype(array.dtype, np.floating) else np.int32)


def _source_positions(
    start: Shape, size: Shape, transform: SpatialTransform
) -> NDArray[np.float32]:
    middle = transform.middle(size)
    shift = np.asarray(start) + middle
    axes = [
        np.arange(n, dtype=np.float32) - np.float32(m) for n, m in zip(size, middle, strict=True)
    ]
    positions = np.empty((3, *size), dtype=np.float32)
    for row in range(3):
        a, b, c = transform.matrix[row].astype(np.float32)
        positions[row] = (
            (a * axes[0])[:, None, None]
            + (b * axes[1])[None, :, None]
            + ((c * axes[2]) + np.float32(shift[row]))[None, None, :]
        )
    if transform.displacement is not None:
        positions += transform.displacement
    return positions


def crop(
    array: NDArray[Any], start: tuple[int, ...], size: tuple[int, ...], outside: Outside = "zero"
) -> NDArray[Any]:
    """The part of an (I, J, K) array that begins at ``start``; ``outside`` says what lies beyond.

    Example:
        >>> crop(np.array([[[1, 2, 3]]]), (0, 0, 1), (1, 1, 4)).tolist()
        [[[2, 3, 0, 0]]]
        >>> crop(np.array([[[1, 2, 3]]]), (0, 0, 1), (1, 1, 4), outside="edge").tolist()
        [[[2, 3, 3, 3]]]
    """
    if outside == "edge":
        return _crop_with_edges(array, start, size)
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


def _crop_with_edges(
    array: NDArray[Any], start: tuple[int, ...], size: tuple[int, ...]
) -> NDArray[Any]:
    inside: list[slice] = []
    beyond: list[tuple[int, int]] = []
    for first, n, limit in zip(start, size, array.shape, strict=True):
        # at least one voxel, the nearest one, where the part lies wholly beyond the array
        low, high = min(max(0, first), limit - 1), max(1, min(limit, first + n))
        before = min(max(0, low - first), n - (high - low))
        inside.append(slice(low, high))
        beyond.append((before, n - (high - low) - before))
    part = array[tuple(inside)]
    return np.pad(part, beyond, mode="edge") if np.any(beyond) else np.asarray(part)


def rotation(angles_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3): rotations about i, then j, then k.

    Example:
        >>> (rotation(np.deg2rad([0, 0, 90])) @ [1, 0, 0]).round().astype(int).tolist()
        [0, 1, 0]
    """
    matrix = np.eye(3)
    for axis, angle in enumerate(angles_rad):
        a, b = [n for n in range(3) if n != axis]
        about_axis = np.eye(3)
        about_axis[a, a] = about_axis[b, b] = np.cos(angle)
        about_axis[a, b], about_axis[b, a] = -np.sin(angle), np.sin(angle)
        matrix = about_axis @ matrix
    return matrix


def in_voxels(in_mm: NDArray[np.float64], spacing_mm: Spacing) -> NDArray[np.float64]:
    """(3, 3): a linear map of mm as one of voxels of that size.

    Example:
        >>> quarter = rotation(np.deg2rad([90, 0, 0]))
        >>> (in_voxels(quarter, (1.0, 1.0, 3.0)) @ [0, 0, 1]).round().astype(int).tolist()
        [0, -3, 0]
    """
    step = np.diag(spacing_mm)
    return np.asarray(np.linalg.inv(step) @ in_mm @ step)


def spline_field(
    points: NDArray[np.float64], size: Shape, box: Box | None = None
) -> NDArray[np.float32]:
    """Cubic B-splines over a coarse lattice: (n, a, b, c) points to (n, I, J, K) float32.

    The lattice spans the patch with one point beyond each end, so the field is twice
    differentiable everywhere. With ``box``, first voxel and size, only that part is computed; it
    may reach beyond the patch, where the field falls to 0.

    Example:
        >>> field = spline_field(np.ones((3, 5, 5, 5)), (8, 8, 4))
        >>> field.shape, float(field.round(3).min()), float(field.round(3).max())
        ((3, 8, 8, 4), 1.0, 1.0)
    """
    starts, sizes = ((0, 0, 0), size) if box is None else box
    field = torch.from_numpy(points.astype(np.float32))
    for axis, n in enumerate(size):
        matrix = _spline_matrix(points.shape[axis + 1], n, starts[axis], sizes[axis])
        field = apply_along_axis(axis + 1, field, matrix)
    return field.numpy()


def apply_along_axis(axis: int, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Apply an (m, n) matrix to axis ``axis`` of x, whose length n becomes m.

    Example:
        >>> apply_along_axis(1, torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.5]])).tolist()
        [[2.0]]
    """
    return torch.movedim(torch.tensordot(matrix, x, dims=([1], [axis])), 0, axis).contiguous()


def _spline_matrix(points: int, n: int, first: int, count: int) -> torch.Tensor:
    """(count, points): weights at ``count`` of n places between the second and the last but one
    point, from number ``first`` on."""
    step = (points - 3.0) / (n - 1) if n > 1 else 0.0
    at = (1.0 + step * np.arange(first, first + count))[:, None]
    distance = np.abs(at - np.arange(points)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return torch.from_numpy(np.where(distance < 1, near, far).astype(np.float32))
