"""One residual 2D U-Net with attention gates on slices of three planes; the planes vote."""

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
from lesionwise.recipe import Output, Recipe, msseg2_chapter
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
    output=Output(grid="followup", resample="labels"),
    departures=(
        "The method of skull stripping is not stated. We use our own brain extraction.",
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        "Intensity normalization is not stated. We use the z-score in the brain, and 0 outside.",
        (
            "The paper splits the 29 patients with new lesions into 24 and 5. We also leave "
            "studies without a new lesion out of training and, if others remain, out of "
            "validation. The command decides which studies validate (--validation, --fold)."
        ),
        (
            "Slices larger than 512 by 512 are not mentioned. We crop them to their center in "
            "training and cover them with overlapping windows in prediction."
        ),
        (
            "Channels, depth and normalization are not stated. We use those of the deep residual "
            "U-Net (Zhang et al., 2018), with the attention gates of Oktay et al. (2018)."
        ),
        (
            "The paper puts a gate between the encoder and the upsampled features of the level "
            "below. Our gates take these features before they are upsampled, as those of Oktay et "
            "al. do."
        ),
        (
            "The focal loss's gamma and the weights of the two losses are not stated. We use a "
            "gamma of 2 and equal weights."
        ),
        (
            "How Dice is summed is not stated. We sum it over the batch, since most slices have no "
            "lesion."
        ),
        (
            "Ranges of flips and rotations are not stated. We flip each axis of the plane with "
            "probability 0.5 and rotate by up to 15 degrees."
        ),
        (
            "Optimizer, learning rate, batch size and epochs are not stated. We use Adam with a "
            "constant rate of 1e-3 (Keras's default), batches of 8, and 50 epochs."
        ),
        (
            "How each plane votes is not stated. A plane votes for a lesion where its probability "
            "is above 0.5."
        ),
        (
            "How results are brought back to the follow-up's grid is not stated. The majority "
            "decides first, and the mask is resampled by nearest neighbor."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        "Which weights are used is not stated. We use those with the highest validation Dice.",
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
