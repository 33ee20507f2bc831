"""A spatial transformer: an image as a displacement field shows it."""

from __future__ import annotations

import torch
from torch.nn import functional


def warp(image: torch.Tensor, field_vox: torch.Tensor) -> torch.Tensor:
    """The image at ``x + field(x)``, for each voxel x: trilinear, differentiable in both.

    The field points from a voxel of the result to where its value lies in the image. So the
    result moves against the field: with +1 along i everywhere, each voxel gets what lay one
    further. Beyond the border the nearest voxel counts.

    Args:
        image: (B, C, I, J, K).
        field_vox: (B, 3, I, J, K), voxels along i, j, k.

    Returns:
        (B, C, I, J, K) float32.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 1, 4, 1, 1)
        >>> field = torch.zeros(1, 3, 4, 1, 1); field[:, 0] = 0.5
        >>> warp(image, field).flatten().round(decimals=3).tolist()
        [0.5, 1.5, 2.5, 3.0]

    Source: Jaderberg and others, 2015.
    """
    with torch.autocast(image.device.type, enabled=False):
        field = field_vox.float()
        shape = image.shape[2:]
        axes = [torch.arange(n, device=field.device, dtype=torch.float32) for n in shape]
        where = torch.stack(torch.meshgrid(*axes, indexing="ij")) + field
        # grid_sample counts from -1 to 1 and names the last axis first
        last = torch.tensor([max(n - 1, 1) for n in shape], device=field.device)
        unit = 2 * where.movedim(1, -1) / last - 1
        return functional.grid_sample(
            image.float(), unit.flip(-1), mode="bilinear", padding_mode="border",
            align_corners=True,
        )  # fmt: skip


def squared_gradient(values: torch.Tensor) -> torch.Tensor:
    """(B, 1, I, J, K): the squared steps to the next voxel along each axis, over all channels.

    The last voxel of an axis has no step along it.

    Example:
        >>> squared_gradient(torch.tensor([0.0, 1.0, 3.0]).view(1, 1, 3, 1, 1)).flatten().tolist()
        [1.0, 4.0, 0.0]
    """
    total = torch.zeros_like(values[:, :1], dtype=torch.float32)
    for axis in (2, 3, 4):
        step = values.float().diff(dim=axis).square().sum(dim=1, keepdim=True)
        total.narrow(axis, 0, step.shape[axis]).add_(step)
    return total
