"""One U-Net finds all lesions of each visit; those that the baseline lacks are new."""

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
        (
            "The paper says nnU-Net but describes its own Keras model. We build the network as "
            "described, in PyTorch."
        ),
        (
            "The paper uses HD-BET and an atlas of 193 by 224 by 193 voxels. We use our own brain "
            "extraction and nilearn's MNI152 at 1 mm, of 197 by 233 by 189 voxels."
        ),
        (
            "The type of registration to the atlas is not stated. We use an affine one, the "
            "follow-up through the baseline."
        ),
        (
            "Channels are not stated. We use nnU-Net's, 32 doubled up to 320, with strided "
            "convolutions."
        ),
        (
            "Patch size and patches per epoch are not stated. We use 128 and 250, half of them "
            "around lesions."
        ),
        (
            "Ranges of flips, rotation and shear are not stated. We use a probability of 0.5, 15 "
            "degrees and 0.1."
        ),
        "The weight of the lesion class is not stated. We use 10.",
        "The learning rate schedule is not stated. We use a constant rate.",
        (
            "The data of the first training are private. We use the auxiliary set 'lesions' where "
            "one is given, and skip that training otherwise."
        ),
        (
            "Fine-tuning needs lesions of each visit, which the challenge does not label. We learn "
            "only from visits with a lesion mask."
        ),
        (
            '"Subtracting" is not defined. A component of the follow-up is new if it shares no '
            "voxel with the baseline's mask. Components of either visit smaller than 10 mm³ are "
            "dropped first, as stated."
        ),
        (
            "The form of the Dice loss is not stated. We use that of the lesion class, with plain "
            "sums, and each sample has its own loss."
        ),
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        (
            "The paper chooses the model with the best Dice on the challenge data. Ours has the "
            "best Dice of all lesions, not of new ones."
        ),
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
