"""A private nnU-Net tree in the run's folder, which nnU-Net uses, with its output muted."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionwise.processes import environment
from lesionwise.types import InputError, Progress, no_progress

DATASET = "Dataset001_Lesions"


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's three trees below one folder.

    Attributes:
        root: holds ``raw``, ``preprocessed``, ``results`` and the log ``nnunet.log``.
    """

    root: Path

    @property
    def raw(self) -> Path:
        """The raw data set."""
        return self.root / "raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / DATASET

    @property
    def results(self) -> Path:
        return self.root / "results"

    @contextlib.contextmanager
    def in_use(self, progress: Progress = no_progress) -> Iterator[Progress]:
        """nnU-Net works in these trees; what it prints goes to the log.

        Its environment variables are set for as long as this lasts and restored after. Yields
        ``progress``, which still prints where it did before.

        nnU-Net starts no processes of its own: those that prepare batches are ours, which draw
        from the run's seed.

        Args:
            progress: called with each step.
        """
        require_nnunet()
        self.root.mkdir(parents=True, exist_ok=True)
        wanted = {
            "nnUNet_raw": str(self.root / "raw"),
            "nnUNet_preprocessed": str(self.root / "preprocessed"),
            "nnUNet_results": str(self.results),
            "nnUNet_n_proc_DA": "1",  # planning takes it for a number of threads
            "nnUNet_def_n_proc": "1",
            "nnUNet_compile": "false",
        }
        stdout = sys.stdout
        with (
            environment(wanted),
            (self.root / "nnunet.log").open("a", encoding="utf-8") as log,
            contextlib.redirect_stdout(log),
            quiet(),
        ):
            yield _printing_to(stdout, progress)


def _printing_to(stream: Any, progress: Progress) -> Progress:
    def relay(stage: str, done: int, total: int) -> None:
        with contextlib.redirect_stdout(stream):
            progress(stage, done, total)

    return relay


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of nnU-Net and of what it imports."""
    with warnings.catch_warnings():
        for module in ("nnunetv2", "batchgenerators", "batchgeneratorsv2", "acvl_utils", "torch"):
            warnings.filterwarnings("ignore", module=module)
        yield


def require_nnunet() -> None:
    """Raise InputError where nnunetv2 is not installed."""
    if importlib.util.find_spec("nnunetv2") is None:
        raise InputError("nnunetv2: not installed; pip install 'lesionwise[nnunet]'")
