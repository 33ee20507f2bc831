"""The modified 3D U-Net with attention gates; prediction averages passes with dropout on."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.views import MonteCarlo
from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import BiasField, Compose
from lesionwise.learning.losses import Dice
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import EqualClasses, RegularGrid
from lesionwise.learning.samples import Augmentation, ListedPatches
from lesionwise.learning.schedules import CosineAnnealing
from lesionwise.learning.spatial_transforms import RandomAffine, RandomElastic, SpatialAugmentation
from lesionwise.learning.targets import SoftMasks
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.modified_unet import ModifiedUNet
from lesionwise.preprocess.brain_masks import BetBrain, MaskToBrain, SharedBrain
from lesionwise.preprocess.cord import AlignCord, BrainAndCord, CordOfLast, FindCord
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import CropToBrain, CropToCenter, Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.soft_labels import SoftLabels
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

SIZE, STRIDE = (128, 128, 128), (64, 64, 64)
WINDOW = SlidingWindow(stride_vox=STRIDE, weighting="uniform")

SAMPLES = ListedPatches(
    RegularGrid(STRIDE),
    size_vox=SIZE,
    batch_size=4,
    balance=EqualClasses(),
    augmentation=Augmentation(
        spatial=SpatialAugmentation(
            flip=0.5,
            flip_axes=(0,),
            affine=RandomAffine(0.5, rotation_deg=10.0, scale_per_axis=(0.9, 1.1)),
            elastic=RandomElastic(0.5, displacement_mm=2.0, distribution="uniform"),
        ),
        intensity=Compose((BiasField((0.05, 0.25), probability=0.5),)),
    ),
    references=("new",),
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on modified and attention U-Nets for brain and spinal cord]"),
    passage="002, line 2049, sections 3.2 to 3.5, pipeline 3",
    scans=("flair",),
    preprocess=(
        RegisterToHalfway(),
        SoftLabels(),
        Resample(0.5),
        BetBrain(),
        FindCord(),
        AlignCord(),
        SharedBrain("last"),
        CordOfLast(),
        BrainAndCord(by_mm=2.0),
        DeformToLast(method="syn", linear="rigid", working_mm=1.0, order=3, within_brain=True),
        SharedBrain("last"),
        MaskToBrain(),
        N4(),
        CropToBrain(margin_mm=0.0),
        CropToCenter((311, 391, 487)),
    ),
    method=NetworkMethod(
        network=partial(
            ModifiedUNet,
            in_channels=2,
            out_channels=1,
            features=(16, 32, 64, 128, 256),
            attention=True,
            dropout=0.3,
        ),
        scans=("flair",),
        samples=SAMPLES,
        objective=Supervised(
            SoftMasks(("new",), initial_logit=0.0), Dice(activated=True, squared=True, smooth=1.0)
        ),
        optimization=Optimization(
            learning_rate=1e-3, epochs=100, optimizer=Adam(), schedule=CosineAnnealing()
        ),
        task="new",
        inference=Inference(WINDOW, dropout=MonteCarlo(passes=20)),
        selection=Selection(by=("soft_dsc",), every=1, window=WINDOW),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        (
            "The paper finds the cord with the Spinal Cord Toolbox. We find it below each visit's "
            "brain mask by brightness and shape, and align it by smoothed shifts of its slices. "
            "Where no cord is in view, the log says so and only the brain is used."
        ),
        (
            "The paper uses BET from FSL and bias correction from Anima. We use our own "
            "implementations, and run N4 on a copy with 4 mm voxels."
        ),
        "The amount by which both masks are dilated is not stated. We use 2 mm.",
        (
            "The first step and the resolutions of the deformable registration are not stated. We "
            "start from a rigid registration and work at 4, 2 and 1 mm, which are the paper's "
            "shrink factors of 8, 4 and 2 at 0.5 mm."
        ),
        (
            "Size and stride of the subvolumes are not stated, only which ones were tried. We use "
            "128 and 64, also in prediction, where overlapping windows are averaged."
        ),
        (
            "The paper splits subvolumes of the same patients into 80 % for training and 20 % for "
            "validation. We split by patient and validate on whole volumes."
        ),
        (
            "Which subvolumes count as positive is not stated. Ours have at least one voxel that "
            "is new lesion by at least one half."
        ),
        (
            "The paper duplicates positive subvolumes. Where there are more positive subvolumes "
            "than negative ones, we repeat the negative ones."
        ),
        (
            "Ranges and probabilities of the augmentation are not stated. We use 0.5 for each "
            "transform: lateral flips, rotations of up to 10 degrees with scales of 0.9 to 1.1, "
            "elastic displacements of up to 2 mm, and bias fields of 0.05 to 0.25."
        ),
        (
            "Whether images are normalized as a whole is not stated. We normalize each subvolume "
            "to zero mean and unit variance, since normalization follows augmentation."
        ),
        (
            "Channels are not stated. We use 16 to 256. The block at full resolution has no "
            "stride, the instance normalization learns a scale and a shift, and the leaky ReLU has "
            "a slope of 0.01."
        ),
        (
            "The paper divides the normalized ReLU by its maximum value. We take the largest value "
            "of each window, in prediction as in training. So a window without a lesion still has "
            "a largest value, unless all values are 0. In training, such a window has the gradient "
            "of the identity. Otherwise a network that is silent everywhere learns no more."
        ),
        (
            "The form of the Dice loss is not stated. We use sums of squares, whose minimum lies "
            "at the soft label itself. 1 is added to numerator and denominator, and each sample "
            "has its own loss."
        ),
        (
            "Optimizer, learning rate, its schedule and batch size are not stated. We use Adam, "
            "0.001, a cosine schedule and batches of 4."
        ),
        "The threshold is not stated. We use 0.5.",
        (
            "The position of the attention gates is not stated. We place them on every skip "
            "connection but the first, as in the paper that introduced them, with half of the "
            "skip's channels in between."
        ),
        (
            "Rate and position of the dropout are not stated. We drop 0.3 of the channels between "
            "the two convolutions of each encoder block."
        ),
        (
            "The number of samples T is not stated. We use 20 in every window, with a random seed "
            "of their own."
        ),
        (
            "Dropout during validation is not stated. We leave it on, so that validation predicts "
            "as the recipe does."
        ),
    ),
)

SMALL = SlidingWindow(
    stride_vox=(24, 24, 24), weighting="uniform", windows_per_batch=4, engine="openvino"
)

assert isinstance(RECIPE.method, NetworkMethod)
REDUCED = reduced(
    replace(
        RECIPE,
        method=replace(
            RECIPE.method,
            samples=replace(SAMPLES, positions=RegularGrid((24, 24, 24))),
            inference=Inference(dropout=MonteCarlo(passes=5)),
        ),
    ),
    Reduction(
        network={"features": (8, 16, 32, 48, 64)},
        size_vox=(48, 48, 48),
        learning_rate=2e-3,
        batch_size=2,
        window=SMALL,
        steps={
            "Resample": {"spacing_mm": 1.0},
            "DeformToLast": {"working_mm": 2.0},
            "CropToCenter": {"shape": (156, 196, 244)},
        },
    ),
)
