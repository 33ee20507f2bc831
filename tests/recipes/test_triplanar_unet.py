"""B14 against its document (002, lines 1704 to 1812), pipeline A."""

from lesionwise.learning.intensity_transforms import BiasField, Contrast
from lesionwise.learning.losses import Dice, TopKCrossEntropy
from lesionwise.learning.optimizers import Sgd
from lesionwise.learning.positions import EverySlice
from lesionwise.learning.schedules import EarlyStopping, Plateau
from lesionwise.learning.spatial_transforms import VolumeAugmentation
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.resampling import ResizeVolume
from lesionwise.preprocess.template import RegisterToTemplate
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("triplanar-unet")
MEMBER = RECIPE.method.methods[0]


def test_the_four_steps_come_in_the_order_of_the_document():
    # 002:1750-1754: affine to the MNI template, cropped close to the brain, 256x256x256, z-score
    wanted = [RegisterToTemplate, CropToBrain, ResizeVolume, ZScore]
    steps = [step for step in RECIPE.preprocess if type(step) in wanted]
    assert [type(step) for step in steps] == wanted
    assert steps[0].model == "affine"
    assert steps[2].size_vox == (256, 256, 256)
    assert steps[3].within == "all"


def test_volumes_are_augmented_in_five_ways():
    # 002:1756-1759: contrast, rotations, flips across the three planes, elastic, bias field, on
    # the 3D volumes
    augmentation = MEMBER.samples.augmentation
    assert isinstance(augmentation.spatial, VolumeAugmentation)
    spatial = augmentation.spatial.spatial
    assert spatial.affine.rotation_deg > 0
    assert spatial.outside == "edge"  # after the z-score of the whole volume air is not 0
    assert (spatial.affine.probability, spatial.elastic.probability) == (0.3, 0.3)
    assert (spatial.flip > 0, spatial.flip_axes) == (True, (0, 1, 2))
    effects = augmentation.intensity.effects
    assert [type(effect) for effect in effects] == [Contrast, BiasField]
    assert [effect.probability for effect in effects] == [0.3, 0.3]


def test_one_network_learns_from_batches_of_20_slices_of_all_planes():
    # 002:1769-1773, 1780-1781
    samples = MEMBER.samples
    assert samples.positions == EverySlice(normals=(0, 1, 2))
    assert (samples.size_vox, samples.batch_size) == ((256, 256, 1), 20)
    assert MEMBER.network.keywords["in_channels"] == 2


def test_training_follows_the_validation_loss():
    # 002:1782-1787: SGD with momentum, 1e-4, reduced on a plateau of the validation loss, until it
    # stops decreasing (around 100 epochs)
    optimization = MEMBER.optimization
    assert isinstance(optimization.optimizer, Sgd)
    assert optimization.optimizer.momentum > 0
    assert optimization.learning_rate == 0.0001
    assert isinstance(optimization.schedule, Plateau)
    assert isinstance(optimization.early_stopping, EarlyStopping)
    for rule in (optimization.schedule, optimization.early_stopping):
        assert (rule.metric, rule.larger_is_better) == ("validation_loss", False)
    assert optimization.epochs > 100
    assert MEMBER.selection.loss_samples > 0


def test_the_loss_is_the_sum_of_dice_and_top_k():
    # 002:1790-1792
    terms = MEMBER.objective.loss.terms
    assert [(weight, type(part)) for weight, part in terms] == [
        (1.0, Dice),
        (1.0, TopKCrossEntropy),
    ]


def test_planes_vote_and_then_five_folds_are_averaged():
    # 002:1794-1811: majority of the three masks; the average over the folds
    assert (sorted(MEMBER.inference.planes.axes), MEMBER.inference.planes.combine) == (
        [0, 1, 2],
        "vote",
    )
    assert (len(RECIPE.method.methods), RECIPE.method.folds) == (5, 5)
    # a member's vote is its mask, and the share of votes is the average of masks
    assert (RECIPE.method.combine, RECIPE.method.threshold) == ("vote", 0.5)
