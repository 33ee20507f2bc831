"""A sensitive U-Net for new lesions, of which two further stages remove false positives."""

from functools import partial

from lesionwise.change.candidates import MapComponents
from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.candidate_crops import CandidateCrops, CenteredBoxes, ReferenceLesions
from lesionwise.learning.losses import CrossEntropy, Dice, WeightedSum
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import CandidateClass, LesionMask
from lesionwise.methods.candidate_network import CandidateNetwork, ScoreOfCandidate
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import NewByVisitMaps
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.resnet import ResNet
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.brain_masks import BetBrain, MaskToBrain, SharedBrain
from lesionwise.preprocess.cord import BrainAndCord, FindCord
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

MIRRORED = Augmentation(spatial=SpatialAugmentation(flip=0.5))
TRAINING = Optimization(learning_rate=1e-4, epochs=100, optimizer=Adam(), schedule=Constant())
SEGMENTATION = Supervised(LesionMask(), WeightedSum(((1.0, CrossEntropy()), (1.0, Dice()))))
PATCHES = Patches(
    size_vox=(96, 96, 96),
    batch_size=2,
    per_epoch=500,
    sampling=PatchSampling(lesion_fraction=0.5),
    augmentation=MIRRORED,
)

NEW_LESIONS = NetworkMethod(
    network=partial(UNet, in_channels=2, out_channels=2),
    scans=("flair",),
    samples=PATCHES,
    objective=SEGMENTATION,
    optimization=TRAINING,
    task="new",
)
ALL_LESIONS = NetworkMethod(
    network=partial(UNet, in_channels=1, out_channels=2),
    scans=("flair",),
    samples=PATCHES,
    objective=SEGMENTATION,
    optimization=TRAINING,
)
CLASSIFIER = NetworkMethod(
    network=partial(ResNet, in_channels=2, out_channels=2),
    scans=("flair",),
    samples=CandidateCrops(
        propose=MapComponents("new_probability", above=0.1),
        boxes=CenteredBoxes(),
        size_vox=(32, 32, 32),
        batch_size=16,
        more=ReferenceLesions("new"),
        augmentation=MIRRORED,
    ),
    objective=Supervised(CandidateClass(), CrossEntropy()),
    optimization=TRAINING,
    task="new",
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on a multi-stage CNN that reduces false positives]"),
    passage="002, line 268, section 2",
    scans=("flair",),
    preprocess=(
        N4(),
        BetBrain(),
        FindCord(),
        BrainAndCord(by_mm=0.0),
        RegisterToHalfway(),
        SharedBrain("union"),
        MaskToBrain(),
        CropToBrain(),
        ZScore(within="brain", zero_outside=True),
        AddMaps(NEW_LESIONS, name="new_probability", per_visit=False),
        AddMaps(ALL_LESIONS, name="lesion_probability", auxiliary="lesions", folds=0),
    ),
    method=NewByVisitMaps(
        CandidateNetwork(network=CLASSIFIER, merge=ScoreOfCandidate()),
        scan="lesion_probability",
        max_overlap=0.5,
    ),
    threshold=0.5,
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={
        "dsc_most_lesions": 0.75,
        "lesion_f1_most_lesions": 0.68,
        "dsc_one_lesion": 0.74,
        "lesion_f1_one_lesion": 0.8,
    },
    departures=(
        "BET is the project's own; its fraction is not stated: 0.5",
        (
            "the cord is followed slice by slice below the brain by brightness and shape, in place "
            "of region growing"
        ),
        (
            "a U-Net that learns these masks of brain and cord is left out: the masks themselves "
            "are used"
        ),
        "raw visits are registered half way, as the challenge's pairs were",
        "intensity normalization is not stated: z-score in brain and cord, 0 outside",
        (
            "how the first U-Net was made sensitive is not stated: every component above a "
            "probability of 0.1 is a candidate"
        ),
        (
            "four first U-Nets, each without a quarter of the patients, propose the candidates "
            "that the classifier learns from; their mean serves new patients"
        ),
        "depth and patch of the ResNet are not stated: 18 layers, 32 voxels around a candidate",
        (
            "candidates that share a voxel with a new lesion are true; every new lesion is a "
            "candidate in training too; as many false ones as true ones are shown"
        ),
        "a lesion has the extent that the first U-Net gives it, at its threshold of 0.1",
        (
            "masks of all lesions are those of the training visits, or the auxiliary set "
            "'lesions', in place of masks by LST that were corrected by hand"
        ),
        (
            "how clusters are compared stands in a figure alone: one stays if it shares a voxel "
            "with the lesions of the follow-up and at most half of its voxels with those of the "
            "baseline"
        ),
        "loss, optimizer, rate, batch, length and augmentation are not stated: ours",
        "which weights are used is not stated: the best ones of the U-Nets, the classifier's last",
        "the initial bias is not stated: a lesion probability of 0.02, of the classifier 0.5",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(32, 32, 32),
        learning_rate=2e-3,
        batch_size=4,
        per_epoch=40,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
