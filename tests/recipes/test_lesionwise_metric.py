"""B8 against its document (002, lines 761 to 875)."""

import torch

from lesionwise.learning.critic import ScoreError, WithScore
from lesionwise.learning.intensity_transforms import AxialMean, Blur, OneOf, Sharpen
from lesionwise.learning.losses import Dice
from lesionwise.learning.mask_pairs import MaskPairs
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.parts import FrozenNetwork
from lesionwise.learning.targets import LesionMask
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.networks.score_critic import ScoreCritic
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.filters import Denoise
from lesionwise.preprocess.intensity import N4
from lesionwise.recipes.lesionwise_metric import REDUCED
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("lesionwise-metric")
(CRITIC,) = RECIPE.method.parts


def test_the_loss_is_the_dice_and_a_fifth_of_what_the_critic_misses():
    # 002:807-823 and 873-875: 1 - Dice, alpha of 0.2 on 1 - F
    assert RECIPE.method.objective == WithScore(Supervised(LesionMask(), Dice()), weight=0.2)


def test_the_critic_is_trained_first_by_its_squared_error_on_balanced_pairs_then_frozen():
    # 002:811-813, 832-843 and 855: frozen; convolutions and connected layers; mask pairs; MSE
    assert isinstance(CRITIC, FrozenNetwork)
    assert not CRITIC.learns
    first = CRITIC.first
    assert first.network.func is ScoreCritic
    assert first.objective == ScoreError()
    assert isinstance(first.samples, MaskPairs)
    assert first.samples.blur_vox[0] > 0
    assert first.samples.gain[0] < 1 < first.samples.gain[1]
    assert RECIPE.method.members() == (first,)


def test_both_networks_learn_with_adam_on_patches_of_64():
    # 002:867-874
    for method in (RECIPE.method, CRITIC.first):
        assert method.samples.size_vox == (64, 64, 64)
        assert method.optimization.optimizer == Adam(betas=(0.9, 0.999))
        assert method.optimization.learning_rate == 0.0001
        assert method.task == "new"


def test_the_network_and_the_image_quality_are_those_of_iqda():
    # 002:866-872
    sibling = find_recipe("iqda")
    assert RECIPE.method.network.func is GroupUNet
    assert RECIPE.method.network.keywords == sibling.method.network.keywords
    (choice,) = RECIPE.method.samples.augmentation.intensity.effects
    assert choice == OneOf((Blur((0.5, 1.75)), Sharpen((0.5, 1.75)), AxialMean((2, 3, 4))))
    steps = [type(step) for step in RECIPE.preprocess]
    for step in (ExtractBrain, N4, Denoise):  # 002:859-862
        assert step in steps
    assert RECIPE.preprocess == sibling.preprocess


def test_reduced_the_critic_is_as_narrow_as_the_network_that_is_trained_first():
    (part,) = REDUCED.method.parts
    assert part.first.network.keywords["features"] == (8, 16, 32, 64)
    assert part.first.samples.size_vox == (48, 48, 48)
    mine = part.build(torch.nn.Identity()).state_dict()
    trained = part.first.network().state_dict()
    assert {n: v.shape for n, v in mine.items()} == {n: v.shape for n, v in trained.items()}


def test_the_published_network_on_the_published_patch():
    with torch.device("meta"):
        network = RECIPE.method.network()
        assert network(torch.empty(4, 2, 64, 64, 64)).shape == (4, 2, 64, 64, 64)
    assert sum(p.numel() for p in network.parameters()) == 5_603_366
