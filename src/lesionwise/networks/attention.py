"""Attention gates: what a coarser level knows decides what of a skip connection passes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional


class AttentionGate(nn.Module):
    """Weighs every place of a skip connection by a coefficient between 0 and 1.

    The coefficient is σ(ψ · ReLU(W_x x + W_g g + b) + b'), with x the skip connection brought to
    the gate's resolution by a strided convolution. It is interpolated linearly to the resolution
    of x and multiplies all channels there alike. Nothing is normalized.

    Takes the skip connection (B, skip_channels, …) and the gate (B, gate_channels, …), and
    returns the weighed skip connection in its own shape. Sides of the skip connection are
    multiples of ``stride``; a gate of another size than 1 / ``stride`` of it is interpolated.

    Args:
        skip_channels: of the skip connection.
        gate_channels: of the gate: features of a coarser level.
        hidden_channels: of the two maps that are added; the paper takes half of ``skip_channels``.
        dims: 2 for (B, C, I, J), 3 for (B, C, I, J, K).
        stride: how much coarser the gate is; 1 for one of the same resolution.

    Source: Oktay and others, Attention U-Net: learning where to look for the pancreas (2018),
    section 2.1. The authors' code adds a convolution and batch normalization behind it, which the
    formulas do not have; they are left to the caller.

    Example:
        >>> gate = AttentionGate(64, 128, 32, dims=2)
        >>> gate(torch.rand(1, 64, 16, 16), torch.rand(1, 128, 8, 8)).shape
        torch.Size([1, 64, 16, 16])
    """

    def __init__(
        self,
        skip_channels: int,
        gate_channels: int,
        hidden_channels: int,
        dims: Literal[2, 3] = 3,
        stride: int = 2,
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.mode = "bilinear" if dims == 2 else "trilinear"
        self.skip_map = convolution(
            skip_channels, hidden_channels, kernel_size=stride, stride=stride, bias=False
        )
        self.gate_map = convolution(gate_channels, hidden_channels, kernel_size=1)
        self.weigh = convolution(hidden_channels, 1, kernel_size=1)

    def coefficients(self, skip: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """The weights alone, (B, 1, …) with the size of the skip connection."""
        seen = self.skip_map(skip)
        added = self._resized(self.gate_map(gate), seen)
        weights = torch.sigmoid(self.weigh(functional.relu(seen + added)))
        return self._resized(weights, skip)

    def forward(self, skip: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return skip * self.coefficients(skip, gate)

    def _resized(self, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        size = like.shape[2:]
        if x.shape[2:] == size:
            return x
        return functional.interpolate(x, size=size, mode=self.mode, align_corners=False)
