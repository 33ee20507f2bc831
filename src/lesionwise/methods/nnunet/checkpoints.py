"""nnU-Net's checkpoints read without running what they hold; weights as safetensors."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from lesionwise.io.files import write_bytes
from lesionwise.types import InputError

_DTYPES = ("Bool", "Float16", "Float32", "Float64", "Int8", "Int16", "Int32", "Int64",
           "UInt8", "UInt16", "UInt32", "UInt64")  # fmt: skip
_CODECS = "_codecs.encode"


def _allowed() -> list[Any]:
    """What a checkpoint may hold beside tensors: NumPy numbers and small arrays of them."""
    import codecs

    core: Any = np._core if hasattr(np, "_core") else np.core  # NumPy 1 calls it core
    multiarray = core.multiarray
    allowed: list[Any] = [
        np.dtype,
        np.ndarray,
        (multiarray.scalar, "numpy.core.multiarray.scalar"),
        (multiarray.scalar, "numpy._core.multiarray.scalar"),
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
        (codecs.encode, _CODECS),
    ]
    allowed += [getattr(np.dtypes, f"{name}DType") for name in _DTYPES]
    return allowed


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint of nnU-Net holds, on the CPU; nothing in it is executed.

    Raises:
        InputError: If it is missing, malformed, or holds anything but weights, numbers and text.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    if not zipfile.is_zipfile(path):
        # the format before torch 1.6; its reader can be led to allocate any amount of memory
        raise InputError(f"{path}: not a checkpoint (not a ZIP archive)")
    try:
        with torch.serialization.safe_globals(_allowed()):
            read = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({named.group(1)})" if named else ""
        raise InputError(f"{path}: not read, because it could run code{what}") from error
    except Exception as error:  # torch's reader raises whatever it meets in damaged bytes
        raise InputError(f"{path}: not a checkpoint ({_line(error)})") from error
    if not isinstance(read, dict) or "network_weights" not in read:
        raise InputError(f"{path}: not a checkpoint of nnU-Net (no network_weights)")
    return read


def save_network(weights: Mapping[str, torch.Tensor], network: nn.Module, path: Path) -> None:
    """Write weights as safetensors, each tensor once however many names the network has for it."""
    kept = {
        name: weights[name].detach().cpu().contiguous().clone()
        for name in canonical_names(network).values()
    }
    write_bytes(path, save(dict(sorted(kept.items()))))


def load_network(network: nn.Module, path: Path) -> None:
    """Put what ``save_network`` wrote into ``network``.

    Raises:
        InputError: If the file is missing, malformed, of another network, or holds weights that
            are NaN or infinite.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        kept = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a safetensors file ({_line(error)})") from error
    names = canonical_names(network)
    missing = sorted(set(names.values()) - set(kept))
    if missing:
        raise InputError(f"{path}: weights of another network (no {missing[0]})")
    set_weights(network, {name: kept[first] for name, first in names.items()}, str(path))


def set_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Put weights into ``network``; prefixes of parallel and compiled networks are dropped.

    Raises:
        InputError: If they are another network's, NaN or infinite.
    """
    for key, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{name}: {key} holds NaN or infinite weights")
    plain = {
        key.removeprefix("module.").removeprefix("_orig_mod."): value
        for key, value in weights.items()
    }
    try:
        network.load_state_dict(plain)
    except RuntimeError as error:
        raise InputError(f"{name}: weights of another network ({_line(error)})") from error


def canonical_names(network: nn.Module) -> dict[str, str]:
    """For each name of a tensor in the network's state the first name of the same tensor.

    nnU-Net's decoder holds its encoder, and its blocks hold their layers twice.
    """
    first: dict[int, str] = {}
    return {
        name: first.setdefault(value.data_ptr(), name)
        for name, value in network.state_dict().items()
    }


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
