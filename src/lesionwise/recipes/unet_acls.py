"""U-Net and ACLS: lesions separated at the local maxima of the probability.

The network has exactly the settings of ``unet-cc``, so both can use one run:
``train(..., reuse=RUN)``.
"""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.confluent import Acls
from lesionwise.instances.filters import DropSmall
from lesionwise.learning.intensity_transforms import other_scanners
from lesionwise.learning.losses import Dice, Focal, WeightedSum
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.geometry import CropToBrain, Resample
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.recipe import Citation, Recipe
from lesionwise.reduction import Reduction, reduced

TO_INSTANCES = Acls()
REFINE = (DropSmall(min_volume_mm3=14, min_extent_mm=3),)

RECIPE = Recipe(
    citation=Citation(
        authors=(
            "Maxence Wynen, Maxime Istasse, Pedro M. Gordaliza, Anna Stölting, Pietro Maggi, "
            "Benoît Macq, Meritxell Bach Cuadra"
        ),
        title=(
            "ConfLUNet: improving confluent lesion identification in multiple sclerosis with "
            "instance segmentation"
        ),
    ),
    passage="001, sections 2 and 3.3",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        N4(),
        Resample(1.0),
        CropToBrain(),
        ZScore(within="tissue", zero_outside=True),
    ),
    method=NetworkMethod(
        network=partial(
            UNet,
            in_channels=1,
            out_channels=2,
            features=(64, 128, 256, 512),
            norm="batch",
            widening="second",
        ),
        scans=("flair",),
        samples=Patches(
            size_vox=(96, 96, 96),
            batch_size=4,
            per_epoch=500,
            augmentation=Augmentation(SpatialAugmentation(), other_scanners()),
        ),
        objective=Supervised(LesionMask(), WeightedSum(((1.0, Focal(gamma=2.0)), (0.5, Dice())))),
        inference=Inference(SlidingWindow(engine="openvino", cover="brain")),
        optimization=Optimization(learning_rate=1e-4, epochs=300),
    ),
    to_instances=TO_INSTANCES,
    refine=REFINE,
    reported={
        "lesion_precision": 0.566,
        "lesion_recall": 0.785,
        "lesion_f1": 0.657,
        "clu_recall": 0.546,
        "dic": 11.5,
        "dsc": 0.550,
        "dsc_tp": 0.623,
        "dsc_tp_clu": 0.362,
        "pq": 0.302,
    },
    departures=(
        "The connectivity of the centers is not stated. We use 26.",
        (
            "The paper gives every voxel to the nearest center. We also split a lesion into its "
            "connected pieces, so there can be a few more lesions than centers. Where the "
            "probability is flat, distances from the border take its place."
        ),
        "The scale of the second derivatives is not stated. We use 1 voxel.",
        (
            "The normalization layers are not stated. We use batch normalization, as in the "
            "paper's reference [15]."
        ),
        (
            "The backbone is described only by its reference [15]. We use the published 3D U-Net "
            "with three poolings and a bottleneck (64, 128, 256, 512 channels; 19.07 million "
            "parameters). The authors' public code builds the same network."
        ),
        "The optimizer is not stated. We use Adam with a cosine schedule that ends at 0.",
        (
            'The paper cites generalized Dice and writes "dice loss". We use the Dice loss of the '
            "lesion class, with plain sums, and each sample has its own loss."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        "Batch size and patches per epoch are not stated. We use 4 and 500.",
        (
            "Augmentation is not stated. We use flips, affine and elastic transforms, and "
            "intensity transforms."
        ),
        (
            "Preprocessing is not stated. We use brain extraction, N4, resampling to 1 mm, and the "
            "z-score of brain tissue."
        ),
        (
            "How the baseline's weights are chosen is not stated. We use those with the highest "
            "validation Dice of the mask. Both ways of separating lesions share one training."
        ),
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(64, 64, 64),
        learning_rate=1e-3,
        batch_size=2,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino", cover="brain"),
    ),
)
