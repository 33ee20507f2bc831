"""Each row on planes in its reduced form learns two steps from toy pairs and predicts another one.

Without validation, on volumes of 16 voxels: what the steps that learn, ensembles, folds and planes
make of each other. ``test_network_rows_train.py`` does the same through the commands.
"""

from dataclasses import replace

import numpy as np
import pytest
from engine import SIDE, pair_of

from lesionwise.methods.network import NetworkMethod
from lesionwise.preprocess.missing_scans import FillMissingScans
from lesionwise.preprocess.pair_maps import AttentionMaps
from lesionwise.reduction import Reduction, reduced
from lesionwise.run.learned_steps import fit_steps, load_steps
from lesionwise.run.recipes import find_recipe
from lesionwise.types import RunContext, TrainingData, Volume, all_methods

KEPT = (AttentionMaps, FillMissingScans)
SMALL = {
    "sc-unet": {"features": (4, 6, 8)},
    "att-res-unet-triplane": {"features": (4, 8)},
    "triplanar-unet": {"features": (4, 8)},
    "tiramisu-25d": {"layers": (2, 2), "growth": 4, "first": 8},
    "deepscan": {"features": 4, "growth": 2},
}


def pair(seed):
    """Two visits with a lesion mask each, and what is new."""
    study = pair_of(seed)
    new = study.changes["new"]
    old = np.zeros(new.array.shape, dtype=np.int32)
    old[2:6, 2:6, 3:8] = 1
    masks = (old, old + new.array)
    visits = tuple(
        replace(visit, labels={"lesions": Volume(mask, new.grid)})
        for visit, mask in zip(study.visits, masks, strict=True)
    )
    return replace(study, visits=visits)


@pytest.mark.parametrize("row", SMALL)
def test_a_row_learns_and_predicts(row, tmp_path):
    recipe = find_recipe(f"{row}:reduced")
    slices = 5 if row == "deepscan" else 3 if row == "tiramisu-25d" else 1
    recipe = reduced(
        recipe,
        Reduction(
            network=SMALL[row],
            size_vox=(SIDE, SIDE, slices),
            batch_size=2,
            per_epoch=4,
            epochs=1,
            window=replace(recipe_window(recipe), engine="torch"),
        ),
    )
    steps = tuple(
        step for step in recipe.preprocess if isinstance(step, KEPT) or hasattr(step, "fit")
    )
    fixed = [step for step in steps if not hasattr(step, "fit")]

    def prepared(seed):
        study = pair(seed)
        for step in fixed:
            study = step(study)
        return study

    run = RunContext(tmp_path)
    learned = tuple(step for step in steps if hasattr(step, "fit"))
    data = fit_steps(learned, TrainingData([prepared(0), prepared(1)]), run)
    recipe.method.fit(data, run)
    study = prepared(2)
    for step in load_steps(learned, run):
        study = step(study)
    maps = recipe.method.load(run)(study)
    assert maps.probability.shape == (SIDE,) * 3
    assert np.isfinite(maps.probability).all()
    assert float(maps.probability.min()) >= 0
    assert float(maps.probability.max()) <= 1
    assert list(tmp_path.rglob("model.safetensors"))


def recipe_window(recipe):
    """How the recipe's last network covers a volume."""
    networks = [m for m in all_methods(recipe.method) if isinstance(m, NetworkMethod)]
    return networks[-1].inference.window
