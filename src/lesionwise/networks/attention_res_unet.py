"""A 2D residual U-Net with an attention gate on each skip connection."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.attention import AttentionGate
from lesionwise.networks.blocks import Head, every_nth_voxel
from lesionwise.networks.planes import InPlane


class ResidualUnit(nn.Module):
    """Twice batch normalization, ReLU and convolution 3×3, plus a projection of the input.

    Takes (B, in_channels, I, J) and returns (B, out_channels, I / stride, J / stride).

    Args:
        in_channels, out_channels: of the unit.
        stride: of its first convolution and of the projection.
        first: the image's unit, whose first convolution has nothing before it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, first: bool = False
    ) -> None:
        super().__init__()
        before: list[nn.Module] = []
        if not first:
            before = [nn.BatchNorm2d(in_channels), nn.ReLU()]
        self.body = nn.Sequential(
            *before,
            nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        )
        self.projection = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1), nn.BatchNorm2d(out_channels)
        )
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = every_nth_voxel(x, self.stride)
        return self.body(x) + self.projection(seen)  # type: ignore[no-any-return]


class AttentionResUNet2d(nn.Module):
    """Encoder, bridge and decoder of residual units, with gated skip connections.

    Takes (B, in_channels, I, J), both sides multiples of ``2 ** (levels - 1)``, and returns the
    features of the full resolution, (B, features[0], I, J). The encoder halves by strides, the
    decoder doubles by nearest neighbors; what it comes from is the gate of the skip connection
    that it joins.

    Args:
        in_channels: of the image.
        features: channels per level, the full resolution first; the last is the bridge.

    Source: Zhang, Liu and Wang, Road extraction by deep residual U-Net (2018), table 1, whose
    widths these are, with the gates of Oktay and others, Attention U-Net: learning where to look
    for the pancreas (2018). p665 (B7), section 3, joins the two and names no widths.
    """

    def __init__(self, in_channels: int, features: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            ResidualUnit(before, after, 2 if level else 1, first=not level)
            for level, (before, after) in enumerate(
                zip((in_channels, *widths), widths, strict=False)
            )
        )
        above, below = tuple(reversed(widths[:-1])), tuple(reversed(widths[1:]))
        self.gates = nn.ModuleList(
            AttentionGate(width, before, max(1, width // 2), dims=2)
            for before, width in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(
            ResidualUnit(before + width, width) for before, width in zip(below, above, strict=True)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        x = image
        for unit in self.down:
            x = unit(x)
            skips.append(x)
        skips.pop()
        for gate, unit in zip(self.gates, self.up, strict=True):
            skip = gate(skips.pop(), x)
            x = unit(torch.cat([skip, functional.interpolate(x, scale_factor=2)], dim=1))
        return x


def plane_attention_res_unet(
    in_channels: int, out_channels: int, features: Sequence[int] = (64, 128, 256, 512)
) -> nn.Module:
    """An ``AttentionResUNet2d`` on slices with its head: (B, C, I, J, 1) to (B, M, I, J, 1).

    Example:
        >>> network = plane_attention_res_unet(2, 1, features=(4, 8)).eval()
        >>> network(torch.zeros(1, 2, 8, 8, 1)).shape
        torch.Size([1, 1, 8, 8, 1])
    """
    return nn.Sequential(
        InPlane(AttentionResUNet2d(in_channels, features)), Head(features[0], out_channels)
    )
