"""A two-pathway network like DeepMedic: a detailed center and its coarse surroundings."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import RmsProp
from lesionwise.learning.samplers import CenterSampling
from lesionwise.learning.schedules import Plateau
from lesionwise.learning.stratified import PatchesOfEachStudy
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.composite import PositiveCases
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.double_pathway import DoublePathway
from lesionwise.preprocess.intensity import Rescale01
from lesionwise.preprocess.template import RegisterToTemplate
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

SAMPLES = PatchesOfEachStudy(
    size_vox=(97, 97, 97),
    batch_size=10,
    per_study=576,  # 288 patches and 288 reinforced centers
    sampling=CenterSampling((19, 19, 19), inner_fraction=0.5),
)
WINDOW = SlidingWindow(stride_vox=(17, 15, 16), weighting="uniform", windows_per_batch=4)
"""12 x 16 x 12 windows of 19 voxels on the template's grid of 197 x 233 x 189."""
NETWORK = NetworkMethod(
    network=partial(
        DoublePathway,
        in_channels=2,
        out_channels=2,
        fine=(30, 40, 50, 60, 70, 80, 90),
        coarse=(30, 40, 50, 60, 70, 80, 90, 100),
        joint=(300, 300),
        fine_vox=33,
    ),
    scans=("flair",),
    samples=SAMPLES,
    objective=Supervised(LesionMask(), CrossEntropy()),
    optimization=Optimization(
        learning_rate=1e-3,
        epochs=35,
        optimizer=RmsProp(decay=0.9, momentum=0.6, epsilon=1e-4),
        weight_decay=1e-4,
        schedule=Plateau("total", gamma=0.5, patience=3),
    ),
    task="new",
    inference=Inference(WINDOW),
    selection=Selection(window=WINDOW),
)

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on a convolutional network with double pathway architecture]"
    ),
    passage="002, line 1097, section 2",
    scans=("flair",),
    preprocess=(RegisterToTemplate(model="affine"), Rescale01(within="all")),
    method=PositiveCases(NETWORK),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The paper reorients to RAI. Our axes run to the right, to the front and upward. The "
            "network sees the same head flipped along two axes."
        ),
        (
            "Atlas and type of registration are not stated. We use MNI152 at 1 mm and an affine "
            "registration."
        ),
        (
            "The condition that patches must meet is not stated. We keep patches of 97 voxels that "
            "hold the center of a new lesion. All other patches, and patients without new lesions, "
            "are left out of training; such patients do not validate either, if others remain."
        ),
        (
            '"288 + reinforced centers" is not explained. We take 288 such patches of each patient '
            "in an epoch, and as many that have the center in their middle 19 voxels, which the "
            "network predicts. With patches of the second kind alone, old lesions would rarely lie "
            "where it predicts, only near new ones."
        ),
        (
            "The paper crops images to fit the network. We do not: patches reach beyond the "
            "volume, where they are 0."
        ),
        (
            "The paper uses 2304 patches in prediction and does not state where they lie. Ours are "
            "17, 15 and 16 voxels apart, which makes as many on the template's grid. Where they "
            "overlap, we average."
        ),
        (
            "How the low-resolution path is resampled is not stated. It takes every third voxel, "
            "and its result is repeated three times, as in DeepMedic."
        ),
        (
            "Normalization, activation and dropout are not stated. We use DeepMedic's, without its "
            "residual connections."
        ),
        "The loss is not stated. We use cross-entropy, as DeepMedic does.",
        (
            "The optimizer is not stated. We use DeepMedic's: RMSProp at 0.001 with a momentum of "
            "0.6 and an L2 penalty of 0.0001, without its L1 penalty. The rate is halved when the "
            "loss has not fallen for 3 epochs. We train for 35 epochs in batches of 10."
        ),
        "Augmentation is not stated. We use none.",
        "Which weights are used is not stated. We use those with the highest validation Dice.",
        "The threshold is not stated. We use 0.5.",
    ),
)

FEWER = replace(SAMPLES, per_study=100, sampling=CenterSampling((13, 13, 13), 0.5))
# enough for the mean loss of an epoch, which the schedule waits for, to say something
REDUCED = reduced(
    replace(RECIPE, method=PositiveCases(replace(NETWORK, samples=FEWER))),
    Reduction(
        network={
            "fine": (8, 16, 16, 24),
            "coarse": (8, 16, 16, 24),
            "joint": (32, 32),
            "fine_vox": 21,
        },
        size_vox=(49, 49, 49),
        learning_rate=1e-3,
        batch_size=4,
        window=SlidingWindow(
            overlap=0.0, weighting="uniform", windows_per_batch=8, engine="openvino"
        ),
    ),
)
