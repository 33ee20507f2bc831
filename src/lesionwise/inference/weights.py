"""Weights of networks as safetensors files.

A file holds the network's weights under their own names, and those of further modules that were
trained with it (parts) under ``parts.<name>.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from lesionwise.io.files import write_bytes
from lesionwise.types import InputError

WEIGHTS = "model.safetensors"
"""The weights of a run."""
INITIAL = "initial.safetensors"
"""Weights to begin with, where the run folder holds them; else the network's own start."""
PARTS = "parts."
PREFIX = "prefix"
"""In the file's own description: the beginning of the names that ``copy_matching`` kept."""
NO_PARTS: Mapping[str, nn.Module] = MappingProxyType({})


def save_weights(
    network: nn.Module, path: str | Path, parts: Mapping[str, nn.Module] = NO_PARTS
) -> None:
    """Write weights as safetensors; the file appears complete or not at all.

    Floating-point tensors are written as float32, counters as they are. Tensors that several
    names share are written once per name. A link at ``path`` is replaced, not followed.

    Args:
        network: its weights keep their names.
        path: of the file; its folder is created where it is missing.
        parts: further modules by name, such as a teacher or a critic.

    Raises:
        ValueError: If a part has an empty name or one with a dot, or if the network has weights
            of its own whose names start with ``parts.``.
        InputError: If the file cannot be written.

    Example:
        >>> save_weights(nn.Linear(2, 1), "model.safetensors")
        >>> with safe_open("model.safetensors", "pt") as file:
        ...     sorted(file.keys())
        ...
        ['bias', 'weight']
    """
    tensors = {}
    for name, value in _named(network, parts).items():
        copied = value.detach().to("cpu", torch.float32 if value.is_floating_point() else None)
        tensors[name] = copied.clone(memory_format=torch.contiguous_format)
    write_bytes(path, save(tensors))


def read_weights(
    network: nn.Module, path: str | Path, parts: Mapping[str, nn.Module] = NO_PARTS
) -> None:
    """Put the weights of a file into a network and into the parts that are named.

    Names and shapes must be the same as in the file. Parts in the file that are not asked for are
    ignored and not read. After an error nothing has changed.

    Args:
        network: gets the weights without a ``parts.`` prefix.
        path: of a file of ``save_weights``.
        parts: modules that get the weights under ``parts.<name>.``.

    Raises:
        InputError: If the file is missing, is not safetensors, holds weights of another network,
            or weights that are NaN or infinite.

    Example:
        >>> learned, network = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> save_weights(learned, "model.safetensors")
        >>> read_weights(network, "model.safetensors")
        >>> torch.equal(network.weight, learned.weight)
        True
    """
    wanted = _named(network, parts)
    prefixes = tuple(f"{PARTS}{name}." for name in parts)

    def asked_for(name: str) -> bool:
        return not name.startswith(PARTS) or name.startswith(prefixes)

    _load(wanted, path, asked_for)


def read_matching(network: nn.Module, path: str | Path, prefix: str) -> None:
    """Put only the weights whose names start with ``prefix`` into a network.

    So an encoder goes from one network to another: ``read_matching(network, path, "encoder.")``.
    The network and the file must have the same names and shapes below the prefix. After an error
    nothing has changed.

    Raises:
        InputError: As ``read_weights``; also if the network has no weights below the prefix.

    Example:
        >>> learned = nn.ModuleDict({"encoder": nn.Linear(2, 1), "head": nn.Linear(1, 1)})
        >>> network = nn.ModuleDict({"encoder": nn.Linear(2, 1), "head": nn.Linear(1, 3)})
        >>> save_weights(learned, "model.safetensors")
        >>> read_matching(network, "model.safetensors", "encoder.")
        >>> torch.equal(network["encoder"].weight, learned["encoder"].weight)
        True
    """
    wanted = {
        name: value for name, value in network.state_dict().items() if name.startswith(prefix)
    }
    if not wanted:
        raise InputError(f"{path}: the network has no weights named {prefix}…")
    _load(wanted, path, lambda name: name.startswith(prefix))


def check_weights(path: str | Path) -> None:
    """Refuse a file that is missing or is not safetensors, before anything is built.

    Raises:
        InputError: As ``read_weights``, but for names and shapes.

    Example:
        >>> save_weights(nn.Linear(2, 1), "model.safetensors")
        >>> check_weights("model.safetensors")
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        with safe_open(str(path), framework="pt", device="cpu"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a safetensors file ({_first_line(error)})") from error


def copy_matching(source: str | Path, target: str | Path, prefix: str = "") -> None:
    """Copy the weights of a file whose names start with ``prefix`` into a new one.

    ``read_initial`` knows from the new file what it holds. Weights of parts are left out.

    Args:
        source: a file of ``save_weights``.
        target: appears complete or not at all; a link there is replaced, not followed.
        prefix: such as ``encoder.``; empty takes the whole network.

    Raises:
        InputError: If the source cannot be read, or has no such weights.

    Example:
        >>> learned = nn.ModuleDict({"encoder": nn.Linear(2, 1), "head": nn.Linear(1, 1)})
        >>> save_weights(learned, "model.safetensors")
        >>> copy_matching("model.safetensors", "initial.safetensors", "encoder.")
        >>> with safe_open("initial.safetensors", "pt") as file:
        ...     sorted(file.keys())
        ...
        ['encoder.bias', 'encoder.weight']
    """
    try:
        with safe_open(str(source), framework="pt", device="cpu") as file:
            names = [n for n in file.keys() if n.startswith(prefix) and not n.startswith(PARTS)]  # noqa: SIM118
            kept = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such weights file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{source}: not a safetensors file ({_first_line(error)})") from error
    if not kept:
        raise InputError(f"{source}: no weights named {prefix}…")
    write_bytes(target, save(kept, metadata={PREFIX: prefix}))


def read_initial(network: nn.Module, path: str | Path) -> None:
    """Put the weights that a training begins with into its network.

    All of them, or those that ``copy_matching`` kept.

    Raises:
        InputError: As ``read_weights`` and ``read_matching``.

    Example:
        >>> learned = nn.ModuleDict({"encoder": nn.Linear(2, 1), "head": nn.Linear(1, 1)})
        >>> network = nn.ModuleDict({"encoder": nn.Linear(2, 1), "head": nn.Linear(1, 3)})
        >>> save_weights(learned, "model.safetensors")
        >>> copy_matching("model.safetensors", "initial.safetensors", "encoder.")
        >>> read_initial(network, "initial.safetensors")
        >>> torch.equal(network["encoder"].weight, learned["encoder"].weight)
        True
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            prefix = (file.metadata() or {}).get(PREFIX, "")
    except (SafetensorError, OSError, ValueError):
        prefix = ""  # read_weights says what is wrong
    if prefix:
        read_matching(network, path, prefix)
    else:
        read_weights(network, path)


def _named(network: nn.Module, parts: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    """All tensors by their names in the file; they share memory with the modules."""
    named = dict(network.state_dict())
    if any(name.startswith(PARTS) for name in named):
        raise ValueError(f"a network must not name a module {PARTS.removesuffix('.')}")
    for part, module in parts.items():
        if not part or "." in part:
            raise ValueError(f"a part cannot be named {part!r}")
        for name, value in module.state_dict().items():
            named[f"{PARTS}{part}.{name}"] = value
    return named


def _load(wanted: Mapping[str, torch.Tensor], path: str | Path, asked_for: Any) -> None:
    """Copy tensors of the file into ``wanted``, all or none."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            held = {name for name in file.keys() if asked_for(name)}  # noqa: SIM118
            _check_names(set(wanted), held, path)
            found = {}
            for name, value in wanted.items():
                shape = tuple(file.get_slice(name).get_shape())
                if shape != tuple(value.shape):
                    raise InputError(
                        f"{path}: weights of another network ({name} is {_size(shape)}, "
                        f"{_size(value.shape)} is needed)"
                    )
                found[name] = file.get_tensor(name)
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a safetensors file ({_first_line(error)})") from error
    for name, value in found.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            raise InputError(f"{path}: weights of another network ({name} is {value.dtype})")
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise InputError(f"{path}: {name} holds NaN or infinite weights")
    with torch.no_grad():
        for name, value in found.items():
            wanted[name].copy_(value)


def _check_names(wanted: set[str], held: set[str], path: str | Path) -> None:
    for names, what in ((wanted - held, "has no"), (held - wanted, "has also")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path}: weights of another network ({what} {min(names)}{more})")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single value"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
