"""A small 3D U-Net with group normalization whose output is a probability."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head


class NormalizedPair(nn.Sequential):
    """Twice: convolution 3×3×3, group normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, groups: int = 8) -> None:
        layers: list[nn.Module] = []
        for before in (in_channels, out_channels):
            layers += [
                nn.Conv3d(before, out_channels, kernel_size=3, padding=1),
                nn.GroupNorm(groups, out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class MinedUNet(nn.Module):
    """Max-pooling down, trilinear upsampling, one convolution to one probability.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (levels - 1)``, and returns
    (B, out_channels, I, J, K) float32 between 0 and 1: the sigmoid is part of the network.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: 1 for one mask.
        features: channels per level, all multiples of ``groups``.
        groups: of each normalization.

    Source: the chapter on hard example mining in the proceedings of MSSEG-2 (2021), whose
    equations say two times {convolution, group normalization, ReLU} with 16, 32, 64, 32 and 16
    filters, then one convolution with one filter. Departures: groups and the joining of levels
    (concatenation) are not stated.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        features: Sequence[int] = (16, 32, 64),
        groups: int = 8,
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            NormalizedPair(before, after, groups)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )
        above, below = tuple(reversed(widths[:-1])), tuple(reversed(widths[1:]))
        self.up = nn.ModuleList(
            NormalizedPair(skip + deep, skip, groups)
            for skip, deep in zip(above, below, strict=True)
        )
        self.head = Head(widths[0], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            x = block(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            grown = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = block(torch.cat([skips.pop(), grown], dim=1))
        return torch.sigmoid(self.head(x))
