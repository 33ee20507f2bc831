"""Networks on planes: 2D networks behind the five axes that every network has."""

from __future__ import annotations

import torch
from torch import nn


class InPlane(nn.Module):
    """A 2D network that takes S neighboring slices and returns the middle one.

    Takes (B, C, I, J, S) and gives the 2D network (B, C·S, I, J): all slices of the first scan,
    in their order, then all of the second, and so on. Its outputs (B, M, I', J') become
    (B, M, I', J', 1) float32; a tuple stays a tuple. Slices lie along the last axis;
    ``inference.views.Planes`` turns volumes so that each axis is last once.

    For an odd S a sliding window with patches (I, J, S) predicts every slice.

    Args:
        network: the 2D network. Let it return features and a ``Head`` come after it to compute
            the last layer in float32; its ``conditions`` are passed on.

    Example:
        >>> body = nn.Conv2d(6, 16, kernel_size=3, padding=1)  # two scans, three slices
        >>> InPlane(body)(torch.zeros(1, 2, 8, 8, 3)).shape
        torch.Size([1, 16, 8, 8, 1])
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.conditions: tuple[str, ...] = tuple(getattr(network, "conditions", ()))

    def forward(
        self, image: torch.Tensor, **conditions: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        slices = image.movedim(4, 2).flatten(1, 2)
        output = self.network(slices.contiguous(), **conditions)
        if isinstance(output, tuple):
            return tuple(each.float().unsqueeze(-1) for each in output)
        return output.float().unsqueeze(-1)  # type: ignore[no-any-return]
