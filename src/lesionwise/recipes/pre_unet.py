"""Pre-U-Net: a U-Net of pre-activation residual blocks, supervised at three resolutions."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import (
    AIR_Z_SCORE,
    BiasField,
    Blur,
    Brightness,
    Compose,
    Gamma,
    Noise,
    Shift,
)
from lesionwise.learning.losses import DeepSupervision, Dice, Focal, WeightedSum
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import AdamW
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import CosineAnnealing
from lesionwise.learning.spatial_transforms import RandomAffine, SpatialAugmentation
from lesionwise.learning.targets import LesionLogit
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.pre_unet import PreUNet
from lesionwise.preprocess.geometry import CropToNonzero, Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Output, Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on Pre-U-Net, of pre-activation residual blocks]"),
    passage="002, line 1296, sections 3 and 4",
    scans=("flair",),
    preprocess=(
        RegisterToHalfway(),
        CropToNonzero(),
        ZScore(within="nonzero", zero_outside=True),
        Resample(0.6),
    ),
    method=NetworkMethod(
        network=partial(
            PreUNet, in_channels=2, out_channels=2, features=(48, 96, 192, 384), supervised=3
        ),
        scans=("flair",),
        samples=Patches(
            size_vox=(128, 128, 128),
            batch_size=2,
            per_epoch=500,  # 250 steps, 100 000 in all
            sampling=PatchSampling(lesion_fraction=0.5),
            augmentation=Augmentation(
                spatial=SpatialAugmentation(
                    flip=0.5,
                    affine=RandomAffine(
                        0.5, rotation_deg=15.0, scale_per_axis=(0.85, 1.15), shear=0.1
                    ),
                    elastic=None,
                ),
                intensity=Compose(
                    (
                        Noise((0.0, 0.1), probability=0.15),
                        Blur((0.25, 1.5), probability=0.15),
                        Brightness((0.7, 1.3), probability=0.15),
                        Shift((-0.3, 0.3), probability=0.15),
                        BiasField((0.05, 0.25), probability=0.15, zero=AIR_Z_SCORE),
                        Gamma((0.5, 2.0), probability=0.15),
                    )
                ),
            ),
        ),
        objective=Supervised(
            LesionLogit(),
            DeepSupervision(
                WeightedSum(((1.0, Dice()), (1.0, Focal(gamma=2.0)))), weights=(1.0, 0.5, 0.25)
            ),
        ),
        optimization=Optimization(
            learning_rate=1e-5,
            epochs=400,
            optimizer=AdamW(),
            weight_decay=1e-2,
            schedule=CosineAnnealing(),
        ),
        task="new",
        inference=Inference(SlidingWindow(overlap=0.5)),
        selection=Selection(every=10),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    output=Output(grid="followup", resample="logits"),
    reported={
        "dsc": 0.6246,
        "dsc_sd": 0.3611,
        "voxel_recall": 0.5767,
        "voxel_recall_sd": 0.3740,
        "specificity": 0.9999,
    },
    departures=(
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        (
            "Channels, blocks per level and how levels are joined are not stated. We use 48, 96, "
            "192 and 384 channels, two blocks in the encoder below the stem, one in the decoder, "
            "and concatenation. With four levels and kernels of 3, that gives the stated 26.3 "
            "million parameters."
        ),
        (
            '"4 levels, at each of which the input is downsampled" can be read in two ways. We '
            "use four resolutions, three of them reached by downsampling, so that the decoder's "
            "three highest resolutions are all it has. Four downsamplings with 32 to 512 "
            "channels, one block per level and added skips would give 26.0 million parameters."
        ),
        (
            "Half of the paper's patches contain some lesion. Half of our patches of patients with "
            "new lesions lie around one, and those of the others have none."
        ),
        (
            "Which voxels each channel's z-score uses is not stated. We use those that are not 0, "
            "and the others stay 0."
        ),
        (
            "The paper resamples the reference masks to 0.6 mm by trilinear interpolation. We use "
            "nearest neighbor."
        ),
        (
            "How the targets are downsampled for deep supervision is not stated. We use nearest "
            "neighbor."
        ),
        (
            "Ranges and probabilities of the augmentation are not stated. We use 0.15 for each "
            "intensity transform and an affine transform for every second patch."
        ),
        (
            "The contrast adjustment is not described. We raise intensities to a power between 0.5 "
            "and 2."
        ),
        "The focal loss's gamma is not stated. We use 2.",
        (
            "The form of the Dice loss is not stated. We use that of the lesion class, with plain "
            "sums, and each sample has its own loss."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        "The weighting of overlapping windows is not stated. We use Gaussian weights.",
        "Which weights are used is not stated. We use those with the highest validation Dice.",
        "The threshold is not stated. We use 0.5.",
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
