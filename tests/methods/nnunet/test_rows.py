"""Each row of nnU-Net overfits to one phantom: its own loss, optimizer, schedule and heads
lead to its own truth. Patch, width, epochs and augmentation are reduced."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

from boxes import study

from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.preprocess.intensity import Rescale01
from lesionwise.run.find_lesions import find_lesions
from lesionwise.run.load_model import LoadedModel
from lesionwise.run.recipes import find_recipe
from lesionwise.types import RunContext, TrainingData

SHORT = (
    "method.learning.epochs=16",
    "method.learning.batches_per_epoch=25",
    "method.learning.validation_batches=1",
    "method.learning.oversample_lesions=1.0",
    "method.plans.base_features=8",
    "method.plans.batch_size=4",
    "method.augmentation.intensity=False",
    "method.augmentation.mirror=[]",
    "method.augmentation.rotation_deg=0.0",
    "method.augmentation.scaling=(1.0, 1.0)",
    "method.augmentation.elastic=0.0",
)
VOLUMES = ("method.plans.patch_size_vox=(16, 16, 16)",)
ROWS = {
    "conflunet-nnunet": (*VOLUMES, "method.learning.learning_rate=5e-3"),
    # by its document it never sees a slice without a lesion, so it would mark some in those
    "nnunet-2d": (
        "method.plans.patch_size_vox=(16, 16)",
        "method.case_steps.0.min_entropy_bits=0",
        "method.case_steps.1.copies=0",
        "method.learning.oversample_lesions=0.33",
    ),
    "nnunet-longitudinal": VOLUMES,
    "nnunet-empenn": (*VOLUMES, "method.plans.spacing_mm=(1.5, 2.0, 1.2)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_row_learns_a_phantom_by_heart(row, tmp_path):
    published = find_recipe(row, (*SHORT, *ROWS[row]))
    scale = tuple(
        step for step in published.preprocess if isinstance(step, MaskToBrain | Rescale01)
    )
    recipe = replace(published, preprocess=scale)
    patient = prepared = study(0, visits=recipe.visits)
    for step in scale:
        prepared = step(prepared)
    run = RunContext(tmp_path, device="cpu")
    recipe.method.fit(TrainingData([prepared]), run)
    model = LoadedModel(recipe, recipe.method.load(run), row, "", {})
    found = find_lesions(patient, model)
    truth = patient.followup.labels["instances"].array > 0
    dice = 2 * (found.mask.array & truth).sum() / (found.mask.array.sum() + truth.sum())
    assert dice >= 0.9
    _, lesions = found.main
    assert len(np.unique(lesions.labels)) > 1
