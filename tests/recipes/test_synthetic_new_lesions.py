"""B9 against its document (002, lines 876 to 986)."""

import pytest
import torch

from lesionwise.learning.intensity_transforms import AxialMean, Blur, Noise, OneOf, Sharpen
from lesionwise.learning.losses import Dice
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.parts import FrozenNetwork
from lesionwise.learning.synthetic import (
    AwayFromLesions,
    OnSyntheticPairs,
    PatchesToFill,
    SyntheticPairs,
)
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.geometry import Resample
from lesionwise.recipes.synthetic_new_lesions import REDUCED
from lesionwise.run.recipes import auxiliary_sets, find_recipe

RECIPE = find_recipe("synthetic-new-lesions")
METHOD = RECIPE.method
SOURCES = dict(METHOD.samples.sources)
INPAINTER, GENERATOR = METHOD.parts


def test_three_synthetic_pairs_beside_a_real_one_weigh_a_third_each():
    # 002:967-974
    assert list(SOURCES) == ["real", "synthetic-1", "synthetic-2", "synthetic-3"]
    assert all(samples.batch_size == 1 for samples in SOURCES.values())
    weights = {name: weight for name, weight, _ in METHOD.objective.objectives}
    assert weights == {"real": 1.0} | dict.fromkeys(list(SOURCES)[1:], pytest.approx(1 / 3))
    for name, _, objective in METHOD.objective.objectives:
        if name == "real":
            assert objective.loss == Dice()
        else:
            assert isinstance(objective, OnSyntheticPairs)
            assert objective.supervised.loss == Dice()
            assert isinstance(SOURCES[name], SyntheticPairs)


def test_single_scans_with_outlined_lesions_come_from_a_set_of_their_own():
    # 002:919-921
    (single,) = auxiliary_sets(RECIPE).values()
    assert (single.name, single.visits, single.labelled) == ("lesions", 1, True)


def test_the_copies_are_turned_and_altered():
    # 002:921-926: flipping and rotations; noise, blur, edge enhancement, subsampling
    augmentation = SOURCES["synthetic-1"].augmentation
    assert augmentation.spatial.flip > 0
    assert augmentation.spatial.affine.rotation_deg > 0
    (one,) = augmentation.intensity.effects
    assert {type(effect) for effect in one.effects} == {Noise, Blur, Sharpen, AxialMean}
    (real,) = SOURCES["real"].augmentation.intensity.effects  # 002:983
    assert real == OneOf((Blur((0.5, 1.75)), Sharpen((0.5, 1.75)), AxialMean((2, 3, 4))))


def test_the_networks_that_paint_are_trained_first_and_frozen():
    # 002:938-957
    for part, fill, channels in ((INPAINTER, "healthy", 1), (GENERATOR, "lesions", 2)):
        assert isinstance(part, FrozenNetwork)
        first = part.first
        assert isinstance(first.samples, PatchesToFill)
        assert first.samples.fill == fill
        assert first.network.func is UNet
        assert first.network.keywords["in_channels"] == channels
        assert first.network.keywords["out_channels"] == 1
    assert INPAINTER.first.samples.sampling == AwayFromLesions()
    assert GENERATOR.first.samples.sampling.lesion_fraction == 1


def test_validation_cannot_choose_the_weights_of_the_networks_that_paint():
    # departures: their last weights are taken, since they find nothing that could be scored
    assert [part.first.objective.targets for part in METHOD.parts] == [None, None]
    assert METHOD.objective.targets is not None


def test_nothing_is_resampled_to_a_fixed_voxel_size():
    # departures; 002:976-986 name no voxel size
    assert not any(isinstance(step, Resample) for step in RECIPE.preprocess)


def test_all_networks_learn_with_adam_on_patches_of_64():
    # 002:983-986
    for method in (METHOD, INPAINTER.first, GENERATOR.first):
        assert method.samples.size_vox == (64, 64, 64)
        assert method.optimization.optimizer == Adam(betas=(0.9, 0.999))
        assert method.optimization.learning_rate == 0.0001
    assert METHOD.network.func is GroupUNet
    assert METHOD.network.keywords == find_recipe("iqda").method.network.keywords  # 002:959


def test_reduced_every_source_and_every_network_is_smaller():
    sources = dict(REDUCED.method.samples.sources)
    assert {samples.size_vox for samples in sources.values()} == {(48, 48, 48)}
    assert {samples.per_epoch for samples in sources.values()} == {80}
    for part in REDUCED.method.parts:
        assert part.first.network.keywords["features"] == (8, 16, 32, 64)
        assert part.first.samples.size_vox == (48, 48, 48)


def test_the_published_networks_on_the_published_patch():
    with torch.device("meta"):
        assert METHOD.network()(torch.empty(4, 2, 64, 64, 64)).shape == (4, 2, 64, 64, 64)
        for part in METHOD.parts:
            network = part.first.network()
            channels = part.first.network.keywords["in_channels"]
            assert network(torch.empty(4, channels, 64, 64, 64)).shape == (4, 1, 64, 64, 64)
    count = sum(p.numel() for p in METHOD.network().parameters())
    assert count == 5_603_366
