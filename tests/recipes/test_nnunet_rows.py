"""Every number of the rows A4, A5, B0 and B2 of the systems, against their recipes."""

import pytest

pytest.importorskip("torch")

from lesionwise.methods.nnunet import (
    Adam,
    AugmentedCopies,
    DropPlainSlices,
    Learning,
    Plateau,
    Polynomial,
    Sgd,
)
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import SharedBrain, TemplateMaskBrain
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.pair import JointRescale
from lesionwise.preprocess.registration import RegisterToFirst
from lesionwise.preprocess.slices import ResizeSlices
from lesionwise.preprocess.template import RegisterToTemplate
from lesionwise.run.recipes import describe, find_recipe


def kinds(recipe):
    return [type(step) for step in find_recipe(recipe).preprocess]


def test_a4_trains_three_heads_on_nnunets_own_plans():
    recipe = find_recipe("conflunet-nnunet")
    method = recipe.method
    assert recipe.source == "000"
    assert method.heads is not None
    assert method.configuration == "3d_fullres"
    assert method.plans.patch_size_vox is None
    assert method.plans.batch_size is None
    assert method.plans.normalization == "z-score"
    assert method.learning.loss == "dice+ce"
    assert isinstance(method.learning.optimizer, Adam)
    assert method.learning.learning_rate == 1e-4
    assert method.learning.schedule == Polynomial(last=1e-5)
    assert method.learning.epochs == Learning().epochs
    assert method.augmentation.elastic > 0
    assert method.augmentation.intensity  # gamma is among them
    assert method.augmentation.rotation_deg is None  # nnU-Net's own rotation, scaling, mirroring
    assert method.augmentation.mirror is None
    assert kinds("conflunet-nnunet") == [ExtractBrain]
    assert recipe.refine[0].min_volume_mm3 == 3
    assert recipe.refine[0].min_extent_mm == 0


def test_a4_reports_what_the_document_reports():
    assert find_recipe("conflunet-nnunet").reported == {
        "pq": 0.420, "pq_cc": 0.375, "pq_acls": 0.368,
        "lesion_f1": 0.673, "lesion_f1_cc": 0.616, "lesion_f1_acls": 0.599,
        "clu_f1": 0.815, "clu_recall_over_cc": 0.125, "clu_precision_over_acls": 0.312,
    }  # fmt: skip


def test_a5_learns_slices_of_512_with_five_copies():
    recipe = find_recipe("nnunet-2d")
    method = recipe.method
    assert method.configuration == "2d"
    assert kinds("nnunet-2d") == [ExtractBrain, ResizeSlices]
    assert recipe.preprocess[1].size_vox == (512, 512)
    assert method.plans.normalization == "rescale to [0, 1]"
    assert method.plans.first_axis == "k"
    drop, copies = method.case_steps
    assert drop == DropPlainSlices(least_entropy_bits=0.01, axis="k")
    assert copies == AugmentedCopies(
        copies=5, rotation_deg=40, shift=0.2, shear_deg=20, zoom=0.2, flip=True, axis="k"
    )
    learning = method.learning
    assert learning.loss == "dice+bce"
    assert learning.optimizer == Sgd(momentum=0.99, nesterov=True, weight_decay=3e-5)
    assert learning.learning_rate == 0.01
    assert isinstance(learning.schedule, Polynomial)
    assert learning.schedule.last == 0
    assert learning.epochs == 250
    assert method.plans.base_features == 32


def test_a5_reports_the_printed_scores_and_those_of_its_counts():
    reported = find_recipe("nnunet-2d").reported
    printed = [
        reported[f"{center}slice_{name}"]
        for center in ("", "external_")
        for name in ("accuracy", "sensitivity_as_printed", "ppv_as_printed", "npv_as_printed")
    ]
    assert printed == [0.833, 0.995, 0.751, 0.993, 0.761, 1.0, 0.677, 1.0]
    assert (reported["dsc"], reported["external_dsc"]) == (0.703, 0.748)
    for center, right, wrong, rejected, kept in (
        ("", 146, 218, 217, 218),
        ("external_", 12, 23, 23, 23),
    ):
        sensitivity, specificity = right / wrong, rejected / kept
        ppv = right / (right + kept - rejected)
        npv = rejected / (rejected + wrong - right)
        for name, value in (
            ("sensitivity", sensitivity),
            ("specificity", specificity),
            ("ppv", ppv),
            ("npv", npv),
        ):
            own = reported[f"{center}slice_{name}_from_counts"]
            assert own == pytest.approx(value, abs=0.0006), (center, name)


def test_b0_learns_in_mni_space_with_adam_and_plateaus():
    recipe = find_recipe("nnunet-longitudinal")
    method = recipe.method
    assert kinds("nnunet-longitudinal") == [RegisterToTemplate, ExtractBrain, N4, CropToBrain]
    assert recipe.preprocess[0].model == "rigid"
    assert (recipe.visits, recipe.finds, method.finds) == (2, "new", "new")
    assert method.configuration == "3d_fullres"
    assert method.plans.normalization == "z-score"
    learning = method.learning
    assert isinstance(learning.optimizer, Adam)
    assert learning.learning_rate == 0.01
    assert learning.batches_per_epoch == 250
    assert learning.schedule == Plateau(divisor=5, patience_epochs=30, least_drop=0.005)
    assert learning.epochs == 300
    assert learning.save_every == 25
    assert recipe.reported == {
        "dsc": 0.58, "dsc_sd": 0.35, "voxel_recall": 0.62, "voxel_recall_sd": 0.36,
    }  # fmt: skip


def test_b2_learns_jointly_corrected_pairs_and_answers_on_the_baseline():
    recipe = find_recipe("nnunet-empenn")
    method = recipe.method
    steps = [step.__name__ for step in kinds("nnunet-empenn")]
    assert steps[:6] == [
        kind.__name__
        for kind in (TemplateMaskBrain, RegisterToFirst, SharedBrain, CropToBrain, N4, JointRescale)
    ]
    assert steps[6] == "Nyul"
    assert recipe.preprocess[2].of == "first"
    assert (recipe.visits, recipe.finds, method.finds) == (2, "new", "new")
    assert method.plans.patch_size_vox == (64, 160, 192)
    assert method.plans.spacing_mm == (1.0, 0.5, 0.5)
    assert method.plans.dropout == 0.2
    assert method.learning.loss == "dice+ce"
    assert isinstance(method.learning.optimizer, Sgd)
    assert method.learning.epochs == 1000
    assert method.learning.batches_per_epoch == 250
    told = method.augmentation
    assert told.scaling == (0.85, 1.25)
    assert told.rotation_deg == 15
    assert told.mirror == ("i",)
    assert told.enhancement is not None
    assert recipe.threshold == 0.2
    assert recipe.to_instances.connectivity == 26
    small = recipe.refine[0]
    assert small.min_volume_mm3 == 4
    assert small.drop_at_min_volume  # larger than 4 mm³
    assert small.min_extent_mm == 0
    assert recipe.output.grid == "baseline"
    assert recipe.output.resample == "labels"


@pytest.mark.parametrize(
    "name", ["conflunet-nnunet", "nnunet-2d", "nnunet-longitudinal", "nnunet-empenn"]
)
def test_each_row_says_what_it_is_and_where_it_departs(name):
    recipe = find_recipe(name)
    assert "nnU-Net" in describe(name)
    assert recipe.source
    assert len(recipe.departures) >= 8
    assert recipe.method.scans == recipe.scans
