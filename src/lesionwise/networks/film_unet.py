"""A U-Net whose every instance normalization depends on the voxel spacing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lesionwise.networks.blocks import Head


class FilmNorm(nn.Module):
    """Instance normalization whose scale and shift depend on a condition.

    ``(gamma + gamma_c) · normalized + (beta + beta_c)``: gamma and beta are learned as they are,
    gamma_c and beta_c come from the condition through two fully connected layers. The last of these
    begins at 0, so the layer begins as plain instance normalization.

    Args:
        channels: of the features.
        conditions: numbers of the condition.
        hidden: width between the two layers.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `rater-consensus`; Perez and others, 2018,
    for the idea.
    """

    def __init__(self, channels: int, conditions: int = 3, hidden: int = 16) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(channels)
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        last = nn.Linear(hidden, 2 * channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.modulate = nn.Sequential(nn.Linear(conditions, hidden), nn.ReLU(), last)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        gamma, beta = self.modulate(condition).chunk(2, dim=1)
        scale = (self.gamma + gamma)[:, :, None, None, None]
        shift = (self.beta + beta)[:, :, None, None, None]
        modulated: torch.Tensor = scale * self.norm(x) + shift
        return modulated


class FilmConv(nn.Module):
    """Twice: convolution 3×3×3, ``FilmNorm``, LeakyReLU (slope 0.01); the first has the stride."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, hidden: int = 16
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv3d(channels, out_channels, kernel_size=3, stride=step, padding=1)
            for channels, step in ((in_channels, stride), (out_channels, 1))
        )
        self.norms = nn.ModuleList(FilmNorm(out_channels, hidden=hidden) for _ in range(2))
        self.activation = nn.LeakyReLU(0.01)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.activation(norm(convolution(x), condition))
        return x


class FilmUNet(nn.Module):
    """nnU-Net's plain U-Net with the voxel spacing in every normalization.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (stages - 1)`` and larger than
    that along one axis, and ``spacing_mm`` (B, 3) by keyword, of which it sees the logarithm.
    Returns (B, out_channels, I, J, K) float32 without activation; in training a tuple of that and
    of the coarser resolutions, each half as fine, without the coarsest of the decoder.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need.
        features: channels per stage.
        hidden: width of the layers that read the spacing.

    Source: the chapter of `rater-consensus`, which builds on nnU-Net: its widths, strides,
    transposed convolutions and deep supervision.
    """

    conditions = ("spacing_mm",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = (32, 64, 128, 256, 320, 320),
        hidden: int = 16,
    ) -> None:
        super().__init__()
        widths = tuple(features)
        self.down = nn.ModuleList(
            FilmConv(before, after, 2 if level else 1, hidden)
            for level, (before, after) in enumerate(
                zip((in_channels, *widths), widths, strict=False)
            )
        )
        above, below = tuple(reversed(widths[:-1])), tuple(reversed(widths[1:]))
        self.grow = nn.ModuleList(
            nn.ConvTranspose3d(before, after, kernel_size=2, stride=2)
            for before, after in zip(below, above, strict=True)
        )
        self.up = nn.ModuleList(FilmConv(2 * width, width, hidden=hidden) for width in above)
        supervised = above[1:] if len(above) > 1 else above
        self.heads = nn.ModuleList(Head(width, out_channels) for width in supervised)

    def forward(
        self, image: torch.Tensor, *, spacing_mm: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        condition = spacing_mm.log()
        skips: list[torch.Tensor] = []
        x = image
        for block in self.down:
            x = block(x, condition)
            skips.append(x)
        skips.pop()
        decoded: list[torch.Tensor] = []
        for grow, block in zip(self.grow, self.up, strict=True):
            x = block(torch.cat([skips.pop(), grow(x)], dim=1), condition)
            decoded.append(x)
        heads = list(reversed(self.heads))
        finest = heads[0](x)
        if not self.training:
            return finest  # type: ignore[no-any-return]
        coarser = reversed(decoded[-len(heads) : -1])
        return (finest, *(head(y) for head, y in zip(heads[1:], coarser, strict=True)))
