"""Five shallow and five deep SegResNets, one of each for every fold."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import Brightness, Compose, Contrast
from lesionwise.learning.losses import Dice
from lesionwise.learning.optimizers import AdamW
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.schedules import CosineAnnealing
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.combine import Ensemble
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.segresnet import seg_resnet
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe

FOLDS = 5

DEEP = NetworkMethod(
    network=partial(seg_resnet, in_channels=2, out_channels=2, features=32, blocks=(1, 2, 2, 4)),
    scans=("flair",),
    finds="new",
    targets=LesionMask(),
    loss=Dice(),
    optimizer=AdamW(decays="kernels"),
    learning_rate=2e-4,
    weight_decay=1e-5,
    schedule=CosineAnnealing(end=0.0),
    sync_batch_norm=True,
    epochs=200,
    patch_size_vox=(128, 128, 128),
    batch_size=1,
    patches_per_epoch=32,
    sampling=PatchSampling(lesion_share=0.5),
    spatial=SpatialAugmentation(flip=0.5, affine=None, elastic=None),
    intensity=Compose(
        (Contrast((0.7, 1.3), probability=0.3), Brightness((0.9, 1.1), probability=0.3))
    ),
)
SHALLOW = replace(
    DEEP,
    network=partial(seg_resnet, in_channels=2, out_channels=2, features=64, blocks=(4, 4)),
    patch_size_vox=(16, 16, 16),
    batch_size=512,
    patches_per_epoch=2048,
    window=SlidingWindow(windows_per_batch=64),
)

RECIPE = Recipe(
    source="002, line 2404, section 2",
    scans=("flair",),
    preprocess=(RegisterToHalfway(), ZScore(within="nonzero", zero_outside=True)),
    method=Ensemble((SHALLOW,) * FOLDS + (DEEP,) * FOLDS, combine="mean", folds=FOLDS),
    to_instances=ConnectedComponents(),
    visits=2,
    finds="new",
    reported={"dsc": 0.5082},
    departures=(
        "visits come as scanned: they are registered half way, as the challenge's pairs were",
        (
            "'stages of down-sampling' are read as downsamplings: 2 and 4; MONAI counts the first "
            "level, which keeps the size, as one"
        ),
        (
            "batch normalization is taken over the GPUs that --device names; the source had four, "
            "batches of 512 and 1 each"
        ),
        "patches per epoch are not stated: 2048 and 32",
        "where patches lie is not stated: half of them around new lesions",
        (
            "ranges and probabilities of the augmentation are not stated: contrast ± 30 %, "
            "brightness ± 10 %, each for every third patch"
        ),
        "the L2 penalty of kernels is AdamW's decoupled decay",
        "the last convolution computes in float32 and starts at a lesion probability of 0.02",
        "which weights predict is not stated: those of the highest Dice on the fold left out",
    ),
)
