import os
import threading

import numpy as np
import pytest
import SimpleITK

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess import visits
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.filters import AnisotropicDiffusion, Denoise
from lesionwise.preprocess.geometry import Resample, one_thread
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.visits import (
    Beside,
    cached_loader,
    each_visit,
    map_parallel,
    own_threads,
)
from lesionwise.types import InputError, Study, Visit


def waiting_for(count):
    """Work that ends only while ``count`` calls are at it."""
    together = threading.Barrier(count, timeout=20)

    def work(item):
        together.wait()
        return item

    return work


def test_visits_are_treated_at_the_same_time():
    study = Study("s", (Visit({}, session="1"), Visit({}, session="2")))
    after = each_visit(study, waiting_for(2), threads=2)
    assert [visit.session for visit in after.visits] == ["1", "2"]


def test_one_thread_is_that_of_the_caller():
    def work(item):
        return threading.get_ident()

    assert set(map_parallel(work, (1, 2, 3), threads=1)) == {threading.get_ident()}


def test_the_earliest_fault_is_raised():
    first_failed = threading.Event()

    def work(item):
        if item == 1:
            first_failed.set()
            raise InputError("second")
        first_failed.wait(20)
        raise InputError("first")

    with pytest.raises(InputError, match="first"):
        map_parallel(work, (0, 1), threads=2)


def test_work_beside_goes_on_while_the_caller_does(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    both = waiting_for(2)
    beside = Beside(both, "thread")
    assert both("caller") == "caller"
    assert beside.result() == "thread"


def test_with_one_thread_work_beside_is_done_when_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    calls = []
    beside = Beside(calls.append, 1)
    assert calls == []
    beside.result()
    beside.result()
    assert calls == [1]


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_fault_of_work_beside_is_raised_where_its_result_is_asked_for(monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)

    def work():
        raise InputError("no brain")

    beside = Beside(work)
    with pytest.raises(InputError, match="no brain"):
        beside.result()


def test_threads_follow_what_the_process_was_given(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert own_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 5, 7}, raising=False)
    assert own_threads() == 4
    monkeypatch.setattr(visits.multiprocessing, "parent_process", lambda: "a process")
    assert own_threads() == 1


def test_what_is_read_once_is_read_by_one_thread():
    calls = []
    work = waiting_for(2)

    @cached_loader
    def read():
        calls.append(1)
        return object()

    found = map_parallel(lambda item: (work(item), read())[1], (0, 1), threads=2)
    assert found[0] is found[1]
    assert len(calls) == 1


def test_blocks_of_one_thread_may_overlap():
    setting = SimpleITK.ProcessObject
    before = setting.GetGlobalDefaultNumberOfThreads()
    setting.SetGlobalDefaultNumberOfThreads(3)
    try:
        outer, inner = one_thread(), one_thread()
        outer.__enter__()
        inner.__enter__()
        outer.__exit__(None, None, None)
        assert setting.GetGlobalDefaultNumberOfThreads() == 1
        inner.__exit__(None, None, None)
        assert setting.GetGlobalDefaultNumberOfThreads() == 3
    finally:
        setting.SetGlobalDefaultNumberOfThreads(before)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(ExtractBrain(), marks=pytest.mark.slow),
        N4(),
        RegisterToHalfway(),
        Denoise(),
        AnisotropicDiffusion(),
    ],
    ids=lambda step: type(step).__name__,
)
def test_visits_map_parallel_give_the_same_to_the_last_bit(step, pair, monkeypatch):
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        found.append(step(pair))
    for one, other in zip(*(study.visits for study in found), strict=True):
        assert np.array_equal(one.to_native, other.to_native)
        assert np.array_equal(one.scans["flair"].array, other.scans["flair"].array)
        if isinstance(step, ExtractBrain):
            assert np.array_equal(one.brain.array, other.brain.array)


@pytest.fixture(scope="module")
def pair(shared):
    names = [f"ses-{n}/anat/sub-openlong01_ses-{n}_FLAIR.nii.gz" for n in ("01", "02")]
    scans = [read_volume(shared(f"data/sub-openlong01/{name}")) for name in names]
    return Resample(4.0)(Study("pair", tuple(Visit({"flair": scan}) for scan in scans)))
