"""A U-Net with group normalization before each convolution and dropout after each pooling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head


class GroupConv(nn.Sequential):
    """Twice: group normalization, convolution 3×3×3, ReLU.

    Fewer channels than ``groups`` are as many groups.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 8) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.GroupNorm(min(groups, channels), channels),
                nn.Conv3d(channels, out_channels, kernel_size=3, padding=1),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class GroupUNet(nn.Module):
    """A U-Net for small batches.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (levels - 1)``, and
    returns (B, out_channels, I, J, K) float32 without activation.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need.
        features: channels per level, all multiples of ``groups``.
        dropout: share of values set to 0 after each max-pooling.
        groups: of each normalization.

    Source: Kamraoui et al. 2021 (recipe ``iqda``), section 2.2, which names neither levels nor
    widths.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (32, 64, 128, 256),
        dropout: float = 0.5,
        groups: int = 8,
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            GroupConv(before, after, groups)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        above = tuple(reversed(widths[:-1]))
        below = tuple(reversed(widths[1:]))
        self.grow = nn.ModuleList(
            nn.ConvTranspose3d(before, after, kernel_size=2, stride=2)
            for before, after in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(GroupConv(2 * width, width, groups) for width in above)
        self.head = Head(widths[0], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            x = block(self.dropout(functional.max_pool3d(x, 2)) if level else x)
            skips.append(x)
        skips.pop()
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]
