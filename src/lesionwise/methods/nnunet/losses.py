"""The loss of a network with instance heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from lesionwise.methods.nnunet.settings import InstanceHeads

SEGMENTATION = 2
"""Channels of the segmentation; a heatmap and three offsets follow."""


class HeadsLoss(nn.Module):
    """Segmentation at every resolution + ``heatmap`` · MSE + ``offsets`` · L1 at the full one.

    The heatmap's error is the mean over all voxels; the offsets' is the mean over lesion voxels
    and the three components, and 0 without any.

    Args:
        segmentation: nnU-Net's loss with deep supervision.
        weights: of the terms.
    """

    def __init__(
        self,
        segmentation: Callable[[list[torch.Tensor], list[torch.Tensor]], torch.Tensor],
        weights: InstanceHeads,
    ) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.weights = weights

    def forward(
        self, output: Sequence[torch.Tensor], target: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Of outputs (B, 6, …) from fine to coarse and as many masks (B, 1, …), then the
        heatmap and offsets (B, 4, …)."""
        *masks, heads = target
        loss = self.segmentation([o[:, :SEGMENTATION] for o in output], masks)
        made = output[0][:, SEGMENTATION:].float()
        lesion = (masks[0] > 0).float()
        heatmap = ((made[:, :1] - heads[:, :1]) ** 2).mean()
        away = ((made[:, 1:] - heads[:, 1:]).abs() * lesion).sum() / (3 * lesion.sum()).clamp(min=1)
        return loss + self.weights.heatmap * heatmap + self.weights.offsets * away
