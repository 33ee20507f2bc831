"""Work in several processes, or in one of its own; ``eval`` is work that any process can import."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lesionwise.processes import (
    THREADS,
    map_processes,
    own_peak_gb,
)
from lesionwise.types import InputError

SLOW = "__import__('time').sleep(1) or __import__('os').getpid()"
OWN = "__import__('os').getpid()"


def test_results_stand_in_the_order_of_the_jobs_and_each_end_is_counted():
    told = []
    jobs = [f"[{SLOW}, 0]", *(f"[{OWN}, {number}]" for number in (1, 2, 3))]
    found = map_processes(eval, jobs, 2, told.append)
    assert [number for _, number in found] == [0, 1, 2, 3]
    assert os.getpid() not in {process for process, _ in found}
    assert told == [1, 2, 3, 4]


@pytest.mark.parametrize(("jobs", "workers"), [([OWN] * 3, 1), ([OWN], 2), ([OWN] * 2, 0)])
def test_one_worker_or_one_job_needs_no_other_process(jobs, workers):
    told = []
    assert map_processes(eval, jobs, workers, told.append) == [os.getpid()] * len(jobs)
    assert told == list(range(1, len(jobs) + 1))
    assert map_processes(eval, [], 2) == []


def test_each_process_computes_in_one_thread_and_this_one_as_before(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert map_processes(os.getenv, THREADS, 2) == ["1"] * len(THREADS)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_an_error_is_raised_and_what_has_not_begun_is_dropped(tmp_path):
    begun = [f"open({str(tmp_path / str(number))!r}, 'x')" for number in range(40)]
    with pytest.raises(ZeroDivisionError):
        map_processes(eval, ["1 / 0", *begun], 2)
    assert len(list(tmp_path.iterdir())) < 40


def test_a_worker_that_is_killed_is_one_clear_line():
    with pytest.raises(InputError, match=r"a worker process was ended \(out of memory\?\)"):
        map_processes(os._exit, [1, 1], 2)


def wait_until(true, seconds=90):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def _heed_interrupts():
    """A shell starts what runs in the background deaf to Ctrl-C; a user's call is not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


SCRIPT = """
import sys
from lesionwise.processes import map_processes
job = "(open({0!r}, 'w').write(str(__import__('os').getpid())), __import__('time').sleep(600))"
map_processes(eval, [job.format(path) for path in sys.argv[1:]], 2)
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_process_that_started_it(tmp_path, sign):
    notes = [tmp_path / "1", tmp_path / "2"]
    call = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, notes)],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    try:
        wait_until(lambda: all(note.exists() and note.read_text() for note in notes))
        workers = [int(note.read_text()) for note in notes]
        os.kill(call.pid, sign)
        assert call.wait(timeout=60) == -sign
        wait_until(lambda: not any(map(psutil.pid_exists, workers)))
    finally:
        call.kill()


def test_the_peak_of_memory_is_at_least_what_is_held():
    assert own_peak_gb() * 1e9 >= psutil.Process().memory_info().rss * 0.9
