"""Dask workers: processes of this machine, or a cluster that runs already."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lesionwise.processes import own_cores
from lesionwise.types import InputError

if TYPE_CHECKING:
    from distributed import Client, Security

MEMORY_GIB = 3.0
"""Memory that one worker is given where the number of workers is not said."""
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows ends a process at once by any signal."""
CONNECT_S = 30.0
LOCAL_CONNECT_S = 600.0
"""How long a running scheduler may take to answer."""


@dataclass(frozen=True)
class Workers:
    """Where subjects are computed; nothing of this changes what is computed.

    Attributes:
        number: processes on this machine; None: one a core, as far as each has ``MEMORY_GIB``.
        threads: of each process; None: the machine's cores shared out, or on a cluster
            whatever each worker was started with.
        scheduler: address of a running Dask scheduler, such as ``tcp://node1:8786``.
        scheduler_file: a file that a running Dask scheduler wrote.
        dashboard: Dask's own page about the work, at this machine's loopback address.
    """

    number: int | None = None
    threads: int | None = None
    scheduler: str = ""
    scheduler_file: Path | None = None
    dashboard: bool = False

    @property
    def remote(self) -> bool:
        return bool(self.scheduler) or self.scheduler_file is not None


def default_workers(subjects: int) -> int:
    """One process a core, but none without ``MEMORY_GIB`` free and none without a subject."""
    fitting = int(_free_gib() / MEMORY_GIB)
    return max(1, min(own_cores(), fitting, subjects))


def _free_gib() -> float:
    """What this process may still use: of the machine, or of its control group if that is less."""
    import psutil

    free = float(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    with suppress(OSError, ValueError):
        free = min(free, int(limit.read_text("ascii")) - int(used.read_text("ascii")))
    return free / 2**30


@contextmanager
def dask_client(workers: Workers, subjects: int) -> Iterator[tuple[Client, int]]:
    """A client of the workers, and the threads of each (0: as they were started).

    Processes of this machine end with the block, whatever they are at; tasks on a running
    cluster that have not begun are taken back.

    Raises:
        InputError: If Dask is not installed, no scheduler answers, or a cluster's worker would
            do several subjects at once in one process.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        raise InputError(
            "cohort: needs Dask, which is not installed: pip install 'lesionwise[cluster]'"
        ) from error
    del distributed
    if workers.remote:
        with _running(workers) as client:
            yield client, workers.threads or 0
        return
    number = workers.number or default_workers(subjects)
    threads = workers.threads or max(1, own_cores() // number)
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(pools, threads),
        # deaths are counted per subject by the subject's own claim
        "distributed.scheduler.allowed-failures": 1_000_000,
        # a queued subject waits for whichever worker is free first
        "distributed.scheduler.worker-saturation": 1.0,
        # native code may hold the interpreter for minutes, and the nanny sees deaths at once
        "distributed.scheduler.worker-ttl": None,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
        "distributed.admin.tick.limit": "10 minutes",
        # processes of this machine answer late when it is busy, but they do answer
        "distributed.comm.timeouts.connect": LOCAL_CONNECT_S,
        "distributed.worker.preload": ["lesionwise.cohort.worker_setup"],
    }
    if not workers.dashboard:  # a server of no pages is left, on the loopback address
        settings["distributed.scheduler.http.routes"] = []
        settings["distributed.worker.http.routes"] = []
    with dask.config.set(settings), _local(number, workers.dashboard) as client:
        yield client, threads


@contextmanager
def _local(number: int, dashboard: bool) -> Iterator[Client]:
    from distributed import Client, LocalCluster
    from distributed.core import Status

    security = _security()
    # Workers are killed while messages to them are on their way. The late complaints come after
    # the cluster has closed and has given up silencing its logs.
    logging.getLogger("distributed.batched").setLevel(logging.CRITICAL)
    cluster = LocalCluster(
        n_workers=number,
        threads_per_worker=1,
        processes=True,
        memory_limit=int(_free_gib() * 2**30 / number),
        host="127.0.0.1",
        protocol="tcp" if security is None else "tls",
        security=security,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": dashboard},
        silence_logs=logging.CRITICAL,
    )
    client = Client(cluster, security=security, timeout=LOCAL_CONNECT_S)
    try:
        yield client
    finally:
        for nanny in cluster.workers.values():
            nanny.status = Status.closing_gracefully  # its worker is not started again
            if nanny.pid:
                os.kill(nanny.pid, KILL)  # at once, whatever it is at
        with suppress(TimeoutError):
            client.close(timeout=10)
            cluster.close(timeout=30)


def _security() -> Security | None:
    """Certificates for this call alone; None where the package that makes them is missing.

    Without them, scheduler and workers still listen on the loopback address only.
    """
    from distributed import Security

    try:
        security: Security = Security.temporary()
    except ImportError:
        return None
    return security


@contextmanager
def _running(workers: Workers) -> Iterator[Client]:
    from distributed import Client

    name = workers.scheduler or str(workers.scheduler_file)
    if workers.scheduler_file is not None and not workers.scheduler_file.is_file():
        raise InputError(f"{name}: no such file; a Dask scheduler writes it when it starts")
    try:
        if workers.scheduler_file is not None:
            client = Client(scheduler_file=str(workers.scheduler_file), timeout=CONNECT_S)
        else:
            client = Client(workers.scheduler, timeout=CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"{name}: no Dask scheduler answers there") from error
    try:
        for address, about in client.scheduler_info(n_workers=-1)["workers"].items():
            if about["nthreads"] > 1:
                raise InputError(
                    f"{address}: a worker with {about['nthreads']} threads would process as many "
                    "subjects at once; start it with --nthreads 1"
                )
        yield client
    finally:
        client.close(timeout=5)
