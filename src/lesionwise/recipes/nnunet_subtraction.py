"""All lesions of each visit by one U-Net; new is what the first visit did not have."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import CrossEntropy, Dice, WeightedSum
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import RandomAffine, SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.composite import Pretrained, SegmentThenCompare
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.instance_unet import InstanceUNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.preprocess.intensity import Rescale01, ZScore
from lesionwise.preprocess.template import RegisterToTemplate
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

NETWORK = NetworkMethod(
    network=partial(InstanceUNet, in_channels=1, out_channels=2, features=(32, 64, 128, 256, 320)),
    scans=("flair",),
    samples=Patches(
        size_vox=(128, 128, 128),
        batch_size=2,
        per_epoch=250,
        sampling=PatchSampling(lesion_fraction=0.5),
        augmentation=Augmentation(
            SpatialAugmentation(
                flip=0.5, affine=RandomAffine(0.5, rotation_deg=15.0, shear=0.1), elastic=None
            )
        ),
    ),
    objective=Supervised(
        LesionMask(), WeightedSum(((1.0, Dice()), (1.0, CrossEntropy(lesion_weight=10.0))))
    ),
    optimization=Optimization(
        learning_rate=1e-4, epochs=400, optimizer=Adam(), schedule=Constant()
    ),
)

RECIPE = Recipe(
    citation=msseg2_chapter(
        "[Chapter on a 3D U-Net with subtraction of the visits' segmentations]"
    ),
    passage="002, line 555, section 2",
    scans=("flair",),
    preprocess=(
        RegisterToTemplate(model="affine"),
        ExtractBrain(),
        ZScore(within="brain"),
        Rescale01(within="brain"),
        MaskToBrain(),
    ),
    method=SegmentThenCompare(
        Pretrained(first=NETWORK, then=NETWORK, auxiliary="lesions"),
        threshold=0.5,
        max_overlap=0.0,
        min_volume_mm3=10.0,
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={"dsc": 0.427, "lesion_detection": 0.465},
    departures=(
        "called nnU-Net, described as an own Keras model: built here as described, on PyTorch",
        (
            "brain extraction is our own, not HD-BET; the template is nilearn's MNI152 of 1 "
            "mm, of 197 by 233 by 189 voxels, not 193 by 224 by 193"
        ),
        "widths are not stated: nnU-Net's, 32 doubled to 320 at most, strided convolutions",
        "patch size is not stated: 128; patches per epoch: 250, half of them around lesions",
        "ranges of flips, rotation and shear are not stated: 0.5, 15 degrees and 0.1",
        "the weight of the lesion class is not stated: 10",
        "the learning rate schedule is not stated: constant",
        (
            "the data of the first training are private: the auxiliary set 'lesions' where one is "
            "given, and otherwise none"
        ),
        (
            "fine-tuning needs lesions of each visit, which the challenge does not label: visits "
            "with a lesion mask alone are learned from"
        ),
        (
            "'subtract' is read as: a component of the follow-up that shares no voxel with the "
            "baseline's mask is new; smaller ones than 10 mm³ of the follow-up are dropped first"
        ),
        "the initial bias is not stated: a lesion probability of 0.02 everywhere",
        "the best validation Dice is that of all lesions, not of new ones",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64, 64)},
        size_vox=(48, 48, 48),
        learning_rate=2e-3,
        batch_size=2,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, engine="openvino"),
    ),
)
