"""A network without pooling for regions of any size, with their position in the brain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lesionwise.networks.blocks import Head


class RoiCnn(nn.Module):
    """Seven convolutions at full resolution with two skip connections and three distance maps.

    Takes (B, 5, I, J, K), any size: both scans, then three maps of where a voxel lies. Returns
    (B, out_channels, I, J, K) float32 without activation. The first three convolutions see the
    scans; the maps join before the fourth; the fifth sees the second's output too, and the seventh
    the follow-up scan. Each is followed by batch normalization and ReLU.

    Args:
        in_channels: 5.
        out_channels: what the heads need in all.
        features: channels of the seven convolutions.

    Source: the MSSEG-2 chapter on image processing and CNNs (2021), section 2.2. Its channels
    stand in a figure alone: these are ours. Departure: a convolution 1×1×1 follows the seventh,
    after whose ReLU no sigmoid could fall below one half.
    """

    def __init__(
        self,
        in_channels: int = 5,
        out_channels: int = 2,
        features: Sequence[int] = (16, 32, 64, 64, 32, 16, 16),
    ) -> None:
        super().__init__()
        if in_channels != SCANS + MAPS:
            raise ValueError(f"two scans and three maps are needed, not {in_channels} channels")
        one, two, three, four, five, six, seven = features
        self.conv1 = _Block(SCANS, one)
        self.conv2 = _Block(one, two)
        self.conv3 = _Block(two, three)
        self.conv4 = _Block(three + MAPS, four)
        self.conv5 = _Block(four + two, five)
        self.conv6 = _Block(five, six)
        self.conv7 = _Block(six + 1, seven)
        self.head = Head(seven, out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scans, maps = image[:, :SCANS], image[:, SCANS:]
        second = self.conv2(self.conv1(scans))
        fourth = self.conv4(torch.cat([self.conv3(second), maps], dim=1))
        sixth = self.conv6(self.conv5(torch.cat([fourth, second], dim=1)))
        last = self.conv7(torch.cat([sixth, scans[:, 1:2]], dim=1))
        return self.head(last)  # type: ignore[no-any-return]


SCANS, MAPS = 2, 3


class _Block(nn.Sequential):
    """Convolution 3×3×3, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
        )
