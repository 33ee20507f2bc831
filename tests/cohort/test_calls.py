"""Two calls at once in one output folder."""

import os
import subprocess
import sys
import time

import pytest

pytest.importorskip("psutil")

from lesionwise.cohort import calls
from lesionwise.cohort.calls import announced
from lesionwise.io.files import write_json
from lesionwise.types import InputError


def other(folder, **changes):
    """A file that another call left."""
    content = {
        "subjects": ["01", "02"], "host": "elsewhere", "pid": 7, "born": 1.0, "started": 2.0,
    }  # fmt: skip
    path = folder / ".cohort" / "calls" / "aaaa.json"
    write_json(path, content | changes)
    return path


def test_a_call_for_the_same_subject_is_refused_by_name(tmp_path):
    with (
        announced(tmp_path, "one", ["01", "02"]),
        pytest.raises(
            InputError, match=rf"another call \(process {os.getpid()} on .*\) is computing sub-02;"
        ),
        announced(tmp_path, "two", ["02", "03"]),
    ):
        pass


def test_calls_for_different_subjects_go_on_beside_each_other_and_leave_nothing(tmp_path):
    with announced(tmp_path, "one", ["01"]), announced(tmp_path, "two", ["02"]):
        pass
    assert not (tmp_path / ".cohort" / "calls").exists()


def test_a_call_that_died_here_keeps_nobody_waiting(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = other(tmp_path, host=calls.socket.gethostname(), pid=ended.pid)
    with announced(tmp_path, "two", ["01"]):
        assert not path.exists()


def test_a_call_on_another_machine_counts_as_long_as_it_shows_itself(tmp_path):
    path = other(tmp_path)
    with (
        pytest.raises(InputError, match="process 7 on elsewhere"),
        announced(tmp_path, "x", ["01"]),
    ):
        pass
    silent = time.time() - 2 * calls.SILENT_S
    os.utime(path, (silent, silent))
    with announced(tmp_path, "x", ["01"]):
        pass


def test_a_call_shows_itself_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "BEAT_S", 0.01)
    with announced(tmp_path, "one", ["01"]):
        path = tmp_path / ".cohort" / "calls" / "one.json"
        os.utime(path, (1, 1))
        end = time.monotonic() + 20
        while path.stat().st_mtime < 10:
            assert time.monotonic() < end
            time.sleep(0.01)
