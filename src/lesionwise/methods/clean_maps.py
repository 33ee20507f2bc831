"""What is taken out of a method's maps before a threshold makes the mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.change.features import ELLIPSOID, axis_lengths
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, connected_components
from lesionwise.instances.filters import SIZE_ROUNDING
from lesionwise.instances.table import lesion_table
from lesionwise.types import (
    BoolArray,
    LesionMaps,
    Method,
    Predictor,
    RunContext,
    Study,
    TrainingData,
)

Cleanup: TypeAlias = Callable[[LesionMaps], LesionMaps]
"""Maps without what is not to become lesion, on the same grid."""


@dataclass(frozen=True)
class DropThinPatches:
    """Set patches of the probability that are too thin or too small to 0.

    A patch is a connected component of the voxels above ``patch_above``. Voxels outside patches
    keep their probability: around a patch that stays, it decides where the border lies between
    voxels when the maps are resampled.

    Attributes:
        min_axis_vox: least length of the shortest axis, in voxels: of the ellipsoid with the
            same second moments. A patch of exactly this length stays.
        min_vox: least number of voxels; a patch of exactly so many stays.
        patch_above: exclusive.
        connectivity: 6, 18 or 26.

    Source: the chapter of recipe ``bsi-lightgbm``, section 2.
    """

    min_axis_vox: float = 2.0
    min_vox: int = 27
    patch_above: float = 0.1
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, maps: LesionMaps) -> LesionMaps:
        labels = connected_components(maps.probability > self.patch_above, self.connectivity)
        index = np.argwhere(labels)
        row = labels[labels > 0].astype(np.int64) - 1
        count = int(labels.max(initial=0))
        axes = axis_lengths(index.astype(np.float64), row, count, ELLIPSOID)
        size = np.bincount(row, minlength=count)
        # Lengths that are equal but for rounding count as equal.
        goes = (axes[:, 0] < self.min_axis_vox * (1 - 1e-9)) | (size < self.min_vox)
        return _without(maps, labels, goes)


@dataclass(frozen=True)
class DropSmallPatches:
    """Set patches of the probability that are not larger than a volume to 0.

    A patch is a connected component of the voxels above ``patch_above``; with the recipe's
    threshold there, it is a component of the mask, and the mask loses it too. Voxels outside
    patches keep their probability.

    Attributes:
        volume_mm3: a patch of this volume or less goes; within a relative 1e-5 it counts as
            equal, since headers round spacing.
        patch_above: exclusive.
        connectivity: 6, 18 or 26.

    Source: the chapter of recipe ``nnunet-empenn``, section 2.
    """

    volume_mm3: float
    patch_above: float = 0.5
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, maps: LesionMaps) -> LesionMaps:
        labels = connected_components(maps.probability > self.patch_above, self.connectivity)
        volumes_mm3 = lesion_table(labels, maps.grid).volume_mm3
        return _without(maps, labels, volumes_mm3 <= self.volume_mm3 * (1 + SIZE_ROUNDING))


def _without(maps: LesionMaps, labels: NDArray[np.int32], goes: NDArray[np.bool_]) -> LesionMaps:
    """The maps with a probability of 0 in the labels 1 … n that go."""
    gone = np.concatenate([[False], goes])[labels]
    return replace(maps, probability=np.where(gone, np.float32(0), maps.probability))


@dataclass(frozen=True)
class DropBorderPatches:
    """Set patches of the probability that reach the border of the brain to 0.

    A patch is a connected component of the voxels above ``patch_above``. It goes when one of its
    voxels lies less than ``depth_vox`` steps through voxel faces inside the brain, or outside. The
    border of the volume is a border of the brain. Voxels outside patches keep their probability.
    Without a brain mask nothing changes.

    Attributes:
        depth_vox: 1: a patch that holds a voxel of the brain's outermost layer goes.
        patch_above: exclusive.
        connectivity: 6, 18 or 26.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `ssl-dual-attention`, which does not say
    how near the border is.
    """

    depth_vox: int = 1
    patch_above: float = 0.5
    connectivity: int = DEFAULT_CONNECTIVITY

    def __call__(self, maps: LesionMaps, brain: BoolArray | None) -> LesionMaps:
        if brain is None:
            return maps
        labels = connected_components(maps.probability > self.patch_above, self.connectivity)
        inner = ndimage.binary_erosion(brain, iterations=self.depth_vox)
        at_border = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.bool_)
        at_border[labels[~inner]] = True
        return _without(maps, labels, at_border[1:])


@dataclass(frozen=True)
class CleanMaps:
    """A method whose maps lose patches before a threshold makes the mask.

    Attributes:
        method: what makes the maps.
        border: of patches at the brain's border; it comes first. None keeps them.
        cleanup: what else changes the maps, in order.
    """

    method: Method
    border: DropBorderPatches | None = None
    cleanup: tuple[Cleanup, ...] = ()

    @property
    def uses_validation(self) -> bool:
        """As the method does."""
        return self.method.uses_validation

    def members(self) -> tuple[Method, ...]:
        """The method."""
        return (self.method,)

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Fit the method."""
        self.method.fit(data, run)

    def load(self, run: RunContext) -> Predictor:
        """The method, with its maps cleaned."""
        predictor = self.method.load(run)

        def predict(study: Study) -> LesionMaps:
            maps = predictor(study)
            if self.border is not None:
                brain = study.followup.brain
                maps = self.border(maps, None if brain is None else np.asarray(brain.array, bool))
            for step in self.cleanup:
                maps = step(maps)
            return maps

        return predict
