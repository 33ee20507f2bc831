"""One piece of work in a process of its own: its peak memory is known, and it can fail alone."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lesionwise.types import InputError, Progress, silent

Work = Callable[[Any, Progress], Any]


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        value: what the work returned; None where it failed.
        error: why it failed, in one line; "" where it did not.
        details: the traceback of an error that is no ``InputError``.
        peak_gb: most memory that the process, or a process of its own, held at a time, 10⁹ bytes;
            None where the work was not isolated.
        gpu_gb: the same of PyTorch's tensors on the GPU; None without one.
    """

    value: Any
    error: str = ""
    details: str = ""
    peak_gb: float | None = None
    gpu_gb: float | None = None


def run_isolated(work: Work, job: Any, progress: Progress = silent) -> Outcome:
    """Call ``work(job, progress)`` in a fresh process.

    Both have to be picklable, ``work`` by its name. An interruption is raised here and ends
    the process; so does the end of this one.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_child, args=(there, work, job, os.getpid()))
    process.start()
    there.close()
    outcome: Outcome | None = None
    try:
        while outcome is None:
            try:
                kind, message = here.recv()
            except EOFError:
                break
            if kind == "progress":
                progress(*message)
            else:
                outcome = message
        process.join()
    finally:
        if process.is_alive():
            process.terminate()
            process.join()
        here.close()
    if outcome is None:
        return Outcome(None, _ending(process.exitcode))
    if outcome.error == "interrupted":
        raise KeyboardInterrupt
    return outcome


def run_here(work: Work, job: Any, progress: Progress = silent) -> Outcome:
    """The same in this process: faster to start, without peak memory."""
    try:
        return Outcome(work(job, progress))
    except Exception as error:
        return _failed(error)


def _child(pipe: Connection, work: Work, job: Any, parent: int) -> None:
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    last = 0.0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.2 or done == total:
            last = now
            pipe.send(("progress", (stage, done, total)))

    try:
        outcome = Outcome(work(job, progress))
    except KeyboardInterrupt:
        outcome = Outcome(None, "interrupted")
    except Exception as error:
        outcome = _failed(error)
    measured = Outcome(outcome.value, outcome.error, outcome.details, _peak_gb(), _gpu_gb())
    pipe.send(("outcome", measured))
    pipe.close()


def _follow(parent: int) -> None:
    """End this process once its parent is gone, so that a killed benchmark leaves none behind."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


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


def _peak_gb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    own = _own_peak_kb() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) * unit / 1e9


def _own_peak_kb() -> int:
    """The process's peak as Linux tells it; 0 elsewhere.

    ``ru_maxrss`` of a process starts at what its parent held when it was made.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line), 0)


def _gpu_gb() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_allocated()) / 1e9
