"""B24, image processing and CNNs, against its document (002, lines 2739 to 2847)."""

import torch

from lesionwise.change.candidates import RaisedRatio
from lesionwise.learning.candidate_crops import AsManyFalse, MeanAbove, PaddedBoxes, UnequalCrops
from lesionwise.learning.intensity_transforms import BiasField, Noise
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.schedules import StepDecay
from lesionwise.methods.candidate_network import NearestCenter
from lesionwise.preprocess.brain_masks import BetBrain, SharedBrain
from lesionwise.preprocess.distance_maps import DistanceMaps
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.pair import MatchHistograms, Quantize
from lesionwise.preprocess.registration import RegisterToLast
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("roi-filter")
NETWORK = RECIPE.method.network


def test_the_steps_come_in_the_order_of_the_document():
    # 002:2761-2773: N4, rigid, BET on both and their intersection, affine; histograms matched to
    # the second visit, 6 levels of gray; the distance maps
    assert RECIPE.preprocess == (
        N4(),
        RegisterToLast("rigid"),
        BetBrain(),
        SharedBrain("intersection"),
        RegisterToLast("affine"),
        MatchHistograms(to="followup"),
        Quantize(levels=6),
        DistanceMaps(),
    )


def test_regions_are_proposed_as_the_document_says():
    # 002:2779 a ratio of 1.15; 2788-2792 an opening of 1 mm, 7 mm³, the mask eroded by 1 mm
    assert NETWORK.samples.crops.propose == RaisedRatio(
        above=1.15, opening_mm=1.0, min_volume_mm3=7.0, brain_erosion_mm=1.0
    )
    # 002:2794: a padding of two voxels
    assert NETWORK.samples.crops.boxes == PaddedBoxes(padding_vox=2)


def test_batches_are_made_as_the_document_says():
    # 002:2803: 32 patches; 2809-2813: as many false as true, 30 % more, 85 % of these
    # infratentorial (33 % true, 67 % false), 15 % false supratentorial ones
    samples = NETWORK.samples
    assert isinstance(samples, UnequalCrops)
    assert samples.crops_per_batch == 32
    assert samples.crops.balance == AsManyFalse(
        extra_fraction=0.3, marked_fraction=0.85, true_fraction=0.33
    )
    # 002:2804: infratentorial by a threshold in the map from vertex to neck
    assert isinstance(samples.crops.marks, MeanAbove)
    assert samples.crops.marks.scan == "vertex_neck"


def test_noise_and_a_bias_field_change_the_two_scans_alone():
    # 002:2813-2815: each with a probability of 30 %
    intensity = NETWORK.samples.crops.augmentation.intensity
    assert intensity.scans == ("flair",)
    found = {type(effect): effect.probability for effect in intensity.effects}
    assert found == {Noise: 0.3, BiasField: 0.3}
    assert NETWORK.samples.crops.augmentation.spatial is None


def test_it_is_trained_as_the_document_says():
    # 002:2836-2840: 20 epochs, Adam from 0.001, times 0.1 every 4 epochs
    optimization = NETWORK.optimization
    assert optimization.epochs == 20
    assert isinstance(optimization.optimizer, Adam)
    assert optimization.learning_rate == 0.001
    assert optimization.schedule == StepDecay(gamma=0.1, every=4)


def test_the_nearest_center_and_the_threshold_decide():
    # 002:2842-2849
    assert isinstance(RECIPE.method.merge, NearestCenter)
    assert RECIPE.threshold == 0.75
    assert RECIPE.task == "new"
    assert RECIPE.visits == 2


def test_the_published_network_passes_a_crop_forward_and_backward():
    network = NETWORK.network()
    image = torch.randn(1, 5, 9, 12, 7)
    loss = NETWORK.objective.each.loss(network(image), {"mask": torch.ones(1, 1, 9, 12, 7)})
    loss["total"].backward()
    assert all(p.grad is not None for p in network.parameters())
