"""An encoder learned without labels sees each visit; attention weighs their difference."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import PositiveFraction, RegularGrid
from lesionwise.learning.reconstruction import ConsistentReconstruction
from lesionwise.learning.samplers import WeightedSampling
from lesionwise.learning.samples import ListedPatches, UnlabelledPatches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.clean_maps import CleanMaps, DropBorderPatches, DropThinPatches
from lesionwise.methods.composite import Ensemble, Pretrained
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.networks.dual_attention import WIDTHS, DualAttentionUNet, DualAutoencoder
from lesionwise.preprocess.brain_masks import MaskToBrain, OtsuBrain, SharedBrain
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced
from lesionwise.types import Auxiliary

FOLDS = 5
STRIDE_VOX = (16, 16, 16)
WINDOW = SlidingWindow(stride_vox=STRIDE_VOX, weighting="uniform", windows_per_batch=8)
EVERYWHERE = WeightedSampling(background=0.0, brain=1.0, lesion=1.0)

WITHOUT_LABELS = NetworkMethod(
    network=partial(DualAutoencoder, features=WIDTHS, group=4),
    scans=("flair",),
    samples=UnlabelledPatches(
        size_vox=(32, 32, 32),
        batch_size=32,
        per_epoch=3200,
        sampling=EVERYWHERE,
        auxiliary=Auxiliary("unlabelled", visits=2, labelled=False, required=False),
    ),
    objective=ConsistentReconstruction(),
    optimization=Optimization(learning_rate=1e-3, epochs=50, optimizer=Adam(), schedule=Constant()),
    task="new",
)

ACTIVITY = NetworkMethod(
    network=partial(DualAttentionUNet, out_channels=2, features=WIDTHS, group=4),
    scans=("flair",),
    samples=ListedPatches(
        RegularGrid(STRIDE_VOX),
        size_vox=(32, 32, 32),
        batch_size=32,
        balance=PositiveFraction(0.5, per_epoch=3200),
    ),
    objective=Supervised(LesionMask(), CrossEntropy()),
    optimization=Optimization(learning_rate=1e-3, epochs=50, optimizer=Adam(), schedule=Constant()),
    task="new",
    inference=Inference(WINDOW),
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on a self-supervised encoder and dual-path attention]"),
    passage="002, line 3099, sections 2 to 4",
    scans=("flair",),
    preprocess=(
        RegisterToHalfway(),
        OtsuBrain(),
        SharedBrain("intersection"),
        N4(levels=3, iterations=400),
        MaskToBrain(),
        CropToBrain(margin_mm=0.0),
        ZScore(within="brain", zero_outside=True),
    ),
    method=CleanMaps(
        Pretrained(
            WITHOUT_LABELS,
            Ensemble((ACTIVITY,) * FOLDS, combine="mean", folds=FOLDS),
            auxiliary=None,
            only="encoder.",
        ),
        border=DropBorderPatches(depth_vox=1),
        cleanup=(DropThinPatches(min_axis_vox=0.0, min_vox=4, patch_above=0.5),),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        "raw visits are registered half way, as the challenge's pairs were",
        "the radius of erosion and dilation is not stated: 5 mm",
        (
            "the 113 private pairs are the auxiliary set 'unlabelled'; where none is given, the "
            "training pairs take their place, their labels unseen"
        ),
        "intensity normalization is not stated: z-score in the brain",
        "normalization groups 'of size 4' are read as groups of 4 channels",
        (
            "inside a residual block: convolution, normalization, ReLU, convolution, "
            "normalization, sum, ReLU; max-pooling and trilinear upsampling: not stated"
        ),
        (
            "the last residual block of each reconstruction is followed by a convolution 1x1x1, "
            "so that it can be negative"
        ),
        "reconstruction and consistency have equal weights: none are stated",
        (
            "six levels end in one voxel of a patch of 32, where instance normalization is not "
            "defined: there each voxel's features are normalized over the channels"
        ),
        (
            "the attention is the mean over channels of the product, as the text's correlation "
            "coefficient asks; equation 1 prints the sum"
        ),
        "the convolution of the attention gate is 1x1x1 without bias: its size is not stated",
        "patches 'inside the brain region' are those of the box around the brain",
        "patches of the training without labels lie anywhere in the brain: not stated",
        (
            "optimizer, learning rate, epochs and their length are not stated: Adam, 1e-3 "
            "constant, 50 epochs of 100 batches for each of the two trainings"
        ),
        "windows of inference are not stated: as the training patches, averaged with equal weights",
        (
            "a lesion is at the brain's border where it holds a voxel of the mask's outermost "
            "layer: not stated"
        ),
        "threshold and connectivity are not stated: 0.5 and 26",
        "the initial bias is not stated: a lesion probability of 0.02 everywhere",
        "which weights are used is not stated: those with the highest validation Dice",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        learning_rate=2e-3,
        batch_size=8,
        per_epoch=160,
        window=SlidingWindow(
            stride_vox=STRIDE_VOX, weighting="uniform", windows_per_batch=8, engine="openvino"
        ),
    ),
)
