"""Networks that nnU-Net's plans can name beside its own. Imports dynamic-network-architectures."""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder

MAX_POOL_UNET = f"{__name__}.MaxPoolUNet"


class MaxPoolUNet(PlainConvUNet):  # type: ignore[misc]
    """nnU-Net's U-Net with max pooling in place of strided convolutions.

    The encoder of dynamic-network-architectures has both; its U-Net builds the strided one.
    Weights of the encoder have other names than in nnU-Net's U-Net.

    Args:
        architecture: the arguments of ``PlainConvUNet``, by name.
    """

    def __init__(self, **architecture: Any) -> None:
        super().__init__(**architecture)
        arguments = dict(architecture)
        classes = arguments.pop("num_classes")
        decoder = arguments.pop("n_conv_per_stage_decoder")
        deep_supervision = arguments.pop("deep_supervision", False)
        self.encoder = PlainConvEncoder(**arguments, return_skips=True, pool="max")
        self.decoder = UNetDecoder(self.encoder, classes, decoder, deep_supervision)
