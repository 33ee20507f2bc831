"""What a person at the terminal sees of a cohort; at the end the real model, with a real kill."""

import json
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("distributed")

from lesionwise.cohort import participant
from lesionwise.io.files import read_json
from lesionwise.run.segment import segment
from lesionwise.run.simulate import simulate


@pytest.fixture
def call(call, monkeypatch, client_in_this_process):
    """The command line, its subcommand named, with a worker in this process."""
    monkeypatch.setattr(participant, "dask_client", client_in_this_process)
    return lambda *arguments: call("cohort", *arguments)


def test_an_unknown_participant_is_one_line_and_status_2(call, dataset, tmp_path):
    root = dataset(("01", ""), ("02", ""))
    status, _, said = call(root, tmp_path / "out", "participant", "--participant_label", "01", "7")
    assert status == 2
    assert said == f"lesionwise: {root}: no participant 7; there are 01, 02\n"
    assert not (tmp_path / "out").exists()


def test_failures_are_lines_and_status_2_and_the_line_before_counts(
    call, dataset, fake_job, tmp_path, monkeypatch
):
    job, _ = fake_job(fails={"02": "sub-02: no brain found"})
    monkeypatch.setattr(participant, "segment_or_compare", lambda *a, device: job(*a))
    root = dataset(("01", ""), ("02", ""), ("03", ""))
    status, shown, said = call(root, tmp_path / "out", "participant", "--skip_bids_validator")
    assert status == 2
    assert said.splitlines()[-1] == "lesionwise: sub-02: no brain found"
    assert shown.startswith("subjects done: 2 in ")
    assert "errors: 1" in shown
    assert "subjects/h, 0 min left, 1 failed" in said
    status, shown, _ = call(root, tmp_path / "out", "participant", "--participant-label", "01")
    assert status == 0
    assert "subjects done: 0" in shown
    assert "done before: 1" in shown


def test_other_settings_and_double_schedulers_are_refused(call, dataset, fake_job, tmp_path,
                                                          monkeypatch):  # fmt: skip
    job, _ = fake_job()
    monkeypatch.setattr(participant, "segment_or_compare", lambda *a, device: job(*a))
    root = dataset(("01", ""))
    assert call(root, tmp_path / "out", "participant")[0] == 0
    status, _, said = call(root, tmp_path / "out", "participant", "--instances", "acls")
    assert status == 2
    assert "was begun with instances not set, now it is acls" in said
    status, _, said = call(root, tmp_path / "out", "participant", "--dask", "tcp://a:1",
                           "--scheduler-file", "b")  # fmt: skip
    assert status == 2
    assert "not both" in said


def begun(output):
    """Process of the worker by subject, of those that are being done."""
    found = {}
    for path in (output / ".cohort" / "making").glob("sub-*@*/.claim.json"):
        try:
            found[path.parent.name.split("@")[0]] = json.loads(path.read_text())["pid"]
        except (OSError, ValueError):
            continue
    return found


@pytest.mark.slow
def test_the_real_model_on_two_workers_one_of_them_killed(tmp_path):
    root = simulate(tmp_path / "bids", 2, 1, seed=5, with_skull=False, spacing_mm=(3, 3, 3))
    output = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "lesionwise.cli", "cohort", str(root), str(output)),
        *("participant", "--workers", "2", "--no-brain-extraction", "--device", "cpu"),
    ]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 300
    while "sub-sim0001" not in begun(output):
        assert running.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(begun(output)["sub-sim0001"], signal.SIGKILL)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    records = {p.name: read_json(p / "cohort.json") for p in output.glob("sub-*")}
    assert {name: record["attempts"] for name, record in records.items()} == {
        "sub-sim0001": 2, "sub-sim0002": 1,
    }  # fmt: skip
    assert not (output / "failures.tsv").exists()
    assert not (output / ".cohort" / "making").exists()

    name = "sub-sim0001/ses-01/anat/sub-sim0001_ses-01_space-orig_label-L_probseg.nii.gz"
    from lesionwise.run.find_lesions import FindOptions

    scan = next((root / "sub-sim0001").rglob("*_FLAIR.nii.gz"))
    options = FindOptions(also=("offsets", "acls", "cc"), extract_brain=False)
    segment([scan], tmp_path / "alone", options=options, device="cpu")
    alone, among = (nib.load(folder / name).get_fdata() for folder in (tmp_path / "alone", output))
    np.testing.assert_allclose(among, alone, atol=1e-5)  # the number of threads differs

    times = {p: p.stat().st_mtime_ns for p in output.glob("sub-*/**/*")}
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert again.stdout.startswith("subjects done: 0")
    assert {p: p.stat().st_mtime_ns for p in output.glob("sub-*/**/*")} == times
