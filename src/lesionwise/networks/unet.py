"""The plain 3D U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import DoubleConv, Head, Norm


class UNet(nn.Module):
    """A U-Net with two convolutions per level, max-pooling and transposed convolutions.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (levels - 1)``, and
    returns (B, out_channels, I, J, K) float32 without activation.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need in all.
        features: channels per level, from the full resolution downward; their number is the
            number of levels.
        norm: what follows each convolution.

    Source: document 001, section 3 (three levels, one decoder, one final convolution for all
    heads). It names neither widths nor normalization.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (32, 64, 128),
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            DoubleConv(before, after, norm)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )
        above = tuple(reversed(widths[:-1]))
        below = tuple(reversed(widths[1:]))
        self.rise = nn.ModuleList(
            nn.ConvTranspose3d(before, after, kernel_size=2, stride=2)
            for before, after in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(DoubleConv(2 * width, width, norm) for width in above)
        self.head = Head(widths[0], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            x = block(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat([skips.pop(), rise(x)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]
