"""The plain 2D U-Net, as a body that a head follows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head
from lesionwise.networks.planes import InPlane


class UNet2d(nn.Module):
    """A U-Net of two 3×3 convolutions per level, ReLU, max-pooling and transposed convolutions.

    Takes (B, in_channels, I, J), both sides multiples of ``2 ** (levels - 1)``, and returns the
    features of the full resolution, (B, features[0], I, J). Convolutions keep the size, so nothing
    is cropped where levels are joined. There is no normalization.

    Args:
        in_channels: of the image.
        features: channels per level, the full resolution first.

    Source: Ronneberger, Fischer and Brox, U-Net: convolutional networks for biomedical image
    segmentation (2015), with padded convolutions.
    """

    def __init__(
        self, in_channels: int, features: Sequence[int] = (64, 128, 256, 512, 1024)
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            _convolutions(before, after)
            for before, after in zip((in_channels, *widths), widths, strict=False)
        )
        above, below = tuple(reversed(widths[:-1])), tuple(reversed(widths[1:]))
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(before, after, kernel_size=2, stride=2)
            for before, after in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(_convolutions(2 * width, width) for width in above)

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
    in_channels: int, out_channels: int, features: Sequence[int] = (64, 128, 256, 512, 1024)
) -> nn.Module:
    """A ``UNet2d`` on slices with its head: (B, C, I, J, 1) to (B, out_channels, I, J, 1).

    Example:
        >>> plane_unet(2, 1, features=(4, 8)).eval()(torch.zeros(1, 2, 8, 8, 1)).shape
        torch.Size([1, 1, 8, 8, 1])
    """
    return nn.Sequential(InPlane(UNet2d(in_channels, features)), Head(features[0], out_channels))


def _convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [
            nn.Conv2d(channels, out_channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
