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
        return self.forward_crops([image])[0]

    def forward_crops(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs for images of unequal size, over which batch normalization is joint.

        Of one image it is ``forward``, and in evaluation it is that of each.
        """
        scans = [image[:, :SCANS] for image in images]
        second = self.conv2(self.conv1(scans))
        third = self.conv3(second)
        fourth = self.conv4(_joined(third, [image[:, SCANS:] for image in images]))
        sixth = self.conv6(self.conv5(_joined(fourth, second)))
        last = self.conv7(_joined(sixth, [scan[:, 1:2] for scan in scans]))
        return [self.head(each) for each in last]


SCANS, MAPS = 2, 3


def _joined(crops: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.cat(pair, dim=1) for pair in zip(crops, others, strict=True)]


class _Block(nn.Sequential):
    """Convolution 3×3×3 of each crop, batch normalization over the voxels of all, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, crops: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        convolution, norm, activation = self
        seen = [convolution(crop) for crop in crops]
        if len(seen) == 1:
            return [activation(norm(seen[0]))]
        # (1, channels, voxels of all crops, 1, 1)
        channels = [each.transpose(0, 1).flatten(1) for each in seen]
        together = torch.cat(channels, dim=1)[None, :, :, None, None]
        normed = activation(norm(together))[0, :, :, 0, 0]
        parts = normed.split([each.shape[1] for each in channels], dim=1)
        return [
            part.unflatten(1, (each.shape[0], *each.shape[2:])).transpose(0, 1)
            for part, each in zip(parts, seen, strict=True)
        ]
