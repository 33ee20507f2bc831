"""A network that estimates how well two masks agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class ScoreCritic(nn.Module):
    """Convolutions, then fully connected layers, from two masks to one score in [0, 1].

    Takes (B, 2, I, J, K), the reference and the predicted mask (probabilities), of any size from
    ``2 ** len(features)`` voxels on, and returns (B, 1) float32. Each level is a convolution
    3×3×3, ReLU, a convolution of stride 2, ReLU. The deepest features are summed over all
    voxels: agreement is made of counts of lesions, wherever they lie. Two fully connected layers
    follow, and a sigmoid. There is no normalization, which would hide how many lesions there are,
    and biases begin at 0, so that empty masks begin as nothing.

    Args:
        features: channels per level.
        hidden: width of the first fully connected layer.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `lesionwise-metric`, which shows
    convolutional and fully connected layers and states neither their number nor their widths.
    """

    def __init__(self, features: Sequence[int] = (16, 32, 64, 128), hidden: int = 128) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((2, *features), features, strict=False):
            layers += [
                nn.Conv3d(before, after, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.Conv3d(after, after, kernel_size=3, stride=2, padding=1),
                nn.ReLU(),
            ]
        self.convolutions = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv3d):
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.connected = nn.Sequential(
            nn.Linear(features[-1], hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        found = self.convolutions(masks).float().sum(dim=(2, 3, 4))
        with torch.autocast(masks.device.type, enabled=False):
            return torch.sigmoid(self.connected(found))
