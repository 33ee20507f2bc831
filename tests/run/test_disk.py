"""A training on a disk that is full, or takes no files, and two trainings at once."""

import json
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bids import begin, save_visit

from lesionwise.run.load_model import load_model
from lesionwise.run.prepare import prepare

SIDE = 24
SMALL = (
    "method.network.features=[4, 8, 8]",
    "method.samples.size_vox=[16, 16, 16]",
    "method.samples.batch_size=2",
    "method.samples.per_epoch=2",
    "method.optimization.epochs=2",
    "method.selection.every=1",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two patients with a ball of brain and a lesion each."""
    root = begin(tmp_path_factory.mktemp("bids"))
    where = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
    brain = (where**2).sum(axis=0) < 10**2
    lesions = np.zeros(brain.shape, dtype=bool)
    lesions[7:11, 7:11, 7:11] = True
    for seed, subject in enumerate("ab"):
        noise = np.random.default_rng(seed).standard_normal(brain.shape)
        image = (brain * (100 + 10 * noise) + 60 * lesions).astype(np.float32)
        volumes = {"FLAIR": image, "desc-brain_mask": brain, "label-L_mask": lesions}
        save_visit(root, subject, "", volumes)
    return root


@pytest.fixture(scope="module")
def arrays(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare("unet-cc", dataset, folder)
    return folder


def arguments(dataset, output, *more):
    settings = [word for text in SMALL for word in ("--set", text)]
    call = ["train", "unet-cc", str(dataset), "-o", str(output), *settings]
    return [*call, "--validation", "b", "--device", "cpu", *more]


@contextmanager
def no_file_beyond(size):
    """Larger files are refused by the system, as on a full disk."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


@pytest.fixture
def train(call):
    """``lesionwise train``: the exit status and the lines that say what went wrong."""

    def train(dataset, output, size=None):
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        with no_file_beyond(usual if size is None else size):
            status, _, said = call(*arguments(dataset, output))
        return status, [line for line in said.splitlines() if line.startswith("lesionwise: ")]

    return train


@pytest.mark.parametrize("place", ["prepared", "candidates", "checkpoints"])
def test_a_full_disk_is_one_line_and_the_same_call_goes_on_with_room(
    train, dataset, arrays, tmp_path, place
):
    output = tmp_path / "run"
    data = dataset if place == "prepared" else arrays
    size = {"prepared": 20_000, "candidates": 30_000, "checkpoints": 70_000}[place]
    status, (line,) = train(data, output, size)
    assert status == 2
    assert line.endswith("cannot be written (File too large)")
    assert f"{output}/{place}" in line
    left = [path.name for path in output.rglob(".*")]
    assert left == []
    assert train(data, output) == (0, [])
    assert load_model(output).run["summary"]["epochs"] == 2


@pytest.mark.parametrize("name", ["run", "run/below"])
def test_an_output_that_is_a_file_is_one_line(train, arrays, tmp_path, name):
    taken = tmp_path / "run"
    taken.write_text("mine")
    assert train(arrays, tmp_path / name) == (
        2,
        [f"lesionwise: {taken}: is a file, but a folder for results is needed"],
    )
    assert taken.read_text() == "mine"


def test_a_place_that_takes_no_files_is_one_line(train, arrays, tmp_path):
    output = tmp_path / "run"
    assert train(arrays, output, size=0) == (
        2,
        [f"lesionwise: {output}: results cannot be written here (File too large)"],
    )
    assert not output.exists()


def test_calls_that_prepare_into_one_folder_at_once_leave_each_subject_once(dataset, tmp_path):
    shared = tmp_path / "shared"
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: prepare("unet-cc", dataset, shared), range(3)))
    assert [prepared.subjects for prepared in found] == [("a", "b")] * 3
    assert sorted(path.name for path in shared.iterdir()) == ["prepared.json", "sub-a", "sub-b"]


@pytest.mark.slow
def test_two_trainings_on_one_prepared_folder_end_with_the_same_weights(dataset, tmp_path):
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}

    def run(name):
        call = arguments(dataset, tmp_path / name, "--prepared", str(tmp_path / "shared"))
        return subprocess.run(
            [sys.executable, "-m", "lesionwise.cli", *call],
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
        )

    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(run, "ab"):
            assert done.returncode == 0, done.stderr
    weights = [json.loads((tmp_path / name / "run.json").read_text())["sha256"] for name in "ab"]
    assert weights[0] == weights[1]
