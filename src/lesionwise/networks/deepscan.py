"""DeepSCAN: a network that sees a stack of slices in 3D and answers for the middle one in 2D."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head

SLICES = 5
"""That the network takes: each of its two 3D convolutions uses up one on either side."""


class DilatedDenseBlock(nn.Module):
    """Convolutions 3×3 that each see the block's input and the outputs of all before.

    Each is followed by instance normalization and ReLU. Takes (B, in_channels, I, J) and returns
    (B, in_channels + growth · len(dilations), I, J).
    """

    def __init__(self, in_channels: int, growth: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    in_channels + number * growth,
                    growth,
                    kernel_size=3,
                    padding=dilation,
                    dilation=dilation,
                    bias=False,
                ),
                nn.InstanceNorm2d(growth, affine=True),
                nn.ReLU(inplace=True),
            )
            for number, dilation in enumerate(dilations)
        )
        self.out_channels = in_channels + growth * len(dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DeepScan(nn.Module):
    """Two 3D convolutions from five slices to one, then a U-Net of dense blocks in the plane.

    Takes (B, in_channels, I, J, 5), I and J multiples of 4, and returns the features of the middle
    slice, (B, out_features, I, J, 1). The lowest of the three resolutions widens its view by
    dilations of 1, 2, 4 and 8 instead of further pooling.

    Args:
        in_channels: scans, visits counted apart.
        features: of the 3D convolutions, and of what dense blocks are brought back to.
        growth: channels that each layer of a dense block adds.

    Source: p2850 (B25), section 1.2 and figure 1, which names a 3D-to-2D network and refers to
    McKinley and others, Simultaneous lesion and brain segmentation in multiple sclerosis using deep
    neural networks (2021). Departure: that paper was not available. Five slices, two poolings,
    dense blocks of four layers and dilations follow what we know of the authors' networks; widths
    and normalization are ours.
    """

    def __init__(self, in_channels: int, features: int = 48, growth: int = 24) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before in (in_channels, features):
            layers += [
                nn.Conv3d(before, features, kernel_size=3, padding=(1, 1, 0), bias=False),
                nn.InstanceNorm3d(features, affine=True),
                nn.ReLU(inplace=True),
            ]
        self.volume = nn.Sequential(*layers)

        def block(in_channels: int, dilations: Sequence[int] = (1, 1, 1, 1)) -> nn.Sequential:
            dense = DilatedDenseBlock(in_channels, growth, dilations)
            return nn.Sequential(dense, nn.Conv2d(dense.out_channels, features, kernel_size=1))

        self.down = nn.ModuleList([block(features), block(features)])
        self.lowest = block(features, (1, 2, 4, 8))
        self.up = nn.ModuleList([block(2 * features), block(2 * features)])
        self.out_features = features

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.volume(image)
        if x.shape[-1] != 1:
            raise ValueError(f"{image.shape[-1]} slices, the network takes {SLICES}")
        x = x[..., 0]
        skips: list[torch.Tensor] = []
        for block in self.down:
            skips.append(block(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.lowest(x)
        for block in self.up:
            x = block(torch.cat([skips.pop(), functional.interpolate(x, scale_factor=2)], dim=1))
        return x[..., None]  # type: ignore[no-any-return]


def deepscan(
    in_channels: int, out_channels: int, features: int = 48, growth: int = 24
) -> nn.Module:
    """A ``DeepScan`` with its head: (B, C, I, J, 5) to (B, out_channels, I, J, 1).

    Example:
        >>> deepscan(2, 1, features=4, growth=2).eval()(torch.zeros(1, 2, 16, 16, 5)).shape
        torch.Size([1, 1, 16, 16, 1])
    """
    body = DeepScan(in_channels, features, growth)
    return nn.Sequential(body, Head(body.out_features, out_channels))
