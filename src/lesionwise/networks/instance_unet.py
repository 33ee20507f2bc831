"""A U-Net with instance normalization and LeakyReLU, built as nnU-Net builds its plain one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lesionwise.networks.blocks import Head


class InstanceConv(nn.Sequential):
    """Twice: convolution 3×3×3, instance normalization, LeakyReLU (slope 0.01).

    The first convolution has the stride.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        layers: list[nn.Module] = []
        for channels, step in ((in_channels, stride), (out_channels, 1)):
            layers += [
                nn.Conv3d(channels, out_channels, kernel_size=3, stride=step, padding=1),
                nn.InstanceNorm3d(out_channels, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        super().__init__(*layers)


class InstanceUNet(nn.Module):
    """A U-Net of strided convolutions, without dropout.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (stages - 1)`` and larger
    than that along one axis, and returns (B, out_channels, I, J, K) float32 without activation.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need.
        features: channels per stage; one less is the number of downsamplings.

    Source: the recipes ``nnunet-subtraction`` (five stages) and
    ``cascade-probability`` (five downsamplings). Both build on nnU-Net, whose
    widths (32, doubled to 320 at most), strides and transposed convolutions these are.
    """

    def __init__(self, in_channels: int, out_channels: int, features: Sequence[int]) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            InstanceConv(before, after, stride=2 if level else 1)
            for level, (before, after) in enumerate(
                zip((in_channels, *widths), widths, strict=False)
            )
        )
        above = tuple(reversed(widths[:-1]))
        below = tuple(reversed(widths[1:]))
        self.grow = nn.ModuleList(
            nn.ConvTranspose3d(before, after, kernel_size=2, stride=2)
            for before, after in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(InstanceConv(2 * width, width) for width in above)
        self.head = Head(widths[0], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = image
        for block in self.down:
            x = block(x)
            skips.append(x)
        skips.pop()
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]
