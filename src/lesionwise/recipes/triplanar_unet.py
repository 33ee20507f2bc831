"""One 2D U-Net for slices of three planes in MNI space; planes vote, then five folds."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.views import Planes
from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import BiasField, Compose, Contrast
from lesionwise.learning.losses import Dice, TopKCrossEntropy, WeightedSum
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam, Sgd
from lesionwise.learning.positions import EverySlice
from lesionwise.learning.samples import Augmentation, ListedPatches
from lesionwise.learning.schedules import EarlyStopping, Plateau
from lesionwise.learning.spatial_transforms import (
    RandomAffine,
    RandomElastic,
    SpatialAugmentation,
    VolumeAugmentation,
)
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.composite import Ensemble
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.unet_2d import plane_unet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.resampling import ResizeVolume
from lesionwise.preprocess.template import RegisterToTemplate
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

FOLDS = 5
ALL = 1_000_000
"""More slices than there are, so that all slices of the validation studies count."""
AIR = -1.0
"""About where the raw intensity is 0 after the z-score of a whole volume cut to the brain."""
WINDOW = SlidingWindow(windows_per_batch=16)

MEMBER = NetworkMethod(
    network=partial(plane_unet, in_channels=2, out_channels=2),
    scans=("flair",),
    samples=ListedPatches(
        EverySlice(normals=(0, 1, 2)),
        size_vox=(256, 256, 1),
        batch_size=20,
        augmentation=Augmentation(
            spatial=VolumeAugmentation(
                SpatialAugmentation(
                    flip=0.5,
                    affine=RandomAffine(0.3, rotation_deg=15.0),
                    elastic=RandomElastic(0.3, displacement_mm=3.0),
                    outside="edge",  # air is not 0 after the z-score of the whole volume
                )
            ),
            intensity=Compose(
                (
                    Contrast((0.75, 1.25), probability=0.3),
                    BiasField((0.05, 0.25), probability=0.3, zero=AIR),
                )
            ),
        ),
    ),
    objective=Supervised(
        LesionMask(),
        WeightedSum(((1.0, Dice(over="batch")), (1.0, TopKCrossEntropy(fraction=0.1)))),
    ),
    optimization=Optimization(
        learning_rate=1e-4,
        epochs=1000,
        optimizer=Sgd(momentum=0.9),
        schedule=Plateau(metric="validation_loss", gamma=0.1, patience=10),
        early_stopping=EarlyStopping(
            patience=25, unit="epochs", metric="validation_loss", larger_is_better=False
        ),
    ),
    task="new",
    inference=Inference(WINDOW, planes=Planes(axes=(1, 2, 0), combine="vote")),
    selection=Selection(window=WINDOW, loss_samples=ALL),
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on a 2D U-Net for the slices of all three planes]"),
    passage="002, line 1704, sections 2 and 3",
    scans=("flair",),
    preprocess=(
        RegisterToTemplate(model="affine"),
        ExtractBrain(),
        CropToBrain(),
        ResizeVolume((256, 256, 256)),
        ZScore(within="all"),
    ),
    method=Ensemble((MEMBER,) * FOLDS, combine="vote", folds=FOLDS),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The paper has two pipelines. This is pipeline A: only the challenge's training data, "
            "without the authors' own 46 pairs."
        ),
        "The paper registers with ANTs. We use our own registration, to nilearn's MNI152 at 1 mm.",
        (
            '"Cropping close to the brain" is not defined. We crop to the box of both brain masks, '
            "5 mm wider. The skull within it stays."
        ),
        "The paper's network has one output channel. Ours has two, whose difference is the same.",
        (
            "The paper augments volumes. We transform the geometry of the volume, and each slice "
            "sees its part. Contrast and bias field are drawn for each slice, and for each of the "
            "two visits."
        ),
        (
            "What a turned volume shows beyond its border is not stated. We repeat its outermost "
            "voxels."
        ),
        (
            "Ranges and probabilities of the augmentation are not stated. We use flips with "
            "probability 0.5; rotations of up to 15 degrees, elastic displacements of 3 mm, "
            "contrast ± 25 % and a bias field have a probability of 0.3 each."
        ),
        "Which slices train is not stated. We use all, with lesions or without.",
        (
            "How Dice is summed is not stated. We sum it over the batch, since most slices have no "
            "lesion."
        ),
        (
            "The k of the top-k loss is not stated. We use the worst tenth of the batch's pixels, "
            "as in nnU-Net."
        ),
        (
            "Momentum, and factor and patience of the schedule are not stated. We use 0.9, a tenth "
            "after 10 epochs without improvement, and stop after 25."
        ),
        (
            "The threshold of a plane and the order of the votes are not stated in detail. We "
            "threshold a plane at 0.5. The planes of each network vote on its mask first. Then the "
            "five masks are averaged and thresholded at 0.5, in the order of the section."
        ),
        (
            "Initial weights are not stated. We use those of Ronneberger et al., and a bias with "
            "which training starts at a lesion probability of 0.02 everywhere."
        ),
        (
            "Which weights are used is not stated. We use those with the highest Dice on the fold "
            "left out."
        ),
    ),
)

SMALL = replace(
    MEMBER,
    optimization=replace(
        MEMBER.optimization,
        optimizer=Adam(),
        schedule=Plateau(metric="total", gamma=0.1, patience=10),
        early_stopping=None,
    ),
    selection=Selection(window=WINDOW),
)
"""Its rate follows the training loss, as the reduced form has no validation in training. Adam takes
the place of SGD, with which a loss that hardly moves for thousands of steps stays where it is."""

REDUCED = reduced(
    replace(
        RECIPE,
        preprocess=tuple(
            ResizeVolume((160, 160, 160)) if isinstance(step, ResizeVolume) else step
            for step in RECIPE.preprocess
        ),
        method=Ensemble((SMALL,) * FOLDS, combine="vote", folds=FOLDS),
    ),
    Reduction(
        network={"features": (8, 16, 32, 64, 128)},
        size_vox=(160, 160, 1),
        learning_rate=1e-3,
        batch_size=8,
        window=SlidingWindow(windows_per_batch=16, engine="openvino"),
    ),
)
