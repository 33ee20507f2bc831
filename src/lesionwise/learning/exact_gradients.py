"""Convolutions whose gradient is right on CPUs in bfloat16."""

from __future__ import annotations

import torch
from torch import nn


class ExactConv3d(nn.Conv3d):
    """A convolution that computes in float32 what is smaller than its kernel.

    With PyTorch 2.13 on a CPU with native bfloat16 (AVX-512 BF16), the gradient of the weights of
    a 3D convolution is wrong if its input is shorter than its kernel along some axis, such as 2
    voxels for a kernel of 3: the values are arbitrary, and some are not finite. The output and the
    gradient of the input are right, and so is float32.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        sides = zip(input.shape[2:], self.kernel_size, strict=True)
        if all(side >= kernel for side, kernel in sides):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def with_exact_gradients(module: nn.Module) -> None:
    """Make every ``nn.Conv3d`` in a module an ``ExactConv3d``, in place; weights stay.

    Subclasses of ``nn.Conv3d`` stay as they are.

    Example:
        >>> network = nn.Sequential(nn.Conv3d(1, 2, kernel_size=3), nn.ReLU())
        >>> with_exact_gradients(network)
        >>> network
        Sequential(
          (0): ExactConv3d(1, 2, kernel_size=(3, 3, 3), stride=(1, 1, 1))
          (1): ReLU()
        )
    """
    for each in module.modules():
        if type(each) is nn.Conv3d:
            each.__class__ = ExactConv3d
