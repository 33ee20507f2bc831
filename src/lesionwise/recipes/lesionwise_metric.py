"""Learned metric: the loss holds a network's estimate of the lesion-wise F1."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.critic import ScoreError, WithScore
from lesionwise.learning.intensity_transforms import AxialMean, Blur, Compose, OneOf, Sharpen
from lesionwise.learning.losses import Dice
from lesionwise.learning.mask_pairs import MaskPairs
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.parts import FrozenNetwork
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.networks.score_critic import ScoreCritic
from lesionwise.preprocess.challenge import MSSEG2_STEPS
from lesionwise.preprocess.filters import Denoise
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

SIZE_VOX = (64, 64, 64)
ADAM = Adam(betas=(0.9, 0.999))

CRITIC = NetworkMethod(
    network=partial(ScoreCritic, features=(16, 32, 64, 128), hidden=128),
    scans=("flair",),
    samples=MaskPairs(
        size_vox=SIZE_VOX,
        batch_size=4,
        per_epoch=500,
        sampling=PatchSampling(lesion_fraction=0.9),
        blur_vox=(0.3, 1.2),
        gain=(0.8, 1.3),
    ),
    objective=ScoreError(),
    optimization=Optimization(learning_rate=1e-4, epochs=300, optimizer=ADAM, schedule=Constant()),
    task="new",
)

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on a network that estimates lesion-wise metrics for the loss]"
    ),
    passage="002, line 761, sections 2 and 3",
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
            size_vox=SIZE_VOX,
            batch_size=4,
            per_epoch=500,
            sampling=PatchSampling(lesion_fraction=0.5),
            augmentation=Augmentation(
                intensity=Compose(
                    (OneOf((Blur((0.5, 1.75)), Sharpen((0.5, 1.75)), AxialMean((2, 3, 4)))),)
                )
            ),
        ),
        objective=WithScore(Supervised(LesionMask(), Dice()), weight=0.2),
        parts=(FrozenNetwork("critic", CRITIC),),
        optimization=Optimization(
            learning_rate=1e-4, epochs=300, optimizer=ADAM, schedule=Constant()
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
        (
            "number and widths of the critic's layers are not stated: four levels of 16 to 128, "
            "summed over all voxels, then 128 and 1, and a sigmoid"
        ),
        (
            "how worse masks are made is not stated: lesions dropped, grown or shrunk by a "
            "voxel, false ones where the mirrored reference lies; of several the one whose score "
            "is nearest to the wanted, which runs evenly through [0, 1]"
        ),
        "widths of blur and intensity changes are not stated: 0.3 to 1.2 voxels, 0.8 to 1.3",
        "lesions of a patch are its 26-connected components: not stated",
        "patches without any lesion score 1 or 0",
        (
            "the network is as that of the image quality augmentation by the same authors: levels "
            "and widths 32, 64, 128, 256, dropout of 0.5, 2 groups for two channels"
        ),
        "each visit draws its own one of the three effects, all equally likely: not stated",
        (
            "epochs, batch size and patches per epoch are not stated: 300, 4 and 500, for the "
            "critic too"
        ),
        "patch positions are not stated: half around new lesions, for the critic nine in ten",
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
