"""A U-Net of pre-activation residual blocks, supervised at several resolutions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from lesionwise.networks.blocks import Head


class PreActivationBlock(nn.Module):
    """Twice: group normalization, LeakyReLU, convolution 3×3×3; the input is added at the end.

    Where channels differ, the input passes a 1×1×1 convolution first. A group is 8 channels.
    """

    def __init__(self, in_channels: int, out_channels: int, group_size: int = 8) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.GroupNorm(max(1, channels // group_size), channels),
                nn.LeakyReLU(inplace=True),
                nn.Conv3d(channels, out_channels, kernel_size=3, padding=1, bias=False),
            ]
        self.residual = nn.Sequential(*layers)
        same = in_channels == out_channels
        self.shortcut: nn.Module = (
            nn.Identity() if same else nn.Conv3d(in_channels, out_channels, 1, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # the first LeakyReLU works in place on what the normalization made, never on x
        return self.residual(x) + self.shortcut(x)  # type: ignore[no-any-return]


class PreUNet(nn.Module):
    """An encoder with two pre-activation blocks per level, a decoder with one.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (levels - 1)``. In
    prediction it returns (B, out_channels, I, J, K) float32 without activation; in training a
    tuple of such at the ``supervised`` highest resolutions, the full one first.

    A convolution 3×3×3 is the stem. Each further level begins with a strided convolution 3×3×3
    that halves the size; its first block doubles the channels. A transposed convolution 3×3×3
    doubles the size and halves the channels; the encoder's features are concatenated.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need.
        features: channels per level; with the default, 26.3 million parameters, the number
            that the source states.
        supervised: resolutions with a head; at most one less than there are levels.

    Source: the chapter of recipe ``pre-unet``, sections 3.1 and 3.2. It names kernel sizes, the
    number of levels, that of parameters, group size and activation, not widths nor the number of
    blocks.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (48, 96, 192, 384),
        supervised: int = 3,
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.stem = nn.Conv3d(in_channels, widths[0], kernel_size=3, padding=1, bias=False)
        self.shrink = nn.ModuleList(
            nn.Conv3d(width, width, kernel_size=3, stride=2, padding=1, bias=False)
            for width in widths[:-1]
        )
        self.down = nn.ModuleList(
            nn.Sequential(PreActivationBlock(before, after), PreActivationBlock(after, after))
            for before, after in itertools.pairwise(widths)
        )
        above = tuple(reversed(widths[:-1]))
        below = tuple(reversed(widths[1:]))
        self.grow = nn.ModuleList(
            nn.ConvTranspose3d(before, after, 3, stride=2, padding=1, output_padding=1, bias=False)
            for before, after in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(PreActivationBlock(2 * width, width) for width in above)
        self.heads = nn.ModuleList(Head(width, out_channels) for width in widths[:-1][:supervised])

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        x = self.stem(image)
        skips = [x]
        for shrink, block in zip(self.shrink, self.down, strict=True):
            x = block(shrink(x))
            skips.append(x)
        skips.pop()
        features = []
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], dim=1))
            features.append(x)
        features.reverse()
        if not self.training:
            return self.heads[0](features[0])  # type: ignore[no-any-return]
        return tuple(head(x) for head, x in zip(self.heads, features, strict=False))
