"""Networks on a few slices: one registers and marks what does not correspond, one refines that.

Both pool within the slices alone and, in prediction, return the middle slice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import DoubleConv, Head, Norm

IN_PLANE = (2, 2, 1)


def _middle_slice(x: torch.Tensor) -> torch.Tensor:
    """(B, C, I, J, 1): the middle one of an odd number of slices."""
    return x.narrow(4, x.shape[4] // 2, 1)


class StackEncoder(nn.Module):
    """Double convolutions with max-pooling within slices; gives the features of every level.

    Args:
        in_channels, features, norm: of the image; per level; of the convolutions.
        early_half: the first convolution of a level has half its channels.
    """

    def __init__(
        self, in_channels: int, features: Sequence[int], norm: Norm, early_half: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            DoubleConv(before, after, norm, middle=after // 2 if early_half else after)
            for before, after in zip((in_channels, *features), features, strict=False)
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        x = image
        for level, block in enumerate(self.blocks):
            x = block(functional.max_pool3d(x, IN_PLANE) if level else x)
            found.append(x)
        return found


class StackDecoder(nn.Module):
    """Transposed convolutions within slices, joined to the features of each level.

    Args:
        features, norm: as of the ``StackEncoder``.
        wide_rise: the transposed convolutions keep their channels; else they narrow to those of
            the level that they reach.
    """

    def __init__(self, features: Sequence[int], norm: Norm, wide_rise: bool = False) -> None:
        super().__init__()
        above, below = tuple(features[-2::-1]), tuple(features[:0:-1])
        risen = below if wide_rise else above
        self.rise = nn.ModuleList(
            nn.ConvTranspose3d(before, after, kernel_size=IN_PLANE, stride=IN_PLANE)
            for before, after in zip(below, risen, strict=True)
        )
        self.blocks = nn.ModuleList(
            DoubleConv(skip + up, skip, norm) for skip, up in zip(above, risen, strict=True)
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> torch.Tensor:
        x = levels[-1]
        for rise, block, skip in zip(self.rise, self.blocks, levels[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], dim=1))
        return x


class NcrNet(nn.Module):
    """One encoder, and a decoder each for a displacement field and a non-correspondence map.

    Takes (B, 2, I, J, K), one scan of each visit and an odd number of slices, I and J multiples of
    ``2 ** (levels - 1)``, and sees their difference beside them. Returns (B, 4, I, J, K) float32,
    in prediction of the middle slice alone: the logit of the map, then the field along i, j, k in
    voxels, which ``warp`` takes to bring the first visit onto the second. It begins with no
    displacement.

    Args:
        features: channels per level.
        rare: first bias of the map's logit.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `ncr-net`, section 2; widths are not stated
    there.
    """

    def __init__(
        self, features: Sequence[int] = (16, 32, 64, 128, 256), rare: float = -2.0
    ) -> None:
        super().__init__()
        self.encoder = StackEncoder(3, features, "instance")
        self.field_decoder = StackDecoder(features, "instance")
        self.map_decoder = StackDecoder(features, "instance")
        self.field = Head(features[0], 3)
        self.map = Head(features[0], 1)
        assert self.field.bias is not None
        assert self.map.bias is not None
        nn.init.normal_(self.field.weight, std=1e-5)
        nn.init.zeros_(self.field.bias)
        nn.init.constant_(self.map.bias, rare)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        levels = self.encoder(torch.cat([image, image[:, 1:2] - image[:, 0:1]], dim=1))
        logit = self.map(self.map_decoder(levels))
        output = torch.cat([logit, self.field(self.field_decoder(levels))], dim=1)
        return output if self.training else _middle_slice(output)


class SeparateInputsUNet(nn.Module):
    """A U-Net on a few slices whose input channels pass a convolution block each, then meet.

    Takes (B, in_channels, I, J, K) with an odd number of slices, I and J multiples of
    ``2 ** (levels - 1)``, and returns (B, out_channels, I, J, K) float32 without activation, in
    prediction of the middle slice alone.

    Args:
        in_channels: inputs, each with a block of its own.
        out_channels: what the head needs.
        features: channels per level.
        own: channels of each input's block.

    Source: the chapter of `ncr-net`; widths of Çiçek and others, 2016: channels double
    before pooling, by the second convolution of a level, and stay as they are in upsampling.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (64, 128, 256, 512),
        own: int = 16,
    ) -> None:
        super().__init__()
        self.separate = nn.ModuleList(DoubleConv(1, own) for _ in range(in_channels))
        self.encoder = StackEncoder(own * in_channels, features, "batch", early_half=True)
        self.decoder = StackDecoder(features, "batch", wide_rise=True)
        self.head = Head(features[0], out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        each = [
            block(image[:, channel : channel + 1]) for channel, block in enumerate(self.separate)
        ]
        output = self.head(self.decoder(self.encoder(torch.cat(each, dim=1))))
        return output if self.training else _middle_slice(output)
