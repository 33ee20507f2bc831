"""Checkpoints for resuming a killed training; one of them is always complete."""

from __future__ import annotations

import io
import logging
import secrets
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lesionwise.types import InputError

LAST = "last.ckpt"
PREVIOUS = "previous.ckpt"

log = logging.getLogger(__name__)


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place, renames it there, and keeps the one before.

    A kill or a full disk leaves the last whole checkpoint. Raises InputError where the folder
    cannot be written.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                file.write(buffer.getbuffer())
            if target.exists():
                target.replace(target.with_name(PREVIOUS))
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(f"{target}: cannot be written ({error.strerror})") from error


def checkpoint_to_resume(folder: Path) -> str | None:
    """The newest checkpoint in a folder that can be read; None where there is none.

    A damaged one is named in a warning, and the one before is taken.

    Raises:
        InputError: If there are checkpoints, but none can be read.

    Example:
        >>> checkpoint_to_resume(Path(".")) is None
        True
        >>> torch.save({"epoch": 3}, "last.ckpt")
        >>> checkpoint_to_resume(Path("."))
        'last.ckpt'
    """
    damaged = ""
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch names no common ancestor of what damaged files raise
            reason = " ".join(str(error).split())[:80] or type(error).__name__
            damaged = damaged or f"{path}: damaged checkpoint ({reason})"
            log.warning("%s", f"{path}: damaged checkpoint ({reason})")
            continue
        return str(path)
    if damaged:
        raise InputError(f"{damaged}; delete it to start again")
    return None
