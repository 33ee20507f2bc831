"""What a network is asked to say about every voxel, and what its channels mean.

Targets are made from the instance map after every spatial transform, so a rotated lesion has
offsets that point to its center where it lies now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lesionwise.types import EMPTY, FloatArray, LabelArray

REACH_IN_SIGMAS = 5.5
"""Beyond this the Gaussian (below 3e-7) counts as 0."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What targets are made of, after every spatial transform.

    Attributes:
        instances: (I, J, K), what is to be found; 0 = background.
        spacing_mm: along i, j, k.
        labels: further references by name, (I, J, K), int32 or float32.
    """

    instances: LabelArray
    spacing_mm: tuple[float, float, float]
    labels: Mapping[str, NDArray[Any]] = field(default_factory=lambda: EMPTY)

    def mask(self) -> NDArray[np.float32]:
        """(1, I, J, K): 1 in every lesion."""
        return (self.instances > 0)[None].astype(np.float32)


class Targets(Protocol):
    """The heads of a network: what they learn, and the maps they give.

    Attributes:
        out_channels: channels of the network's output.
        initial_logits: of each output channel, before anything is learned. Lesions are rare: two
            logits of 2 and -2 start at a probability of 0.02, without which the focal and Dice
            losses need hundreds of steps to clear the background.
        maps: names of the channels that ``activate`` returns.
    """

    @property
    def out_channels(self) -> int: ...

    @property
    def initial_logits(self) -> tuple[float, ...]: ...

    @property
    def maps(self) -> tuple[str, ...]: ...

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """Arrays (C, I, J, K) float32 by name that the output is compared with."""

    def activate(self, output: Any) -> torch.Tensor:
        """The network's output as maps (B, len(maps), …): of (B, out_channels, …), or of the tuple
        that the network returns."""


@dataclass(frozen=True)
class LesionMask:
    """Lesion or not: two logits."""

    out_channels: int = 2
    initial_logits: tuple[float, ...] = (2.0, -2.0)
    maps: tuple[str, ...] = ("probability",)

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """The mask alone: {"mask": (1, I, J, K)}; the spacing plays no part."""
        return {"mask": reference.mask()}

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The softmax of the lesion channel, (B, 1, …)."""
        return lesion_probability(output)


CANDIDATE = "candidate"
"""The label of a crop around a candidate: 1 in its voxels where the candidate is true, else 0."""


@dataclass(frozen=True)
class CandidateClass:
    """Whether the candidate of a crop is a lesion: two logits for the whole crop.

    The samples decide it, of the whole candidate: it may be larger than its crop, and touch a
    lesion outside of that.
    """

    out_channels: int = 2
    initial_logits: tuple[float, ...] = (0.0, 0.0)
    maps: tuple[str, ...] = ("probability",)

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """{"mask": (1, 1, 1, 1)}, 1 or 0; asks for the label ``candidate``."""
        is_true = bool((reference.labels[CANDIDATE] > 0).any())
        return {"mask": np.full((1, 1, 1, 1), is_true, dtype=np.float32)}

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The softmax of the lesion channel, (B, 1, 1, 1, 1)."""
        return lesion_probability(output)


@dataclass(frozen=True)
class LesionLogit:
    """Lesion or not: two logits, whose difference is averaged over windows and then squashed.

    For systems that average and resample logits, not probabilities.
    """

    out_channels: int = 2
    initial_logits: tuple[float, ...] = (2.0, -2.0)
    maps: tuple[str, ...] = ("logit",)

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """The mask alone, as ``LesionMask`` makes it."""
        return LesionMask().make(reference)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The lesion's logit above the background's, (B, 1, …)."""
        return output[:, 1:2].float() - output[:, 0:1].float()


@dataclass(frozen=True)
class ActivatedMask:
    """Lesion or not: one channel, to which the network has applied an activation of its own.

    Attributes:
        values: of the output that stand for background and lesion; (-1, 1) goes with a tanh.
        initial_logits: of the channel before its activation; -2 is a tanh of -0.96.
    """

    values: tuple[float, float] = (-1.0, 1.0)
    out_channels: int = 1
    initial_logits: tuple[float, ...] = (-2.0,)
    maps: tuple[str, ...] = ("probability",)

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """The mask alone, 0 and 1, as ``LesionMask`` makes it; the loss knows the values."""
        return LesionMask().make(reference)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """Where the output lies between the two values, (B, 1, …) in [0, 1]."""
        low, high = self.values
        return ((output.float() - low) / (high - low)).clamp(0, 1)


@dataclass(frozen=True)
class SoftMasks:
    """One mask or several, each a channel between 0 and 1, for networks with their own activation.

    Take losses that read the output as it is, such as ``Dice(activated=True)``, for several masks
    within ``PerChannel``. The first mask is predicted, the others help to learn it.

    Attributes:
        references: names of what the channels are compared with, which the samples must read
            (``references`` of ``Patches``): fractions as they are, labels as 0 or 1. Empty: the
            mask of what is to be found.
        initial_logit: first bias of each channel, before the activation; -4 with a sigmoid starts
            at a probability of 0.02.

    Example:
        ``SoftMasks(("new", "new-rater-1", "new-rater-2"))``
    """

    references: tuple[str, ...] = ()
    initial_logit: float = -4.0
    maps: tuple[str, ...] = ("probability",)

    @property
    def out_channels(self) -> int:
        return max(1, len(self.references))

    @property
    def initial_logits(self) -> tuple[float, ...]:
        return (self.initial_logit,) * self.out_channels

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """{"mask": (masks, I, J, K)}; the spacing plays no part."""
        if not self.references:
            return LesionMask().make(reference)
        return {"mask": np.stack([_fraction(reference.labels[name]) for name in self.references])}

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The first channel, (B, 1, …)."""
        return output[:, :1].float()


def _fraction(labels: NDArray[Any]) -> NDArray[np.float32]:
    if np.issubdtype(labels.dtype, np.floating):
        return np.clip(labels, 0, 1).astype(np.float32)
    return (labels > 0).astype(np.float32)


@dataclass(frozen=True)
class CentersAndOffsets:
    """Lesion or not, how near a lesion's center, and where that center is: six channels.

    Channels of the output: two logits, center heatmap, offsets along i, j, k in voxels.
    Maps: probability, heatmap, three offsets.

    Source: Wynen et al. (ConfLUNet), section 3. Its "±2mm pixels" is read as 2 mm.
    """

    sigma_mm: float = 2.0
    out_channels: int = 6
    initial_logits: tuple[float, ...] = (2.0, -2.0, 0.0, 0.0, 0.0, 0.0)
    maps: tuple[str, ...] = ("probability", "heatmap", "offset_i", "offset_j", "offset_k")

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """{"mask": (1, I, J, K), "heatmap": (1, I, J, K), "offsets": (3, I, J, K)}."""
        instances, spacing_mm = reference.instances, reference.spacing_mm
        found, centers_vox = centers_of_mass(instances)
        heatmap = center_heatmap(centers_vox, instances.shape, spacing_mm, sigma_mm=self.sigma_mm)
        return {
            "mask": reference.mask(),
            "heatmap": heatmap[None],
            "offsets": offsets_to_centers(instances, found, centers_vox),
        }

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The softmax of the lesion channel, then the other heads as they are, (B, 5, …)."""
        return torch.cat([lesion_probability(output), output[:, 2:]], dim=1)


def lesion_probability(output: torch.Tensor) -> torch.Tensor:
    """The softmax of channel 1 against channel 0, (B, 1, …); a sigmoid of their difference.

    Example:
        >>> lesion_probability(torch.tensor([0.0, 0.0]).view(1, 2, 1, 1, 1)).item()
        0.5
    """
    return torch.sigmoid(output[:, 1:2].float() - output[:, 0:1].float())


def centers_of_mass(
    instances: LabelArray,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels, in rising order, and the mean voxel index of each.

    Only voxels in the array count: a lesion that a patch cuts has the center of its visible
    part, as in the ConfLUNet authors' training. A label of several pieces has one center,
    which may lie outside of it.

    Args:
        instances: (I, J, K), 0 = background; labels may have gaps.

    Returns:
        (n,) labels and (n, 3) centers in voxels, ordered i, j, k; n may be 0.

    Example:
        >>> labels, centers_vox = centers_of_mass(np.array([[[3, 3, 3, 0, 7]]]))
        >>> labels.tolist(), centers_vox.tolist()
        ([3, 7], [[0.0, 0.0, 1.0], [0.0, 0.0, 4.0]])
    """
    where = np.nonzero(instances)
    values = instances[where]
    labels, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    centers = np.empty((labels.size, 3))
    for axis, index in enumerate(where):
        centers[:, axis] = np.bincount(inverse, weights=index, minlength=labels.size)
    return labels.astype(np.int64), centers / np.maximum(counts, 1)[:, None]


def center_heatmap(
    centers_vox: NDArray[np.floating[Any]],
    shape: tuple[int, ...],
    spacing_mm: tuple[float, float, float],
    *,
    sigma_mm: float,
) -> NDArray[np.float32]:
    """exp(-d² / 2σ²) with d the distance in mm to the nearest center; 0 without centers.

    The peak is 1 only where a center falls on a voxel. Gaussians are drawn in a box around
    each center and joined by their maximum.

    Args:
        centers_vox: (n, 3), ordered i, j, k.
        shape: of the result.
        spacing_mm: along i, j, k.
        sigma_mm: standard deviation.

    Returns:
        (I, J, K) float32.

    Example:
        >>> spacing_mm = (1.0, 1.0, 3.0)
        >>> heatmap = center_heatmap(np.array([[0, 0, 1]]), (1, 1, 3), spacing_mm, sigma_mm=2.0)
        >>> [round(float(value), 2) for value in heatmap.ravel()]
        [0.32, 1.0, 0.32]
    """
    heatmap = np.zeros(shape, dtype=np.float32)
    reach_vox = [REACH_IN_SIGMAS * sigma_mm / step for step in spacing_mm]
    for center in centers_vox:
        box: list[slice] = []
        profiles: list[NDArray[np.float64]] = []
        for axis in range(3):
            first = max(0, int(np.ceil(center[axis] - reach_vox[axis])))
            last = min(shape[axis] - 1, int(np.floor(center[axis] + reach_vox[axis])))
            box.append(slice(first, last + 1))
            away_mm = (np.arange(first, last + 1) - center[axis]) * spacing_mm[axis]
            profiles.append(np.exp(-(away_mm**2) / (2 * sigma_mm**2)))
        bell = profiles[0][:, None, None] * profiles[1][None, :, None] * profiles[2][None, None, :]
        part = heatmap[tuple(box)]
        np.maximum(part, bell.astype(np.float32), out=part)
    return heatmap


def offsets_to_centers(
    instances: LabelArray,
    labels: NDArray[np.int64],
    centers_vox: NDArray[np.floating[Any]],
) -> NDArray[np.float32]:
    """From each lesion voxel to the center of its lesion, in voxels; 0 in the background.

    Args:
        instances: (I, J, K), 0 = background.
        labels: (n,) rising, every label that occurs.
        centers_vox: (n, 3), one row per label.

    Returns:
        (3, I, J, K) float32, ordered i, j, k.

    Example:
        >>> instances = np.array([[[3, 3, 3, 0, 7]]])
        >>> offsets_to_centers(instances, *centers_of_mass(instances))[2].tolist()
        [[[1.0, 0.0, -1.0, 0.0, 0.0]]]
    """
    offsets = np.zeros((3, *instances.shape), dtype=np.float32)
    # Only lesion voxels are visited: they are a few in a thousand.
    where = np.nonzero(instances)
    row = np.searchsorted(labels, instances[where])
    for axis, index in enumerate(where):
        offsets[axis][where] = centers_vox[row, axis] - index
    return offsets
