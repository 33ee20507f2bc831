"""The plain 2D U-Net, as a body that a head follows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head
from lesionwise.networks.planes import InPlane


class UNet2d(nn.Module):
    """A U-Net of two 3×3 convolutions per level, ReLU, max-pooling and transposed convolutions.

    Takes (B, in_channels, I, J), both sides multiples of ``2 ** (levels - 1)``, and returns the
    features of the full resolution, (B, features[0], I, J). Convolutions keep the size, so nothing
    is cropped where levels are joined. There is no normalization, so weights begin with the
    standard deviation of the paper, the root of 2 over a neuron's inputs; with smaller ones the
    signal fades from layer to layer.

    Args:
        in_channels: of the image.
        features: channels per level, the full resolution first.
        up_kernel: side of the transposed convolutions, 2 or 3; both double the sides.

    Source: Ronneberger, Fischer and Brox, U-Net: convolutional networks for biomedical image
    segmentation (2015), with padded convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        features: Sequence[int] = (64, 128, 256, 512, 1024),
        up_kernel: Literal[2, 3] = 2,
    ) -> None:
        super().__init__()
        border = up_kernel - 2  # so that sides are doubled exactly
        widths = tuple(features)
        self.down = nn.ModuleList(
            _convolutions(before, after)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )
        above, below = tuple(reversed(widths[:-1])), tuple(reversed(widths[1:]))
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(
                before, after, up_kernel, stride=2, padding=border, output_padding=border
            )
            for before, after in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(_convolutions(2 * width, width) for width in above)
        self.apply(_he_normal)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat([skips.pop(), rise(x)], dim=1))
        return x


def plane_unet(
    in_channels: int,
    out_channels: int,
    features: Sequence[int] = (64, 128, 256, 512, 1024),
    up_kernel: Literal[2, 3] = 2,
) -> nn.Module:
    """A ``UNet2d`` on slices with its head: (B, C, I, J, 1) to (B, out_channels, I, J, 1).

    Example:
        >>> plane_unet(2, 1, features=(4, 8)).eval()(torch.zeros(1, 2, 8, 8, 1)).shape
        torch.Size([1, 1, 8, 8, 1])
    """
    body = UNet2d(in_channels, features, up_kernel)
    return nn.Sequential(InPlane(body), Head(features[0], out_channels))


def _he_normal(layer: nn.Module) -> None:
    """Gaussian weights that keep the variance through ReLU; biases of 0."""
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        inputs: float = layer.in_channels * math.prod(layer.kernel_size)
        if isinstance(layer, nn.ConvTranspose2d):  # of which a neuron sees so many
            inputs /= math.prod(layer.stride)
        nn.init.normal_(layer.weight, std=math.sqrt(2 / inputs))
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def _convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
