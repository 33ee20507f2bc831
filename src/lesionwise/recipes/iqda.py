"""IQDA: a U-Net on both visits, trained with image quality augmentation."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import AxialMean, Blur, Compose, OneOf, Sharpen
from lesionwise.learning.losses import Dice
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.preprocess.challenge import MSSEG2_STEPS
from lesionwise.preprocess.filters import Denoise
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on training with image quality data augmentation]", "R.A. Kamraoui et al."
    ),
    passage="002, line 987, section 2",
    scans=("flair",),
    preprocess=(
        *MSSEG2_STEPS,
        Denoise(),
        ZScore(within="brain", zero_outside=True),
    ),
    method=NetworkMethod(
        network=partial(GroupUNet, in_channels=2, out_channels=2, dropout=0.5, groups=8),
        scans=("flair",),
        samples=Patches(
            size_vox=(64, 64, 64),
            batch_size=4,
            per_epoch=500,
            sampling=PatchSampling(lesion_fraction=0.5),
            augmentation=Augmentation(
                intensity=Compose(
                    (OneOf((Blur((0.5, 1.75)), Sharpen((0.5, 1.75)), AxialMean((2, 3, 4)))),)
                )
            ),
        ),
        objective=Supervised(LesionMask(), Dice()),
        optimization=Optimization(
            learning_rate=1e-4, epochs=300, optimizer=Adam(betas=(0.9, 0.999)), schedule=Constant()
        ),
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
        "The voxel size is not stated. We use the common grid of the two visits.",
        "The patch size is not stated. We use 64, as in the same authors' other two systems.",
        (
            "The number of levels and channels is not stated. We use 32, 64, 128 and 256 channels, "
            "and transposed convolutions for upsampling."
        ),
        (
            "The paper uses 8 groups in the group normalization. Two input channels cannot form 8 "
            "groups, so we use 2 there."
        ),
        (
            "How the three image effects are drawn is not stated. Each visit gets one of them, "
            "independently, all equally likely."
        ),
        "Epochs, batch size and patches per epoch are not stated. We use 300, 4 and 500.",
        (
            "Patch positions are not stated. Half of the patches of patients with new lesions lie "
            "around one."
        ),
        (
            'The learning rate schedule is not stated. We use a constant rate. We take "a '
            "momentum of 0.9\" as Adam's first beta."
        ),
        (
            "The form of the Dice loss is not stated. We use that of the lesion class, with plain "
            "sums, and each sample has its own loss."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        "Which weights are used is not stated. We use those with the highest validation Dice.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(48, 48, 48),
        learning_rate=2e-3,
        batch_size=2,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
