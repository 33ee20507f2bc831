"""What a network's output costs against its targets.

Every loss takes the output (B, C, I, J, K) float32 and the targets by name, each
(B, C, I, J, K), and returns its parts by name; ``total`` is what is minimized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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
