"""Calls of the participant level that are at work in one output folder at the same time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lesionwise.cohort.records import STATE
from lesionwise.io.checked import read_checked
from lesionwise.io.files import write_json
from lesionwise.types import InputError

BEAT_S = 5.0
"""How often a call shows that it is alive."""
SILENT_S = 60.0
"""A call on another machine that has not shown it for so long is taken for dead."""


@dataclass(frozen=True)
class Call:
    """One call of the participant level.

    Attributes:
        subjects: labels that it computes.
        host, pid, born: its machine, process, and when that process began (seconds of its clock).
        started: when the call began, which decides which of two calls continues.
    """

    subjects: tuple[str, ...]
    host: str
    pid: int
    born: float
    started: float


@contextmanager
def announced(output: Path, run: str, subjects: Sequence[str]) -> Iterator[None]:
    """Keep other calls from computing the same subjects while the block runs.

    Raises:
        InputError: If another call is computing one of them; it names subjects, process and
            machine.
    """
    own = output / STATE / "calls" / f"{run}.json"
    call = Call(
        tuple(subjects), socket.gethostname(), os.getpid(), _born(os.getpid()) or 0.0, time.time()
    )
    write_json(own, vars(call))
    stop = threading.Event()
    try:
        _check_others(own, call)
        beating = threading.Thread(target=_beat, args=(own, stop), daemon=True)
        beating.start()
        yield
    finally:
        stop.set()
        own.unlink(missing_ok=True)
        with suppress(OSError):
            own.parent.rmdir()


def _check_others(own: Path, call: Call) -> None:
    now = own.stat().st_mtime  # by the clock of the disk
    for path in sorted(own.parent.glob("*.json")):
        if path == own:
            continue
        try:
            other = read_checked(path, Call)
            silent_s = now - path.stat().st_mtime
        except (InputError, OSError):
            continue
        if not _is_alive(other, silent_s):
            path.unlink(missing_ok=True)
            continue
        both = [label for label in call.subjects if label in set(other.subjects)]
        if both and (other.started, path.name) < (call.started, own.name):
            names = ", ".join(f"sub-{label}" for label in both[:3])
            more = f" and {len(both) - 3} more" if len(both) > 3 else ""
            raise InputError(
                f"{own.parents[2]}: another call (process {other.pid} on {other.host}) is "
                f"computing {names}{more}; wait for it, or choose other subjects"
            )


def _is_alive(call: Call, silent_s: float) -> bool:
    if call.host == socket.gethostname():
        return _born(call.pid) == call.born
    return silent_s < SILENT_S


def _born(pid: int) -> float | None:
    """When a process of this machine began; None where there is none."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT_S):
        with suppress(OSError):
            os.utime(path)
