"""Two U-Nets: the change of the lesion probability and the follow-up show new lesions."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import (
    Brightness,
    Compose,
    Contrast,
    Gamma,
    OnChannels,
)
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import RandomAffine, RandomElastic, SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.cascade import AddMaps, LastVisitOnly
from lesionwise.methods.composite import Ensemble, PositiveCases
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.instance_unet import InstanceUNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import CropToBrain, Resample
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.pair_maps import Subtract
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

FOLDS = 4
FEATURES = (32, 64, 128, 256, 320, 320)
INTENSITY = (Brightness((0.75, 1.25), probability=0.15), Contrast((0.75, 1.25), probability=0.15))
GAMMA = Gamma((0.7, 1.5), probability=0.3, keep_moments=True)

PATCHES = Patches(
    size_vox=(128, 128, 128),
    batch_size=2,
    per_epoch=16,
    sampling=PatchSampling(lesion_fraction=0.5),
    augmentation=Augmentation(
        spatial=SpatialAugmentation(
            flip=0.5,
            affine=RandomAffine(
                0.3, rotation_deg=20.0, scale=(0.8, 1.25), scale_per_axis=(0.95, 1.05)
            ),
            elastic=RandomElastic(0.15, displacement_mm=3.0),
        ),
        intensity=Compose((*INTENSITY, GAMMA)),
    ),
)
WITHOUT_GAMMA = replace(
    PATCHES.augmentation, intensity=OnChannels(scans=("flair",), effects=INTENSITY)
)

STAGE_ONE = NetworkMethod(
    network=partial(InstanceUNet, in_channels=1, out_channels=2, features=FEATURES),
    scans=("flair",),
    samples=PATCHES,
    objective=Supervised(LesionMask(), CrossEntropy()),
    optimization=Optimization(
        learning_rate=1e-4, epochs=5000, optimizer=Adam(), schedule=Constant()
    ),
    selection=Selection(every=50),
)

STAGE_TWO = replace(
    STAGE_ONE,
    network=partial(InstanceUNet, in_channels=2, out_channels=2, features=FEATURES),
    scans=("probability_change", "flair"),
    samples=replace(PATCHES, augmentation=WITHOUT_GAMMA),
    task="new",
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on a cascade of two U-Nets for new lesions]"),
    passage="002, line 2274, section 2",
    scans=("flair",),
    preprocess=(
        DeformToLast(method="bspline", linear="affine"),
        ExtractBrain(),
        SharedBrain("last"),
        MaskToBrain(),
        Resample((0.5, 0.98, 0.98)),
        CropToBrain(),
        ZScore(within="brain", zero_outside=True),
        AddMaps(STAGE_ONE, name="lesion_probability", auxiliary="lesions"),
        Subtract("lesion_probability", name="probability_change"),
        LastVisitOnly(),
    ),
    method=PositiveCases(Ensemble((STAGE_TWO,) * FOLDS, combine="mean", folds=FOLDS)),
    threshold=0.1,
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={"dsc": 0.625, "dsc_at_0.5": 0.533, "dsc_stage_one": 0.743},
    departures=(
        (
            "The paper uses free-form deformation from MIRTK, whose default similarity is mutual "
            "information; control points and similarity are not stated. We use our own B-spline "
            "registration with local correlation."
        ),
        "The paper uses FSL for the brain mask. We use our own brain extraction.",
        "Intensity normalization is not stated. We use the z-score in the brain.",
        (
            "The paper trains stage one on two public data sets. We train it on the auxiliary set "
            "'lesions' where one is given, and otherwise on all lesions of the training visits, in "
            "four parts. Then stage two learns from maps of networks that have not seen the "
            "patient."
        ),
        (
            "The paper trains stage one on the first time point of each patient alone. We train it "
            "on every visit of a patient that has a mask."
        ),
        (
            "The paper validates stage one on three images. Ours keeps its last weights, unless "
            "the training has validation patients."
        ),
        "The axis of the 0.5 mm is not named. We take the first, left to right.",
        "Channels, strides and activation are not stated. We use nnU-Net's.",
        (
            "Learning rate, its schedule and batch size are not stated. We use a constant 1e-4 and "
            "batches of 2."
        ),
        "An epoch is not defined. We use 16 patches, about one for each training scan.",
        "Ranges and probabilities of the augmentation are not stated. We chose our own.",
        (
            "What the intensity transforms act on is not stated. We apply them only to the "
            "follow-up's scan, not to the probabilities."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64, 64, 64)},
        size_vox=(64, 64, 64),
        learning_rate=2e-3,
        batch_size=2,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
