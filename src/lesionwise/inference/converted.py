"""Networks converted for OpenVINO, kept in a folder of the user from one start to the next.

A kept network is data (OpenVINO's own description and weights); nothing of it is executed as
Python. Its name is a hash of all that decides what the conversion gives, so a file never has to
be compared with the network again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from lesionwise.io.files import write_bytes
from lesionwise.types import InputError

MAX_KEPT_BYTES = 500_000_000
"""Of all kept networks together; those not used for longest go first."""
SUFFIX = ".openvino.safetensors"


@dataclass(frozen=True, eq=False)
class Converted:
    """A network in OpenVINO's form, for patches of one shape.

    Attributes:
        model: an ``openvino.Model``, without the heads.
        heads: names of the network's modules that make the outputs, in order; empty where the
            whole network was converted.
        several: the network returns a tuple.
    """

    model: Any
    heads: tuple[str, ...]
    several: bool


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which looks up a host and writes to the home folder.

    OpenVINO takes a stub of its own where ``openvino_telemetry`` cannot be imported.

    Example:
        >>> import_openvino().__name__
        'openvino'
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@lru_cache(maxsize=1)
def openvino_core() -> Any:
    """The one ``openvino.Core`` of this process, which is never given up.

    OpenVINO's CPU plugin gives the thread that loads it a signal stack of its own. Where another
    thread drops the last core, as the garbage collector may, that stack is unmapped and still in
    use: the next signal that has a handler, such as the end of a child process, then ends the
    process without a word.

    Example:
        >>> openvino_core() is openvino_core()
        True
    """
    return import_openvino().Core()


def key_of(network: nn.Module, settings: Mapping[str, Any]) -> str:
    """SHA-256 of a network's weights, structure and source files, and of settings as JSON.

    Example:
        >>> one, other = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> key_of(one, {"shape": [1, 2]}) == key_of(other, {"shape": [1, 2]})
        False
    """
    together = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    together.update(repr(network).encode())
    for source in sorted(_sources(network)):
        together.update(Path(source).read_bytes())
    for name, value in network.state_dict().items():
        together.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        together.update(flat.view(torch.uint8).numpy().data)
    return together.hexdigest()


def _sources(network: nn.Module) -> set[str]:
    """Python files in which the classes of a network are defined, without those of torch."""
    classes = {cls for module in network.modules() for cls in type(module).__mro__}
    found: set[str] = set()
    for cls in classes:
        if cls.__module__.partition(".")[0] not in ("torch", "builtins"):
            with suppress(TypeError):  # defined at a prompt: it has no file
                found.add(inspect.getfile(cls))
    return found


def read_converted(folder: Path, key: str) -> Converted | None:
    """The kept network of a key; None where there is none, or the file is damaged.

    Example:
        >>> read_converted(Path("cache"), "0" * 64) is None
        True
    """
    path = folder / f"{key}{SUFFIX}"
    try:
        with safe_open(str(path), framework="np") as file:
            record = file.metadata() or {}
            weights = file.get_tensor("weights").tobytes()
        model = record["model"].encode()
        if (record["key"], record["sha256"]) != (key, _hash_of(model, weights)):
            return None
        heads = tuple(str(name) for name in json.loads(record["heads"]))
        read = openvino_core().read_model(model=model, weights=weights)
        several = record["several"] == "true"
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    with suppress(OSError):
        os.utime(path)  # used just now
    return Converted(read, heads, several)


def write_converted(converted: Converted, folder: Path, key: str) -> None:
    """Keep a network that was compared with torch; without effect where that is not possible.

    The file appears complete or not at all. Others go, the least recently used first, until all
    are below ``MAX_KEPT_BYTES``.

    Example:
        >>> _ = import_openvino()
        >>> from openvino import Model, opset13
        >>> image = opset13.parameter([1, 4])
        >>> model = Model([opset13.relu(image)], [image])
        >>> write_converted(Converted(model, (), several=False), Path("cache"), "0" * 64)
        >>> read_converted(Path("cache"), "0" * 64).several
        False
    """
    with suppress(OSError, InputError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            description, weights = Path(scratch, "model.xml"), Path(scratch, "model.bin")
            import_openvino().serialize(converted.model, str(description), str(weights))
            texts, numbers = description.read_bytes(), weights.read_bytes()
        record = {
            "key": key,
            "model": texts.decode(),
            "sha256": _hash_of(texts, numbers),
            "heads": json.dumps(converted.heads),
            "several": "true" if converted.several else "false",
        }
        data = save({"weights": np.frombuffer(numbers, dtype=np.uint8)}, metadata=record)
        write_bytes(folder / f"{key}{SUFFIX}", data)
        _drop_least_recent(folder)


def _drop_least_recent(folder: Path) -> None:
    kept = [(path, path.stat()) for path in folder.glob(f"*{SUFFIX}")]
    left = MAX_KEPT_BYTES
    for path, about in sorted(kept, key=lambda each: each[1].st_mtime, reverse=True):
        left -= about.st_size
        if left < 0:
            path.unlink()


def _hash_of(description: bytes, weights: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(description).digest() + weights).hexdigest()
