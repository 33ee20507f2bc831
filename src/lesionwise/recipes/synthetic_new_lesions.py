"""Most pairs are made from single scans: networks paint lesions over and in while it learns."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import AxialMean, Blur, Compose, Noise, OneOf, Sharpen
from lesionwise.learning.losses import Dice
from lesionwise.learning.objective import BySource, Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.parts import FrozenNetwork
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, CombinedSamples, Patches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import RandomAffine, SpatialAugmentation
from lesionwise.learning.synthetic import (
    AwayFromLesions,
    OnSyntheticPairs,
    PatchesToFill,
    Refill,
    SyntheticPairs,
)
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.challenge import MSSEG2_STEPS
from lesionwise.preprocess.filters import Denoise
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced
from lesionwise.types import Auxiliary

SIZE_VOX = (64, 64, 64)
OPTIMIZATION = Optimization(
    learning_rate=1e-4, epochs=300, optimizer=Adam(betas=(0.9, 0.999)), schedule=Constant()
)
SINGLE_SCANS = Auxiliary("lesions", visits=1, labelled=True, required=False)
QUALITY = (Blur((0.5, 1.75)), Sharpen((0.5, 1.75)), AxialMean((2, 3, 4)))
TURNED = SpatialAugmentation(flip=0.5, affine=RandomAffine(1.0, rotation_deg=20.0), elastic=None)
ALTERED = Augmentation(
    spatial=TURNED, intensity=Compose((OneOf((*QUALITY, Noise((0.05, 0.2))), probability=0.8),))
)

INPAINTER = NetworkMethod(
    network=partial(UNet, in_channels=1, out_channels=1, features=(32, 64, 128, 256)),
    scans=("flair@followup",),
    samples=PatchesToFill(
        "healthy",
        size_vox=SIZE_VOX,
        batch_size=4,
        per_epoch=500,
        sampling=AwayFromLesions(),
        augmentation=ALTERED,
        auxiliary=SINGLE_SCANS,
    ),
    objective=Refill(),
    optimization=OPTIMIZATION,
    task="lesions",
)
GENERATOR = NetworkMethod(
    network=partial(UNet, in_channels=2, out_channels=1, features=(32, 64, 128, 256)),
    scans=("flair@followup",),
    samples=PatchesToFill(
        "lesions",
        size_vox=SIZE_VOX,
        batch_size=4,
        per_epoch=500,
        sampling=PatchSampling(lesion_fraction=1.0),
        augmentation=ALTERED,
        auxiliary=SINGLE_SCANS,
    ),
    objective=Refill(),
    optimization=OPTIMIZATION,
    task="lesions",
)

REAL = Patches(
    size_vox=SIZE_VOX,
    batch_size=1,
    per_epoch=125,
    sampling=PatchSampling(lesion_fraction=0.5),
    augmentation=Augmentation(intensity=Compose((OneOf(QUALITY),))),
)
SYNTHETIC = SyntheticPairs(
    size_vox=SIZE_VOX,
    batch_size=1,
    per_epoch=125,
    sampling=PatchSampling(lesion_fraction=0.9),
    augmentation=ALTERED,
    auxiliary=SINGLE_SCANS,
)
SEGMENTATION = Supervised(LesionMask(), Dice())
NAMES = ("synthetic-1", "synthetic-2", "synthetic-3")

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on new lesions simulated in single scans]"),
    passage="002, line 876, sections 2 and 3",
    scans=("flair",),
    preprocess=(
        *MSSEG2_STEPS,
        Denoise(),
        ZScore(within="brain", zero_outside=True),
    ),
    method=NetworkMethod(
        network=partial(GroupUNet, in_channels=2, out_channels=2, dropout=0.5, groups=8),
        scans=("flair",),
        samples=CombinedSamples((("real", REAL), *((name, SYNTHETIC) for name in NAMES))),
        objective=BySource(
            (
                ("real", 1.0, SEGMENTATION),
                *((name, 1 / 3, OnSyntheticPairs(SEGMENTATION)) for name in NAMES),
            )
        ),
        parts=(FrozenNetwork("inpainter", INPAINTER), FrozenNetwork("generator", GENERATOR)),
        optimization=OPTIMIZATION,
        task="new",
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "the challenge's preprocessing is our own, not Anima's; where its denoising is "
            "documented as non-local means, ours is too"
        ),
        "raw visits are registered half way, as the challenge's pairs were",
        "intensity normalization is not stated: z-score in the brain",
        (
            "the single scans with outlined lesions are the auxiliary set 'lesions'; where none is "
            "given, the last visits of the training pairs take their place"
        ),
        (
            "'the ratio of the real data over synthetic data in a mini-batch is 1/3' is read as "
            "one real pair and three synthetic ones, whose losses are added with weights of 1 and "
            "1/3 each"
        ),
        (
            "the networks that paint are plain U-Nets of 32 to 256 channels with batch "
            "normalization, learned by the squared error of the whole patch and of the noisy "
            "regions alike: not stated"
        ),
        "the noise is normal with the brain's mean and deviation: not stated",
        (
            "regions of noise are 1 to 8 ellipsoids with half axes of 1.5 to 8 voxels in the "
            "brain: not stated"
        ),
        (
            "patches without lesions are searched for in 30 tries; where none is found the patch "
            "has the fewest lesion voxels, and regions of noise spare them"
        ),
        (
            "of what the networks paint, a lesion and the voxels that share a face with it are "
            "taken: not stated"
        ),
        "a lesion stays in both visits, one of them or neither with equal probability: not stated",
        (
            "'realistic locations' are read as within 16 voxels of another lesion along each axis, "
            "in the brain, apart from lesions, where four fifths of the z-scores are between -1 "
            "and 1.25; up to two lesions a patch have the shape of another one of it, mirrored"
        ),
        (
            "flips and rotations are those of all axes, by up to 20 degrees; in four of five "
            "patches one of blur, edge enhancement, axial mean and noise of 0.05 to 0.2 alters "
            "them: not stated"
        ),
        "hyperintensities of the white matter that nobody outlined are taken for healthy",
        (
            "the network is as that of the image quality augmentation by the same authors: levels "
            "and widths 32, 64, 128, 256, dropout of 0.5, 2 groups for two channels"
        ),
        "each real visit draws its own one of the three effects, all equally likely: not stated",
        "epochs and batches per epoch are not stated: 300 and 125, for all three networks",
        "patch positions are not stated: half of the real ones around new lesions",
        (
            "the learning rate schedule is not stated: constant; 'a momentum of 0.9' is Adam's "
            "first beta"
        ),
        "the initial bias is not stated: a lesion probability of 0.02 everywhere",
        "which weights are used is not stated: those with the highest validation Dice",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(48, 48, 48),
        learning_rate=2e-3,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
