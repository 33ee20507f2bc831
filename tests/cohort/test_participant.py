"""Each subject once, whatever dies: a pool of two worker processes, and records on disk."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pandas as pd
import pytest

pytest.importorskip("distributed")

from lesionwise.cohort.cluster import Workers
from lesionwise.cohort.participant import _result, check_apart, run_subjects, with_further
from lesionwise.cohort.stopping import Stopped, StopRequest
from lesionwise.cohort.subjects import find_subjects
from lesionwise.cohort.work import Order, _done, work_on
from lesionwise.types import InputError

TWO = Workers(number=2, threads=1)


def snapshot(output):
    """Every file that is not hidden, with its content and its time."""
    files = (p for p in output.rglob("*") if p.is_file() and "/." not in p.as_posix())
    return {p.relative_to(output).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


@pytest.fixture
def go(dataset, settings, tmp_path):
    """Run the participant level over subjects 01 … 06 with two workers."""
    root = dataset(*[(f"{number:02d}", "") for number in range(1, 7)])

    def run(job, **changes):
        return run_subjects(
            find_subjects(root), root, tmp_path / "out", settings | changes, job, TWO
        )

    return run


@pytest.fixture
def one_process(monkeypatch, client_in_this_process):
    """Called where from then on nothing dies, so that workers need no process of their own."""
    name = "lesionwise.cohort.participant.dask_client"
    return lambda: monkeypatch.setattr(name, client_in_this_process)


def test_a_subject_whose_worker_is_killed_is_begun_again_and_the_others_are_not(
    go, fake_job, tmp_path
):
    job, begun = fake_job(dies="03", times=1)
    done = go(job)
    assert sorted(done.done) == ["01", "02", "03", "04", "05", "06"]
    assert not done.failed
    assert begun() == {"01": 1, "02": 1, "03": 2, "04": 1, "05": 1, "06": 1}
    assert (tmp_path / "out" / "sub-03" / "anat" / "whole").exists()
    assert not list((tmp_path / "out").rglob("half"))
    assert json.loads((tmp_path / "out/sub-03/cohort.json").read_text())["attempts"] == 2

    before = snapshot(tmp_path / "out" / "sub-01")
    again = go(job)
    assert not again.done
    assert len(again.kept) == 6
    assert begun()["01"] == 1
    assert snapshot(tmp_path / "out" / "sub-01") == before


def test_a_subject_that_kills_every_worker_is_listed_with_one_that_fails(
    go, fake_job, tmp_path, one_process
):
    job, begun = fake_job(fails={"05": "sub-05: no brain found", "06": "bug"}, dies="02", times=99)
    done = go(job)
    assert sorted(done.done) == ["01", "03", "04"]
    assert begun()["02"] == 3
    table = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t").set_index("subject")["error"]
    assert table.to_dict() == {
        "sub-02": "sub-02: its worker died 3 times (killed, or out of memory)",
        "sub-05": "sub-05: no brain found",
        "sub-06": "sub-06: KeyError: 'bug'",
    }
    assert done.failed == table.to_dict()
    details = json.loads((tmp_path / "out/.cohort/failed/sub-06.json").read_text())["details"]
    assert "raise KeyError" in details

    one_process()
    again = go(fake_job()[0])
    assert sorted(again.done) == ["02", "05", "06"]
    assert not again.failed
    assert not (tmp_path / "out" / "failures.tsv").exists()


SCRIPT = """
import sys, time
from pathlib import Path
from lesionwise.cohort.cluster import Workers
from lesionwise.cohort.participant import run_subjects
from lesionwise.cohort.stopping import Stopped
from lesionwise.cohort.subjects import find_subjects
import lesionwise

def make(log):
    def is_quick():
        for number in (1, 2):  # the first two subjects that any worker begins
            try:
                (log / f"quick-{number}").touch(exist_ok=False)
                return True
            except FileExistsError:
                continue
        return False

    def job(subject, folder, settings):
        anat = folder / f"sub-{subject.label}" / "anat"
        anat.mkdir(parents=True, exist_ok=True)
        (anat / "half").write_text("half")
        if not is_quick():
            (log / f"waits-{subject.label}").touch()
            time.sleep(3600)
        (anat / "half").rename(anat / "whole")
        return {}
    return job

if __name__ == "__main__":
    root, out, log = map(Path, sys.argv[1:])
    settings = {"threshold": 0.5, "version": lesionwise.__version__}
    try:
        run_subjects(find_subjects(root), root, out, settings, make(log), Workers(2, 1))
    except Stopped as stop:
        sys.exit(stop.status)
"""


def _heed_interrupts():
    """A shell starts what runs in the background deaf to Ctrl-C; a user's call is not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_call_that_is_killed_leaves_what_is_done_and_nothing_half(
    go, dataset, fake_job, tmp_path, sign, one_process
):
    """Which subjects are done by then is up to Dask, which shares them out and takes some back.

    A worker does one subject at a time and sets its result in place before it begins the next. So
    once two subjects wait for ever, nothing else is at work: the two quick ones are in their
    places, and no more will be.
    """
    script, log, out = tmp_path / "call.py", tmp_path / "log", tmp_path / "out"
    script.write_text(SCRIPT)
    log.mkdir()
    call = subprocess.Popen(
        [sys.executable, str(script), str(dataset()), str(out), str(log)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    try:
        # No clock decides: on a busy machine it takes minutes until both workers are up.
        while len(list(log.glob("waits-*"))) < 2:
            assert call.poll() is None, call.communicate()[1]
            time.sleep(0.05)
        if sign == signal.SIGINT:
            os.killpg(call.pid, sign)  # as a terminal does: to the workers too
        else:
            os.kill(call.pid, sign)
        _, said = call.communicate()  # until the workers, which share its stderr, have ended too
    finally:
        call.kill()
    assert call.returncode == (-signal.SIGKILL if sign == signal.SIGKILL else 128 + sign)
    assert "Traceback" not in said
    finished = {path.name.removeprefix("sub-") for path in out.glob("sub-*")}
    assert len(finished) == 2
    assert not finished & {path.name.removeprefix("waits-") for path in log.glob("waits-*")}
    assert all((out / f"sub-{label}" / "anat" / "whole").exists() for label in finished)

    one_process()
    job, begun = fake_job()
    done = go(job)
    assert begun() == dict.fromkeys({"01", "02", "03", "04", "05", "06"} - finished, 1)
    assert set(done.kept) == finished
    assert not list(out.rglob("half"))


def test_a_result_whose_worker_died_is_waited_for_but_not_when_the_work_is_to_stop():
    request, asked = StopRequest(), []

    def result(timeout):
        asked.append(timeout)
        if len(asked) == 3:
            request.note(signal.SIGINT)
        raise TimeoutError

    client = SimpleNamespace(status="running")
    with pytest.raises(Stopped):
        _result(client, SimpleNamespace(result=result), request)
    assert len(asked) == 3
    gone = SimpleNamespace(status="closed")
    with pytest.raises(TimeoutError):
        _result(gone, SimpleNamespace(result=result), StopRequest())


def test_damaged_records_changed_scans_and_lost_results_are_done_again(
    go, dataset, fake_job, tmp_path, one_process
):
    one_process()
    job, begun = fake_job()
    go(job)
    out, scans = tmp_path / "out", dataset()
    record = out / "sub-01" / "cohort.json"
    record.write_bytes(record.read_bytes()[:40])
    (out / "sub-02" / "cohort.json").write_text("[]")
    (scans / "sub-03" / "anat" / "sub-03_FLAIR.nii.gz").write_text("another scan")
    (out / "sub-04" / "anat" / "whole").unlink()
    os.utime(scans / "sub-05" / "anat" / "sub-05_FLAIR.nii.gz")
    (out / "cohort.json").write_text("{")
    done = go(job)
    assert sorted(done.done) == ["01", "02", "03", "04"]
    assert sorted(done.kept) == ["05", "06"]
    assert [note.split(": ")[1] for note in done.notes] == [
        "damaged; the subject is done again",
        "damaged; the subject is done again",
        "its scans have changed; it is done again",
        "results are missing or cut off; the subject is done again",
    ]
    assert begun()["05"] == 1
    assert go(job).done == ()


def test_a_session_that_is_renamed_is_done_again_under_its_new_name(
    dataset, settings, fake_job, tmp_path, one_process
):
    one_process()
    root, job = dataset(("01", "A")), fake_job()[0]

    def run():
        return run_subjects(find_subjects(root), root, tmp_path / "out", settings, job)

    run()
    anat = root / "sub-01" / "ses-B" / "anat"
    (root / "sub-01" / "ses-A").rename(anat.parent)
    (anat / "sub-01_ses-A_FLAIR.nii.gz").rename(anat / "sub-01_ses-B_FLAIR.nii.gz")
    assert run().done == ("01",)
    record = json.loads((tmp_path / "out/sub-01/cohort.json").read_text())
    assert record["inputs"][0]["path"] == "sub-01/ses-B/anat/sub-01_ses-B_FLAIR.nii.gz"
    assert run().kept == ("01",)


def test_calls_that_share_a_folder_leave_each_others_work_alone(
    go, fake_job, tmp_path, one_process
):
    one_process()
    other = tmp_path / "out" / ".cohort" / "making" / "sub-99@1234"
    ours = other.with_name("sub-01@1234")
    for folder in (other, ours):
        folder.mkdir(parents=True)
    go(fake_job()[0])
    assert other.is_dir()
    assert not ours.exists()


def test_a_worker_that_was_taken_for_dead_puts_nothing_in_place(dataset, settings, tmp_path):
    """The folder is taken from it by a second attempt, which ends first."""
    root, out = dataset(("01", "")), tmp_path / "out"
    out.mkdir()
    (out / "cohort.json").write_text("{}")
    subject = find_subjects(root)[0]
    order = Order(root, out, settings, "run", 0)

    def quick(subject, folder, settings):
        (folder / "sub-01").mkdir(exist_ok=True)
        (folder / "sub-01" / "by").write_text("second")
        return {}

    def slow(subject, folder, settings):
        inner = _done(subject, order, quick, 0.0)
        assert inner.attempts == 2
        (folder / "sub-01").mkdir(parents=True)
        (folder / "sub-01" / "by").write_text("first")
        return {}

    result = work_on(subject, order, slow)
    assert "another worker took it over" in result.error
    assert (out / "sub-01" / "by").read_text() == "second"


def test_other_settings_are_refused_in_one_line_before_anything_is_begun(
    go, fake_job, tmp_path, one_process
):
    one_process()
    job, _ = fake_job()
    go(job)
    before = snapshot(tmp_path / "out")
    with pytest.raises(InputError, match=r"begun with threshold 0\.5, now it is 0\.7") as fault:
        go(job, threshold=0.7)
    assert "\n" not in str(fault.value)
    assert snapshot(tmp_path / "out") == before


def test_a_folder_with_results_of_another_command_is_refused(go, fake_job, tmp_path):
    (tmp_path / "out" / "sub-01" / "anat").mkdir(parents=True)
    with pytest.raises(InputError, match="holds sub-01, which cohort did not write"):
        go(fake_job()[0])


def test_results_never_go_among_the_scans(tmp_path):
    for place in (tmp_path, tmp_path / "sub-01", tmp_path / "sub-01" / "anat"):
        with pytest.raises(InputError, match="would be among the scans"):
            check_apart(tmp_path, place)
    check_apart(tmp_path, tmp_path / "derivatives" / "lesionwise")


def test_a_changed_scan_of_another_contrast_makes_a_subject_again(
    dataset, settings, fake_job, tmp_path, monkeypatch, client_in_this_process
):
    monkeypatch.setattr("lesionwise.cohort.participant.dask_client", client_in_this_process)
    root = dataset(("01", ""), ("02", ""))
    other = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    other.write_text("one")
    job, begun = fake_job()

    def go(*wanted):
        subjects = [with_further(subject, wanted) for subject in find_subjects(root)]
        return run_subjects(subjects, root, tmp_path / "out", settings, job).done

    assert len(go("flair", "t1w")) == 2  # sub-02 has no T1w, which is its job's business
    assert not go("flair", "t1w")
    other.write_text("two")
    assert go("flair", "t1w") == ("01",)
    assert begun() == {"01": 2, "02": 1}
