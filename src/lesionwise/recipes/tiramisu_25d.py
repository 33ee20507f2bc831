"""FC-DenseNets on stacks of three slices in three planes; five folds of three settings."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.views import Planes
from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import (
    AIR_Z_SCORE,
    AllOf,
    Blur,
    Compose,
    Contrast,
    Noise,
    Sharpen,
    Shift,
)
from lesionwise.learning.losses import SquaredError
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.plane_affine import AspectRatio, InTurn, Rotate, Transpose, Zoom
from lesionwise.learning.samplers import SlicesWithLesion
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import LinearDecay
from lesionwise.learning.slice_effects import (
    DownsampleSlices,
    EachSlice,
    Exposure,
    LinearGradient,
    LocalContrast,
    RadialGradient,
)
from lesionwise.learning.spatial_transforms import RandomElastic, SpatialAugmentation
from lesionwise.learning.targets import ActivatedMask
from lesionwise.methods.composite import Ensemble, PositiveCases
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.fc_densenet import plane_fc_densenet
from lesionwise.preprocess.challenge import MSSEG2_STEPS
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

FOLDS = 5
PEAK = -AIR_Z_SCORE
"""From air to the brain, in z-scores: 1 in the authors' code, which divides by the main peak."""
WINDOW = SlidingWindow(windows_per_batch=16)

STACKS = Patches(
    size_vox=(128, 128, 3),
    batch_size=16,
    per_epoch=1600,
    sampling=SlicesWithLesion(tries=10),
    augmentation=Augmentation(
        spatial=SpatialAugmentation(
            flip=0.3,
            affine=InTurn(
                (
                    AspectRatio((0.5, 2.0), probability=0.2 * 0.8),
                    Rotate((1.0, 45.0), probability=0.3),
                    Zoom((1 / 1.5, 1.5), probability=0.3),
                    Transpose(probability=0.3),
                )
            ),
            elastic=RandomElastic(0.3, displacement_mm=5.0, distribution="uniform"),
            flip_axes=(0, 1),
            fixed_axes=(2,),
        ),
        intensity=Compose(
            (
                EachSlice(Blur((0.8, 2.0)), probability=0.2),
                DownsampleSlices((1.0, 2.0), probability=0.1),
                EachSlice(Sharpen((0.5, 1.5)), probability=0.2),
                AllOf(
                    (
                        Shift((0.0, 0.1 * PEAK), relative=False),
                        Noise((0.0, 0.2 * PEAK), relative=False),
                    ),
                    probability=0.2,
                ),
                LocalContrast((1 / 256, 4 / 256), probability=0.2),
                AllOf(
                    (Exposure((0.65, 1.35), zero=AIR_Z_SCORE), Contrast((0.65, 1.35))),
                    probability=0.2,
                ),
                RadialGradient((0.0, 0.3), probability=0.2, zero=AIR_Z_SCORE),
                LinearGradient((0.0, 0.3), probability=0.2, zero=AIR_Z_SCORE),
            )
        ),
    ),
    planes=(0, 1, 2),
)

AUGMENTED = NetworkMethod(
    network=partial(plane_fc_densenet, in_channels=6, out_channels=1),
    scans=("flair",),
    samples=STACKS,
    objective=Supervised(ActivatedMask(), SquaredError(values=(-1.0, 1.0))),
    optimization=Optimization(
        learning_rate=2e-4,
        epochs=400,
        optimizer=Adam(betas=(0.5, 0.999)),
        schedule=LinearDecay(constant_epochs=100),
    ),
    task="new",
    inference=Inference(
        WINDOW, size_vox=(256, 256, 3), multiple_vox=32, planes=Planes(axes=(2, 0, 1))
    ),
    selection=Selection(by=("dsc", "lesion_f1"), every=10, window=WINDOW),
)
PLAIN = replace(AUGMENTED, samples=replace(STACKS, augmentation=Augmentation()))
WIDE = replace(AUGMENTED, samples=replace(STACKS, size_vox=(192, 192, 3)))

RECIPE = Recipe(
    citation=msseg2_chapter("Segmentation of new MS lesions with Tiramisu and 2.5D stacked slices"),
    passage="002, line 1814, section 2",
    scans=("flair",),
    preprocess=(
        *MSSEG2_STEPS,
        ZScore(within="brain", zero_outside=True),
    ),
    method=PositiveCases(
        Ensemble(
            (AUGMENTED,) * FOLDS + (PLAIN,) * FOLDS + (WIDE,) * FOLDS, combine="mean", folds=FOLDS
        ),
        task="new",
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The paper uses Anima for brain extraction and bias correction. We use our own "
            "implementations."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        (
            "Intensity normalization is not stated. We use the z-score in the brain, and 0 "
            "outside. The authors' published code divides each scan by the main peak of its "
            "histogram, halves it and subtracts 1."
        ),
        (
            "Neighboring slices, layers and growth rate of the network, batch size and mask values "
            "are not stated. We use those of the authors' code: one slice on either "
            "side, five blocks of 4 layers with a growth rate of 12 and a dropout of 0.2, batches "
            "of 16, and -1 and 1."
        ),
        (
            "An epoch is not defined. In the authors' code it has every slice with at least two "
            "lesion voxels once for each plane. We use 1600 stacks, each from a random patient, "
            "plane and slice with a lesion voxel."
        ),
        (
            "Where a slice is cropped to 128 by 128 is not stated. In the authors' code 95 % of "
            "the crops hold a random lesion voxel of the center slice. We use the first of ten "
            "random places that has a lesion there."
        ),
        (
            "The paper assigns an aspect ratio and then reshapes by it. We use one stretch of the "
            "plane, with both probabilities multiplied, which keeps areas. Slices that are far "
            "from square are not reshaped by their own ratio."
        ),
        "The authors' code rotates to one side. We rotate to either side.",
        (
            "Strengths of the intensity transforms are not stated. We use the ranges of the "
            "authors' code for downsampling, noise, CLAHE, brightness, contrast and gradients, and "
            "4 in z-scores for the height of its peak. Its gradients act on a random part of the "
            "slice, ours on all of it. Its blur is a mean over 3 to 7 pixels, ours a Gaussian of "
            "similar width. It sharpens more than our unsharp masking."
        ),
        (
            "Strengths of distortion and scale are not stated. The authors' code stretches five "
            "bands of the slice along each axis by up to 30 %. We use a smooth displacement of up "
            "to 5 mm, which stretches about as much. It scales crops of two thirds of the patch up "
            "to the whole slice. We magnify by 2/3 to 1.5."
        ),
        (
            "Whether both visits get the same intensity transforms is not stated. Each visit gets "
            "its own. Spatial transforms are shared, as stated."
        ),
        (
            '"Dropped to 0 in 300 epochs" can be read in two ways. We use a linear decay over 300 '
            "further epochs."
        ),
        (
            "The paper's ensemble has further settings, of which it names two: no augmentation, "
            "and other input sizes, which are not stated. We use 192 by 192. Each setting is "
            "trained on all five folds."
        ),
        (
            "How slices without lesions are predicted and planes are combined is not stated. We "
            "predict all slices, those of up to 256 by 256 whole. We average over the planes, and "
            "take lesions above 0 of the tanh, as in the authors' code, which also drops lesions "
            "of one voxel."
        ),
        "The initial bias is not stated. Training starts at a tanh of -0.96 everywhere.",
        "Whether patients without new lesions are in the folds is not stated. We leave them out.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"layers": (2, 2, 2, 2), "growth": 8, "first": 16},
        size_vox=(96, 96, 3),
        learning_rate=2e-3,
        batch_size=8,
        per_epoch=160,
        every=0,
        window=SlidingWindow(overlap=0.25, windows_per_batch=16, engine="openvino"),
    ),
)
