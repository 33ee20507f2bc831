"""No command opens a socket that leads beyond this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        address = arguments[1] if len(arguments) > 1 else None
        host = (address[0] or "*") if isinstance(address, tuple) else ""
    elif event == "socket.getaddrinfo":
        host = arguments[0] or ""
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host)
    with open(os.environ["WATCHED"], "a") as log:
        log.write(f"{event} {host}\\n")

sys.addaudithook(watch)
"""

SEGMENT = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from heads import bright_model, head, save
import lesionwise.run.locations as locations
from lesionwise.run.segment import segment
from lesionwise.types import InputError

def nowhere(*arguments):
    raise InputError("no template in this test")

locations.find_landmarks = nowhere
place = Path(sys.argv[2])
segment([save(place / "a.nii.gz", head("a"))], place / "out", model=bright_model())
"""

COHORT = """
import sys
from pathlib import Path
import lesionwise
from lesionwise.cohort.cluster import Workers
from lesionwise.cohort.participant import run_subjects
from lesionwise.cohort.subjects import find_subjects

def make():
    def job(subject, folder, settings):
        place = folder / f"sub-{subject.label}"
        place.mkdir(exist_ok=True)
        (place / "done").write_text("done")
        return {}
    return job

if __name__ == "__main__":
    place = Path(sys.argv[2])
    for label in ("01", "02"):
        scan = place / "bids" / f"sub-{label}" / "anat" / f"sub-{label}_FLAIR.nii.gz"
        scan.parent.mkdir(parents=True)
        scan.write_text(label)
    settings = {"version": lesionwise.__version__}
    found = find_subjects(place / "bids")
    done = run_subjects(found, place / "bids", place / "out", settings, make(), Workers(2, 1))
    assert sorted(done.done) == ["01", "02"], done
"""


@pytest.mark.parametrize("script", [SEGMENT, COHORT], ids=["segment", "cohort"])
def test_every_socket_stays_on_this_machine(tmp_path, script):
    if script == COHORT:
        pytest.importorskip("distributed")
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "call.py").write_text(script)
    log = tmp_path / "log"
    log.write_text("")
    source = Path(__file__).parents[2] / "src"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(source)]),
        "WATCHED": str(log),
    }
    helpers = Path(__file__).parents[1] / "run"
    done = subprocess.run(
        [sys.executable, str(tmp_path / "call.py"), str(helpers), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    here = {"127.0.0.1", "localhost", "::1", ""}
    seen = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [line for line in seen if line[1] not in here] == []
    if script == COHORT:
        assert seen  # the watch sees what there is to see
