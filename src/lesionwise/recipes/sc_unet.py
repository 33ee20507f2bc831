"""Five SC U-Nets on sagittal patches of two visits and their attention maps."""

from functools import partial

from lesionwise.inference.views import Planes
from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import GeneralizedDice
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import EqualClasses, NonzeroPatches, RegularGrid
from lesionwise.learning.samples import Augmentation, ListedPatches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import RandomAffine, SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.composite import Ensemble
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.sc_unet import plane_sc_unet
from lesionwise.preprocess.challenge import MSSEG2_STEPS
from lesionwise.preprocess.intensity import DropNegative, ZScore
from lesionwise.preprocess.pair_maps import AttentionMaps
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

WINDOW = SlidingWindow(overlap=0.5, windows_per_batch=64)

MEMBER = NetworkMethod(
    network=partial(plane_sc_unet, in_channels=4, out_channels=2),
    scans=("flair", "attention"),
    samples=ListedPatches(
        RegularGrid(stride_vox=(32, 32, 1), normals=(0,)),
        size_vox=(64, 64, 1),
        batch_size=30,
        balance=EqualClasses(),
        keeps=NonzeroPatches(),
        augmentation=Augmentation(
            spatial=SpatialAugmentation(
                flip=0.0,
                affine=RandomAffine(1.0, rotation_deg=15.0, scale_per_axis=(0.9, 1.1), shear=0.32),
                elastic=None,
            )
        ),
    ),
    objective=Supervised(LesionMask(), GeneralizedDice()),
    optimization=Optimization(learning_rate=2e-4, epochs=50, optimizer=Adam(), schedule=Constant()),
    task="new",
    inference=Inference(WINDOW, planes=Planes(axes=(0,))),
    selection=Selection(window=WINDOW),
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on an ensemble of SC U-Nets with attention maps]"),
    passage="002, line 443, section 2",
    scans=("flair",),
    preprocess=(
        *MSSEG2_STEPS,
        ZScore(within="brain"),
        DropNegative(),
        AttentionMaps("flair", name="attention"),
    ),
    method=Ensemble((MEMBER,) * 5, combine="mean"),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={
        "dsc": 0.728,
        "voxel_ppv": 0.816,
        "voxel_sensitivity": 0.666,
        "lesion_recall": 0.889,
        "lesion_f1": 0.691,
    },
    departures=(
        (
            "The paper uses Anima for brain extraction and bias correction. We use our own "
            "implementations."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        (
            "How the Gaussian normalization of intensities works is not stated. We use that of the "
            "public code of Li et al.: the brain's mean is subtracted, and the result is divided "
            "by the brain's standard deviation."
        ),
        (
            "The SC U-Net's paper was not available. We take its modified skip connections as "
            "short ones that add each block's input to its output. Levels, channels and kernels "
            "are those of the U-Net of Li et al., which the paper cites for the ensemble."
        ),
        (
            "How positive and negative patches are sampled equally is not stated. We repeat "
            "positive ones in an epoch, and show every negative one once."
        ),
        (
            "Ranges of the affine transforms are not stated. We use those of Li et al. for every "
            "patch: 15 degrees, a shear of 18 degrees, and scales of 0.9 to 1.1."
        ),
        (
            "Optimizer, learning rate, batch size and epochs are not stated. We use those of Li et "
            "al.: Adam, 2e-4, 30 and 50. The rate stays constant."
        ),
        (
            "How patches are combined in prediction is not stated. They overlap by one half too, "
            "with Gaussian weights."
        ),
        (
            "Initial weights are not stated. We use those of Glorot and Bengio, as in the code of "
            "Li et al., and a bias with which training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        "Which weights are used is not stated. We use those with the highest validation Dice.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 12, 16, 32, 64)},
        learning_rate=3e-4,
        batch_size=8,
        window=SlidingWindow(overlap=0.5, windows_per_batch=64, engine="openvino"),
    ),
)
