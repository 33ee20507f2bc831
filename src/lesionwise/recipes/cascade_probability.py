"""A cascade: how the probability of lesions changed, and the follow-up, show what is new."""

from dataclasses import replace
from functools import partial

from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import Brightness, Compose, Contrast, Gamma
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import (
    RandomAffine,
    RandomElastic,
    SpatialAugmentation,
)
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.cascade import AddMaps, LastVisitOnly, VisitDifference
from lesionwise.methods.combine import Ensemble
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.positive import PositiveCases
from lesionwise.networks.instance_unet import InstanceUNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import CropToBrain, Resample
from lesionwise.preprocess.intensity import ZScore
from lesionwise.recipe import Recipe

FOLDS = 4
FEATURES = (32, 64, 128, 256, 320, 320)
INTENSITY = (Brightness((0.75, 1.25), probability=0.15), Contrast((0.75, 1.25), probability=0.15))

STAGE_ONE = NetworkMethod(
    network=partial(InstanceUNet, in_channels=1, out_channels=2, features=FEATURES),
    scans=("flair",),
    finds="lesions",
    targets=LesionMask(),
    loss=CrossEntropy(),
    optimizer=Adam(),
    learning_rate=1e-4,
    schedule=Constant(),
    epochs=5000,
    patch_size_vox=(128, 128, 128),
    batch_size=2,
    patches_per_epoch=16,
    sampling=PatchSampling(lesion_share=0.5),
    spatial=SpatialAugmentation(
        flip=0.5,
        affine=RandomAffine(0.3, rotation_deg=20.0, scale=(0.8, 1.25), scale_per_axis=(0.95, 1.05)),
        elastic=RandomElastic(0.15, displacement_mm=3.0),
    ),
    intensity=Compose((*INTENSITY, Gamma((0.7, 1.5), probability=0.3, keep_moments=True))),
    validate_every=50,
)

STAGE_TWO = replace(
    STAGE_ONE,
    network=partial(InstanceUNet, in_channels=2, out_channels=2, features=FEATURES),
    scans=("probability_change", "flair"),
    finds="new",
    intensity=Compose(INTENSITY),
)

RECIPE = Recipe(
    source="002, line 2274, section 2",
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
        VisitDifference("lesion_probability", name="probability_change"),
        LastVisitOnly(),
    ),
    method=PositiveCases(Ensemble((STAGE_TWO,) * FOLDS, combine="mean", folds=FOLDS)),
    threshold=0.1,
    to_instances=ConnectedComponents(),
    visits=2,
    finds="new",
    reported={"dsc": 0.625, "dsc_at_0.5": 0.533, "dsc_stage_one": 0.743},
    departures=(
        "free-form deformation is SimpleITK's, not MIRTK's; brain extraction is ours, not FSL's",
        "intensity normalization is not stated: z-score in the brain",
        (
            "stage one learns from the auxiliary set 'lesions' where one is given, and otherwise "
            "from all lesions of the training visits"
        ),
        "widths, strides and activation are not stated: nnU-Net's",
        "learning rate, its course and batch size are not stated: 1e-4, constant, 2",
        "an epoch is not defined: 16 patches, about one for each training scan",
        "ranges and probabilities of the augmentation are not stated: ours",
        (
            "effects on intensities act on the difference of probabilities too; where that is "
            "exactly 0 it stays so"
        ),
        "the first guess is not stated: a lesion probability of 0.02 everywhere",
    ),
)
