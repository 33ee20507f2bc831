"""SegResNet, MONAI's: a large residual encoder, a small decoder, skips that are added."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lesionwise.networks.blocks import Head


def seg_resnet(
    in_channels: int,
    out_channels: int,
    features: int,
    blocks: Sequence[int],
) -> nn.Module:
    """MONAI's SegResNet with batch normalization, ReLU and transposed convolutions.

    Takes (B, in_channels, I, J, K), every side a multiple of ``2 ** (len(blocks) - 1)``, and
    returns (B, out_channels, I, J, K) without activation.

    Args:
        in_channels: scans, visits counted apart.
        out_channels: what the heads need.
        features: channels of the first convolution, doubled by each downsampling.
        blocks: residual blocks of each level of the encoder, the full resolution first, as MONAI
            counts them; each level of the decoder has one.

    Example:
        >>> import torch
        >>> network = seg_resnet(1, 2, features=8, blocks=(1, 1)).eval()
        >>> network(torch.zeros(1, 1, 8, 8, 8)).shape
        torch.Size([1, 2, 8, 8, 8])
    """
    from monai.networks.nets.segresnet import SegResNet

    network: nn.Module = SegResNet(
        spatial_dims=3,
        init_filters=features,
        in_channels=in_channels,
        out_channels=out_channels,
        act=("RELU", {"inplace": True}),
        norm="BATCH",
        blocks_down=tuple(blocks),
        blocks_up=(1,) * (len(blocks) - 1),
        upsample_mode="deconv",
    )
    layers = list(network.conv_final)  # type: ignore[arg-type]
    network.conv_final = nn.Sequential(*layers[:-1], Head(features, out_channels))
    return network
