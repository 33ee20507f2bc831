"""A residual network that judges a patch as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head, every_nth_voxel


class ResNet(nn.Module):
    """Residual blocks on a patch, averaged over it: one answer per patch.

    Takes (B, in_channels, I, J, K), every side of 16 voxels or more, and returns
    (B, out_channels, 1, 1, 1) float32 without activation. Batch normalization asks for more than
    one voxel at the lowest resolution, a sixteenth of the patch, or for more than one patch.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need in all.
        features: channels of each stage; every stage after the first halves the patch.
        blocks: residual blocks of each stage, as many numbers as ``features``.

    Source: He et al., Deep residual learning for image recognition (2016),
    doi:10.1109/CVPR.2016.90: the 18-layer network, its convolutions in three dimensions.
    Departure: no pooling after the first convolution, for patches are small.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (64, 128, 256, 512),
        blocks: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, widths[0], kernel_size=7, stride=2, padding=3, bias=False),
            nn.BatchNorm3d(widths[0]),
            nn.ReLU(inplace=True),
        )
        stages: list[nn.Module] = []
        before = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for place in range(count):
                stages.append(ResidualBlock(before, width, 2 if number and not place else 1))
                before = width
        self.stages = nn.Sequential(*stages)
        self.head = Head(widths[-1], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stages(self.stem(image))
        return self.head(x.mean(dim=(2, 3, 4), keepdim=True))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions 3×3×3 with batch normalization, added to what they were given.

    Where channels or resolution change, what was given passes a convolution 1×1×1 with the stride.

    Args:
        in_channels, out_channels: of the block.
        stride: of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm3d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, bias=False), nn.BatchNorm3d(out_channels)
            )
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = self.shortcut(every_nth_voxel(x, self.stride))
        return functional.relu(self.body(x) + given)
