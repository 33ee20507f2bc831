"""Building blocks that several networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import nn

Norm: TypeAlias = Literal["batch", "instance"]


class DoubleConv(nn.Sequential):
    """Twice: convolution 3×3×3, normalization, ReLU.

    Takes (B, in_channels, I, J, K) and returns (B, out_channels, I, J, K).

    Args:
        in_channels, out_channels: of the two convolutions together.
        norm: "batch": its running averages follow slowly (momentum 0.03), because a batch of few
            patches says little about the next one. "instance": each channel of each patch by
            itself, with learned scale and shift.
        middle: channels between the two; None takes ``out_channels``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, norm: Norm = "batch", middle: int | None = None
    ) -> None:
        between = out_channels if middle is None else middle
        layers: list[nn.Module] = []
        for before, after in ((in_channels, between), (between, out_channels)):
            layers += [
                nn.Conv3d(before, after, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm3d(after, momentum=0.03)
                if norm == "batch"
                else nn.InstanceNorm3d(after, affine=True),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Head(nn.Conv3d):
    """A 1×1×1 convolution that always computes in float32.

    Half precision would round heatmaps to plateaus, on which no peak can be found.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        kind = "cpu" if input.is_meta else input.device.type  # meta has no autocast
        with torch.autocast(kind, enabled=False):
            return super().forward(input.float())


def init_head_bias(network: nn.Module, logits: Sequence[float]) -> None:
    """Set the bias of every ``Head`` with as many channels as ``logits`` has values.

    Example:
        >>> head = Head(4, 2)
        >>> init_head_bias(head, (-2.0, 0.0))
        >>> head.bias.tolist()
        [-2.0, 0.0]
    """
    for module in network.modules():
        if isinstance(module, Head) and module.out_channels == len(logits):
            assert module.bias is not None
            with torch.no_grad():
                module.bias.copy_(torch.tensor(logits))


def every_nth_voxel(x: torch.Tensor, stride: int) -> torch.Tensor:
    """(B, C, ...) at every ``stride``-th voxel of each spatial axis, the first one included.

    A 1×1 convolution of these is the same convolution with that stride. Of the latter, oneDNN
    (3.x, on CPUs) writes out of bounds while it computes the gradient, if the input is in the
    channels-last format and has fewer than 16 channels: processes end without a word.
    https://github.com/uxlfoundation/oneDNN/issues/6035

    Example:
        >>> every_nth_voxel(torch.arange(5.0).reshape(1, 1, 1, 5), 2).tolist()
        [[[[0.0, 2.0, 4.0]]]]
    """
    return x[(slice(None), slice(None), *[slice(None, None, stride)] * (x.ndim - 2))]
