"""Every number of the rows B6, B10, B12, B13, B20 and B21 of the systems, against their recipes."""

import pytest

from lesionwise.learning.intensity_transforms import (
    AxialMean,
    BiasField,
    Blur,
    Gamma,
    Noise,
    OneOf,
    Sharpen,
)
from lesionwise.learning.losses import CrossEntropy, DeepSupervision, Dice, Focal
from lesionwise.learning.optimizers import Adam, AdamW, Sgd
from lesionwise.learning.schedules import CosineAnnealing
from lesionwise.methods.cascade import AddMaps, LastVisitOnly
from lesionwise.methods.composite import Ensemble, SegmentThenCompare
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import CropToBrain, CropToNonzero, Resample
from lesionwise.preprocess.intensity import N4, Rescale01, ZScore
from lesionwise.preprocess.pair_maps import Subtract
from lesionwise.preprocess.resampling import ResampleNearInteger
from lesionwise.preprocess.template import RegisterToTemplate
from lesionwise.run.recipes import describe, find_recipe

ROWS = (
    "nnunet-subtraction",
    "iqda",
    "pre-unet",
    "antialias-unet",
    "cascade-probability",
    "segresnet-ensemble",
)


def parameters(method):
    return sum(p.numel() for p in method.network().parameters())


def terms(loss):
    return [(weight, type(part)) for weight, part in loss.terms]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_takes_two_visits_and_names_what_is_new(row):
    recipe = find_recipe(row)
    assert recipe.visits == 2
    assert recipe.task == "new"
    assert recipe.scans == ("flair",)
    assert recipe.departures
    assert describe(row).endswith(".")
    assert recipe.output.grid == "followup"


def test_b6_finds_all_lesions_of_each_visit_and_subtracts():
    recipe = find_recipe("nnunet-subtraction")
    assert [type(s) for s in recipe.preprocess] == [
        RegisterToTemplate,
        ExtractBrain,
        ZScore,
        Rescale01,
        MaskToBrain,  # 002:606-610: the skull is stripped, so outside is the darkest, 0
    ]
    method = recipe.method
    assert isinstance(method, SegmentThenCompare)
    assert method.min_volume_mm3 == 10
    network = method.method.then
    assert network == method.method.first  # pre-trained elsewhere, fine-tuned
    assert network.task == "lesions"
    assert len(network.network.keywords["features"]) == 5
    loss = network.objective.loss
    assert terms(loss) == [(1.0, Dice), (1.0, CrossEntropy)]
    assert loss.terms[1][1].lesion_weight != 1
    assert isinstance(network.optimization.optimizer, Adam)
    assert network.optimization.learning_rate == 1e-4
    assert network.optimization.epochs == 400
    assert network.samples.batch_size == 2
    spatial = network.samples.augmentation.spatial
    assert spatial.flip > 0
    assert spatial.affine.rotation_deg > 0
    assert spatial.affine.shear > 0
    assert recipe.reported == {"dsc": 0.427, "lesion_detection": 0.465}


def test_b10_sees_images_of_every_quality():
    recipe = find_recipe("iqda")
    steps = [type(s) for s in recipe.preprocess]
    for step in (ExtractBrain, SharedBrain, MaskToBrain, N4):
        assert step in steps
    assert SharedBrain("union") in recipe.preprocess
    method = recipe.method
    assert method.network.keywords["in_channels"] == 2
    assert method.network.keywords["groups"] == 8
    assert method.network.keywords["dropout"] == 0.5
    (choice,) = method.samples.augmentation.intensity.effects
    assert choice == OneOf((Blur((0.5, 1.75)), Sharpen((0.5, 1.75)), AxialMean((2, 3, 4))))
    assert method.objective.loss == Dice()
    assert isinstance(method.optimization.optimizer, Adam)
    assert method.optimization.optimizer.betas[0] == 0.9
    assert method.optimization.learning_rate == 1e-4
    assert method.samples.size_vox == (64, 64, 64)


def test_b12_is_supervised_at_three_resolutions():
    recipe = find_recipe("pre-unet")
    assert CropToNonzero() in recipe.preprocess
    assert Resample(0.6) in recipe.preprocess
    assert any(isinstance(s, ZScore) for s in recipe.preprocess)
    method = recipe.method
    assert method.samples.size_vox == (128, 128, 128)
    assert method.samples.sampling.lesion_fraction == 0.5
    assert len(method.network.keywords["features"]) == 4
    assert isinstance(method.objective.loss, DeepSupervision)
    assert method.objective.loss.weights == (1.0, 0.5, 0.25)
    assert terms(method.objective.loss.loss) == [(1.0, Dice), (1.0, Focal)]
    assert isinstance(method.optimization.optimizer, AdamW)
    assert method.optimization.learning_rate == 1e-5
    assert method.optimization.weight_decay == 1e-2
    assert method.optimization.schedule == CosineAnnealing()
    assert method.samples.batch_size == 2
    steps = method.optimization.epochs * method.samples.per_epoch // method.samples.batch_size
    assert steps == 100_000
    assert method.inference.window.overlap == 0.5
    effects = {type(e).__name__ for e in method.samples.augmentation.intensity.effects}
    assert effects == {"Noise", "Blur", "Brightness", "Shift", "BiasField", "Gamma"}
    assert recipe.output.resample == "logits"
    assert recipe.reported["dsc"] == pytest.approx(0.625, abs=5e-4)
    assert recipe.reported["dsc_sd"] == pytest.approx(0.361, abs=5e-4)
    assert recipe.reported["voxel_recall"] == pytest.approx(0.577, abs=5e-4)


def test_b12_has_the_stated_number_of_parameters():
    assert parameters(find_recipe("pre-unet").method) == pytest.approx(26.3e6, abs=0.05e6)


def test_b13_normalizes_after_augmentation():
    recipe = find_recipe("antialias-unet")
    assert SharedBrain("union") in recipe.preprocess
    assert N4() in recipe.preprocess
    assert ResampleNearInteger(target_mm=1.0, tolerance_mm=0.11) in recipe.preprocess
    assert CropToBrain(margin_mm=0.0) in recipe.preprocess
    assert isinstance(recipe.method, Ensemble)
    assert len(recipe.method.methods) == recipe.method.folds == 5
    member = recipe.method.methods[0]
    assert set(recipe.method.methods) == {member}
    normalize = member.inference.normalize
    assert (normalize.low, normalize.high, normalize.onto) == (0.05, 99.5, (-1.0, 1.0))
    augmentation = member.samples.augmentation
    assert augmentation.whole_volume
    spatial = augmentation.spatial
    assert spatial.axes == "permute"
    moved = spatial.affine.probability + spatial.elastic.probability
    assert moved == pytest.approx(0.75)
    assert spatial.elastic.probability == pytest.approx(0.2 * moved)
    probabilities = {type(e): e.probability for e in augmentation.intensity.effects}
    assert probabilities == {BiasField: 0.5, Gamma: 0.8, Blur: 0.2, Noise: 0.35}
    assert member.samples.size_vox == (96, 96, 96)
    sampling = member.samples.sampling
    assert (sampling.background, sampling.brain, sampling.lesion) == (0, 1, 100)
    assert member.network.keywords["features"] == (40, 40, 80, 80, 120, 120)
    assert [part for _, part in terms(member.objective.loss)] == [CrossEntropy, Dice]
    optimization = member.optimization
    assert isinstance(optimization.optimizer, Sgd)
    assert optimization.learning_rate == 1e-3
    assert member.samples.batch_size == 4
    stopping = optimization.early_stopping
    assert (stopping.patience, stopping.unit) == (2000, "steps")
    assert stopping.metric == "validation_dsc"
    assert member.inference.window.overlap == 0.5
    assert member.inference.window.mirror_axes == (0, 1, 2)  # eight flips
    assert (recipe.reported["lesion_f1"], recipe.reported["dsc"]) == (0.71, 0.54)


def test_b20_sees_how_the_probability_of_lesions_changed():
    recipe = find_recipe("cascade-probability")
    steps = recipe.preprocess
    assert steps[0] == DeformToLast(method="bspline", linear="affine")
    assert SharedBrain("last") in steps
    assert Resample((0.5, 0.98, 0.98)) in steps
    (maps,) = [s for s in steps if isinstance(s, AddMaps)]
    assert maps.auxiliary == "lesions"
    assert steps[-2:] == (Subtract(maps.name, "probability_change"), LastVisitOnly())
    one = maps.method
    ensemble = recipe.method.method  # of positive cases alone
    assert len(ensemble.methods) == ensemble.folds == 4
    assert ensemble.combine == "mean"
    two = ensemble.methods[0]
    assert maps.folds == 4  # 002:2294-2298: stage one never saw the patients of stage two
    for stage in (one, two):
        assert len(stage.network.keywords["features"]) - 1 == 5
        assert isinstance(stage.optimization.optimizer, Adam)
        assert stage.objective.loss == CrossEntropy()
        assert stage.optimization.epochs == 5000
        assert stage.samples.size_vox == (128, 128, 128)
        assert stage.samples.sampling.lesion_fraction == 0.5
        spatial = stage.samples.augmentation.spatial
        assert spatial.flip > 0
        assert min(spatial.affine.probability, spatial.elastic.probability) > 0
    assert (one.task, two.task) == ("lesions", "new")
    assert two.scans == ("probability_change", "flair")
    assert any(isinstance(e, Gamma) for e in one.samples.augmentation.intensity.effects)
    later = two.samples.augmentation.intensity
    assert later.scans == ("flair",)
    assert not any(isinstance(e, Gamma) for e in later.effects)
    assert recipe.threshold == 0.1
    assert recipe.reported["dsc_at_0.5"] == 0.533
    assert recipe.reported["dsc"] == 0.625


def test_b21_joins_five_shallow_and_five_deep_networks():
    recipe = find_recipe("segresnet-ensemble")
    assert ZScore(within="nonzero", zero_outside=True) in recipe.preprocess
    members = recipe.method.methods
    assert recipe.method.folds == 5
    assert len(members) == 10
    shallow, deep = members[0], members[5]
    assert set(members[:5]) == {shallow}
    assert set(members[5:]) == {deep}
    assert shallow.samples.size_vox == (16, 16, 16)
    assert shallow.network.keywords["features"] == 64
    assert shallow.network.keywords["blocks"] == (4, 4)
    assert shallow.samples.batch_size == 512
    assert deep.samples.size_vox == (128, 128, 128)
    assert deep.network.keywords["features"] == 32
    assert deep.network.keywords["blocks"] == (1, 2, 2, 4)
    assert deep.samples.batch_size == 1
    for member in (shallow, deep):
        assert member.runtime.sync_batch_norm
        assert member.objective.loss == Dice()
        optimization = member.optimization
        assert isinstance(optimization.optimizer, AdamW)
        assert optimization.learning_rate == 2e-4
        assert optimization.schedule == CosineAnnealing(end=0.0)
        assert optimization.epochs == 200
        assert optimization.weight_decay == 1e-5
        assert member.samples.augmentation.spatial.flip > 0
        # a departure: steps per epoch are not stated, nnU-Net's 250 are taken
        assert member.samples.per_epoch == 250 * member.samples.batch_size
    assert recipe.reported["dsc"] == pytest.approx(0.508, abs=5e-4)


def test_the_ensembles_leave_no_patient_unused():
    for row in ("antialias-unet", "segresnet-ensemble", "cascade-probability"):
        assert not find_recipe(row).method.uses_validation
    assert find_recipe("iqda").method.uses_validation
