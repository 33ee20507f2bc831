"""Two paths of convolutions without padding: the middle of a patch as it is, and all of it
coarser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lesionwise.networks.blocks import Head

STEP = 3
"""The coarse path sees every third voxel."""


class ValidConv(nn.Sequential):
    """Convolution without padding, batch normalization, PReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__(
            nn.Conv3d(in_channels, out_channels, kernel_size, bias=False),
            nn.BatchNorm3d(out_channels),
            nn.PReLU(out_channels, init=0.01),
        )


class DoublePathway(nn.Module):
    """DeepMedic with two paths: 97³ voxels in, the middle 19³ out.

    The fine path takes the middle of the patch, 33³ of 97³; its seven convolutions leave 19³. The
    coarse path takes every third voxel of the whole patch, 33³; its eight convolutions leave 17³,
    each repeated three times along every axis, of which the middle 19³ lie exactly on the fine
    ones. Both are joined and go through convolutions of one voxel ("fully connected").

    Takes (B, in_channels, n, n, n) and returns (B, out_channels, m, m, m) float32 without
    activation, m being ``fine_vox`` less two for each fine convolution. n is a multiple of 3 and 1
    more, and what is cut off on both sides is even.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need.
        fine, coarse: channels of each convolution of the two paths.
        joint: channels of the convolutions behind both.
        fine_vox: side of what the fine path sees.
        dropout: share of the joint values set to 0 before each joint convolution but the first.

    Source: Kamnitsas and others, DeepMedic (2017), doi:10.1016/j.media.2016.10.004, with the
    layers of the chapter on a double pathway in the proceedings of MSSEG-2 (2021), table 2.
    Departures: normalization, activation and dropout are DeepMedic's; not stated there.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 2,
        fine: Sequence[int] = (30, 40, 50, 60, 70, 80, 90),
        coarse: Sequence[int] = (30, 40, 50, 60, 70, 80, 90, 100),
        joint: Sequence[int] = (300, 300),
        fine_vox: int = 33,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.fine = _path(in_channels, fine)
        self.coarse = _path(in_channels, coarse)
        layers: list[nn.Module] = []
        before = fine[-1] + coarse[-1]
        for number, after in enumerate(joint):
            if number and dropout:
                layers.append(nn.Dropout(dropout))
            layers.append(ValidConv(before, after, kernel_size=1))
            before = after
        if dropout:
            layers.append(nn.Dropout(dropout))
        self.joint = nn.Sequential(*layers)
        self.head = Head(before, out_channels)
        self.fine_vox = fine_vox

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine = self.fine(_middle(image, (self.fine_vox,) * 3))
        coarse = self.coarse(image[..., ::STEP, ::STEP, ::STEP])
        for axis in (2, 3, 4):
            coarse = coarse.repeat_interleave(STEP, dim=axis)
        joined = torch.cat([fine, _middle(coarse, fine.shape[2:])], dim=1)
        return self.head(self.joint(joined))  # type: ignore[no-any-return]


def _middle(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The middle of (B, C, …) with the spatial size ``size``."""
    left = [n - m for n, m in zip(x.shape[2:], size, strict=True)]
    if any(n < 0 or n % 2 for n in left):
        raise ValueError(f"{tuple(size)} voxels do not lie in the middle of {tuple(x.shape[2:])}")
    inner = tuple(slice(n // 2, n // 2 + m) for n, m in zip(left, size, strict=True))
    return x[(slice(None), slice(None), *inner)]


def _path(in_channels: int, features: Sequence[int]) -> nn.Sequential:
    pairs = zip((in_channels, *features), features, strict=False)
    return nn.Sequential(*(ValidConv(before, after) for before, after in pairs))
