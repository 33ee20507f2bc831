"""Work in a process of its own."""

import os

import numpy as np
import pytest
from works import (
    divides,
    doubles,
    ends,
    fails,
    fills_memory,
    is_at_fault,
    is_killed,
    leaves,
    sends_twice,
)

from lesionwise.processes import ProcessEndError, call_in_process
from lesionwise.run.benchmark_job import run_here, run_isolated
from lesionwise.types import no_progress


@pytest.mark.parametrize("run", [run_here, run_isolated])
def test_what_the_work_returns_and_tells_arrives(run):
    told = []
    outcome = run(doubles, 21, lambda *each: told.append(each))
    assert outcome.value == 42
    assert outcome.error == ""
    assert told == [("double", 1, 1)]


def test_peak_memory_is_that_of_the_process():
    outcome = run_isolated(fills_memory, 1, no_progress)  # 10⁹ bytes
    assert outcome.value != os.getpid()
    assert 1.0 < outcome.peak_gb < 2.0
    assert run_here(doubles, 1, no_progress).peak_gb is None


def test_peak_memory_is_not_that_of_a_large_parent():
    held = np.ones(300_000_000)  # 2.4 · 10⁹ bytes
    outcome = run_isolated(fills_memory, 1, no_progress)
    assert held.nbytes > 2e9
    assert 1.0 < outcome.peak_gb < 2.0


@pytest.mark.parametrize("run", [run_here, run_isolated])
def test_a_fault_of_the_input_is_its_line(run):
    outcome = run(is_at_fault, None, no_progress)
    assert outcome.error == "scan.nii.gz: all zero"
    assert outcome.details == ""
    assert outcome.value is None


def test_any_other_failure_is_one_line_with_its_traceback_beside():
    outcome = run_isolated(fails, None, no_progress)
    assert outcome.error == "ArithmeticError: two lines"
    assert "in fails" in outcome.details


@pytest.mark.parametrize(
    ("work", "job", "error"),
    [
        (ends, 7, "its process ended with status 7 and said nothing"),
        (is_killed, None, "its process was ended by SIGKILL (out of memory?)"),
    ],
)
def test_a_process_that_dies_is_a_fault_and_not_the_end(work, job, error):
    assert run_isolated(work, job, no_progress).error == error


def test_a_call_in_a_process_of_its_own_tells_and_returns():
    told = []
    assert call_in_process(sends_twice, 21, told.append) == 42
    assert told == ["begun", ["half", 21]]


def test_its_errors_are_raised_here_and_its_end_says_how():
    with pytest.raises(ZeroDivisionError):
        call_in_process(divides, 0)
    with pytest.raises(ProcessEndError) as ended:
        call_in_process(leaves, 7)
    assert ended.value.code == 7
