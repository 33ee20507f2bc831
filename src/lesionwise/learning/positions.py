"""Lists of patches: where in a volume they lie, and in which order they are learned.

Orders are pure functions of the epoch and the seed, so that a resumed training needs no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lesionwise.types import BoolArray, Shape


@dataclass(frozen=True)
class PatchPosition:
    """Where a patch lies.

    Attributes:
        axes: which axis of the volume comes first, second, third in the patch.
        start: first voxel along these axes; negative where the patch reaches beyond
            the volume.
    """

    axes: tuple[int, int, int]
    start: Shape


class PatchPositions(Protocol):
    """The patches of a volume."""

    def of(self, shape: tuple[int, ...], size_vox: Shape) -> Sequence[PatchPosition]:
        """Positions of patches of ``size_vox`` in a volume of ``shape``, in a fixed order."""


def axes_with_last(normal: int) -> tuple[int, int, int]:
    """The order of axes that moves ``normal`` last and keeps the others' order.

    Example:
        >>> axes_with_last(0), axes_with_last(1), axes_with_last(2)
        ((1, 2, 0), (0, 2, 1), (0, 1, 2))
    """
    first, second = (axis for axis in range(3) if axis != normal)
    return first, second, normal


@dataclass(frozen=True)
class EverySlice:
    """Every slice of a volume as the middle of a patch, which is centered in the plane.

    A patch of S slices reaches (S - 1) // 2 slices below its middle and beyond the volume at its
    ends. A volume larger than the patch in the plane is cut to its middle part.

    Attributes:
        normals: axes that slices are perpendicular to, one after the other: (2,) are axial ones.
    """

    normals: tuple[Literal[0, 1, 2], ...] = (2,)

    def of(self, shape: tuple[int, ...], size_vox: Shape) -> list[PatchPosition]:
        """One position for each slice and normal."""
        positions: list[PatchPosition] = []
        for normal in self.normals:
            axes = axes_with_last(normal)
            i, j, slices = (shape[axis] for axis in axes)
            first, second = (i - size_vox[0]) // 2, (j - size_vox[1]) // 2
            below = (size_vox[2] - 1) // 2
            positions += [PatchPosition(axes, (first, second, k - below)) for k in range(slices)]
        return positions


@dataclass(frozen=True)
class RegularGrid:
    """Patches at even steps; the last one along an axis ends with the volume.

    Along an axis on which the volume is smaller than the patch there is one, centered.

    Attributes:
        stride_vox: step along each axis of the patch.
        normals: axes moved last, one after the other; (2,) keeps the axes of the volume.
    """

    stride_vox: Shape
    normals: tuple[Literal[0, 1, 2], ...] = (2,)

    def of(self, shape: tuple[int, ...], size_vox: Shape) -> list[PatchPosition]:
        """The grid's positions, the last axis fastest."""
        positions: list[PatchPosition] = []
        for normal in self.normals:
            axes = axes_with_last(normal)
            starts = [
                _starts(shape[axis], size, stride)
                for axis, size, stride in zip(axes, size_vox, self.stride_vox, strict=True)
            ]
            positions += [PatchPosition(axes, (i, j, k)) for i, j, k in product(*starts)]
        return positions


def _starts(length: int, size: int, stride: int) -> list[int]:
    if length <= size:
        return [(length - size) // 2]
    starts = list(range(0, length - size + 1, stride))
    return starts if starts[-1] == length - size else [*starts, length - size]


class PatchFilter(Protocol):
    """Which listed patches are learned from."""

    def __call__(
        self, images: Sequence[NDArray[Any]], position: PatchPosition, size_vox: Shape
    ) -> bool:
        """True for a patch that is kept.

        Args:
            images: the channels of the volume, (I, J, K) each, axes in the order of the position.
            position: of the patch.
            size_vox: of the patch.
        """


@dataclass(frozen=True)
class NonzeroPatches:
    """Patches in which some voxel of some channel is not 0; empty ones are left out."""

    def __call__(
        self, images: Sequence[NDArray[Any]], position: PatchPosition, size_vox: Shape
    ) -> bool:
        inside = tuple(
            slice(max(0, first), max(0, first + n))
            for first, n in zip(position.start, size_vox, strict=True)
        )
        return any(bool(image[inside].any()) for image in images)


@dataclass(frozen=True)
class MiddleInside:
    """Patches in whose middle voxel some channel is not 0: that voxel lies in the brain.

    For scans that are 0 outside the brain. Of an even side the middle is the first voxel of the
    second half.
    """

    def __call__(
        self, images: Sequence[NDArray[Any]], position: PatchPosition, size_vox: Shape
    ) -> bool:
        i, j, k = (first + n // 2 for first, n in zip(position.start, size_vox, strict=True))
        inside = all(0 <= at < n for at, n in zip((i, j, k), images[0].shape, strict=True))
        return inside and any(bool(image[i, j, k]) for image in images)


class HasLesion(Protocol):
    """Which patches count as those with a lesion."""

    def __call__(self, lesions: BoolArray) -> bool:
        """True for a patch (I, J, K) with a lesion."""


@dataclass(frozen=True)
class InMiddleSlice:
    """A lesion in the middle one of a stack of slices."""

    def __call__(self, lesions: BoolArray) -> bool:
        return bool(lesions[:, :, (lesions.shape[2] - 1) // 2].any())


class Balance(Protocol):
    """The order in which listed patches are learned."""

    def kept(self, positive: BoolArray) -> int:
        """How many patches an epoch has."""

    def order(self, positive: BoolArray, epoch: int, seed: int) -> NDArray[np.int64]:
        """Numbers of the patches of an epoch, in order.

        Args:
            positive: (n,), which patches hold a lesion voxel.
            epoch: counted from 0.
            seed: of the training.
        """


@dataclass(frozen=True)
class EveryPatch:
    """Every patch once in an epoch, in random order."""

    def kept(self, positive: BoolArray) -> int:
        return int(positive.size)

    def order(self, positive: BoolArray, epoch: int, seed: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch]).permutation(positive.size)


@dataclass(frozen=True)
class PositivePatches:
    """Every patch with a lesion once in an epoch, and some of those without.

    Attributes:
        empty_fraction: of the patches without a lesion, how many an epoch has; each is taken once
            before any is taken again.
        times: how often each patch with a lesion comes.
    """

    empty_fraction: float = 0.0
    times: int = 1

    def kept(self, positive: BoolArray) -> int:
        return int(self.times * positive.sum()) + self._empty(positive)

    def _empty(self, positive: BoolArray) -> int:
        return round(self.empty_fraction * int((~positive).sum()))

    def order(self, positive: BoolArray, epoch: int, seed: int) -> NDArray[np.int64]:
        count = self._empty(positive)
        chosen = [np.repeat(np.flatnonzero(positive), self.times)]
        chosen.append(in_turn(np.flatnonzero(~positive), epoch * count, count, seed))
        numbers = np.concatenate(chosen)
        return numbers[np.random.default_rng([seed, epoch]).permutation(numbers.size)]


@dataclass(frozen=True)
class EqualClasses:
    """Patches with lesions repeated until they are as many as those without, or the reverse.

    Within an epoch every patch comes at least once; the repeated ones differ in how often they
    come by one at most.
    """

    def kept(self, positive: BoolArray) -> int:
        counts = int(positive.sum()), int((~positive).sum())
        return 2 * max(counts) if min(counts) else max(counts)

    def order(self, positive: BoolArray, epoch: int, seed: int) -> NDArray[np.int64]:
        each = self.kept(positive) // 2
        groups = [np.flatnonzero(positive), np.flatnonzero(~positive)]
        if not (groups[0].size and groups[1].size):
            return EveryPatch().order(positive, epoch, seed)
        numbers = np.concatenate([in_turn(group, epoch * each, each, seed) for group in groups])
        return numbers[np.random.default_rng([seed, epoch]).permutation(numbers.size)]


@dataclass(frozen=True)
class PositiveFraction:
    """A fixed share of patches with lesions in every epoch.

    Each patch comes once before any of its kind comes again, over the ends of epochs.

    Attributes:
        fraction: of an epoch's patches that hold a lesion.
        per_epoch: patches of an epoch; 0 takes as many as make every patch without a lesion come
            once.
    """

    fraction: float = 0.5
    per_epoch: int = 0

    def kept(self, positive: BoolArray) -> int:
        if self.per_epoch:
            return self.per_epoch
        return max(1, round(int((~positive).sum()) / max(1e-9, 1 - self.fraction)))

    def order(self, positive: BoolArray, epoch: int, seed: int) -> NDArray[np.int64]:
        total = self.kept(positive)
        groups = [np.flatnonzero(positive), np.flatnonzero(~positive)]
        if not (groups[0].size and groups[1].size):
            return in_turn(np.arange(positive.size), epoch * total, total, seed)
        lesions = round(self.fraction * total)
        counts = (lesions, total - lesions)
        numbers = np.concatenate(
            [in_turn(g, epoch * n, n, seed) for g, n in zip(groups, counts, strict=True)]
        )
        return numbers[np.random.default_rng([seed, epoch]).permutation(numbers.size)]


def comes_again(order: NDArray[np.int64]) -> BoolArray:
    """(n,) True where the same number stands earlier in the order.

    Example:
        >>> comes_again(np.array([4, 2, 4])).tolist()
        [False, False, True]
    """
    again = np.ones(order.size, dtype=np.bool_)
    again[np.unique(order, return_index=True)[1]] = False
    return again


def in_turn(members: NDArray[np.int64], first: int, count: int, seed: int) -> NDArray[np.int64]:
    """``count`` members from number ``first`` of an endless row in which each comes once before
    any comes again: permutation after permutation, each with a seed of its own.

    Without members the answer is empty.

    Example:
        >>> row = in_turn(np.arange(3), first=0, count=6, seed=0)
        >>> sorted(row[:3].tolist()), sorted(row[3:].tolist())
        ([0, 1, 2], [0, 1, 2])
        >>> bool((in_turn(np.arange(3), first=2, count=4, seed=0) == row[2:]).all())
        True
    """
    if not members.size or not count:
        return np.empty(0, dtype=np.int64)
    cycles = range(first // members.size, (first + count - 1) // members.size + 1)
    row = np.concatenate(
        [members[np.random.default_rng([seed, 1, n]).permutation(members.size)] for n in cycles]
    )
    begin = first - cycles[0] * members.size
    return row[begin : begin + count]
