"""One residual 2D U-Net with attention gates for the slices of all three planes, which vote."""

from functools import partial

from lesionwise.inference.views import Planes
from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import Dice, Focal, WeightedSum
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import EverySlice
from lesionwise.learning.samples import Augmentation, ListedPatches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import RandomAffine, SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.composite import PositiveCases
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.attention_res_unet import plane_attention_res_unet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

WINDOW = SlidingWindow(windows_per_batch=8)

NETWORK = NetworkMethod(
    network=partial(plane_attention_res_unet, in_channels=2, out_channels=2),
    scans=("flair",),
    samples=ListedPatches(
        EverySlice(normals=(0, 1, 2)),
        size_vox=(512, 512, 1),
        batch_size=8,
        augmentation=Augmentation(
            spatial=SpatialAugmentation(
                flip=0.5,
                affine=RandomAffine(1.0, rotation_deg=15.0),
                elastic=None,
                flip_axes=(0, 1),
            )
        ),
    ),
    objective=Supervised(LesionMask(), WeightedSum(((1.0, Focal()), (1.0, Dice(over="batch"))))),
    optimization=Optimization(learning_rate=1e-3, epochs=50, optimizer=Adam(), schedule=Constant()),
    task="new",
    inference=Inference(WINDOW, planes=Planes(axes=(2, 0, 1), combine="vote")),
    selection=Selection(window=WINDOW),
)

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on a residual U-Net with attention gates on slices of three planes]"
    ),
    passage="002, line 665, sections 1 to 3",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToHalfway(),
        MaskToBrain(),
        ZScore(within="brain", zero_outside=True),
    ),
    method=PositiveCases(NETWORK, task="new"),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        "brain extraction is ours; how the skull was removed is not stated",
        "raw visits are registered half way, as the challenge's pairs were",
        "intensity normalization is not stated: z-score in the brain, 0 outside",
        (
            "29 patients with new lesions were split into 24 and 5: studies without a new lesion "
            "do not train, and what validates is the command's (--validation, --fold)"
        ),
        (
            "slices larger than 512 by 512 are cut to their middle in training and covered by "
            "overlapping windows in prediction"
        ),
        (
            "widths, depth and normalization are not stated: those of the deep residual U-Net "
            "(Zhang et al., 2018), with the gates of Oktay et al. (2018)"
        ),
        "gamma of the focal loss is not stated: 2; both losses have the same weight",
        "Dice is taken over the batch, since most slices have no lesion: not stated",
        "ranges of flips and rotations are not stated: each axis of the plane by half, 15 degrees",
        (
            "optimizer, learning rate, batch size and epochs are not stated: Adam at Keras's "
            "default of 1e-3, 8 and 50, the rate constant"
        ),
        "each plane's vote is its probability above 0.5",
        "the initial bias is not stated: a lesion probability of 0.02 everywhere",
        "which weights are used is not stated: those with the highest validation Dice",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(192, 192, 1),
        learning_rate=2e-3,
        batch_size=8,
        window=SlidingWindow(windows_per_batch=16, engine="openvino"),
    ),
)
