"""FC-DenseNets on stacks of three slices in all three planes; five folds of three settings each."""

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
                    Zoom((0.8, 1.25), probability=0.3),
                    Transpose(probability=0.3),
                )
            ),
            elastic=RandomElastic(0.3, displacement_mm=3.0),
            flip_axes=(0, 1),
            fixed_axes=(2,),
        ),
        intensity=Compose(
            (
                EachSlice(Blur((0.5, 1.5)), probability=0.2),
                DownsampleSlices((1.5, 3.0), probability=0.1),
                EachSlice(Sharpen((0.5, 1.5)), probability=0.2),
                Noise((0.0, 0.2), probability=0.2),
                LocalContrast(probability=0.2),
                AllOf((Shift((-0.3, 0.3)), Contrast((0.7, 1.3))), probability=0.2),
                RadialGradient((0.1, 0.4), probability=0.2, zero=AIR_Z_SCORE),
                LinearGradient((0.1, 0.4), probability=0.2, zero=AIR_Z_SCORE),
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
    inference=Inference(WINDOW, size_vox=(256, 256, 3), planes=Planes(axes=(2, 0, 1))),
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
        "brain extraction and bias correction are our own, not Anima's",
        "raw visits are registered half way, as the challenge's pairs were",
        "intensity normalization is not stated: z-score in the brain, 0 outside",
        (
            "slices beside the center slice, layers and growth of the network, batch size and the "
            "values of the mask are those of the authors' published code: one on either side, five "
            "blocks of 4 layers with a growth of 12 and a dropout of 0.2, 16, and -1 and 1"
        ),
        "an epoch is not stated: 1600 stacks, a patient, a plane and a slice drawn for each",
        (
            "where a slice is cut to 128 by 128 is not stated: the first of ten random places with "
            "a lesion in the center slice, as in that code"
        ),
        (
            "aspect ratio and reshaping are one stretch of the plane with both probabilities "
            "multiplied; slices far from square are not reshaped by their own ratio"
        ),
        (
            "strengths of blur, downsampling, sharpening, noise, brightness, contrast, gradients, "
            "distortion and scale are not stated: ours"
        ),
        "each visit has intensity transforms of its own; geometry is shared, as stated",
        "'dropped to 0 in 300 epochs' is read as a straight line over 300 further epochs",
        (
            "of the further settings two are named: without augmentation, and other input sizes, "
            "which are not stated: 192 by 192; each is trained on all five folds"
        ),
        (
            "how slices without lesions and planes are joined in prediction is not stated: all "
            "slices of up to 256 by 256 as a whole, the mean over the planes, above 0 of the tanh, "
            "as in that code"
        ),
        "the initial bias is not stated: a tanh of -0.96 everywhere",
        "only patients with new lesions are in the folds",
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
        window=SlidingWindow(overlap=0.25, windows_per_batch=16, engine="openvino"),
    ),
)
