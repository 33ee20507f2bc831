"""A 2D U-Net whose blocks have a short skip connection each, besides the long ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head
from lesionwise.networks.planes import InPlane


class SkipBlock(nn.Module):
    """Two convolutions, to which the block's input is added before the last ReLU.

    Takes (B, in_channels, I, J) and returns (B, out_channels, I, J). The input passes a 1×1
    convolution, so that its channels fit. Nothing is normalized.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        half = kernel_size // 2
        self.first = nn.Conv2d(in_channels, out_channels, kernel_size, padding=half)
        self.second = nn.Conv2d(out_channels, out_channels, kernel_size, padding=half)
        self.skip = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        changed = self.second(functional.relu(self.first(x)))
        return functional.relu(changed + self.skip(x))


class ScUNet2d(nn.Module):
    """A U-Net of ``SkipBlock``, max-pooling and nearest-neighbor upsampling.

    Takes (B, in_channels, I, J), both sides multiples of ``2 ** (levels - 1)``, and returns the
    features of the full resolution, (B, features[0], I, J). Nothing is normalized, so the scale at
    which weights begin decides whether the signal reaches the end: it is that of Glorot and Bengio
    (2010), as in the code of Li and others, whose biases begin at 0.

    Args:
        in_channels: of the image.
        features: channels per level, the full resolution first.
        first_kernel: of the first block; all others have kernels of 3×3.

    Source: p443 (B5), section 2.3, names the network of Wu and others, Skip connection U-Net for
    white matter hyperintensities segmentation from MRI (2019), and says of it that it modifies the
    skip connections of the U-Net. Levels, widths and kernels are those of Li and others, Fully
    convolutional network ensembles for white matter hyperintensities segmentation in MR images
    (2018). Departure: the paper of Wu and others was not available; short skip connections
    around each block are our reading of it.
    """

    def __init__(
        self,
        in_channels: int,
        features: Sequence[int] = (64, 96, 128, 256, 512),
        first_kernel: int = 5,
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            SkipBlock(before, after, 3 if level else first_kernel)
            for level, (before, after) in enumerate(
                zip((in_channels, *widths), widths, strict=False)
            )
        )
        above, below = tuple(reversed(widths[:-1])), tuple(reversed(widths[1:]))
        self.up = nn.ModuleList(
            SkipBlock(before + width, width) for before, width in zip(below, above, strict=True)
        )
        self.apply(_glorot_uniform)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = image
        for level, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = block(torch.cat([skips.pop(), functional.interpolate(x, scale_factor=2)], dim=1))
        return x


def _glorot_uniform(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def plane_sc_unet(
    in_channels: int, out_channels: int, features: Sequence[int] = (64, 96, 128, 256, 512)
) -> nn.Module:
    """A ``ScUNet2d`` on slices with its head: (B, C, I, J, 1) to (B, out_channels, I, J, 1).

    Example:
        >>> plane_sc_unet(2, 1, features=(4, 8)).eval()(torch.zeros(1, 2, 8, 8, 1)).shape
        torch.Size([1, 1, 8, 8, 1])
    """
    return nn.Sequential(InPlane(ScUNet2d(in_channels, features)), Head(features[0], out_channels))
