"""A 3D U-Net with strided convolutions, instance normalization and a normalized ReLU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.attention import AttentionGate
from lesionwise.networks.blocks import Head


class NormalizedReLU(nn.Module):
    """ReLU divided by its largest value in each sample, so between 0 and 1.

    A sample without a positive value becomes 0 everywhere. Scaling the input changes nothing.

    Source: Gros and others, SoftSeg (2021), doi:10.1016/j.media.2021.102038. Departure: the
    gradient of a sample without a positive value is that of the identity, not 0. Otherwise a
    network that has learned to say nothing in patches without lesions learns nothing any more.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positive = functional.relu(x)
        largest = positive.amax(dim=tuple(range(1, x.ndim)), keepdim=True)
        silent = largest <= 0
        scaled = positive / torch.where(silent, torch.ones_like(largest), largest)
        return torch.where(silent, x - x.detach(), scaled)


class ConvNorm(nn.Sequential):
    """Convolution 3×3×3, instance normalization, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.InstanceNorm3d(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )


class ModifiedUNet(nn.Module):
    """The modified 3D U-Net, and with ``attention`` its skips pass attention gates.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (levels - 1)`` and more than
    that, and returns (B, out_channels, I, J, K) float32 between 0 and 1. Each channel of a patch
    is brought to mean 0 and standard deviation 1 first.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: 1 for one mask.
        features: channels per resolution; five of them make four downsamplings.
        attention: gate every skip but the one of the full resolution.
        dropout: share of the channels that are set to 0 between the two convolutions of each
            block of the contractive path.

    Source: the chapter on modified 3D U-Nets in the proceedings of MSSEG-2 (2021), section 3.4;
    attention gates by Oktay and others, Attention U-Net (2018), which leaves the first skip as it
    is. Departures: widths, slopes and where dropout lies are not stated; the block of the full
    resolution has no stride.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 1,
        features: Sequence[int] = (16, 32, 64, 128, 256),
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.normalize = nn.InstanceNorm3d(in_channels)
        self.down = nn.ModuleList(
            nn.Sequential(
                ConvNorm(before, after, stride=2 if level else 1),
                *([nn.Dropout3d(dropout)] if dropout else []),
                ConvNorm(after, after),
            )
            for level, (before, after) in enumerate(
                zip((in_channels, *widths), widths, strict=False)
            )
        )
        steps = [(widths[n], widths[n + 1]) for n in reversed(range(len(widths) - 1))]
        self.up = nn.ModuleList(
            nn.Sequential(
                ConvNorm(deep, deep),
                nn.Upsample(scale_factor=2, mode="nearest"),
                ConvNorm(deep, skip),
            )
            for skip, deep in steps
        )
        self.gates = nn.ModuleList(
            AttentionGate(skip, deep, max(1, skip // 2), dims=3) for skip, deep in steps[:-1]
        )
        if not attention:
            self.gates = nn.ModuleList()
        self.join = nn.ModuleList(nn.Conv3d(2 * skip, skip, 1) for skip, _ in steps)
        self.last = ConvNorm(widths[0], widths[0])
        self.head = Head(widths[0], out_channels)
        self.activation = NormalizedReLU()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = self.normalize(image.float())
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for step, (grow, join) in enumerate(zip(self.up, self.join, strict=True)):
            skip = skips.pop()
            if step < len(self.gates):
                skip = self.gates[step](skip, x)
            x = join(torch.cat([skip, grow(x)], dim=1))
        return self.activation(self.head(self.last(x)))  # type: ignore[no-any-return]
