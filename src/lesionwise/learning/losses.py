"""What a network's output costs against its targets.

Every loss takes the output (B, C, I, J, K) float32 and the targets by name, each
(B, C, I, J, K), and returns its parts by name; ``total`` is what is minimized.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch.nn import functional


class Loss(Protocol):
    """A cost of the output against the targets."""

    def __call__(
        self, output: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The parts by name, each a scalar, ``total`` among them."""


@dataclass(frozen=True)
class SegmentationLoss:
    """``focal`` · focal loss + ``dice`` · soft Dice loss of the lesion channel.

    Focal: mean over voxels of (1 - p)^gamma · cross-entropy, p the probability given to the
    true class. Dice: per sample 1 - (2 I + s) / (P + R + s) with the sums over all voxels and
    s = 1e-5, then the mean over the batch; so a patch without lesion and without prediction
    costs nothing. Targets named ``weights`` (B, 1, …) multiply the focal term voxel by voxel
    and leave its divisor, the voxel count, alone.

    Source: document 001, section 3 (focal + 0.5 · Dice); gamma 2 is the focal loss's own
    default.
    """

    focal: float = 1.0
    dice: float = 0.5
    gamma: float = 2.0

    def __call__(
        self, output: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        mask = targets["mask"]
        margin = output[:, 1:2] - output[:, 0:1]
        cross_entropy = functional.softplus(torch.where(mask > 0, -margin, margin))
        focal = (-torch.expm1(-cross_entropy)) ** self.gamma * cross_entropy
        if "weights" in targets:
            focal = focal * targets["weights"]
        dice = soft_dice_loss(torch.sigmoid(margin), mask)
        parts = {"focal": focal.mean(), "dice": dice}
        return {"total": self.focal * parts["focal"] + self.dice * parts["dice"], **parts}


@dataclass(frozen=True)
class InstanceLoss:
    """Segmentation + ``heatmap`` · squared error + ``offsets`` · L1 on reference voxels.

    The heatmap's error is the mean over all voxels. The offsets' error is the sum over
    reference lesion voxels and the three components, divided by 3 × their number, and 0
    without any. Targets named ``weights`` (B, 1, …) multiply the terms voxel by voxel and
    leave the divisors alone.

    Source: document 001, equation 1, with α = ``heatmap`` and β = ``offsets``.
    """

    segmentation: SegmentationLoss = SegmentationLoss()
    heatmap: float = 2000.0
    offsets: float = 0.5

    def __call__(
        self, output: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        parts = self.segmentation(output, targets)
        squared = (output[:, 2:3] - targets["heatmap"]) ** 2
        away = (output[:, 3:6] - targets["offsets"]).abs() * targets["mask"]
        if "weights" in targets:
            squared = squared * targets["weights"]
            away = away * targets["weights"]
        parts["heatmap"] = squared.mean()
        parts["offsets"] = away.sum() / (3 * targets["mask"].sum()).clamp(min=1)
        parts["total"] = (
            parts["total"] + self.heatmap * parts["heatmap"] + self.offsets * parts["offsets"]
        )
        return parts


def soft_dice_loss(
    probability: torch.Tensor, mask: torch.Tensor, smooth: float = 1e-5
) -> torch.Tensor:
    """1 - (2 I + s) / (P + R + s) per sample, then the mean over the batch.

    Args:
        probability: (B, 1, I, J, K) in [0, 1].
        mask: (B, 1, I, J, K), 0 or 1.
        smooth: s; makes 0 of empty against empty.
    """
    axes = tuple(range(1, probability.ndim))
    shared = (probability * mask).sum(dim=axes)
    both = probability.sum(dim=axes) + mask.sum(dim=axes)
    return (1 - (2 * shared + smooth) / (both + smooth)).mean()


@dataclass(frozen=True)
class Dice:
    """1 - (2 I + s) / (P + R + s), softly.

    Attributes:
        background: True averages the loss of the lesion class and that of the background.
        squared: True sums squares, P = Σ p² and R = Σ r².
        smooth: s; makes 0 of empty against empty.
        over: "sample" takes the sums of each sample and then the mean; "batch" takes them over
            the batch.
    """

    background: bool = False
    squared: bool = False
    smooth: float = 1e-5
    over: Literal["sample", "batch"] = "sample"

    def __call__(
        self, output: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        mask = targets["mask"]
        probability = torch.sigmoid(output[:, 1:2] - output[:, 0:1])
        loss = self._one(probability, mask)
        if self.background:
            loss = (loss + self._one(1 - probability, 1 - mask)) / 2
        return {"total": loss}

    def _one(self, probability: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        axes = tuple(range(0 if self.over == "batch" else 1, mask.ndim))
        shared = (probability * mask).sum(dim=axes)
        if self.squared:
            probability = probability**2
        both = probability.sum(dim=axes) + mask.sum(dim=axes)
        return (1 - (2 * shared + self.smooth) / (both + self.smooth)).mean()


@dataclass(frozen=True)
class CrossEntropy:
    """The mean over voxels of -log p of the true class.

    Attributes:
        lesion_weight: multiplies the voxels of the lesion class; the divisor stays the number
            of voxels.
    """

    lesion_weight: float = 1.0

    def __call__(
        self, output: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        return {"total": _cross_entropy(output, targets["mask"], self.lesion_weight).mean()}


@dataclass(frozen=True)
class Focal:
    """The mean over voxels of -(1 - p)^gamma · log p of the true class."""

    gamma: float = 2.0

    def __call__(
        self, output: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        entropy = _cross_entropy(output, targets["mask"], 1.0)
        return {"total": ((-torch.expm1(-entropy)) ** self.gamma * entropy).mean()}


@dataclass(frozen=True)
class WeightedSum:
    """Weight · loss, added up; each loss is a part by its class's name in small letters."""

    terms: tuple[tuple[float, Loss], ...]

    def __call__(
        self, output: torch.Tensor, targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        each = [loss(output, targets)["total"] for _, loss in self.terms]
        parts = {
            type(loss).__name__.lower(): value
            for (_, loss), value in zip(self.terms, each, strict=True)
        }
        total = sum(
            (weight * value for (weight, _), value in zip(self.terms, each, strict=True)),
            start=torch.zeros((), device=output.device),
        )
        return {"total": total, **parts}


@dataclass(frozen=True)
class DeepSupervision:
    """A loss at several resolutions, with targets brought down by nearest neighbor.

    The network returns one output in prediction and, in training, a tuple: the full resolution
    first, each next one at most as large.

    Attributes:
        loss: at every resolution.
        weights: of the resolutions, in that order.
        mean: divide by the sum of the weights.
    """

    loss: Loss
    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    mean: bool = True

    def __call__(
        self, output: torch.Tensor | Sequence[torch.Tensor], targets: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The parts of the full resolution, and the ``total`` over all."""
        outputs = (output,) if isinstance(output, torch.Tensor) else tuple(output)
        weights = self.weights[: len(outputs)]
        if len(weights) != len(outputs):
            raise ValueError(f"{len(outputs)} outputs, {len(weights)} weights")
        first: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=outputs[0].device)
        for weight, each in zip(weights, outputs, strict=True):
            size = each.shape[2:]
            smaller = {
                name: target
                if target.shape[2:] == size
                else functional.interpolate(target, size=size, mode="nearest-exact")
                for name, target in targets.items()
                if name != "image"
            }
            parts = self.loss(each, smaller)
            first = first or parts
            total = total + weight * parts["total"]
        return {**first, "total": total / sum(weights) if self.mean else total}


def _cross_entropy(output: torch.Tensor, mask: torch.Tensor, lesion_weight: float) -> torch.Tensor:
    margin = output[:, 1:2] - output[:, 0:1]
    entropy = functional.softplus(torch.where(mask > 0, -margin, margin))
    return entropy if lesion_weight == 1.0 else torch.where(mask > 0, lesion_weight, 1.0) * entropy
