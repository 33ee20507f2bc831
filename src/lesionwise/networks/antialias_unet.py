"""A residual U-Net whose strided convolutions blur, so that a shift of a voxel changes little."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head


class ResidualBlock(nn.Module):
    """Twice: convolution 3×3×3, batch normalization, ReLU; a 1×1×1 convolution of the input is
    added at the end.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv3d(channels, out_channels, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm3d(out_channels),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.shortcut = nn.Conv3d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + self.shortcut(x)  # type: ignore[no-any-return]


class BlurredStride(nn.Module):
    """A convolution 3×3×3, then a blur with (1, 2, 1)/4 along each axis and every second voxel.

    Takes sides that are multiples of 2 and halves them.

    Source: Zhang 2019, "Making convolutional networks shift-invariant again", for strided
    convolutions; edges are repeated.
    """

    kernel: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(channels, channels, kernel_size=3, padding=1)
        self.register_buffer("kernel", binomial(channels), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.pad(self.convolution(x), (1,) * 6, mode="replicate")
        return functional.conv3d(x, self.kernel.to(x.dtype), stride=2, groups=x.shape[1])


class BlurredGrowth(nn.Module):
    """Zeros between voxels, a blur with (1, 2, 1)/2 along each axis, then a convolution 3×3×3.

    The transpose of ``BlurredStride``: doubles the sides. The blur makes a linear interpolation
    of the zeros.
    """

    kernel: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(channels, channels, kernel_size=3, padding=1)
        self.register_buffer("kernel", 8 * binomial(channels), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.pad(x, (0, 1) * 3, mode="replicate")
        x = functional.conv_transpose3d(
            x, self.kernel.to(x.dtype), stride=2, padding=1, groups=x.shape[1]
        )
        x = x[..., :-1, :-1, :-1]  # what the repeated voxel at the end left over
        return self.convolution(x)  # type: ignore[no-any-return]


def binomial(channels: int) -> torch.Tensor:
    """(channels, 1, 3, 3, 3): the blur (1, 2, 1)/4 along each axis, adding up to 1.

    Example:
        >>> kernel = binomial(2)
        >>> kernel.shape, kernel.sum().item()
        (torch.Size([2, 1, 3, 3, 3]), 2.0)
    """
    line = torch.tensor([0.25, 0.5, 0.25])
    cube = line[:, None, None] * line[None, :, None] * line[None, None, :]
    return cube.expand(channels, 1, 3, 3, 3).clone()


class AntialiasUNet(nn.Module):
    """A residual U-Net with anti-aliased strides.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (levels - 1)``, and
    returns (B, out_channels, I, J, K) float32 without activation.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need.
        features: channels per level.

    Source: Efird, Miller and Cobzas 2021, section 1.2 and figure 1: six levels, 40 more channels
    every two.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (40, 40, 80, 80, 120, 120),
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            ResidualBlock(before, after)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )
        self.shrink = nn.ModuleList(BlurredStride(width) for width in widths[:-1])
        above = tuple(reversed(widths[:-1]))
        below = tuple(reversed(widths[1:]))
        self.grow = nn.ModuleList(BlurredGrowth(width) for width in below)
        self.up = nn.ModuleList(
            ResidualBlock(before + after, after) for before, after in zip(below, above, strict=True)
        )
        self.head = Head(widths[0], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.down[0](image)
        skips = [x]
        for shrink, block in zip(self.shrink, self.down[1:], strict=True):
            x = block(shrink(x))
            skips.append(x)
        skips.pop()
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], dim=1))
        return self.head(x)  # type: ignore[no-any-return]
