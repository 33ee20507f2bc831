"""B27 against its document (002, lines 3099 to 3228)."""

from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.positions import MiddleInside, PositiveFraction, RegularGrid
from lesionwise.learning.reconstruction import ConsistentReconstruction
from lesionwise.learning.samples import UnlabelledPatches
from lesionwise.methods.clean_maps import CleanMaps, DropBorderPatches, DropThinPatches
from lesionwise.methods.composite import Ensemble, Pretrained
from lesionwise.networks.dual_attention import DualAttentionUNet, DualAutoencoder
from lesionwise.preprocess.brain_masks import OtsuBrain, SharedBrain
from lesionwise.preprocess.intensity import N4
from lesionwise.recipes.ssl_dual_attention import REDUCED
from lesionwise.run.recipes import auxiliary_sets, find_recipe

RECIPE = find_recipe("ssl-dual-attention")
PRETRAINED = RECIPE.method.method


def test_a_rough_brain_of_both_visits_then_the_bias():
    # 002:3130-3141: Otsu, intersection, largest part; N4 of 400 iterations and 3 levels
    steps = RECIPE.preprocess
    assert steps.index(OtsuBrain()) < steps.index(N4(levels=3, iterations=400))
    assert SharedBrain("intersection") in steps


def test_the_encoder_alone_is_learned_without_labels():
    # 002:3146-3177
    assert isinstance(PRETRAINED, Pretrained)
    assert PRETRAINED.only == "encoder."
    first = PRETRAINED.first
    assert isinstance(first.samples, UnlabelledPatches)
    assert first.objective == ConsistentReconstruction()
    assert first.network.func is DualAutoencoder
    assert first.network.keywords == {"features": (16, 32, 64, 128, 256, 512), "group": 4}
    wanted = auxiliary_sets(RECIPE)["unlabelled"]
    assert (wanted.visits, wanted.labelled, wanted.required) == (2, False, False)


def test_five_networks_learn_from_balanced_patches():
    # 002:3208-3219: 32 voxels every 16 inside the brain, half of them positive, every negative
    # before any again, batches of 32, cross-entropy, five folds averaged
    ensemble = PRETRAINED.then
    assert isinstance(ensemble, Ensemble)
    assert (len(ensemble.methods), ensemble.folds, ensemble.combine) == (5, 5, "mean")
    (member,) = set(ensemble.methods)
    assert member.network.func is DualAttentionUNet
    assert member.network.keywords["features"] == (16, 32, 64, 128, 256, 512)
    assert member.samples.size_vox == (32, 32, 32)
    assert member.samples.positions == RegularGrid((16, 16, 16))
    assert member.samples.keeps == MiddleInside()
    assert isinstance(member.samples.balance, PositiveFraction)
    assert member.samples.balance.fraction == 0.5
    assert member.samples.batch_size == 32
    assert member.objective.loss == CrossEntropy()
    assert member.task == RECIPE.task == "new"
    assert not RECIPE.method.uses_validation


def test_lesions_at_the_border_and_below_four_voxels_go():
    # 002:3219-3221
    method = RECIPE.method
    assert isinstance(method, CleanMaps)
    assert method.border == DropBorderPatches(patch_above=RECIPE.threshold)
    (small,) = method.cleanup
    assert small == DropThinPatches(min_axis_vox=0.0, min_vox=4, patch_above=RECIPE.threshold)


def test_reduced_both_trainings_have_short_epochs():
    pretrained = REDUCED.method.method
    (member,) = pretrained.then.methods
    assert member.samples.balance == PositiveFraction(0.5, per_epoch=160)
    assert pretrained.first.samples.per_epoch == 160
    features = pretrained.first.network.keywords["features"]
    assert features == member.network.keywords["features"] == (8, 16, 32, 64)
