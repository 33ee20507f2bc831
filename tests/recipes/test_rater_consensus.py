"""B22 against its document (002, lines 2494 to 2612)."""

from dataclasses import replace
from functools import partial

from engine import SIDE, pair_of

from lesionwise.learning.intensity_transforms import Blur, Brightness, Contrast, Gamma, Noise
from lesionwise.learning.lesion_weights import SizeWeightedMask, VoxelWeightedCrossEntropy
from lesionwise.learning.optimizers import Sgd
from lesionwise.learning.schedules import Polynomial
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import Ensemble
from lesionwise.networks.film_unet import FilmUNet
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.raters import RATERS, RatersOfNew
from lesionwise.preprocess.standardize import Nyul
from lesionwise.recipes.rater_consensus import REDUCED
from lesionwise.reduction import Reduction, reduced
from lesionwise.run.recipes import find_recipe
from lesionwise.types import RunContext, TrainingData

RECIPE = find_recipe("rater-consensus")
EXPERTS = [step for step in RECIPE.preprocess if isinstance(step, AddMaps)]


def test_bias_correction_histograms_and_diffeomorphic_registration_but_no_resampling():
    # 002:2598-2600 and 2575-2580
    assert N4() in RECIPE.preprocess
    assert DeformToLast(method="syn", linear="affine") in RECIPE.preprocess
    assert any(isinstance(step, Nyul) for step in RECIPE.preprocess)
    assert not any(isinstance(step, Resample) for step in RECIPE.preprocess)


def test_each_of_four_raters_has_a_network_that_has_not_seen_the_patient():
    # 002:2542-2551
    assert [step.method.task for step in EXPERTS] == [f"new-rater-{n}" for n in range(1, 5)]
    assert len({step.name for step in EXPERTS}) == 4
    assert RatersOfNew() in RECIPE.preprocess
    for step in EXPERTS:
        assert step.folds == 4
        assert not step.per_visit
        assert step.method.scans == ("flair",)


def test_the_consensus_network_sees_their_maps_and_both_scans_and_is_one_of_four():
    # 002:2549-2555 and 2600-2601
    ensemble = RECIPE.method
    assert isinstance(ensemble, Ensemble)
    assert (len(ensemble.methods), ensemble.folds, ensemble.combine) == (4, 4, "mean")
    (consensus,) = set(ensemble.methods)
    assert consensus.scans == ("flair", *(f"{step.name}@followup" for step in EXPERTS))
    assert consensus.network.keywords["in_channels"] == 6
    assert consensus.task == RECIPE.task == "new"


def test_every_network_is_told_the_resolution_and_weighs_small_lesions_more():
    # 002:2556-2570 and 2579-2594
    methods = [RECIPE.method.methods[0], *(step.method for step in EXPERTS)]
    for method in methods:
        assert isinstance(method.network, partial)
        assert method.network.func is FilmUNet
        assert isinstance(method.objective.targets, SizeWeightedMask)
        assert method.objective.loss.loss == VoxelWeightedCrossEntropy()


def test_the_rest_is_nnunets():
    # 002:2598
    method = RECIPE.method.methods[0]
    assert method.network.keywords["features"] == (32, 64, 128, 256, 320, 320)
    optimization = method.optimization
    assert optimization.optimizer == Sgd(momentum=0.99, nesterov=True)
    assert (optimization.learning_rate, optimization.weight_decay) == (0.01, 3e-5)
    assert optimization.schedule == Polynomial(0.9)
    assert optimization.epochs == 1000
    assert method.samples.per_epoch == 250 * method.samples.batch_size
    assert method.inference.window.mirror_axes == (0, 1, 2)


def test_augmentation_has_nnunets_numbers():
    # nnU-Net's "noise variance" of up to 0.1 is the standard deviation it draws with, and a fifth
    # of its patches have each channel blurred with a probability of a half
    effects = RECIPE.method.methods[0].samples.augmentation.intensity.effects
    assert effects[:4] == (
        Noise((0.0, 0.1), probability=0.1),
        Blur((0.5, 1.0), probability=0.2 * 0.5),
        Brightness((0.75, 1.25), probability=0.15),
        Contrast((0.75, 1.25), probability=0.15),
    )


def test_probabilities_are_averaged_and_gamma_is_never_inverted():
    # departures: nnU-Net's second version averages logits, and has an inverted gamma beside this
    method = RECIPE.method.methods[0]
    assert method.targets.maps == ("probability",)
    effects = method.samples.augmentation.intensity.effects
    gammas = [effect for effect in effects if isinstance(effect, Gamma)]
    assert gammas == [Gamma((0.7, 1.5), probability=0.3, keep_moments=True)]


def test_experts_and_consensus_learn_and_predict_in_turn(tmp_path):
    # one pair, one network per rater, one step each: does what one stage gives fit the next?
    few = Reduction(
        network={"features": (4, 8)}, size_vox=(SIDE,) * 3, batch_size=1, per_epoch=1, epochs=1
    )
    recipe = reduced(REDUCED, few)
    new = pair_of().changes["new"]
    study = replace(pair_of(), changes={"new": new} | dict.fromkeys(RATERS, new))
    steps = [replace(step, folds=0) for step in recipe.preprocess if isinstance(step, AddMaps)]
    (consensus,) = recipe.method.methods
    assert consensus.network.keywords["features"] == (4, 8)
    for number, step in enumerate(steps):
        run = RunContext(tmp_path / f"{number}", device="cpu")
        study = step.fit(TrainingData([study]), run)(study)
    assert [f"{rater}-map" in study.followup.scans for rater in RATERS] == [True] * 4
    run = RunContext(tmp_path / "consensus", device="cpu")
    consensus.fit(TrainingData([study]), run)
    maps = consensus.load(run)(study)
    assert maps.probability.shape == (SIDE,) * 3
    assert 0 < maps.probability.min() <= maps.probability.max() < 1
