"""Each row of the network engine learns, goes on, predicts and is scored by the commands.

The pairs are toys of 32 voxels; networks, patches and numbers of steps are reduced by
``dataclasses.replace``, and of the steps before the method those that learn are kept.
"""

import json
import shutil

import nibabel
import numpy as np
import pytest
from bids import begin, save_visit

from lesionwise.run.evaluate import evaluate
from lesionwise.run.pairs import predict_pairs
from lesionwise.run.predict import load_model
from lesionwise.run.train import train
from lesionwise.types import InputError

pytestmark = pytest.mark.slow

SIDE = 32
REDUCED = '''
"""{row}, small enough for a test."""

from dataclasses import fields, is_dataclass, replace
from functools import partial

from lesionwise.methods.network import NetworkMethod
from lesionwise.recipes.{module} import RECIPE as PUBLISHED

SMALL = {small}


def reduced(part):
    if isinstance(part, NetworkMethod):
        keywords = {{**part.network.keywords, **SMALL["network"]}}
        return replace(
            part,
            network=partial(part.network.func, **keywords),
            patch_size_vox=(SMALL["patch"],) * 3,
            batch_size=2,
            patches_per_epoch=4,
            epochs=2,
            validate_every=1,
        )
    if isinstance(part, tuple):
        return tuple(reduced(p) for p in dict.fromkeys(part))
    if is_dataclass(part) and hasattr(part, "fit"):
        inside = {{
            f.name: reduced(getattr(part, f.name))
            for f in fields(part)
            if f.name in ("method", "members", "first", "then")
        }}
        if "members" in inside:
            inside["folds"] = 2
        return replace(part, **inside)
    return part


RECIPE = replace(
    PUBLISHED,
    preprocess=tuple(
        reduced(step) if hasattr(step, "fit") else step
        for step in PUBLISHED.preprocess
        if type(step).__module__.startswith("lesionwise.methods")
    ),
    method=reduced(PUBLISHED.method),
)
'''
ROWS = {
    "nnunet-subtraction": {"network": {"features": (4, 8, 8, 8, 8)}, "patch": 32},
    "iqda": {"network": {"features": (8, 16)}, "patch": 16},
    "pre-unet": {"network": {"features": (8, 16, 16, 16)}, "patch": 16},
    "antialias-unet": {"network": {"features": (4, 4, 8, 8)}, "patch": 16},
    "cascade-probability": {"network": {"features": (4, 8, 8, 8)}, "patch": 16},
    "segresnet-ensemble": {"network": {"features": 8, "blocks": (1, 1)}, "patch": 16},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four patients with two visits each; what is new lies beside what was there."""
    root = begin(tmp_path_factory.mktemp("pairs"))
    where = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
    brain = (where**2).sum(axis=0) < 14**2
    for number, subject in enumerate("abcd"):
        rng = np.random.default_rng(number)
        old = np.zeros(brain.shape, dtype=bool)
        old[8:13, 10:15, 12:17] = True
        new = np.zeros(brain.shape, dtype=np.int16)
        new[18:23, 15 + number : 20 + number, 14:19] = 1
        for session, lesions in (("01", old), ("02", old | (new > 0))):
            image = brain * (100 + 10 * rng.standard_normal(brain.shape)) + 60 * lesions
            volumes = {
                "FLAIR": image.astype(np.float32),
                "desc-brain_mask": brain,
                "label-L_mask": lesions,
            }
            if session == "02":
                volumes["label-L_desc-new_mask"] = new > 0
            save_visit(root, subject, session, volumes)
    return root


def recipe_file(row, folder):
    path = folder / f"{row.replace('-', '_')}.py"
    module = row.replace("-", "_")
    path.write_text(REDUCED.format(row=row, module=module, small=repr(ROWS[row])))
    return path


@pytest.mark.parametrize("row", ROWS)
def test_a_row_learns_predicts_and_is_scored(row, dataset, tmp_path):
    recipe = recipe_file(row, tmp_path)
    again = {"validation_subjects": ["d"]}
    run = train(recipe, dataset, tmp_path / "run", **again)
    described = json.loads((run / "run.json").read_text())
    assert described["status"] == "done"
    assert (described["training"], described["validation"]) == (["a", "b", "c"], ["d"])
    stamp = {p: p.stat().st_mtime_ns for p in run.rglob("model.safetensors")}
    assert stamp
    assert train(recipe, dataset, tmp_path / "run", **again) == run
    assert stamp == {p: p.stat().st_mtime_ns for p in run.rglob("model.safetensors")}

    visits = sorted((dataset / "sub-d").rglob("*_FLAIR.nii.gz"))
    found = predict_pairs(visits, tmp_path / "out", model=load_model(run))
    assert found.failures == {}
    (mask,) = (tmp_path / "out").rglob("*_space-orig_desc-new_mask.nii.gz")
    assert nibabel.load(mask).shape == (SIDE,) * 3
    truth = dataset / "sub-d" / "ses-02" / "anat" / "sub-d_ses-02_label-L_desc-new_mask.nii.gz"
    scored = evaluate(truth, mask)
    assert 0 <= scored.cases[0].result.values["dsc"] <= 1


def test_a_killed_row_goes_on(dataset, tmp_path):
    recipe = recipe_file("iqda", tmp_path)

    class Kill(Exception):  # noqa: N818
        pass

    def kill(stage, done, total):
        if stage == "training" and done == 1:
            raise Kill

    with pytest.raises(Kill):
        train(recipe, dataset, tmp_path / "run", validation_subjects=["d"], progress=kill)
    run = train(recipe, dataset, tmp_path / "run", validation_subjects=["d"])
    summary = json.loads((run / "training.json").read_text())
    assert summary["steps"] == 4
    changed = ["method.learning_rate=0.5"]
    with pytest.raises(InputError, match=r"begun with method\.learning_rate"):
        train(recipe, dataset, tmp_path / "run", validation_subjects=["d"], overrides=changed)


def test_without_a_map_of_new_lesions_a_row_says_so(dataset, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(dataset, bare)
    for path in bare.rglob("*desc-new*"):
        path.unlink()
    with pytest.raises(InputError, match="new lesions"):
        train(recipe_file("iqda", tmp_path), bare, tmp_path / "run")
