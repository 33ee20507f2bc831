"""A displacement field and new lesions from one network, learned end to end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.blocks import Head
from lesionwise.networks.unet import UNet


class FieldUNet(nn.Module):
    """A U-Net that gives the field which brings the first of two images onto the second.

    Strided convolutions 3×3×3 down, nearest upsampling up, LeakyReLU (slope 0.2). Takes
    (B, 2, I, J, K), every side a multiple of ``2 ** len(down)``, and returns (B, 3, I, J, K),
    voxels along i, j, k, 0 at first.

    Args:
        down: channels of the strided convolutions.
        up: channels on the way up, one for each of ``down``, and of further convolutions at the
            full resolution.

    Source: VoxelMorph, Balakrishnan and others, 2019, whose widths are the defaults.
    """

    def __init__(
        self,
        down: Sequence[int] = (16, 32, 32, 32),
        up: Sequence[int] = (32, 32, 32, 32, 32, 16, 16),
    ) -> None:
        super().__init__()
        self.activation = nn.LeakyReLU(0.2)
        widths = (2, *down)
        self.down = nn.ModuleList(
            nn.Conv3d(before, after, kernel_size=3, stride=2, padding=1)
            for before, after in zip(widths, down, strict=False)
        )
        skips = widths[-2::-1]
        channels = down[-1]
        rising = []
        for width, skip in zip(up, skips, strict=False):
            rising.append(nn.Conv3d(channels, width, kernel_size=3, padding=1))
            channels = width + skip
        self.up = nn.ModuleList(rising)
        last = []
        for width in up[len(down) :]:
            last.append(nn.Conv3d(channels, width, kernel_size=3, padding=1))
            channels = width
        self.last = nn.ModuleList(last)
        self.field = Head(channels, 3)
        assert self.field.bias is not None
        nn.init.normal_(self.field.weight, std=1e-5)
        nn.init.zeros_(self.field.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips = [image]
        x = image
        for convolution in self.down:
            x = self.activation(convolution(x))
            skips.append(x)
        skips.pop()
        for convolution in self.up:
            x = functional.interpolate(self.activation(convolution(x)), scale_factor=2)
            x = torch.cat([x, skips.pop()], dim=1)
        for convolution in self.last:
            x = self.activation(convolution(x))
        return self.field(x)  # type: ignore[no-any-return]


class JointRegistrationUNet(nn.Module):
    """A field from both images, and new lesions from two U-Nets: of the images, of the field.

    Takes (B, 2, I, J, K), one scan of each visit, every side a multiple of 16 (more for more
    levels). Returns (B, 5, I, J, K) float32 without activation: the logits of background and
    lesion, then the field along i, j, k in voxels, as ``warp`` takes it. Gradients of the lesions'
    loss reach the field too.

    Args:
        features: channels per level of each branch.
        down, up: of the ``FieldUNet``.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `joint-registration`; the branches' widths
    are not stated there.
    """

    def __init__(
        self,
        features: Sequence[int] = (32, 64, 128, 256),
        down: Sequence[int] = (16, 32, 32, 32),
        up: Sequence[int] = (32, 32, 32, 32, 32, 16, 16),
    ) -> None:
        super().__init__()
        self.registration = FieldUNet(down, up)
        self.images = _without_head(UNet(2, 1, features))
        self.displacement = _without_head(UNet(3, 1, features))
        self.head = Head(2 * features[0], 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        field = self.registration(image)
        both = torch.cat([self.images(image), self.displacement(field)], dim=1)
        return torch.cat([self.head(both), field.float()], dim=1)


def _without_head(network: UNet) -> nn.Module:
    network.head = nn.Identity()  # type: ignore[assignment]
    return network
