"""Where patches are taken, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lesionwise.types import BoolArray, LabelArray


class LabeledVolume(Protocol):
    """Where patches are taken: a volume with its lesions.

    Attributes:
        shape: of the volume.
        centers_vox: (n, 3) lesion centers; n may be 0.
        instances: (I, J, K), 0 = background.
        lesion_voxels: (n, 3), those of ``instances`` that are not 0, in any order.
        brain: (I, J, K); None counts everything as brain.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def centers_vox(self) -> NDArray[np.float64]: ...

    @property
    def instances(self) -> LabelArray: ...

    @property
    def lesion_voxels(self) -> NDArray[np.int64]: ...

    @property
    def brain(self) -> BoolArray | None: ...


class Sampling(Protocol):
    """A rule for where patches lie."""

    def start(
        self, volume: LabeledVolume, patch_size_vox: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """First voxel of a patch, negative where it reaches beyond the volume."""


def start_within(
    shape: Sequence[int], patch_size_vox: Sequence[int], start: Sequence[int] | NDArray[Any]
) -> tuple[int, int, int]:
    """The start of a patch, moved as little as needed to keep the patch within the volume.

    A voxel of the volume that lies in the patch still lies in it afterwards. Along an axis on which
    the volume is smaller than the patch, the patch is centered on it, and its start is negative; of
    an odd number of voxels too many, the one more lies before the volume.

    Args:
        shape: of the volume, along i, j, k.
        patch_size_vox: along i, j, k.
        start: first voxel of the patch, as it is wanted.

    Example:
        >>> start_within((40, 40, 5), (16, 16, 8), (-3, 30, 1))
        (0, 24, -2)
    """
    room = np.asarray(shape) - np.asarray(patch_size_vox)
    i, j, k = np.where(room > 0, np.clip(start, 0, np.maximum(room, 0)), room // 2)
    return int(i), int(j), int(k)


@dataclass(frozen=True)
class PatchSampling:
    """Patches at random, some of them around lesions.

    Attributes:
        lesion_fraction: probability that a patch is placed so that it holds a lesion's center,
            which then lies anywhere in its inner three quarters. Every lesion is as likely
            as any other, whatever its size. 0 places every patch uniformly.
    """

    lesion_fraction: float = 0.0

    def start(
        self, volume: LabeledVolume, patch_size_vox: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """First voxel of a patch."""
        return self.position(volume.shape, volume.centers_vox, patch_size_vox, rng)

    def position(
        self,
        shape: tuple[int, ...],
        centers_vox: NDArray[np.floating[Any]],
        patch_size_vox: tuple[int, int, int],
        rng: np.random.Generator,
    ) -> tuple[int, int, int]:
        """First voxel of a patch; where the volume is smaller than the patch, it is centered.

        Args:
            shape: of the volume.
            centers_vox: (n, 3) lesion centers; n may be 0.
            patch_size_vox: along i, j, k.
            rng: drawn from.

        Returns:
            Start along i, j, k, negative where the patch reaches beyond the volume.
        """
        size = np.asarray(patch_size_vox)
        start: NDArray[Any] = rng.integers(0, np.maximum(np.asarray(shape) - size, 0) + 1)
        if len(centers_vox) and rng.random() < self.lesion_fraction:
            center = centers_vox[rng.integers(len(centers_vox))]
            # a voxel's middle lies half a voxel after its first edge
            start = np.floor(center + 1 - size * rng.uniform(0.125, 0.875, 3)).astype(int)
        return start_within(shape, patch_size_vox, start)


@dataclass(frozen=True)
class BrainSampling:
    """Patches whose middle voxel lies in the brain, some of them around lesions.

    Where no brain mask is known, or no middle in it is found in 1000 tries, a patch lies anywhere.

    Attributes:
        lesion_fraction: probability that a patch holds a lesion's center, as of
            ``PatchSampling``; in a volume without lesions all patches lie in the brain.
    """

    lesion_fraction: float = 0.0

    def start(
        self, volume: LabeledVolume, patch_size_vox: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """First voxel of a patch."""
        if len(volume.centers_vox) and rng.random() < self.lesion_fraction:
            return PatchSampling(1.0).start(volume, patch_size_vox, rng)
        start = PatchSampling(0.0).start(volume, patch_size_vox, rng)
        if volume.brain is None:
            return start
        first = start
        for _ in range(1000):
            middle = tuple(a + n // 2 for a, n in zip(start, patch_size_vox, strict=True))
            if volume.brain[middle]:
                return start
            start = PatchSampling(0.0).start(volume, patch_size_vox, rng)
        return first


@dataclass(frozen=True)
class CenterSampling:
    """Patches that hold a lesion's center, in their inner part or anywhere.

    For networks that answer for the middle of a patch alone. Patches may reach beyond the volume.
    Every lesion is as likely as any other. In a volume without lesions a patch's middle lies
    anywhere.

    Attributes:
        inner_vox: size of the inner part, in the middle of the patch.
        inner_fraction: probability that the center lies in the inner part, where every place is
            equally likely; otherwise it lies anywhere in the patch.
    """

    inner_vox: tuple[int, int, int]
    inner_fraction: float = 1.0

    def start(
        self, volume: LabeledVolume, patch_size_vox: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """First voxel of a patch."""
        size = np.array(patch_size_vox)
        if len(volume.centers_vox):
            at = np.round(volume.centers_vox[rng.integers(len(volume.centers_vox))]).astype(int)
            inner = np.array(self.inner_vox) if rng.random() < self.inner_fraction else size
            start = at - rng.integers(0, inner) - (size - inner) // 2
        else:
            start = rng.integers(0, volume.shape) - size // 2
        return int(start[0]), int(start[1]), int(start[2])


@dataclass(frozen=True)
class WeightedSampling:
    """A patch's middle voxel is drawn by weight; every patch lies within the volume.

    Middles whose patch would leave the volume are never drawn. Along an axis on which the
    volume is smaller than the patch, it is centered. Where no voxel with a weight can be the
    middle, the patch lies anywhere.

    Attributes:
        background, brain, lesion: weights of voxels outside the brain, within it, and of
            lesions, wherever they lie.
    """

    background: float = 0.0
    brain: float = 1.0
    lesion: float = 100.0

    def start(
        self, volume: LabeledVolume, patch_size_vox: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """First voxel of a patch."""
        room = [n - s for n, s in zip(volume.shape, patch_size_vox, strict=True)]
        first = [s // 2 if r >= 0 else 0 for r, s in zip(room, patch_size_vox, strict=True)]
        last = [
            f + r + 1 if r >= 0 else n for f, r, n in zip(first, room, volume.shape, strict=True)
        ]
        inner = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        weight = np.full([b - a for a, b in zip(first, last, strict=True)], self.background)
        weight[... if volume.brain is None else np.asarray(volume.brain[inner])] = self.brain
        weight[np.asarray(volume.instances[inner]) > 0] = self.lesion
        summed = np.cumsum(weight.ravel())
        if summed[-1] > 0:
            drawn = int(np.searchsorted(summed, rng.uniform(0, summed[-1]), side="right"))
        else:
            drawn = int(rng.integers(weight.size))
        middle = np.unravel_index(min(drawn, weight.size - 1), weight.shape)
        i, j, k = (
            int(m) + f - s // 2 if r >= 0 else r // 2
            for m, f, s, r in zip(middle, first, patch_size_vox, room, strict=True)
        )
        return i, j, k


@dataclass(frozen=True)
class SlicesWithLesion:
    """Stacks whose middle slice holds a lesion voxel, every such slice being equally likely.

    In the plane the patch lies anywhere in the volume: the first of ``tries`` random places at
    which its middle slice holds a lesion voxel, or the last. Along an axis on which the volume is
    smaller than the patch, it is centered. Without any lesion every slice is equally likely.

    Attributes:
        tries: places in the plane that are drawn at most.
    """

    tries: int = 10

    def start(
        self, volume: LabeledVolume, patch_size_vox: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[int, int, int]:
        """First voxel of a patch of slices along k."""
        voxels = volume.lesion_voxels
        found = np.unique(voxels[:, 2])
        slice_ = int(rng.choice(found)) if found.size else int(rng.integers(volume.shape[2]))
        shown = voxels[voxels[:, 2] == slice_][:, :2]
        room = np.asarray(volume.shape[:2]) - patch_size_vox[:2]
        for _ in range(max(1, self.tries)):
            start = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
            inside = (shown >= start) & (shown < start + patch_size_vox[:2])
            if not shown.size or inside.all(axis=1).any():
                break
        return int(start[0]), int(start[1]), slice_ - (patch_size_vox[2] - 1) // 2


class EpochSampler:
    """Yields the numbers of an epoch's patches: the next epoch goes on where the last ended.

    A patch depends on its number and the seed alone, so a resumed run sees what an
    uninterrupted one would have seen, with any number of workers. Processes that train
    together take turns.
    """

    def __init__(self, patches_per_epoch: int) -> None:
        self.patches_per_epoch = patches_per_epoch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.patches_per_epoch // _processes()[1]

    def __iter__(self) -> Iterator[int]:
        rank, processes = _processes()
        first = self.epoch * self.patches_per_epoch
        return iter(range(first + rank, first + len(self) * processes, processes))


def _processes() -> tuple[int, int]:
    """Which of the processes that train together this is, and their number."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
