"""Registration and new lesions learned end to end: a field, and U-Nets on images and field."""

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
        "brain extraction is ours, not ROBEX",
        "raw visits are registered half way, as the challenge's pairs were",
        (
            "the histogram matching is that of the training scans' mean histogram in units of the "
            "median: the document cites another paper"
        ),
        (
            "widths of the networks are not stated: VoxelMorph's for the registration, 32, 64, "
            "128, 256 for each branch"
        ),
        (
            "the sum over voxels of the field's squared steps is a mean, as that of the squared "
            "error is; with a weight of 0.01"
        ),
        (
            "70 and 30 of 100 patches train and validate in the document, of the same patients: "
            "here patients are split, by the run (a fifth unless --folds says otherwise)"
        ),
        "patches are those of the box around the brain, all of them: not stated otherwise",
        "Adam's default parameters are read as a learning rate of 1e-3, constant",
        "the accuracy that ends the training and chooses weights is that of validation voxels",
        "how volumes are covered is not stated: as the training patches, averaged alike",
        "the initial bias is not stated: a lesion probability of 0.02 and no displacement",
        "threshold and connectivity are not stated: 0.5 and 26",
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
