"""Two 3D-to-2D networks: one for the lesions of each visit, one for new lesions."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.views import MirroredPlanes, Planes
from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import DropChannels
from lesionwise.learning.losses import Focal
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import CosineRestarts
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import LesionLogit
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import Pretrained
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.deepscan import SLICES, deepscan
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.missing_scans import FillMissingScans
from lesionwise.preprocess.registration import RegisterToLast
from lesionwise.recipe import Output, Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced
from lesionwise.types import Auxiliary, Method

CONTRASTS = ("flair", "t1w", "t2w")
LESIONS = Auxiliary("lesions", scans=CONTRASTS)
BATCHES = 5000
WINDOW = SlidingWindow(overlap=0.25, windows_per_batch=8)
PLANES = Planes(axes=(2, 1, 0))
MIRRORED = SpatialAugmentation(flip=0.5, affine=None, elastic=None)

STACKS = Patches(
    size_vox=(192, 192, SLICES),
    batch_size=2,
    per_epoch=BATCHES * 2,
    sampling=PatchSampling(lesion_fraction=0.5),
    augmentation=Augmentation(MIRRORED),
    planes=(0, 1, 2),
)
NEW_LESIONS = NetworkMethod(
    network=partial(deepscan, in_channels=4, out_channels=2),
    scans=("flair", "lesion_probability"),
    samples=STACKS,
    objective=Supervised(LesionLogit(), Focal(gamma=2.0)),
    optimization=Optimization(
        learning_rate=1e-5,
        epochs=20,
        optimizer=Adam(),
        schedule=CosineRestarts(period=1, end=0.01),
    ),
    task="new",
    inference=Inference(WINDOW, planes=MirroredPlanes(PLANES, axes=(0,))),
    selection=Selection(window=WINDOW),
)

ALL_CONTRASTS = replace(
    NEW_LESIONS,
    network=partial(deepscan, in_channels=len(CONTRASTS), out_channels=2),
    scans=CONTRASTS,
    task="lesions",
)
SOME_CONTRASTS = replace(
    ALL_CONTRASTS,
    samples=replace(STACKS, augmentation=Augmentation(MIRRORED, intensity=DropChannels((0, 1, 2)))),
)
LESIONS_OF_A_VISIT = Pretrained(first=ALL_CONTRASTS, then=SOME_CONTRASTS, auxiliary=None)


def cascade(lesions: Method, new_lesions: Method) -> Recipe:
    """The recipe with these two networks."""
    return Recipe(
        citation=msseg2_chapter("[Chapter on an adaptation of DeepSCAN to new lesions]"),
        passage="002, line 2850, section 1",
        scans=("flair",),
        preprocess=(
            ExtractBrain(),
            MaskToBrain(),
            RegisterToLast("rigid"),
            Resample(1.0),
            ZScore(within="nonzero", zero_outside=True),
            FillMissingScans(CONTRASTS),
            AddMaps(lesions, name="lesion_probability", auxiliary=LESIONS),
        ),
        method=new_lesions,
        to_instances=ConnectedComponents(),
        visits=2,
        task="new",
        output=Output(grid="followup", resample="logits"),
        reported={"dsc": 0.56},
        departures=(
            "The paper uses HD-BET. We use our own brain extraction.",
            "The program for the rigid registration is not stated. We use our own.",
            (
                "The first network's training data are private. We train it on the auxiliary set "
                "'lesions', whose visits have FLAIR, T1 and T2 on one grid. Without that set, it "
                "learns from all lesions of the training visits on FLAIR alone, in four parts. "
                "Then the second network learns from maps of networks that have not seen the "
                "patient."
            ),
            (
                "The paper's first network also learns other brain structures, and label "
                "uncertainty. Ours learns only lesions."
            ),
            (
                "The network's paper was not available. We use five slices, two poolings, and "
                "dense blocks of four layers with dilations at the lowest resolution. The number "
                "of channels is our choice."
            ),
            (
                "How often contrasts are dropped is not stated. We drop none, one or two equally "
                "often, and always keep one that is not empty."
            ),
            (
                "Settings of the first network are in the paper that is cited. We train it twice "
                "with the settings of the second: with all contrasts, and then with dropped ones."
            ),
            (
                "When the learning rate restarts is not stated. We restart it after every epoch of "
                "5000 batches."
            ),
            (
                "Optimizer, batch and patch size, sampling and augmentation are not stated. We use "
                "Adam, batches of 2, patches of 192 by 192 by 5, half of them around lesions, and "
                "flips."
            ),
            "The focal loss's gamma is not stated. We use 2.",
            (
                "The paper's network has one output channel. Ours has two, whose difference is the "
                "same."
            ),
            "The weighting of overlapping windows is not stated. We use Gaussian weights.",
            (
                "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
                "everywhere."
            ),
            (
                "Which weights are used is not stated. We use those with the highest validation "
                "Dice, or the last ones where the validation visits have no lesion masks."
            ),
            "The threshold is not stated. We use 0.5.",
        ),
    )


RECIPE = cascade(LESIONS_OF_A_VISIT, NEW_LESIONS)


REDUCED = reduced(
    cascade(
        Pretrained(first=ALL_CONTRASTS, then=SOME_CONTRASTS, auxiliary=None),
        NEW_LESIONS,
    ),
    Reduction(
        network={"features": 12, "growth": 6},
        size_vox=(96, 96, SLICES),
        learning_rate=2e-3,
        batch_size=4,
        per_epoch=40,
        every=0,  # views of each scan take longer than the training
        planes=PLANES,
        steps={"AddMaps": {"folds": 2}},
        window=SlidingWindow(overlap=0.25, windows_per_batch=16, engine="openvino"),
    ),
)
