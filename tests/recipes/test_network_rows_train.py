"""Each recipe of the network engine learns, goes on, predicts and is scored by the commands.

The pairs are toys of 32 voxels. Recipes are in their reduced form, for two epochs of two steps, and
of the steps before the method those that learn or make maps of the pair are kept.
"""

import importlib
import json
import shutil

import nibabel
import numpy as np
import pytest
from bids import begin, save_visit

from lesionwise.run.evaluate import evaluate
from lesionwise.run.load_model import load_model
from lesionwise.run.predict_pairs import predict_pairs
from lesionwise.run.recipes import recipe_names
from lesionwise.run.train import train
from lesionwise.types import InputError

pytestmark = pytest.mark.slow

SIDE = 32
SMALL = '''
"""{row}, small enough for a test."""

from dataclasses import replace

from lesionwise.preprocess.brain_masks import OtsuBrain
from lesionwise.preprocess.distance_maps import DistanceMaps
from lesionwise.reduction import Reduction, reduced
from lesionwise.recipes.{module} import REDUCED

FEW = reduced(
    REDUCED, Reduction(size_vox={size}, batch_size={batch}, per_epoch=4, epochs=2, every=1)
)
KEPT = (
    "methods",
    "preprocess.distance_maps",
    "preprocess.missing_scans",
    "preprocess.pair_maps",
    "preprocess.slices",
)
NAMES = tuple("lesionwise." + name for name in KEPT)
STEPS = tuple(s for s in FEW.preprocess if type(s).__module__.startswith(NAMES))
if DistanceMaps() in STEPS:  # which ask for a brain, and scans to predict on come without
    STEPS = (OtsuBrain(radius_mm=1.0), *STEPS)
RECIPE = replace(FEW, preprocess=STEPS)
'''


def rows():
    """Recipes of pairs that have a reduced form on the network engine."""
    found = []
    for name in recipe_names():
        module = importlib.import_module(f"lesionwise.recipes.{name.replace('-', '_')}")
        reduced = getattr(module, "REDUCED", None)
        if reduced is not None and reduced.visits == 2 and _networks(reduced):
            found.append(name)
    return found


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
                for rater in range(1, 5):  # none of them sees all of it
                    drawn = (new > 0) & (rng.random(new.shape) < 0.9)
                    volumes[f"label-L_desc-newrater{rater}_mask"] = drawn
            save_visit(root, subject, session, volumes)
    return root


def recipe_file(row, folder):
    path = folder / f"{row.replace('-', '_')}.py"
    module = importlib.import_module(f"lesionwise.recipes.{row.replace('-', '_')}")
    patches = [m.samples.size_vox for m in _networks(module.REDUCED)]
    slices = max(size[2] for size in patches)
    # what the deepest network of a row can halve
    sizes = {
        "nnunet-subtraction": (32, 32, 32),
        "cascade-probability": (64, 64, 64),
        "double-pathway": (49, 49, 49),
        "ema-ohem": (32, 32, 32),
        "modified-unet": (32, 32, 32),
        "modified-unet-ensemble": (32, 32, 32),
        "attention-unet-mc": (32, 32, 32),
    }
    size = (32, 32, slices) if slices < 8 else sizes.get(row, (16, 16, 16))
    batch = 16 if slices < 8 else 2  # lists of slices are learned whole
    text = SMALL.format(row=row, module=row.replace("-", "_"), size=size, batch=batch)
    path.write_text(text)
    return path


def _networks(recipe):
    from lesionwise.methods.network import NetworkMethod
    from lesionwise.types import all_methods

    return [m for m in all_methods(recipe.method) if isinstance(m, NetworkMethod)]


@pytest.mark.parametrize("row", rows())
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
    found = predict_pairs(visits, tmp_path / "out", model=load_model(run, trust_recipe=True))
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
        if stage.startswith("training") and done == 1:
            raise Kill

    with pytest.raises(Kill):
        train(recipe, dataset, tmp_path / "run", validation_subjects=["d"], progress=kill)
    run = train(recipe, dataset, tmp_path / "run", validation_subjects=["d"])
    summary = json.loads((run / "training.json").read_text())
    assert summary["steps"] == 4
    changed = ["method.optimization.learning_rate=0.5"]
    with pytest.raises(InputError, match=r"begun with method\.optimization\.learning_rate"):
        train(recipe, dataset, tmp_path / "run", validation_subjects=["d"], overrides=changed)


def test_without_a_map_of_new_lesions_a_row_says_so(dataset, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(dataset, bare)
    for path in bare.rglob("*desc-new*"):
        path.unlink()
    with pytest.raises(InputError, match="new lesions"):
        train(recipe_file("iqda", tmp_path), bare, tmp_path / "run")
