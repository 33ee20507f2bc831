"""IQDA: both visits into a U-Net that learns from images of every quality."""

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
            "the challenge's preprocessing is our own, not Anima's; where its denoising is "
            "documented as non-local means, ours is too"
        ),
        "raw visits are registered half way, as the challenge's pairs were",
        "intensity normalization is not stated: z-score in the brain",
        "voxel size is not stated: the common grid's of the two visits",
        "patch size is not stated: 64, as its siblings use",
        "levels and widths are not stated: 32, 64, 128, 256; transposed convolutions rise",
        "two input channels cannot form 8 groups: 2",
        "each visit draws its own one of the three effects, all equally likely: not stated",
        "epochs, batch size and patches per epoch are not stated: 300, 4 and 500",
        "patch positions are not stated: half of them around new lesions",
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
        batch_size=2,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
