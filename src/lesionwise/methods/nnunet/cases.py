"""Training cases as arrays, and what a recipe may do to them before nnU-Net sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.types import FloatArray, InputError, LabelArray, Study, Task, scan_of

AXES = "ijk"


@dataclass(frozen=True, eq=False)
class Case:
    """One prepared study as nnU-Net is given it.

    Attributes:
        images: (C, I, J, K) float32, 0 outside the brain.
        labels: (I, J, K) lesion labels, 0 = background.
        spacing_mm: along i, j, k.
    """

    images: FloatArray
    labels: LabelArray
    spacing_mm: tuple[float, ...]


class CaseStep(Protocol):
    """Turns a training case into none, one or several."""

    def __call__(self, case: Case, rng: np.random.Generator) -> Iterator[Case]: ...


def images_of(study: Study, scans: tuple[str, ...], within_brain: bool) -> FloatArray:
    """(C, I, J, K) float32: the scans of every visit in time order, each visit's in order.

    Args:
        within_brain: set each visit's scans to 0 outside its brain, where that is known.

    Raises:
        InputError: If a visit lacks a scan, a voxel is not finite, or the arrays do not share a
            shape.
    """
    arrays = []
    for visit in study.visits:
        for name in scans:
            array = np.asarray(scan_of(study, visit, name).array, dtype=np.float32)
            if not np.isfinite(array).all():
                raise InputError(f"sub-{study.subject}: {name} has voxels that are not finite")
            if within_brain and visit.brain is not None:
                array = array * np.asarray(visit.brain.array, dtype=bool)
            arrays.append(array)
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"sub-{study.subject}: its scans lie on different grids")
    return np.stack(arrays)


def nnunet_spacing(spacing_mm: tuple[float, float, float], keep_voxels: bool) -> tuple[float, ...]:
    """The spacing that nnU-Net is given, along i, j, k."""
    return (1.0, 1.0, 1.0) if keep_voxels else spacing_mm


def case_of(
    study: Study, scans: tuple[str, ...], task: Task, within_brain: bool, keep_voxels: bool
) -> Case:
    """A study with its reference as a case.

    Raises:
        InputError: If a scan or the reference is missing, or they lie on different grids.
    """
    from lesionwise.instances.reference import hard_labels, reference_of

    images = images_of(study, scans, within_brain)
    labels = np.asarray(hard_labels(reference_of(study, task)))
    if labels.shape != images.shape[1:]:
        raise InputError(f"sub-{study.subject}: its lesions are on another grid than its scans")
    spacing_mm = study.followup.scans[scans[0]].grid.spacing_mm
    return Case(images, labels, nnunet_spacing(spacing_mm, keep_voxels))


@dataclass(frozen=True)
class DropPlainSlices:
    """Keep the slices whose mask has at least some entropy, H = -Σ p log2 p over its two values.

    What is kept moves together into one volume. Nothing is left of a case without such a slice.

    Attributes:
        min_entropy_bits: a slice with less goes.
        axis: that the slices lie along.

    Source: Arian Darestani et al. 2025, preprocessing step 5.
    """

    min_entropy_bits: float = 0.01
    axis: str = "k"

    def __call__(self, case: Case, rng: np.random.Generator) -> Iterator[Case]:
        axis = AXES.index(self.axis)
        others = tuple(a for a in range(3) if a != axis)
        entropy = mask_entropy((case.labels > 0).mean(axis=others))
        kept = np.flatnonzero(entropy >= self.min_entropy_bits)
        if kept.size:
            yield Case(
                np.take(case.images, kept, axis=axis + 1),
                np.take(case.labels, kept, axis=axis),
                case.spacing_mm,
            )


def mask_entropy(share: NDArray[np.floating]) -> NDArray[np.float64]:
    """Entropy in bits of masks whose ``share`` of voxels is lesion; 0 for empty and full ones."""
    p = np.clip(np.asarray(share, dtype=np.float64), 0, 1)
    q = 1 - p
    terms = [np.where(x > 0, -x * np.log2(np.where(x > 0, x, 1)), 0.0) for x in (p, q)]
    return np.asarray(terms[0] + terms[1])


@dataclass(frozen=True)
class AugmentedCopies:
    """The case, and copies of it in which every slice is turned, moved, sheared, zoomed, flipped.

    Each slice of each copy draws its own numbers, evenly within the ranges. Images are
    interpolated linearly, labels by nearest neighbor, and what comes from outside the slice
    repeats its border.

    Attributes:
        copies: besides the case itself.
        rotation_deg, shear_deg: angles between -this and this.
        shift: share of the slice's size, along each of its axes.
        zoom: the field of view grows or shrinks by up to this share, in each axis.
        flip: mirror left and right in half of the slices.
        axis: that the slices lie along; slices along i, whose left and right are not in view,
            are not flipped.

    Source: Arian Darestani et al. 2025, preprocessing step 6.
    """

    copies: int = 5
    rotation_deg: float = 40.0
    shift: float = 0.2
    shear_deg: float = 20.0
    zoom: float = 0.2
    flip: bool = True
    axis: str = "k"

    def __call__(self, case: Case, rng: np.random.Generator) -> Iterator[Case]:
        yield case
        axis = AXES.index(self.axis)
        for _ in range(self.copies):
            images, labels = np.empty_like(case.images), np.empty_like(case.labels)
            for n in range(case.labels.shape[axis]):
                place = (slice(None),) * axis + (n,)
                matrix, offset = self._draw(case.labels[place].shape, axis, rng)
                for channel in range(len(images)):
                    images[channel][place] = ndimage.affine_transform(
                        case.images[channel][place], matrix, offset, order=1, mode="nearest"
                    )
                labels[place] = ndimage.affine_transform(
                    case.labels[place], matrix, offset, order=0, mode="nearest"
                )
            yield Case(images, labels, case.spacing_mm)

    def _draw(
        self, shape: tuple[int, ...], axis: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Matrix and offset from a voxel of the copy to the voxel of the slice it shows."""
        turn = np.deg2rad(rng.uniform(-self.rotation_deg, self.rotation_deg))
        shear = np.deg2rad(rng.uniform(-self.shear_deg, self.shear_deg))
        shift = rng.uniform(-self.shift, self.shift, 2) * shape
        zoom = rng.uniform(1 - self.zoom, 1 + self.zoom, 2)
        mirrored = self.flip and axis != 0 and rng.random() < 0.5
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        matrix = matrix @ np.array([[1, -np.sin(shear)], [0, np.cos(shear)]]) @ np.diag(zoom)
        if mirrored:
            matrix = matrix @ np.diag([-1.0, 1.0])
        middle = (np.array(shape) - 1) / 2
        return matrix, middle + shift - matrix @ middle
