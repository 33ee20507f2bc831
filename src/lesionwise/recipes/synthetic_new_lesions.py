"""Training on pairs made from single scans: networks remove and add lesions on the fly."""

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
            "The paper uses the challenge's preprocessing with Anima. We use our own "
            "implementations. Anima's denoising is documented as non-local means, and so is ours."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        "Intensity normalization is not stated. We use the z-score in the brain.",
        (
            "Voxel size is not stated. We resample nothing to a fixed size: a pair has the voxels "
            "of the grid that both visits share, a single scan its own."
        ),
        (
            "The paper uses public sets of single scans with outlined lesions. We use the "
            "auxiliary set 'lesions' where one is given, and otherwise the last visits of the "
            "training pairs."
        ),
        (
            '"The ratio of the real data over synthetic data in a mini-batch is 1/3" can be read '
            "in two ways. We use one real pair and three synthetic ones. Their losses are added, "
            "with weights of 1 and 1/3 each."
        ),
        (
            "The inpainting and generator networks are not described beyond 3D U-Nets. We use "
            "plain U-Nets of 32 to 256 channels with batch normalization. Their loss is the "
            "squared error, of the whole patch and of the noisy regions alike."
        ),
        (
            "The noise is not described. We use normal noise with the brain's mean and standard "
            "deviation."
        ),
        (
            "Regions of noise are not described. We use 1 to 8 ellipsoids in the brain with half "
            "axes of 1.5 to 8 voxels."
        ),
        (
            "How patches without lesions are found is not stated. We try 30 times. If none is "
            "found, we use the patch with the fewest lesion voxels, and the regions of noise avoid "
            "them."
        ),
        (
            "Which voxels of the networks' output are used is not stated. We use a lesion and the "
            "voxels that share a face with it."
        ),
        (
            "How often a lesion stays is not stated. It stays in both visits, one of them or "
            "neither with equal probability."
        ),
        (
            '"Realistic locations" are not defined. Ours lie in the brain, within 16 voxels of '
            "another lesion along each axis, apart from all lesions, where four fifths of the "
            "z-scores are between -1 and 1.25. A patch gets up to two lesions, with the shape of "
            "another of its lesions, mirrored."
        ),
        (
            "Ranges and probabilities of the augmentation are not stated. We flip along all axes "
            "and rotate by up to 20 degrees. Four of five patches are altered by one of blur, edge "
            "enhancement, axial mean, and noise of 0.05 to 0.2."
        ),
        (
            "The paper's inpainting patches have no white matter hyperintensities. Here, "
            "hyperintensities that nobody outlined count as healthy."
        ),
        (
            "The paper refers to the network of its authors' image quality augmentation. We use "
            "the same one: 32, 64, 128 and 256 channels, a dropout of 0.5, and 2 groups for the "
            "two input channels."
        ),
        (
            "How the three image effects are drawn for real pairs is not stated. Each visit gets "
            "one of them, independently, all equally likely."
        ),
        "Epochs and batches per epoch are not stated. We use 300 and 125, for all three networks.",
        (
            "Patch positions are not stated. Half of the real patches of patients with new lesions "
            "lie around one, and nine in ten of the patches of single scans around a lesion."
        ),
        (
            'The learning rate schedule is not stated. We use a constant rate. We take "a '
            "momentum of 0.9\" as Adam's first beta."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        (
            "Which weights are used is not stated. For new lesions we use those with the highest "
            "validation Dice; for the inpainting and generator networks the last ones."
        ),
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(48, 48, 48),
        learning_rate=2e-3,
        per_epoch=80,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
