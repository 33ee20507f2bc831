"""Two visits through one encoder; attention to where their features differ feeds the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head

WIDTHS = (16, 32, 64, 128, 256, 512)
Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class ResidualBlock(nn.Module):
    """Convolution 3×3×3, group normalization, ReLU, convolution, normalization, plus the input.

    A last ReLU follows the sum. The input passes a convolution 1×1×1 where the widths differ.

    Args:
        in_channels, out_channels: of the block.
        group: channels of one group; fewer channels than that are one group.
    """

    def __init__(self, in_channels: int, out_channels: int, group: int = 4) -> None:
        super().__init__()
        groups = max(1, out_channels // group)
        self.body = nn.Sequential(
            nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1),
            nn.GroupNorm(groups, out_channels),
            nn.ReLU(inplace=True),
            nn.Conv3d(out_channels, out_channels, kernel_size=3, padding=1),
            nn.GroupNorm(groups, out_channels),
        )
        self.carry: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.carry = nn.Conv3d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.carry(x))


class ResidualEncoder(nn.Module):
    """Residual blocks with max-pooling between them.

    Takes one image (B, 1, I, J, K), every side a multiple of ``2 ** (levels - 1)``, and returns the
    features of every level, the full resolution first.
    """

    def __init__(self, features: Sequence[int] = WIDTHS, group: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(before, after, group)
            for before, after in zip((1, *features), features, strict=False)
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        x = image
        for level, block in enumerate(self.blocks):
            x = block(functional.max_pool3d(x, 2) if level else x)
            found.append(x)
        return found


class ResidualDecoder(nn.Module):
    """Trilinear upsampling, joined to the features of each level, then a residual block.

    Takes the features of every level, the full resolution first, and returns those of the full
    resolution, (B, features[0], I, J, K).
    """

    def __init__(self, features: Sequence[int] = WIDTHS, group: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(below + width, width, group)
            for width, below in zip(features[-2::-1], features[:0:-1], strict=True)
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        x = levels[-1]
        for block, skip in zip(self.blocks, levels[-2::-1], strict=True):
            up = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = block(torch.cat([up, skip], dim=1))
        return x


class DualAutoencoder(nn.Module):
    """One U-Net that rebuilds both visits' images, each through a last block of its own.

    Takes (B, 2, I, J, K), one scan of each visit. It is trained for its ``encoder`` alone; the
    objective calls ``rebuild``.

    Args:
        features: channels per level.
        group: channels of one normalization group.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `ssl-dual-attention`, section 3.
    """

    def __init__(self, features: Sequence[int] = WIDTHS, group: int = 4) -> None:
        super().__init__()
        self.encoder = ResidualEncoder(features, group)
        self.decoder = ResidualDecoder(features, group)
        self.last = nn.ModuleList(
            nn.Sequential(ResidualBlock(features[0], features[0], group), Head(features[0], 1))
            for _ in range(2)
        )

    def rebuild(self, image: torch.Tensor) -> tuple[torch.Tensor, list[Pair]]:
        """Both images rebuilt, (B, 2, …), and the encoder's features of both at every level."""
        rebuilt: list[torch.Tensor] = []
        features: list[list[torch.Tensor]] = []
        for visit, last in enumerate(self.last):
            levels = self.encoder(image[:, visit : visit + 1])
            features.append(levels)
            rebuilt.append(last(self.decoder(levels)))
        return torch.cat(rebuilt, dim=1), list(zip(features[0], features[1], strict=True))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.rebuild(image)[0]


class FeatureNorm(nn.Module):
    """Every voxel's features with mean 0 and variance 1 over the channels, (B, C, …)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centered = x - x.mean(dim=1, keepdim=True)
        return centered * (centered.square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()


class DifferenceGate(nn.Module):
    """The embedded difference of two visits' features, weighted by how they correlate.

    ``|mean over channels of n0 · n1| · W (n1 - n0)`` with normalized features n: the weight is the
    absolute value of Pearson's correlation at each voxel.

    Args:
        channels: of the features, and of what is returned.
        over: "space" normalizes each channel over its voxels (instance normalization), "features"
            each voxel over its channels, which is defined where a level has a single voxel.

    Source: the chapter of `ssl-dual-attention` in the MSSEG-2 proceedings, equation 1.
    """

    def __init__(self, channels: int, over: str = "space") -> None:
        super().__init__()
        self.norm: nn.Module = nn.InstanceNorm3d(channels) if over == "space" else FeatureNorm()
        self.embed = nn.Conv3d(channels, channels, kernel_size=1, bias=False)

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        before, after = self.norm(baseline), self.norm(followup)
        correlation = (before * after).mean(dim=1, keepdim=True).abs()
        weighted: torch.Tensor = correlation * self.embed(after - before)
        return weighted


class DualAttentionUNet(nn.Module):
    """A U-Net whose encoder sees each visit by itself, with shared weights.

    Takes (B, 2, I, J, K), one scan of each visit, every side a multiple of
    ``2 ** (levels - 1)``, and returns (B, out_channels, I, J, K) float32 without activation. At
    every level a ``DifferenceGate`` joins both visits' features; the deepest one normalizes over
    features, because a patch of 32 voxels has one voxel there at six levels.

    Args:
        out_channels: what the head needs.
        features: channels per level.
        group: channels of one normalization group.

    Source: the chapter of `ssl-dual-attention` in the MSSEG-2 proceedings, section 4.
    """

    def __init__(
        self, out_channels: int = 2, features: Sequence[int] = WIDTHS, group: int = 4
    ) -> None:
        super().__init__()
        self.encoder = ResidualEncoder(features, group)
        self.gates = nn.ModuleList(DifferenceGate(width) for width in features[:-1])
        self.gates.append(DifferenceGate(features[-1], over="features"))
        self.decoder = ResidualDecoder(features, group)
        self.head = Head(features[0], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        before, after = self.encoder(image[:, 0:1]), self.encoder(image[:, 1:2])
        levels = [gate(one, two) for gate, one, two in zip(self.gates, before, after, strict=True)]
        return self.head(self.decoder(levels))  # type: ignore[no-any-return]
