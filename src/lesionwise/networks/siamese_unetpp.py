"""A light Siamese U-Net++ on each visit, and a block that refines what both say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional


class LightBlock(nn.Sequential):
    """Twice {convolution 3×3×3, batch normalization, ReLU}, then dropout."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        for before in (in_channels, out_channels):
            layers += [
                nn.Conv3d(before, out_channels, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm3d(out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers, nn.Dropout(dropout))


class NestedUNet(nn.Module):
    """A U-Net++ that returns one map for each of its decoders.

    Node (level, step) joins all earlier nodes of its level and the upsampled node below; a decoder
    ends in every node of the full resolution but the first.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (levels - 1)``, and returns
    (B, levels - 1, I, J, K) without activation.

    Args:
        in_channels: scans of one visit.
        features: channels per level.
        dropout: share of values set to 0 at the end of each block.

    Source: Zhou and others, UNet++ (2018), doi:10.1007/978-3-030-00889-5_1.
    """

    def __init__(self, in_channels: int, features: Sequence[int], dropout: float) -> None:
        super().__init__()
        widths = tuple(features)
        levels = len(widths)
        self.nodes = nn.ModuleDict()
        for level, width in enumerate(widths):
            before = widths[level - 1] if level else in_channels
            self.nodes[f"{level}_0"] = LightBlock(before, width, dropout)
        for step in range(1, levels):
            for level in range(levels - step):
                before = step * widths[level] + widths[level + 1]
                self.nodes[f"{level}_{step}"] = LightBlock(before, widths[level], dropout)
        self.maps = nn.ModuleList(nn.Conv3d(widths[0], 1, 1) for _ in range(levels - 1))
        self.levels = levels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: list[list[torch.Tensor]] = []
        x = image
        for level in range(self.levels):
            x = self.nodes[f"{level}_0"](functional.max_pool3d(x, 2) if level else x)
            found.append([x])
        for step in range(1, self.levels):
            for level in range(self.levels - step):
                grown = functional.interpolate(found[level + 1][step - 1], scale_factor=2)
                joined = torch.cat([*found[level], grown], dim=1)
                found[level].append(self.nodes[f"{level}_{step}"](joined))
        ends = zip(self.maps, found[0][1:], strict=True)
        return torch.cat([to_map(node) for to_map, node in ends], dim=1)


class SiameseUNetPP(nn.Module):
    """The same U-Net++ on both visits; four convolutions turn its maps into several masks.

    Takes (B, 2 · scans, I, J, K), the channels of the first visit before those of the second,
    every side a multiple of ``2 ** (levels - 1)``, and returns (B, out_channels, I, J, K) float32
    between 0 and 1: the sigmoid is part of the network.

    Args:
        in_channels: of both visits together.
        out_channels: masks, such as the consensus and four raters.
        features: channels per level.
        refine: channels of the refinement block's first three convolutions.
        dropout: share of values set to 0 in every block and before the refinement.

    Source: the chapter on a Siamese MPU-net in the proceedings of MSSEG-2 (2021), which states
    about 30 000 weights, batch normalization after every convolution, dropout in every block, two
    convolutions per level, nested decoders, and a refinement of dropout and four pairs of
    convolution and batch normalization on the maps of all decoders. Departures: three levels of
    4, 8 and 16 channels, nearest upsampling and the dropout's rate are not stated; the last
    normalization begins with a shift of -4, a probability of about 0.02.
    """

    def __init__(
        self,
        in_channels: int = 2,
        out_channels: int = 5,
        features: Sequence[int] = (4, 8, 16),
        refine: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.segment = NestedUNet(in_channels // 2, features, dropout)
        maps = 2 * (len(features) - 1)
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for before in (maps, refine, refine):
            layers += [
                nn.Conv3d(before, refine, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm3d(refine),
                nn.ReLU(inplace=True),
            ]
        self.refine = nn.Sequential(*layers)
        last = nn.BatchNorm3d(out_channels)
        nn.init.constant_(last.bias, -4.0)
        self.last = nn.Sequential(
            nn.Conv3d(refine, out_channels, kernel_size=3, padding=1, bias=False), last
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        both = torch.cat(image.chunk(2, dim=1))  # one batch, so that both visits share statistics
        before, after = self.segment(both).chunk(2)
        refined = self.refine(torch.cat([before, after], dim=1))
        return torch.sigmoid(_in_float32(self.last, refined))


def _in_float32(layers: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    if x.is_meta:  # shapes alone: autocast knows no such device
        return layers(x.float())
    with torch.autocast(x.device.type, enabled=False):
        return layers(x.float())
