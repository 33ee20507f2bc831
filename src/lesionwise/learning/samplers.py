"""Where patches are taken, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PatchSampling:
    """Patches at random, a share of them around lesions.

    Attributes:
        lesion_share: probability that a patch is placed so that it holds a lesion's center,
            which then lies anywhere in its inner three quarters. Every lesion is as likely
            as any other, whatever its size. 0 places every patch uniformly.
    """

    lesion_share: float = 0.0

    def place(
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
        room = np.asarray(shape) - size
        start = np.where(room > 0, rng.integers(0, np.maximum(room, 0) + 1), room // 2)
        if len(centers_vox) and rng.random() < self.lesion_share:
            center = centers_vox[rng.integers(len(centers_vox))]
            wanted = np.round(center - size * rng.uniform(0.125, 0.875, 3)).astype(int)
            start = np.where(room > 0, np.clip(wanted, 0, np.maximum(room, 0)), room // 2)
        return int(start[0]), int(start[1]), int(start[2])


class EpochSampler:
    """Yields the numbers of an epoch's patches: the next epoch goes on where the last ended.

    A patch depends on its number and the seed alone, so a resumed run sees what an
    uninterrupted one would have seen, with any number of workers.
    """

    def __init__(self, patches_per_epoch: int) -> None:
        self.patches_per_epoch = patches_per_epoch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.patches_per_epoch

    def __iter__(self) -> Iterator[int]:
        first = self.epoch * self.patches_per_epoch
        return iter(range(first, first + self.patches_per_epoch))
