"""A U-Net whose loss includes a network's estimate of the lesion-wise F1."""

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
            "The paper uses the challenge's preprocessing with Anima. We use our own "
            "implementations. Anima's denoising is documented as non-local means, and so is ours."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        "Intensity normalization is not stated. We use the z-score in the brain.",
        "The voxel size is not stated. We use the common grid of the two visits.",
        (
            "Number and size of the layers that estimate the metric are not stated. We use four "
            "levels of 16 to 128 channels, a sum over all voxels, then layers of 128 and 1, and a "
            "sigmoid."
        ),
        (
            "How worse masks are made is not stated. A wanted score runs evenly through [0, 1]. We "
            "draw how many lesions are found and how many of up to 10 false ones are added, so "
            "that the score is near to it. Found lesions are grown or shrunk by a voxel, or left "
            "as they are. False ones are lesions of the same patch, flipped and moved, and "
            "ellipsoids of 3 to 7 voxels across. The reference stays as it is: with one lesion, no "
            "score lies between 2/3 and 1."
        ),
        (
            "Ranges of blur and intensity changes are not stated. We use 0.3 to 1.2 voxels, and "
            "factors of 0.8 to 1.3."
        ),
        "What a lesion of a patch is is not stated. We use 26-connected components.",
        (
            "The score of patches without any lesion is not stated. It is 1 without a false "
            "lesion and 0 with one. Half of such pairs are of each kind."
        ),
        (
            "The paper refers to the network of its authors' image quality augmentation. We use "
            "the same one: 32, 64, 128 and 256 channels, a dropout of 0.5, and 2 groups for the "
            "two input channels."
        ),
        (
            "How the three image effects are drawn is not stated. Each visit gets one of them, "
            "independently, all equally likely."
        ),
        (
            "Epochs, batch size and patches per epoch are not stated. We use 300, 4 and 500, also "
            "for the network that estimates the metric."
        ),
        (
            "Patch positions are not stated. Half of the patches of patients with new lesions lie "
            "around one. For the network that estimates the metric, nine in ten do."
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
            "Which weights are used is not stated. We use those with the highest validation Dice. "
            "The network that estimates the metric makes no lesion map to validate, so its last "
            "weights are used."
        ),
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(48, 48, 48),
        # at 0.002 the critic learns a constant
        learning_rate=5e-4,
        batch_size=2,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
