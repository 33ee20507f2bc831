"""Regions that became brighter; a network without pooling finds new lesions in them."""

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
        (
            "The paper uses ANTs for registration and Anima for bias correction. We use our own "
            "implementations, and run N4 on a copy with 4 mm voxels."
        ),
        (
            "The paper uses BET from FSL. We use our own implementation of BET. Its fraction is "
            "not stated; we use 0.5."
        ),
        "The paper uses the histogram matching of ANTs. We match quantiles in the brain.",
        (
            "The intensity range that is divided into six gray levels is not stated. We use "
            "percentiles 0.5 to 99.5."
        ),
        (
            "Where the ratio is taken is not stated. We take it after the gray levels. Outside the "
            "brain, where they are 0, it is 1."
        ),
        (
            "The paper opens and erodes by 1 mm; the shape is not stated. We use a ball, rounded "
            "to whole voxels along each axis, so that it does not reach across slices of 2 mm or "
            "more."
        ),
        (
            "The paper deletes regions below 7 mm³ in the text and keeps those above 7 mm³ in a "
            "figure. We keep regions of 7 mm³."
        ),
        (
            "Units of the distance maps are not stated. We use fractions of the brain's depth and "
            "extent."
        ),
        (
            "The threshold for infratentorial regions in the map from vertex to neck is not "
            "stated. We use a mean above 0.65 of the brain's height."
        ),
        "Which regions count as true is not stated. Ours share a voxel with a new lesion.",
        (
            "How patches of different sizes form a batch of 32 is not stated. Convolutions see "
            "them one after the other, batch normalization uses the voxels of all of them, and "
            "their losses are averaged."
        ),
        (
            "A maximum patch size is not stated. In training we crop patches to 48 voxels along "
            "each axis; in prediction we do not."
        ),
        "Channels of the convolutions are only in a figure. We use 16, 32, 64, 64, 32, 16, 16.",
        (
            "How the last block becomes one value is not stated. A 1x1x1 convolution gives two "
            "values, and a sigmoid of their difference gives the probability."
        ),
        "The loss is not stated. We use cross-entropy.",
        (
            "An epoch is not defined. Ours shows every true region once, as many false ones, and "
            "the extra ones."
        ),
        (
            "Strengths of noise and bias field are not stated. The noise has TorchIO's default "
            "strength, a standard deviation of up to 0.25 gray levels. The logarithm of the bias "
            "field has one of up to 0.3 at the points of a spline, 4 along each axis."
        ),
        (
            "With TorchIO, noise and bias field change both scans of a patch or neither. We decide "
            "for each scan, with 30 % for each of the two."
        ),
        "Which weights are used is not stated. We use the last ones.",
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 16, 16, 16, 8, 8)},
        learning_rate=5e-3,
        per_epoch=50,
        epochs=None,
        every=None,
    ),
)
