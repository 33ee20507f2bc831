"""ConfLUNet: one U-Net with three heads; lesions told apart by offset voting."""

from functools import partial

from lesionwise.instances.filters import DropSmall
from lesionwise.instances.offsets import OffsetVoting
from lesionwise.learning.losses import Dice, Focal, InstanceLoss, WeightedSum
from lesionwise.learning.targets import CentersAndOffsets
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.geometry import CropToBrain, Resample
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.recipe import Recipe

TO_INSTANCES = OffsetVoting(center_threshold=0.1, nms_size_vox=5)
REFINE = (DropSmall(min_volume_mm3=14, min_extent_mm=3),)

RECIPE = Recipe(
    source="001, section 3",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        N4(),
        Resample(1.0),
        CropToBrain(),
        ZScore(within="tissue", zero_outside=True),
    ),
    method=NetworkMethod(
        network=partial(UNet, in_channels=1, out_channels=6, features=(32, 64, 128)),
        scans=("flair",),
        targets=CentersAndOffsets(sigma_mm=2.0),
        loss=InstanceLoss(
            WeightedSum(((1.0, Focal(gamma=2.0)), (0.5, Dice()))), heatmap=2000.0, offsets=0.5
        ),
        learning_rate=1e-4,
        epochs=300,
        patch_size_vox=(96, 96, 96),
        batch_size=4,
        patches_per_epoch=500,
        selection=Selection(top_k=10, to_instances=TO_INSTANCES, refine=REFINE),
    ),
    to_instances=TO_INSTANCES,
    refine=REFINE,
    reported={
        "lesion_precision": 0.631,
        "lesion_recall": 0.821,
        "lesion_f1": 0.714,
        "clu_recall": 0.700,
        "dic": 6.6,
        "dsc": 0.595,
        "dsc_tp": 0.718,
        "dsc_tp_clu": 0.533,
        "pq": 0.400,
    },
    departures=(
        "the Gaussian's width, printed as ±2mm pixels, is read as 2 mm",
        "the least height of a center is not stated: 0.1",
        (
            "the window of max-pooling is not stated: 5 voxels; all peaks are kept (of 3, 5 and "
            "7 with heights of 0.1 to 0.4 the best PQ on four simulated validation patients)"
        ),
        (
            "a region of the mask without a center within 3 voxels of its votes becomes one "
            "lesion, not a part of a far one"
        ),
        (
            "lesions are 26-connected, the authors' code takes 6; what votes leave apart from its "
            "lesion joins a neighbor below 14 mm³ and is a lesion above"
        ),
        "normalization is not stated: batch normalization, as its reference [15]",
        "widths are not stated: 32, 64, 128",
        "optimizer is not stated: Adam, its rate falling to 0 along half a cosine",
        "the first guess is not stated: a lesion probability of 0.02 everywhere",
        "batch size and patches per epoch are not stated: 4 and 500",
        "augmentation is not stated: flips, affine, elastic, and intensity effects",
        "preprocessing is not stated: brain extraction, N4, 1 mm, z-score by brain tissue",
        "how ten sets of weights are compared is not stated: mean rank over all metrics",
    ),
)
