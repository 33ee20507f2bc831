"""An anti-aliased residual U-Net, trained in 48 orientations; mean of 5 folds and 8 flips."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import BiasField, Blur, Compose, Gamma, Noise
from lesionwise.learning.losses import CrossEntropy, Dice, WeightedSum
from lesionwise.learning.normalization import ClipToRange
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Sgd
from lesionwise.learning.samplers import WeightedSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import Constant, EarlyStopping
from lesionwise.learning.spatial_transforms import RandomAffine, RandomElastic, SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.composite import Ensemble
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.antialias_unet import AntialiasUNet
from lesionwise.preprocess.challenge import MSSEG2_STEPS
from lesionwise.preprocess.geometry import CropToBrain, PadTo
from lesionwise.preprocess.resampling import ResampleNearInteger
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

FOLDS = 5

MEMBER = NetworkMethod(
    network=partial(
        AntialiasUNet, in_channels=2, out_channels=2, features=(40, 40, 80, 80, 120, 120)
    ),
    scans=("flair",),
    samples=Patches(
        size_vox=(96, 96, 96),
        batch_size=4,
        per_epoch=200,  # 50 steps between validations
        sampling=WeightedSampling(background=0.0, brain=1.0, lesion=100.0),
        augmentation=Augmentation(
            spatial=SpatialAugmentation(  # 0.75 in all: 0.15 elastic, 0.6 affine
                axes="permute",
                affine=RandomAffine(0.6, rotation_deg=45.0, scale_per_axis=(0.8, 1.2)),
                elastic=RandomElastic(
                    0.15, displacement_mm=7.5, distribution="uniform", control_points=7
                ),
                exclusive=True,
            ),
            intensity=Compose(
                (
                    BiasField((0.0, 0.5), probability=0.5),
                    Gamma((0.74, 1.35), probability=0.8),
                    Blur((0.0, 1.0), probability=0.2),
                    Noise((0.0, 0.25), probability=0.35),
                )
            ),
            whole_volume=True,
        ),
    ),
    objective=Supervised(
        LesionMask(), WeightedSum(((0.5, CrossEntropy()), (1.0, Dice(background=True))))
    ),
    optimization=Optimization(
        learning_rate=1e-3,
        epochs=400,
        optimizer=Sgd(momentum=0.95),
        schedule=Constant(),
        early_stopping=EarlyStopping(patience=2000, unit="steps", metric="validation_dsc"),
    ),
    task="new",
    inference=Inference(
        SlidingWindow(overlap=0.5, mirror_axes=(0, 1, 2)),
        normalize=ClipToRange(low=0.05, high=99.5, onto=(-1.0, 1.0)),
    ),
    selection=Selection(every=1),
)

RECIPE = Recipe(
    citation=msseg2_chapter(
        "A UNet Pipeline for Segmentation of New MS Lesions",
        "Cory Efird, Dylan Miller, Dana Cobzas",
    ),
    passage="002, line 1557, section 1",
    scans=("flair",),
    preprocess=(
        *MSSEG2_STEPS,
        ResampleNearInteger(target_mm=1.0, tolerance_mm=0.11),
        CropToBrain(margin_mm=0.0),
        PadTo((96, 96, 96)),
    ),
    method=Ensemble((MEMBER,) * FOLDS, combine="mean", folds=FOLDS),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={"lesion_f1": 0.71, "lesion_precision": 0.58, "lesion_recall": 0.88, "dsc": 0.54},
    departures=(
        (
            "The paper uses the challenge's preprocessing with Anima. We use our own "
            "implementations of its steps."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        "The momentum is not stated. We use 0.95, as in the authors' published code.",
        (
            "Rotation angles and scales are not stated. We use 45 degrees and 20 %, as in that "
            "code. The elastic deformation has TorchIO's defaults: 7.5 mm at 7 control points."
        ),
        (
            "Volumes smaller than a patch are not mentioned. We pad them with zeros before "
            "normalization, as in that code."
        ),
        (
            "The paper uses TorchIO's bias field and gamma. Our bias field is a smooth spline "
            "instead of a polynomial. Our gamma has TorchIO's range, exp(±0.3)."
        ),
        (
            "Strengths of noise and blur are not stated. The noise has up to 0.25 of the brain's "
            "standard deviation, and the blur is up to 1 voxel."
        ),
        "TorchIO adds noise everywhere. We add it only to voxels that are not 0.",
        (
            "The anti-aliased upsampling is not described in detail. We use the transpose of the "
            "blurred stride: zeros between voxels, blur, convolution."
        ),
        (
            "The form of the Dice loss is not stated in full. We use the mean over lesion and "
            "background, with plain sums."
        ),
        (
            "The number of iterations between validations is not stated. We use 50, as in that "
            "code, and at most 20 000 in all."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        'The paper joins overlapping windows "by interpolating". We use Gaussian weights.',
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 8, 16, 16, 24)},
        size_vox=(48, 48, 48),
        learning_rate=1e-2,
        batch_size=2,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
