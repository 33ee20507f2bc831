"""The plain 3D U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

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
        widening: which convolution of a level on the way down widens it. "second": the first
            one has half the level's channels, and transposed convolutions keep the channels of
            the level below. "first": the first one has all, and transposed convolutions have the
            channels of their own level.

    Source: Çiçek et al., 3D U-Net: learning dense volumetric segmentation from sparse annotation
    (2016): "second", batch normalization and features of 64, 128, 256 and 512.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (64, 128, 256, 512),
        norm: Norm = "batch",
        widening: Literal["first", "second"] = "second",
    ) -> None:
        super().__init__()
        widths = tuple(features)
        second = widening == "second"
        self.down = nn.ModuleList(
            DoubleConv(before, after, norm, middle=max(1, after // 2) if second else after)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )
        above = tuple(reversed(widths[:-1]))
        below = tuple(reversed(widths[1:]))
        risen = below if second else above
        self.rise = nn.ModuleList(
            nn.ConvTranspose3d(before, after, kernel_size=2, stride=2)
            for before, after in zip(below, risen, strict=True)
        )
        self.up = nn.ModuleList(
            DoubleConv(width + more, width, norm) for width, more in zip(above, risen, strict=True)
        )
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
