"""A U-Net trained on hard patches, which a moving average of the network selects."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import Dice, SquaredError
from lesionwise.learning.objective import HardExamples, Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.parts import MomentumCopy
from lesionwise.learning.schedules import Piecewise
from lesionwise.learning.stratified import StratifiedPatches
from lesionwise.learning.targets import SoftMasks
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.mined_unet import MinedUNet
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

WINDOW = SlidingWindow(stride_vox=(24, 24, 24), weighting="uniform", windows_per_batch=8)

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on hard example mining with a moving average of the network]"
    ),
    passage="002, line 2613, sections 2 and 3",
    scans=("flair",),
    preprocess=(RegisterToHalfway(), Resample(0.5), ZScore(within="all")),
    method=NetworkMethod(
        network=partial(MinedUNet, in_channels=2, out_channels=1, features=(16, 32, 64)),
        scans=("flair",),
        samples=StratifiedPatches(
            size_vox=(32, 32, 32),
            batch_size=128,
            per_epoch=12_800,  # 100 steps, 30 000 in all
            lesion_fraction=0.3,
        ),
        objective=HardExamples(
            Supervised(SoftMasks(), Dice(activated=True)),
            fraction=0.25,  # 32 of 128
            error=SquaredError(),
        ),
        parts=(MomentumCopy("judge", decay=0.999),),
        optimization=Optimization(
            learning_rate=1e-3,
            epochs=300,
            optimizer=Adam(),
            schedule=Piecewise(((0.5, 0.1), (0.8, 0.01))),
        ),
        task="new",
        inference=Inference(WINDOW),
        selection=Selection(window=WINDOW),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        (
            "Which voxels the z-score uses is not stated. We use all voxels of the scan, air too, "
            "since the paper uses no brain mask."
        ),
        (
            "The groups of the group normalization and how levels are joined are not stated. We "
            "use 8 groups and concatenation."
        ),
        (
            "The paper names bilinear upsampling. We use trilinear upsampling, its form in three "
            "dimensions."
        ),
        (
            "The output activation is not stated. The one filter of the last convolution is "
            "followed by a sigmoid, and its bias starts at -4."
        ),
        (
            "The error that ranks patches is not stated; Algorithm 1 gives it a symbol different "
            "from the loss. We use the mean squared error of a patch. The Dice loss, which we "
            "tried too, is near 1 for every patch without a lesion, so the network learned only "
            "from such patches."
        ),
        (
            "The form of the Dice loss is not stated. We use plain sums, and each sample has its "
            "own loss."
        ),
        "The momentum is not stated. We use 0.999.",
        (
            "What makes a patch positive is not stated. Ours hold the center of a lesion in their "
            "inner three quarters. Patients with new lesions are equally likely, and so are the "
            "lesions of a patient."
        ),
        "The paper ends training after 3 hours, about 30 000 steps. We end it after 30 000 steps.",
        (
            "Which weights are used is not stated. We use those of the trained network, not of its "
            "copy, with the highest validation Dice."
        ),
        "Augmentation is not stated. We use none.",
        "The threshold is not stated. We use 0.5.",
    ),
)

assert isinstance(RECIPE.method, NetworkMethod)
REDUCED = reduced(
    # a copy that lags behind by a thousand steps judges nothing in a training of some hundred
    replace(RECIPE, method=replace(RECIPE.method, parts=(MomentumCopy("judge", decay=0.98),))),
    Reduction(
        network={"features": (8, 16, 32)},
        batch_size=16,
        per_epoch=320,
        learning_rate=2e-3,
        window=replace(WINDOW, engine="openvino"),
        steps={"Resample": {"spacing_mm": 1.0}},
    ),
)
