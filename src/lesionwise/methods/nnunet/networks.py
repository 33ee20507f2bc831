"""The networks that nnU-Net's plans describe. Imports nnunetv2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from lesionwise.types import InputError

MAX_POOL_UNET = f"{__name__}.MaxPoolUNet"
MAX_PARAMETERS = 1_000_000_000
MAX_PATCH_VOX = 2**27
MAX_CHANNELS = 64
MAX_LENGTH = 32
"""Of a list in the description of a network: its levels, and more."""
MAX_NUMBER = 4096
SPACING_MM = (0.01, 100.0)
_NETWORKS = "dynamic_network_architectures."
_PARTS = "torch.nn."


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


def network_of(
    configuration: Any, in_channels: int, out_channels: int, *, deep_supervision: bool
) -> torch.nn.Module:
    """The network a configuration describes, at its start."""
    network: torch.nn.Module = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        in_channels,
        out_channels,
        allow_init=True,
        deep_supervision=deep_supervision,
    )
    return network


def checked_network(
    configuration: Any, in_channels: int, out_channels: int, path: Path
) -> torch.nn.Module:
    """The network for prediction that a configuration read from a file describes.

    Nothing but known networks and layers is imported, and nothing is allocated before its size is
    known.

    Args:
        path: of the file, for messages.

    Raises:
        InputError: If the plans name other code, or ask for more than fits any nnU-Net: patches
            of 2**27 voxels, 64 channels, 10**9 parameters, lists of 32, numbers of 4096, voxels
            of 0.01 to 100 mm.
    """
    _check_names(configuration, path)
    if not 1 <= in_channels <= MAX_CHANNELS or not 1 <= out_channels <= MAX_CHANNELS:
        raise InputError(f"{path}: {in_channels} channels and {out_channels} outputs are too many")
    patch, spacing = list(configuration.patch_size), list(configuration.spacing)
    sides = all(isinstance(n, int) and 1 <= n <= MAX_NUMBER for n in patch)
    if len(patch) not in (2, 3) or not sides or _product(patch) > MAX_PATCH_VOX:
        raise InputError(f"{path}: no patch of {patch} voxels can be computed")
    if len(spacing) != len(patch) or not all(SPACING_MM[0] <= s <= SPACING_MM[1] for s in spacing):
        raise InputError(f"{path}: no scan has voxels of {spacing} mm")
    _check_numbers(configuration.network_arch_init_kwargs, path)
    with torch.device("meta"):
        described = network_of(configuration, in_channels, out_channels, deep_supervision=False)
    parameters = sum(weights.numel() for weights in described.parameters())
    if parameters > MAX_PARAMETERS:
        raise InputError(f"{path}: a network of {parameters:.1e} parameters is too large")
    return network_of(configuration, in_channels, out_channels, deep_supervision=False)


def checked_axes(axes: Any, configuration: Any, path: Path) -> tuple[int, ...]:
    """The axes of a patch that are mirrored, from a file; none where it holds none.

    Raises:
        InputError: If they are not different axes of a patch.
    """
    known = range(len(configuration.patch_size))
    listed = list(axes or ())
    if not all(axis in known for axis in listed) or len(set(listed)) < len(listed):
        raise InputError(f"{path}: mirrored axes {listed} are not those of a patch")
    return tuple(int(axis) for axis in listed)


def _product(sides: Sequence[int]) -> int:
    product = 1
    for side in sides:
        product *= side
    return product


def _check_numbers(described: Any, path: Path) -> None:
    """Refuse numbers and lists beyond what networks have."""
    if isinstance(described, Mapping):
        described = list(described.values())
    if isinstance(described, list | tuple):
        if len(described) > MAX_LENGTH:
            raise InputError(f"{path}: {len(described)} levels are too many")
        for value in described:
            _check_numbers(value, path)
    elif isinstance(described, int | float) and not abs(described) <= MAX_NUMBER:
        raise InputError(f"{path}: no network has layers of {described:g}")


def _check_names(configuration: Any, path: Path) -> None:
    """Refuse plans that would import anything but known networks and layers."""
    name = str(configuration.network_arch_class_name)
    if name != MAX_POOL_UNET and not name.startswith(_NETWORKS):
        raise InputError(f"{path}: the network {name} is not nnU-Net's")
    arguments = configuration.network_arch_init_kwargs
    for key in configuration.network_arch_init_kwargs_req_import:
        value = arguments.get(key)
        if value is not None and not str(value).startswith(_PARTS):
            raise InputError(f"{path}: {key} = {value} is not one of torch's layers")
