"""The visits of a study treated side by side."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial, wraps
from typing import Generic, TypeVar

from lesionwise.processes import own_cores
from lesionwise.types import Study, Visit

T = TypeVar("T")


def each_visit(
    study: Study, work: Callable[[Visit], Visit], *, threads: int | None = None
) -> Study:
    """The study with ``work`` applied to every visit, as ``map_parallel``; its changes stay.

    Example:
        >>> study = Study("01", (Visit({}, session="a"), Visit({}, session="b")))
        >>> named = each_visit(study, lambda visit: replace(visit, session=visit.session.upper()))
        >>> [visit.session for visit in named.visits]
        ['A', 'B']
    """
    return replace(study, visits=map_parallel(work, study.visits, threads=threads))


def map_parallel(
    work: Callable[..., T], *of: Iterable[object], threads: int | None = None
) -> tuple[T, ...]:
    """What ``map(work, *of)`` gives, computed in threads.

    The numerical libraries let go of the interpreter while they compute. ``work`` must change
    nothing that its calls share; then the result is that of one call after the other, to the last
    bit. Where several calls fail, the exception of the earliest is raised.

    Args:
        of: of one length.
        threads: at most so many calls at once; None means ``own_threads()``. 1 is for work that
            changes what all threads share, or that needs much memory.

    Example:
        >>> map_parallel(pow, [2, 3], [10, 2])
        (1024, 9)
    """
    calls = list(zip(*of, strict=True))
    at_once = min(own_threads() if threads is None else threads, len(calls))
    if at_once < 2:
        return tuple(work(*call) for call in calls)
    with ThreadPoolExecutor(at_once) as pool:
        return tuple(pool.map(lambda call: work(*call), calls))


class Beside(Generic[T]):
    """``work(*of)`` in a thread of its own, beside what follows.

    ``work`` must change nothing that the rest uses. Where this process may use one thread alone
    (``own_threads``), it is done when its result is asked for.

    Example:
        >>> power = Beside(pow, 2, 10)
        >>> power.result()
        1024
    """

    def __init__(self, work: Callable[..., T], *of: object) -> None:
        self._work = cache(partial(work, *of))
        self._future: Future[T] | None = None
        if own_threads() > 1:
            pool = ThreadPoolExecutor(1)
            self._future = pool.submit(self._work)
            pool.shutdown(wait=False)  # the thread ends with its work

    def result(self) -> T:
        """What ``work`` gave; raises what it raised."""
        return self._work() if self._future is None else self._future.result()


def own_threads() -> int:
    """How many threads this process may compute in.

    OMP_NUM_THREADS where it is set, as for the numerical libraries and for workers of a cohort.
    Else the cores that the process may run on; one in a process that another one started to work
    beside it, since that one has shared out the cores by processes.

    Example:
        >>> own_threads() >= 1
        True
    """
    stated = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if stated.isdigit() and int(stated) > 0:
        return int(stated)
    if multiprocessing.parent_process() is not None:
        return 1
    return own_cores()


def cached_loader(load: Callable[[], T]) -> Callable[[], T]:
    """A function that calls ``load`` the first time and keeps what it gave.

    Threads that ask at one time wait for the first; a call that fails is tried again.

    Example:
        >>> load = cached_loader(lambda: print("loading") or 42)
        >>> load(), load()
        loading
        (42, 42)
    """
    found: list[T] = []
    loading = threading.Lock()

    @wraps(load)
    def loaded() -> T:
        with loading:
            if not found:
                found.append(load())
        return found[0]

    return loaded
