"""A light Siamese U-Net++ that learns the new lesions of four raters and their consensus."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import Dice, PerChannel
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samplers import BrainSampling
from lesionwise.learning.schedules import StepDecay
from lesionwise.learning.stratified import PatchesOfEachStudy
from lesionwise.learning.targets import SoftMasks
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.siamese_unetpp import SiameseUNetPP
from lesionwise.preprocess.challenge import MSSEG2_STEPS
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.raters import RATERS, RatersOfNew
from lesionwise.preprocess.standardize import Nyul
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

SAMPLES = PatchesOfEachStudy(
    size_vox=(56, 56, 56),
    batch_size=40,
    per_study=872,
    sampling=BrainSampling(lesion_fraction=0.8),
    references=("new", *RATERS),
)
WINDOW = SlidingWindow(stride_vox=(28, 28, 28), weighting="uniform", windows_per_batch=4)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on a light Siamese U-Net++ with the masks of all raters]"),
    passage="002, line 344, sections on architecture, pre-processing, learning and testing",
    scans=("flair",),
    preprocess=(
        RatersOfNew(),
        *MSSEG2_STEPS,
        Resample(0.8),
        Nyul(zero_outside=True),
        ZScore(within="brain", zero_outside=True),
    ),
    method=NetworkMethod(
        network=partial(SiameseUNetPP, in_channels=2, out_channels=5, features=(4, 8, 16)),
        scans=("flair",),
        samples=SAMPLES,
        objective=Supervised(
            SoftMasks(("new", *RATERS)), PerChannel(Dice(activated=True, smooth=1.0))
        ),
        optimization=Optimization(
            learning_rate=0.004, epochs=40, optimizer=Adam(), schedule=StepDecay(0.9)
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
            "The paper uses Anima for brain extraction and bias correction. We use our own "
            "implementations."
        ),
        (
            "The paper has masks of four raters. Where a pair has none, we use the consensus in "
            "place of each rater."
        ),
        (
            "Levels and channels are not stated, only about 30 000 parameters. We use three levels "
            "of 4, 8 and 16 channels and a refinement block of 8: 29 944 parameters in all. We use "
            "nearest-neighbor upsampling and one map of each decoder."
        ),
        "The dropout rate is not stated. We use 0.1.",
        (
            "The output activation is not stated. We use a sigmoid after the last normalization, "
            "whose shift starts at -4."
        ),
        (
            "Where a lesion lies in its patch is not stated. In 80 % of the patches the lesion's "
            "center is in the inner three quarters. The other 20 % lie anywhere in the brain and "
            "may hold a lesion too, so a little more than 80 % have lesion voxels."
        ),
        "When a patch lies in the brain is not stated. Ours does where its middle voxel does.",
        (
            "The form of the Dice loss is not stated. We average over the five outputs of each "
            "patch, and add 1 to numerator and denominator."
        ),
        "Augmentation is not stated. We use none.",
        "Which weights are used is not stated. We use those with the highest validation Dice.",
    ),
)

assert isinstance(RECIPE.method, NetworkMethod)
REDUCED = reduced(
    replace(RECIPE, method=replace(RECIPE.method, samples=replace(SAMPLES, per_study=10))),
    Reduction(
        size_vox=(48, 48, 48),
        learning_rate=0.004,
        batch_size=2,
        window=SlidingWindow(overlap=0.5, weighting="uniform", engine="openvino"),
    ),
)
