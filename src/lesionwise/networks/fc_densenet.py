"""FC-DenseNet ("Tiramisu") on planes: an encoder and a decoder of densely connected blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from lesionwise.networks.blocks import Head
from lesionwise.networks.planes import InPlane


class DenseBlock(nn.Module):
    """Layers that each see the block's input and the outputs of all layers before.

    A layer is batch normalization, ReLU, a convolution 3×3 and dropout of whole channels. Takes
    (B, in_channels, I, J) and returns what the layers made, (B, layers · growth, I, J), with
    ``keep_input`` behind the input.
    """

    def __init__(
        self, in_channels: int, growth: int, layers: int, dropout: float, *, keep_input: bool
    ) -> None:
        super().__init__()
        self.keep_input = keep_input
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(in_channels + number * growth),
                nn.ReLU(),
                nn.Conv2d(in_channels + number * growth, growth, kernel_size=3, padding=1),
                nn.Dropout2d(dropout),
            )
            for number in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [x]
        for layer in self.layers:
            seen.append(layer(torch.cat(seen, dim=1)))
        return torch.cat(seen if self.keep_input else seen[1:], dim=1)


class FcDenseNet2d(nn.Module):
    """Dense blocks with transitions down, a bottleneck, and as many blocks with transitions up.

    Takes (B, in_channels, I, J), both sides at least ``2 ** blocks``, and returns the features of
    the full resolution, (B, out_features, I, J). Pooling drops the last row of an odd side; the
    transitions up are cut to the skip connection, so any larger side is allowed.

    Args:
        in_channels: of the image.
        layers: of each block on the way down, and of each on the way up.
        bottleneck: layers of the block between.
        growth: channels that a layer adds.
        first: channels of the first convolution.
        dropout: share of channels set to 0 in each layer.

    Source: Jégou and others, The one hundred layers tiramisu: fully convolutional DenseNets for
    semantic segmentation (2017); the default is their FC-DenseNet56.
    """

    def __init__(
        self,
        in_channels: int,
        layers: Sequence[int] = (4, 4, 4, 4, 4),
        bottleneck: int = 4,
        growth: int = 12,
        first: int = 48,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, first, kernel_size=3, padding=1)
        self.down = nn.ModuleList()
        self.transitions_down = nn.ModuleList()
        channels, skips = first, []
        for count in layers:
            self.down.append(DenseBlock(channels, growth, count, dropout, keep_input=True))
            channels += growth * count
            skips.append(channels)
            self.transitions_down.append(
                nn.Sequential(
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                    nn.Conv2d(channels, channels, kernel_size=1),
                    nn.Dropout2d(dropout),
                    nn.MaxPool2d(2),
                )
            )
        self.bottleneck = DenseBlock(channels, growth, bottleneck, dropout, keep_input=False)
        self.transitions_up = nn.ModuleList()
        self.up = nn.ModuleList()
        made = growth * bottleneck
        for number, count in enumerate(reversed(layers)):
            last = number == len(layers) - 1
            joined = made + skips.pop()
            self.transitions_up.append(nn.ConvTranspose2d(made, made, kernel_size=3, stride=2))
            self.up.append(DenseBlock(joined, growth, count, dropout, keep_input=last))
            made = growth * count + (joined if last else 0)
        self.out_features = made

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.first(image)
        skips: list[torch.Tensor] = []
        for block, transition in zip(self.down, self.transitions_down, strict=True):
            skips.append(block(x))
            x = transition(skips[-1])
        x = self.bottleneck(x)
        for transition, block in zip(self.transitions_up, self.up, strict=True):
            skip = skips.pop()
            i, j = skip.shape[2:]
            x = block(torch.cat([transition(x)[:, :, :i, :j], skip], dim=1))
        return x  # type: ignore[no-any-return]


def plane_fc_densenet(
    in_channels: int,
    out_channels: int,
    layers: Sequence[int] = (4, 4, 4, 4, 4),
    growth: int = 12,
    first: int = 48,
    dropout: float = 0.2,
) -> nn.Module:
    """An ``FcDenseNet2d`` on stacks of slices, its head and a tanh.

    Takes (B, C, I, J, S) and returns (B, out_channels, I, J, 1) between -1 and 1.

    Args:
        in_channels: C · S.
        out_channels: of the head.
        layers, growth, first, dropout: of the network.

    Example:
        >>> network = plane_fc_densenet(3, 1, layers=(2, 2), growth=4, first=4).eval()
        >>> network(torch.zeros(1, 1, 8, 8, 3)).shape
        torch.Size([1, 1, 8, 8, 1])
    """
    body = FcDenseNet2d(in_channels, layers, 4, growth, first, dropout)
    return nn.Sequential(InPlane(body), Head(body.out_features, out_channels), nn.Tanh())
