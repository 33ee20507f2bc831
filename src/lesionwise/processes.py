"""Work in processes of this machine: many calls shared out, or one call by itself.

What both functions promise:

- Order: results stand in the order of the jobs, whichever ends first.
- Errors: the first error that comes up is raised; calls that have not begun are dropped, and those
  at work come to their end first, so that they leave nothing half-written. A process that dies is
  an error too.
- Ctrl-C: it is raised in this process alone, and ends the others at once, whatever they are at.
  They also end when this process ends in any other way, even killed.
- Threads: each of several processes computes in one thread; a process by itself in as many as
  this one.

Processes are started afresh ("spawn") on every system, so work and jobs must be picklable: the
work a function of a module, or a ``functools.partial`` of one. A cohort has workers of its own
(``cohort.cluster``), which may run on other machines.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from lesionwise.types import InputError

J = TypeVar("J")
T = TypeVar("T")

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
"""Environment variables from which numerical libraries take their number of threads."""


class ProcessEndError(Exception):
    """A process ended before it returned anything.

    Attributes:
        code: exit status; negative, the number of the signal that ended it.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(f"the process ended with status {code}")
        self.code = code


def own_cores() -> int:
    """Cores this process may run on, where the system says so; else all there are.

    Example:
        >>> own_cores() >= 1
        True
    """
    if hasattr(os, "sched_getaffinity"):  # neither on Windows nor on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_peak_gb() -> float | None:
    """Most memory that this process, or one it started, held at a time, 10⁹ bytes.

    None where the system does not tell (Windows without psutil).

    Example:
        >>> peak_gb = own_peak_gb()
        >>> peak_gb is None or 0.001 < peak_gb < 10_000
        True
    """
    try:
        import resource
    except ImportError:  # Windows
        return _windows_peak_gb()
    unit = 1 if sys.platform == "darwin" else 1024
    own = _linux_peak_kb() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) * unit / 1e9


def _linux_peak_kb() -> int:
    """The process's peak as Linux tells it; 0 elsewhere.

    ``ru_maxrss`` of a process starts at what its parent held when it was made.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line), 0)


def _windows_peak_gb() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    return None if peak is None else peak / 1e9


def map_processes(
    work: Callable[[J], T],
    jobs: Sequence[J],
    workers: int,
    on_done: Callable[[int], None] = lambda done: None,
) -> list[T]:
    """``[work(job) for job in jobs]``, computed in several processes.

    Args:
        workers: processes, at most one a job. With fewer than two, or one job, everything is
            computed in this process.
        on_done: called with the number of jobs that have ended, after each.

    Raises:
        InputError: If a process is ended from outside, mostly for want of memory.

    Example:
        >>> map_processes(abs, [-1, 2, -3], workers=1)
        [1, 2, 3]
    """
    count = min(workers, len(jobs))
    if count < 2:
        results = []
        for done, job in enumerate(jobs, start=1):
            results.append(work(job))
            on_done(done)
        return results
    spawn = get_context("spawn")
    watched, held = spawn.Pipe(duplex=False)
    found: dict[int, T] = {}
    # The libraries read these variables when they are loaded, which is before any of our code runs
    # in a new process, so they have to be in the environment that it inherits.
    one_thread_each = environment(dict.fromkeys(THREADS, "1"))
    with watched, held, one_thread_each:
        pool = ProcessPoolExecutor(count, spawn, _begin_worker, (watched,))
        try:
            numbers = {pool.submit(work, job): number for number, job in enumerate(jobs)}
            for done, future in enumerate(as_completed(numbers), start=1):
                found[numbers[future]] = future.result()
                on_done(done)
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was ended (out of memory?); use fewer --workers"
            ) from error
        except Exception:
            raise
        except BaseException:  # Ctrl-C: what is being worked on is not waited for
            held.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    return [found[number] for number in range(len(jobs))]


def call_in_process(
    work: Callable[[J, Callable[[Any], None]], T],
    job: J,
    on_message: Callable[[Any], None] = lambda message: None,
) -> T:
    """``work(job, send)`` in a process of its own, whose memory and whose end are its own.

    Args:
        work: what it passes to ``send`` comes to ``on_message`` here, in order, while it works.

    Raises:
        ProcessEndError: If the process ended before ``work`` did.

    Example:
        >>> volumes_ml = {"sub-01": 12.5}
        >>> call_in_process(volumes_ml.get, "sub-01")  # get(job, send)  # doctest: +SKIP
        12.5
    """
    spawn = get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    watched, held = spawn.Pipe(duplex=False)
    with here, held:
        process = spawn.Process(target=_call, args=(watched, there, work, job))
        process.start()
        # Only the process may hold its ends: else its death would not end the pipe.
        there.close()
        watched.close()
        try:
            while True:
                kind, content = here.recv()
                if kind == "message":
                    on_message(content)
                    continue
                process.join()
                break
        except EOFError:
            process.join()
            raise ProcessEndError(process.exitcode) from None
        finally:
            held.close()
            process.join()
    if kind == "error":
        raise content
    result: T = content
    return result


def _call(
    watched: Connection,
    there: Connection,
    work: Callable[[Any, Callable[[Any], None]], Any],
    job: Any,
) -> None:
    _begin_worker(watched)
    try:
        answer = ("result", work(job, lambda message: there.send(("message", message))))
    except Exception as error:
        answer = ("error", error)
    there.send(answer)
    there.close()


def _begin_worker(watched: Connection) -> None:
    """Leave Ctrl-C to the process that started this one, and end with it."""
    # A handler, not SIG_IGN: programs that the work starts would inherit that.
    signal.signal(signal.SIGINT, _pass)
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()


def _pass(number: int, frame: FrameType | None) -> None:
    """Nothing."""


def _end_with(watched: Connection) -> None:
    """End this process once the other end of a pipe is closed, be it by the end of its owner.

    Nobody ever writes to the pipe, so nothing is held that a killed process could keep.
    """
    with suppress(OSError, EOFError):
        watched.poll(None)
    os._exit(1)


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Environment variables with other values, for as long as this lasts.

    Example:
        >>> with environment({"OMP_NUM_THREADS": "1"}):
        ...     os.environ["OMP_NUM_THREADS"]
        '1'
    """
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
