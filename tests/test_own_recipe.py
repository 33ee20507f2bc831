"""The worked example of the guide: its files and its commands do what the page says.

The data set is made here, small and coarse, in place of the page's simulated heads; what a training
costs is cut by ``--set``. Everything else is the text of the page.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from bids import begin
from scipy import ndimage

from lesionwise.run.benchmark_job import run_here

PAGE = (Path(__file__).parents[1] / "docs" / "guide" / "own-recipe.md").read_text(encoding="utf-8")
FILE_BLOCK = re.compile(r'^```python title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^lesionwise (.+)$", re.MULTILINE)
SPACING_MM = 4.0
CUT = {
    "preprocess.3.spacing_mm": SPACING_MM,
    "method.samples.size_vox": [16, 16, 16],
    "method.samples.per_epoch": 32,
    "method.optimization.epochs": 6,
    "method.optimization.learning_rate": 0.01,
    "method.selection.every": 6,
}
FEWER_STEPS = {"benchmark": {"method.optimization.epochs": 2}}
SUBJECTS = ("sim0001", "sim0002", "sim0003", "sim0004")


def write_files(folder):
    """The files of the page, each made of its blocks in their order."""
    for name, block in FILE_BLOCK.findall(PAGE):
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(block + "\n\n")


def commands():
    """The words of every command of the page by its name."""
    return {words[0]: words[1:] for words in map(shlex.split, COMMAND.findall(PAGE))}


def shorter(name):
    """What is set in the trainings of a command beyond the page's own words."""
    changed = CUT | FEWER_STEPS.get(name, {}) if name in ("train", "benchmark") else {}
    return [word for name, value in changed.items() for word in ("--set", f"{name}={value}")]


def write_heads(root):
    """Patients as ``simulate`` writes them: a stripped brain, one old and two new lesions."""
    truth = begin(root) / "derivatives" / "truth"
    described = json.loads((root / "dataset_description.json").read_text())
    begin(truth)
    (truth / "dataset_description.json").write_text(
        json.dumps(described | {"DatasetType": "derivative"})
    )
    where = (np.indices((40, 48, 36)).T - (20, 24, 18)).T * SPACING_MM
    brain = sum((a / r) ** 2 for a, r in zip(where, (64, 80, 60), strict=True)) < 1
    for number, subject in enumerate(SUBJECTS):
        rng = np.random.default_rng(number)
        tissue = 100 + ndimage.gaussian_filter(rng.normal(0, 30, brain.shape), 1)
        old, new = np.zeros((2, *brain.shape), dtype=bool)
        old[14:17, 20:23, 16:19] = True
        new[23:26, 18 + 2 * number : 21 + 2 * number, 14:17] = True
        new[17:19, 30:32, 20 - number : 22 - number] = True
        for session, lesions in (("01", old), ("02", old | new)):
            noise = rng.normal(0, 2, brain.shape)
            scan = np.where(brain, tissue + noise + 150 * lesions, 0).astype(np.float32)
            save(root, subject, session, "FLAIR", scan)
            save(truth, subject, session, "space-orig_desc-brain_mask", brain)
            save(truth, subject, session, "space-orig_label-L_mask", lesions)
        save(truth, subject, "02", "space-orig_desc-new_mask", new)


def save(root, subject, session, name, array):
    folder = root / f"sub-{subject}" / f"ses-{session}" / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    array = array.astype(np.uint8) if array.dtype == bool else array
    image = nibabel.Nifti1Image(array, np.diag([SPACING_MM] * 3 + [1.0]))
    nibabel.save(image, folder / f"sub-{subject}_ses-{session}_{name}.nii.gz")


def test_every_python_block_of_the_page_belongs_to_a_file():
    assert {name for name, _ in FILE_BLOCK.findall(PAGE)} == {"my_recipe.py", "test_my_recipe.py"}
    assert len(FILE_BLOCK.findall(PAGE)) == PAGE.count("```python")


def test_the_tests_of_the_page_pass(tmp_path):
    write_files(tmp_path)
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_recipe.py"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, re.MULTILINE)


def test_the_commands_of_the_page_train_predict_and_score(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    write_heads(tmp_path / "heads")
    words = commands()
    assert list(words) == ["simulate", "train", "predict", "evaluate", "benchmark"]
    assert words["simulate"][:4] == ["-o", "heads", "--patients", str(len(SUBJECTS))]

    status, out, err = call("recipes", "my_recipe.py")
    assert status == 0, err
    assert "one encoder for both visits" in out

    for name in ("train", "predict", "evaluate"):
        status, out, err = call(name, *words[name], *shorter(name))
        assert status == 0, f"{name}: {out}{err}"

    run = json.loads(Path("run", "run.json").read_text())
    assert run["settings"]["method.samples.sampling.is"] == "SmallLesionSampling"
    assert run["validation"] == ["sim0004"]
    masks = sorted(Path("found").rglob("*desc-new_mask.nii.gz"))
    assert {nibabel.load(mask).shape for mask in masks} == {(40, 48, 36)}
    scores = pd.read_csv(Path("scores", "cases.tsv"), sep="\t")
    assert scores["dsc"].item() > 0.6


@pytest.mark.slow
def test_the_last_command_of_the_page_compares(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    # a process of its own for every fold would import torch again and again
    monkeypatch.setattr("lesionwise.run.benchmark.run_isolated", run_here)
    write_files(tmp_path)
    write_heads(tmp_path / "heads")
    status, out, err = call("benchmark", *commands()["benchmark"], *shorter("benchmark"))
    assert status == 0, f"{out}{err}"
    board = pd.read_csv(Path("compared", "leaderboard.tsv"), sep="\t").set_index("recipe")
    assert sorted(board.index) == ["my_recipe-reduced", "subtraction-threshold"]
    assert (board["cases"] == len(SUBJECTS)).all()
    assert board["dsc"].between(0, 1).all()
