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

EVERY = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent / "helpers")]
import numpy as np
from bids import begin, save_visit
from heads import bright_model, head, save
import lesionwise.run.locations as locations
import lesionwise.run.load_model as predict
from lesionwise.cli import app
from lesionwise.types import InputError

def run():
    def nowhere(*arguments):
        raise InputError("no template in this test")

    locations.find_landmarks = nowhere
    load_model = predict.load_model
    predict.load_model = (
        lambda model, *more, **named: bright_model() if model == "bright"
        else load_model(model, *more, **named)
    )
    place = Path(sys.argv[2])
    root = begin(place / "bids")
    for subject in "ab":
        for number, session in enumerate("12"):
            lesions = np.zeros((24, 24, 24), bool)
            lesions[7:11, 7:11, 7 : 11 + number] = True
            where = np.indices(lesions.shape) - 11.5
            brain = (where ** 2).sum(axis=0) < 10**2
            noise = np.random.default_rng(number).standard_normal(brain.shape)
            image = (brain * (100 + 10 * noise) + 90 * lesions).astype(np.float32)
            volumes = {"FLAIR": image, "desc-brain_mask": brain, "label-L_mask": lesions}
            save_visit(root, subject, session, volumes)
    visits = [save(place / f"v{n}.nii.gz", head("ab"[: n])) for n in (1, 2)]
    masks = sorted(root.rglob("*_label-L_mask.nii.gz"))
    scan = next(root.rglob("*_FLAIR.nii.gz"))
    small = ["method.network.features=[4,8,8]", "method.samples.size_vox=[16,16,16]",
             "method.samples.batch_size=2", "method.samples.per_epoch=2",
             "method.optimization.epochs=1", "method.selection.every=1"]
    small = [word for text in small for word in ("--set", text)]
    calls = [
        ["segment", visits[0], "-o", place / "segment", "--model", "bright"],
        ["compare", *visits, "-o", place / "compare", "--model", "bright"],
        ["report", place / "segment"],
        ["split", masks[0], "-o", place / "split"],
        ["evaluate", masks[0], masks[1], "-o", place / "evaluate"],
        ["export", root, place / "Dataset001_X"],
        ["simulate", "-o", place / "simulate", "--visits", "1", "--spacing", "4", "4", "4"],
        ["train", "unet-cc", root, "-o", place / "run", "--device", "cpu", *small,
         "--workers", "1"],
        ["predict", place / "run", scan, "-o", place / "predict", "--device", "cpu"],
        ["benchmark", root, "-o", place / "benchmark", "--folds", "2", "--device", "cpu",
         "--recipes", "unet-cc", *small],
        ["search", "unet-cc", root, "-o", place / "search", "--device", "cpu", *small,
         "--grid", "method.optimization.epochs=1,2"],
        ["recipes"],
        ["models"],
        ["cohort", root, place / "cohort", "participant", "--workers", "1"],
    ]
    # a demo is simulate, compare and evaluate in turn
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert known == {call[0] for call in calls} | {"demo"}, known
    for call in calls:
        print(call[0], flush=True)
        try:
            app([str(word) for word in call], standalone_mode=False)
        except InputError as error:
            print("one line:", error, flush=True)
        except SystemExit as end:
            print("status", end.code, flush=True)

if __name__ == "__main__":
    run()
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


@pytest.mark.parametrize(
    "script",
    [SEGMENT, COHORT, pytest.param(EVERY, marks=pytest.mark.slow)],
    ids=["segment", "cohort", "every command"],
)
def test_every_socket_stays_on_this_machine(tmp_path, script):
    if script != SEGMENT:
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
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    here = {"127.0.0.1", "localhost", "::1", ""}
    seen = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [line for line in seen if line[1] not in here] == []
    if script != SEGMENT:
        assert seen  # the watch sees what there is to see
