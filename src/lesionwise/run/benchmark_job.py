"""One piece of work in a process of its own: its peak memory is known, and it can fail alone."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lesionwise.processes import ProcessEndError, call_in_process, own_peak_gb
from lesionwise.types import InputError, Progress, no_progress

Work = Callable[[Any, Progress], Any]


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        value: what the work returned; None where it failed.
        error: why it failed, in one line; "" where it did not.
        details: the traceback of an error that is no ``InputError``.
        peak_gb: most memory that the process, or a process of its own, held at a time, 10⁹ bytes;
            None where the work was not isolated or the system does not tell.
        gpu_gb: the same of PyTorch's tensors on the GPU; None without one.
    """

    value: Any
    error: str = ""
    details: str = ""
    peak_gb: float | None = None
    gpu_gb: float | None = None


def run_isolated(work: Work, job: Any, progress: Progress = no_progress) -> Outcome:
    """Call ``work(job, progress)`` in a fresh process.

    Both have to be picklable, ``work`` by its name. Ctrl-C and the end of this process end it
    (``processes``).
    """
    try:
        outcome = call_in_process(partial(_measured, work), job, lambda report: progress(*report))
    except ProcessEndError as ended:
        return Outcome(None, _ending(ended.code))
    return outcome


def run_here(work: Work, job: Any, progress: Progress = no_progress) -> Outcome:
    """The same in this process: faster to start, without peak memory."""
    try:
        return Outcome(work(job, progress))
    except Exception as error:
        return _failed(error)


def _measured(work: Work, job: Any, send: Callable[[Any], None]) -> Outcome:
    last = 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.2 or done == total:  # a line of progress can show no more
            last = now
            send((stage, done, total))

    outcome = run_here(work, job, progress)
    return replace(outcome, peak_gb=own_peak_gb(), gpu_gb=_gpu_gb())


def _failed(error: Exception) -> Outcome:
    if isinstance(error, InputError):
        return Outcome(None, str(error))
    line = " ".join(str(error).split())[:300]
    return Outcome(None, f"{type(error).__name__}: {line}", traceback.format_exc())


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with status {code} and said nothing"


def _gpu_gb() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_allocated()) / 1e9
