"""The rows on nnU-Net (A4, A5, B0, B2) against their documents, by line."""

import numpy as np
import pytest

pytest.importorskip("torch")

from lesionwise.learning.optimizers import Adam, Sgd
from lesionwise.learning.schedules import JointPlateau, Polynomial, TrainingProgress
from lesionwise.methods.nnunet import AugmentedCopies, DropPlainSlices, Learning
from lesionwise.methods.nnunet.cases import case_of, images_of
from lesionwise.preprocess.standardize import Nyul
from lesionwise.preprocess.template import template_maps
from lesionwise.run.recipes import describe, find_recipe
from lesionwise.types import Grid, LesionMaps, RunContext, Study, TrainingData, Visit, Volume


def step_names(recipe):
    return [type(step).__name__ for step in find_recipe(recipe).preprocess]


def said(recipe):
    return " ".join(find_recipe(recipe).departures)


# A4: document 000, by its headings


def test_a4_trains_three_heads_on_nnunets_own_plans():
    """ "Model Architecture", "Model Training": Dice + cross-entropy, MSE, L1; Adam; 1e-4 to 1e-5;
    epochs and batch size by nnU-Net; "Data Augmentation": nnU-Net's, with elastic deformation."""
    method = find_recipe("conflunet-nnunet").method
    assert method.heads is not None
    assert method.configuration == "3d_fullres"
    assert method.plans.patch_size_vox is None
    assert method.plans.batch_size is None
    assert method.learning.loss == "dice+ce"
    assert isinstance(method.learning.optimizer, Adam)
    assert method.learning.learning_rate == 1e-4
    assert isinstance(method.learning.schedule, Polynomial)
    end = method.learning.schedule.factor(TrainingProgress(1.0, 1000))
    assert method.learning.learning_rate * end == pytest.approx(1e-5)
    assert method.learning.epochs == Learning().epochs
    assert method.augmentation.elastic > 0
    assert method.augmentation.intensity  # gamma is among them
    assert method.augmentation.rotation_deg is None  # nnU-Net's own rotation, scaling, mirroring
    assert method.augmentation.mirror is None


def test_a4_strips_the_skull_by_bet_and_takes_z_scores():
    """ "Preprocessing Pipeline": "FSL's BET … or HD-BET", "e.g., z-score normalization"."""
    assert step_names("conflunet-nnunet") == ["BetBrain"]
    assert find_recipe("conflunet-nnunet").method.plans.normalization == "z-score"


def test_a4_filters_lesions_by_3_mm3_alone():
    """ "Filtering: … (e.g., a volume of 3 mm³)"; no other filter is named."""
    recipe = find_recipe("conflunet-nnunet")
    (small,) = recipe.refine
    assert small.min_volume_mm3 == 3
    assert small.min_extent_mm == 0
    assert recipe.to_instances.fragment_mm3 == 0
    assert recipe.to_instances.reach_vox is None


def test_a4_gives_every_voxel_to_the_center_nearest_to_its_vote():
    """ "Instance Mask Generation": "assign it to the nearest lesion center". A piece of 8 mm³ that
    touches one lesion and votes for another goes to the latter."""
    grid = Grid((30, 12, 12), np.eye(4))
    mask = np.zeros(grid.shape, bool)
    mask[2:10, 3:9, 3:9] = mask[10:12, 4:6, 4:6] = mask[20:26, 3:9, 3:9] = True
    heatmap = np.zeros(grid.shape, np.float32)
    heatmap[5, 5, 5] = heatmap[22, 5, 5] = 1
    offsets = np.zeros((3, *grid.shape), np.float32)
    for voxel in np.argwhere(mask):
        center = (5, 5, 5) if voxel[0] < 10 else (22, 5, 5)
        offsets[(slice(None), *voxel)] = np.array(center) - voxel
    maps = LesionMaps(mask.astype(np.float32), grid, heatmap, offsets)
    recipe = find_recipe("conflunet-nnunet")
    labels = recipe.refine[0](recipe.to_instances(maps, mask)).labels
    assert labels.max() == 2
    assert (labels[10:12, 4:6, 4:6] == labels[22, 5, 5]).all()


def test_a4_says_that_peaks_are_stated_nowhere_and_where_voxels_are_grouped():
    """Departures: least height and window of peaks, the grid of grouping, several pieces."""
    assert "window of center peaks are not stated. We use 0.1 and 3" in said("conflunet-nnunet")
    assert "grouped is not stated. We use the scan's own grid" in said("conflunet-nnunet")
    assert "in one piece or several" in said("conflunet-nnunet")


def test_a4_reports_what_the_document_reports():
    """ "Quantitative Performance of ConfLUNet"."""
    assert find_recipe("conflunet-nnunet").reported == {
        "pq": 0.420, "pq_cc": 0.375, "pq_acls": 0.368,
        "lesion_f1": 0.673, "lesion_f1_cc": 0.616, "lesion_f1_acls": 0.599,
        "clu_f1": 0.815, "clu_recall_over_cc": 0.125, "clu_precision_over_acls": 0.312,
    }  # fmt: skip


# A5: document 003


def test_a5_prepares_in_the_documents_order():
    """Lines 116 to 119: skull stripping by FSL, [0, 1], 512 × 512; line 170: 2D."""
    recipe = find_recipe("nnunet-2d")
    assert step_names("nnunet-2d") == ["BetBrain", "MaskToBrain", "Rescale01", "ResizeSlices"]
    assert recipe.preprocess[-1].size_vox == (512, 512)
    assert recipe.method.configuration == "2d"
    assert recipe.method.plans.first_axis == "k"


def test_a5_trains_and_predicts_on_one_scale():
    """Line 117 comes before lines 120 and 126. With one bright remnant in a slice without lesions,
    a slice is the same picture in training, after such slices were dropped, as in prediction."""
    recipe = find_recipe("nnunet-2d")
    assert recipe.method.plans.normalization == "none"
    study = slices()
    for step in recipe.preprocess:
        if type(step).__name__ in ("MaskToBrain", "Rescale01"):
            study = step(study)
    predicted = images_of(study, ("flair",), True)
    case = case_of(study, ("flair",), "lesions", True, True)
    (kept,) = recipe.method.case_steps[0](case, np.random.default_rng(0))
    copies = list(recipe.method.case_steps[1](kept, np.random.default_rng(0)))
    np.testing.assert_array_equal(kept.images, predicted[..., 8:12])
    lesion = case.labels > 0
    for copy in copies:
        within = copy.images[0][copy.labels > 0]
        assert np.median(within) == pytest.approx(np.median(predicted[0][lesion]), rel=0.05)
    assert predicted.max() == 1
    assert predicted.min() == 0


def slices():
    """Slices of 64 × 64: tissue about 100, a lesion of 180 in four, a remnant of 400 in one."""
    rng = np.random.default_rng(0)
    shape = (64, 64, 20)
    image, lesion = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    image[8:56, 8:56] = rng.uniform(80, 120, (48, 48, 20))
    lesion[20:30, 20:30, 8:12] = 1
    image[lesion > 0] = 180
    image[30:34, 30:34, 2] = 400
    brain = image > 0
    image[~brain] = 250  # the skull, which is taken off first
    grid = Grid(shape, np.diag([0.43, 0.43, 6.5, 1.0]))
    labels = {"instances": Volume(lesion, grid)}
    return Study("a", (Visit({"flair": Volume(image, grid)}, labels, Volume(brain, grid)),))


def test_a5_drops_slices_of_low_entropy_and_augments_five_times():
    """Lines 120 to 154."""
    drop, copies = find_recipe("nnunet-2d").method.case_steps
    assert drop == DropPlainSlices(min_entropy_bits=0.01, axis="k")
    assert copies == AugmentedCopies(
        copies=5, rotation_deg=40, shift=0.2, shear_deg=20, zoom=0.2, flip=True, axis="k"
    )


def test_a5_has_the_documents_network_and_training():
    """Line 173: 32 filters first, 2 × 2 max pooling, Dice + BCE, SGD with Nesterov momentum 0.99
    and a weight decay of 3e-5, 0.01 falling polynomially, 250 epochs."""
    method = find_recipe("nnunet-2d").method
    assert method.plans.base_features == 32
    assert method.plans.down_sampling == "max pooling"
    learning = method.learning
    assert learning.loss == "dice+bce"
    assert learning.optimizer == Sgd(momentum=0.99, nesterov=True)
    assert learning.weight_decay == 3e-5
    assert learning.learning_rate == 0.01
    assert isinstance(learning.schedule, Polynomial)
    assert learning.schedule.end == 0
    assert learning.epochs == 250


def test_a5_reports_the_printed_scores_and_those_of_its_counts():
    """Table 5 (lines 196 to 205) and the counts of lines 215 to 217."""
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


# B0: document 004


def test_b0_registers_heads_before_it_strips_the_skull():
    """Line 75: registration to MNI with 6 degrees of freedom, then skull removal, then N4; line
    140: in this order, "because we wanted to take advantage of the skull"."""
    assert step_names("nnunet-longitudinal") == ["RegisterHeadToTemplate", "ExtractBrain", "N4"]


def test_b0_has_z_scores_of_the_brain():
    """Line 75: cropped to the brain, mean 0 and standard deviation 1. nnU-Net crops, and takes the
    voxels of the brain where that leaves less than three quarters of the grid."""
    method = find_recipe("nnunet-longitudinal").method
    assert method.plans.normalization == "z-score"
    assert method.within_brain
    brain = template_maps().brain.array > 0
    box = [np.ptp(np.flatnonzero(brain.any(axis=other))) + 1 for other in ((1, 2), (0, 2), (0, 1))]
    assert np.prod(box) / brain.size < 0.6  # a brain 7 % longer in each direction still fits


def test_b0_learns_new_lesions_of_two_visits():
    """Line 79: baseline and follow-up in, new lesions out."""
    recipe = find_recipe("nnunet-longitudinal")
    assert (recipe.visits, recipe.task, recipe.method.task) == (2, "new", "new")
    assert recipe.method.configuration == "3d_fullres"


def test_b0_has_the_documents_training():
    """Line 89."""
    learning = find_recipe("nnunet-longitudinal").method.learning
    assert isinstance(learning.optimizer, Adam)
    assert learning.learning_rate == 0.01
    assert learning.batches_per_epoch == 250
    assert learning.schedule == JointPlateau(
        ("total", "validation_loss"), gamma=1 / 5, patience=30, min_drop=0.005
    )
    assert learning.epochs == 300
    assert learning.save_every == 25


def test_b0_reports_its_tables_last_row():
    """Line 130."""
    assert find_recipe("nnunet-longitudinal").reported == {
        "dsc": 0.58, "dsc_sd": 0.35, "voxel_recall": 0.62, "voxel_recall_sd": 0.36,
    }  # fmt: skip


def test_b0_says_which_program_is_missing():
    """Departure: line 75 names HD-BET."""
    assert "HD-BET, a separate program" in said("nnunet-longitudinal")


# B2: document 002, lines 163 to 267


def test_b2_prepares_in_the_documents_order():
    """Lines 208 to 226."""
    assert step_names("nnunet-empenn") == [
        "TemplateMaskBrain", "RegisterToFirst", "SharedBrain", "CropToBrain", "N4",
        "JointRescale", "Nyul",
    ]  # fmt: skip
    assert find_recipe("nnunet-empenn").preprocess[2].of == "first"


def test_b2_says_how_it_reads_the_joint_rescaling():
    """Departure: line 223, "best fits the y=x line in a least square sense"."""
    assert "read as total least squares" in said("nnunet-empenn")


def test_b2_standardization_undoes_any_linear_scale_before_it(tmp_path):
    """Why that reading changes nothing of what the network sees."""
    grid = Grid((8, 9, 10), np.eye(4))
    values = np.random.default_rng(1).gamma(9, 10, grid.shape)

    def standardized(scale, shift):
        scan = Volume((scale * values + shift).astype(np.float32), grid)
        brain = Volume(np.ones(grid.shape, dtype=bool), grid)
        study = Study("a", (Visit({"flair": scan}, {}, brain),))
        step = Nyul().fit(TrainingData([study]), RunContext(tmp_path))
        return step(study).baseline.scans["flair"].array

    np.testing.assert_allclose(standardized(1.7, -20), standardized(1, 0), atol=1e-3)


def test_b2_has_the_documents_network_and_training():
    """Lines 230 to 239."""
    recipe = find_recipe("nnunet-empenn")
    method = recipe.method
    assert (recipe.visits, recipe.task, method.task) == (2, "new", "new")
    assert method.plans.patch_size_vox == (64, 160, 192)
    assert method.plans.spacing_mm == (1.0, 0.5, 0.5)
    assert method.plans.dropout == 0.2
    assert method.learning.loss == "dice+ce"
    assert isinstance(method.learning.optimizer, Sgd)
    assert method.learning.epochs == 1000
    assert method.learning.batches_per_epoch == 250


def test_b2_augments_as_the_document_does():
    """Lines 240 to 248."""
    augmentation = find_recipe("nnunet-empenn").method.augmentation
    assert augmentation.scaling == (0.85, 1.25)
    assert augmentation.rotation_deg == 15
    assert augmentation.mirror == ("i",)
    assert augmentation.enhancement is not None
    assert not augmentation.intensity  # four alterations, no others


def test_b2_cuts_filters_and_then_resamples_the_mask():
    """Lines 255 to 261: a threshold of 0.2, 26-connected components larger than 4 mm³, then the
    baseline's grid. The filter is the mask's, so none of it comes back with the lesions."""
    recipe = find_recipe("nnunet-empenn")
    cleanup = recipe.method.cleanup
    assert recipe.threshold == cleanup.patch_above == 0.2
    assert cleanup.connectivity == recipe.to_instances.connectivity == 26
    assert cleanup.volume_mm3 == 4
    assert recipe.refine == ()
    assert recipe.output.grid == "baseline"
    assert recipe.output.resample == "labels"
    probability = np.zeros((9, 9, 9), np.float32)
    probability[1:3, 1:3, 1] = 0.3  # 4 mm³
    probability[5:7, 5:7, 5:7] = 0.3  # 8 mm³
    maps = LesionMaps(probability, Grid(probability.shape, np.eye(4)))
    mask = cleanup(maps).probability > recipe.threshold
    assert mask[5:7, 5:7, 5:7].all()
    assert mask.sum() == 8


@pytest.mark.parametrize(
    "name", ["conflunet-nnunet", "nnunet-2d", "nnunet-longitudinal", "nnunet-empenn"]
)
def test_each_row_says_what_it_is_and_where_it_departs(name):
    recipe = find_recipe(name)
    assert "nnU-Net" in describe(name)
    assert str(recipe.citation)
    assert len(recipe.departures) >= 8
    assert recipe.method.scans == recipe.scans
