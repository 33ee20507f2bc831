"""Where subjects are computed."""

import signal
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from lesionwise.cohort import cluster
from lesionwise.cohort.cluster import Workers, dask_client, default_workers
from lesionwise.cohort.participant import run_subjects
from lesionwise.cohort.subjects import find_subjects
from lesionwise.types import InputError


@pytest.mark.parametrize("by", ["address", "file"])
def test_a_running_cluster_does_the_work(by, dataset, settings, fake_job, tmp_path):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            protocol="tcp",
            processes=False,
            dashboard_address=":0",
        ) as local,
        distributed.Client(local) as client,
    ):
        client.write_scheduler_file(str(tmp_path / "scheduler.json"))
        place = {"address": Workers(scheduler=local.scheduler_address),
                 "file": Workers(scheduler_file=tmp_path / "scheduler.json")}[by]  # fmt: skip
        root = dataset(("01", ""), ("02", ""))
        job, _ = fake_job()
        done = run_subjects(find_subjects(root), root, tmp_path / "out", settings, job, place)
        assert sorted(done.done) == ["01", "02"]
        assert client.scheduler_info()["workers"]  # it stays for its other users


def test_workers_that_would_do_two_subjects_at_once_are_refused():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            processes=False,
            protocol="tcp",
            dashboard_address=":0",
        ) as local,  # fmt: skip
        pytest.raises(InputError, match=r"a worker with 2 threads.*--nthreads 1"),
        dask_client(Workers(scheduler=local.scheduler_address), 1),
    ):
        pass


def test_no_scheduler_is_one_line(monkeypatch, tmp_path):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with (
        pytest.raises(InputError, match=r"^tcp://127\.0\.0\.1:9: no Dask scheduler answers there$"),
        dask_client(Workers(scheduler="tcp://127.0.0.1:9"), 1),
    ):
        pass
    with (
        pytest.raises(InputError, match="no such file; a Dask scheduler writes it"),
        dask_client(Workers(scheduler_file=tmp_path / "none.json"), 1),
    ):
        pass


def test_without_dask_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"lesionwise\[cluster\]"), dask_client(Workers(), 1):
        pass


@pytest.mark.parametrize(
    ("cores", "free_gib", "subjects", "expected"),
    [(8, 100, 50, 8), (8, 9, 50, None), (8, 100, 3, 3), (8, 0.1, 50, 1), (1, 100, 0, 1)],
)
def test_workers_fit_cores_memory_and_subjects(monkeypatch, cores, free_gib, subjects, expected):
    monkeypatch.setattr(cluster, "own_cores", lambda: cores)
    monkeypatch.setattr(cluster, "_free_gib", lambda: free_gib)
    if expected is None:
        expected = int(free_gib / cluster.MEMORY_GIB)
    assert default_workers(subjects) == expected


@pytest.mark.parametrize("dashboard", [False, True])
def test_workers_of_this_machine_listen_here_alone_and_show_pages_only_when_asked(dashboard):
    pytest.importorskip("distributed")
    with dask_client(Workers(1, 1, dashboard=dashboard), 1) as (client, _):
        about = client.scheduler_info()
        addresses = [about["address"], *about["workers"]]
        assert {address.split("://")[1].split(":")[0] for address in addresses} == {"127.0.0.1"}
        page = f"http://127.0.0.1:{about['services']['dashboard']}/health"
        if dashboard:
            assert urlopen(page, timeout=60).status == 200
        else:
            with pytest.raises(HTTPError, match="404"):
                urlopen(page, timeout=60)


def test_a_worker_of_this_machine_leaves_ctrl_c_to_the_call():
    pytest.importorskip("distributed")
    with dask_client(Workers(1, 1), 1) as (client, _):
        heeded = client.submit(signal.getsignal, signal.SIGINT).result(timeout=120)
    assert heeded == signal.SIG_IGN
