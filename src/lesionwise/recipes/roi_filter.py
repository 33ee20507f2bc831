"""Regions that became brighter, in which a network without pooling looks for new lesions."""

from functools import partial

from lesionwise.change.candidates import RaisedRatio
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.candidate_crops import (
    AsManyFalse,
    CandidateCrops,
    MeanAbove,
    PaddedBoxes,
    UnequalCrops,
)
from lesionwise.learning.intensity_transforms import BiasField, Noise, OnChannels
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.objective import MeanOverCrops, Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samples import Augmentation
from lesionwise.learning.schedules import StepDecay
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.candidate_network import CandidateNetwork, NearestCenter
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.roi_cnn import RoiCnn
from lesionwise.preprocess.brain_masks import BetBrain, SharedBrain
from lesionwise.preprocess.distance_maps import DistanceMaps
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.pair import MatchHistograms, Quantize
from lesionwise.preprocess.registration import RegisterToLast
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

CROPS = CandidateCrops(
    propose=RaisedRatio(above=1.15, opening_mm=1.0, min_volume_mm3=7.0, brain_erosion_mm=1.0),
    boxes=PaddedBoxes(padding_vox=2),
    size_vox=(48, 48, 48),
    balance=AsManyFalse(extra_fraction=0.3, marked_fraction=0.85, true_fraction=0.33),
    marks=MeanAbove("vertex_neck", 0.65),
    augmentation=Augmentation(
        intensity=OnChannels(
            scans=("flair",),
            effects=(
                Noise((0.0, 0.25), probability=0.3, relative=False),
                BiasField((0.0, 0.3), probability=0.3),
            ),
        )
    ),
)

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on image processing that finds regions and a CNN that filters them]"
    ),
    passage="002, line 2739, sections 1 and 2",
    scans=("flair",),
    preprocess=(
        N4(),
        RegisterToLast("rigid"),
        BetBrain(),
        SharedBrain("intersection"),
        RegisterToLast("affine"),
        MatchHistograms(to="followup"),
        Quantize(levels=6),
        DistanceMaps(),
    ),
    method=CandidateNetwork(
        network=NetworkMethod(
            network=partial(RoiCnn, in_channels=5, out_channels=2),
            scans=("flair", "depth@followup", "vertex_neck@followup", "occiput_nose@followup"),
            samples=UnequalCrops(CROPS, crops_per_batch=32),
            objective=MeanOverCrops(Supervised(LesionMask(), CrossEntropy())),
            optimization=Optimization(
                learning_rate=1e-3,
                epochs=20,
                optimizer=Adam(),
                schedule=StepDecay(gamma=0.1, every=4),
            ),
            task="new",
        ),
        merge=NearestCenter(),
    ),
    threshold=0.75,
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        "registration and bias correction are our own, not ANTs' and Anima's",
        "BET is the project's own; its fraction is not stated: 0.5",
        "histogram matching is by quantiles in the brain, not that of ANTs",
        "the range that is cut into six gray levels is not stated: percentiles 0.5 to 99.5",
        "the ratio is taken after the gray levels; outside the brain, where they are 0, it is 1",
        "an opening and an erosion of 1 mm reach one voxel where voxels are larger",
        "regions of 7 mm³ stay; the chapter says both below 7 and not above 7 for what goes",
        "units of the distance maps are not stated: fractions of the brain's depth and extent",
        (
            "the limit of the map from vertex to neck below which a region is infratentorial is "
            "not stated: a mean above 0.65 of the brain's height"
        ),
        "a region counts as true where it shares a voxel with a new lesion",
        (
            "crops of unequal size pass the network one after the other and their losses are "
            "averaged, so batch normalization is over one crop at a time; how a batch of 32 was "
            "made of them is not stated"
        ),
        "in training a crop of more than 48 voxels along an axis is cut to that; in use none is",
        "channels of the convolutions are only in a figure: 16, 32, 64, 64, 32, 16, 16",
        (
            "a convolution of one voxel follows the seventh block; two logits, whose difference "
            "passes a sigmoid, stand for one"
        ),
        "the loss is not stated: cross-entropy",
        "an epoch is not defined: every true region once, as many false ones and the extra ones",
        "strengths of noise and bias field are not stated: of the noise torchio's default",
        "which weights are used is not stated: the last ones",
        "the initial bias is not stated: a lesion probability of 0.02 everywhere",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 16, 16, 16, 8, 8)},
        learning_rate=5e-3,
        per_epoch=25,
        epochs=None,
        every=None,
    ),
)
