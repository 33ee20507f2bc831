"""Registration and new lesions, learned end to end from images and deformation field."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import RegularGrid
from lesionwise.learning.registration import SegmentAndRegister
from lesionwise.learning.samples import ListedPatches
from lesionwise.learning.schedules import Constant, EarlyStopping
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.joint_registration import JointRegistrationUNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.standardize import MatchHistogramToTraining
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

STRIDE_VOX = (16, 16, 16)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on registration and new lesions learned end to end]"),
    passage="002, line 3378, section 2",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToHalfway(),
        SharedBrain("union"),
        MaskToBrain(),
        N4(),
        CropToBrain(margin_mm=0.0),
        MatchHistogramToTraining(within="brain", zero_outside=True),
    ),
    method=NetworkMethod(
        network=partial(JointRegistrationUNet, features=(32, 64, 128, 256)),
        scans=("flair",),
        samples=ListedPatches(RegularGrid(STRIDE_VOX), size_vox=(32, 32, 32), batch_size=4),
        objective=SegmentAndRegister(CrossEntropy(), smooth=0.01),
        optimization=Optimization(
            learning_rate=1e-3,
            epochs=30,
            optimizer=Adam(),
            schedule=Constant(),
            early_stopping=EarlyStopping(5, unit="epochs", metric="validation_accuracy"),
        ),
        task="new",
        inference=Inference(
            SlidingWindow(stride_vox=STRIDE_VOX, weighting="uniform", windows_per_batch=8)
        ),
        selection=Selection(by=("accuracy",), every=1),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The paper finds the brain of each visit with ROBEX. We use our own brain extraction, "
            "and the union of both masks for both visits, so that no border looks like a change."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way."
        ),
        "We run N4 on a copy with 4 mm voxels, as N4 does when it shrinks a 1 mm scan by 4.",
        (
            "The histogram matching is only cited. We match to the mean histogram of the training "
            "scans, in units of the median."
        ),
        (
            "Channels of the networks are not stated. We use VoxelMorph's for the registration and "
            "32, 64, 128, 256 for each branch."
        ),
        (
            "The paper prints a sum of the field's squared gradient over voxels, with a weight of "
            "0.01. We take the mean over voxels, as VoxelMorph's code does and as of the squared "
            "error. Beside that mean, the sum over a patch would weigh 32,768 times as much."
        ),
        (
            "The paper splits patches of the same patients, 70 % for training and 30 % for "
            "validation. We split by patient, as the run says (a fifth validates unless --folds "
            "says otherwise)."
        ),
        "Where patches are taken is not stated. We use all patches of the box around the brain.",
        "The learning rate is not stated, only Adam's default parameters. We use a constant 1e-3.",
        (
            "What the validation accuracy counts is not stated. We use the share of validation "
            "voxels that are right, both to end the training and to choose weights."
        ),
        (
            "How prediction covers a volume is not stated. We use the positions of the training "
            "patches and average with equal weights."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 and "
            "no displacement."
        ),
        "Threshold and connectivity are not stated. We use 0.5 and 26.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32)},
        learning_rate=2e-3,
        batch_size=4,
        window=SlidingWindow(stride_vox=STRIDE_VOX, weighting="uniform", windows_per_batch=8),
    ),
)
