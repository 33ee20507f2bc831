"""A network registers and finds non-corresponding regions; a U-Net refines them to new lesions."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import Dice
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import EverySlice, InMiddleSlice, PositivePatches
from lesionwise.learning.registration import NonCorrespondence
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, ListedPatches, UnlabelledPatches
from lesionwise.learning.schedules import Constant
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import LesionMask
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.registered import AddRegistered
from lesionwise.networks.ncr_net import NcrNet, SeparateInputsUNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

SIZE_VOX = (384, 384, 3)
WINDOW = SlidingWindow(overlap=0.5, weighting="uniform", windows_per_batch=4)
OPTIMIZATION = Optimization(learning_rate=1e-4, epochs=400, optimizer=Adam(), schedule=Constant())

NCR_NET = NetworkMethod(
    network=partial(NcrNet, features=(16, 32, 64, 128, 256)),
    scans=("flair",),
    samples=UnlabelledPatches(
        size_vox=SIZE_VOX, batch_size=5, per_epoch=500, sampling=PatchSampling(0.0)
    ),
    objective=NonCorrespondence(alpha=0.05, beta=0.5, gamma=0.1),
    optimization=OPTIMIZATION,
    task="new",
    inference=Inference(WINDOW),
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on non-correspondence detection and registration]"),
    passage="002, line 3229, section 2",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToHalfway(),
        SharedBrain("union"),
        MaskToBrain(),
        N4(),
        CropToBrain(),
        ZScore(within="brain", zero_outside=True),
        AddRegistered(
            NCR_NET,
            map_name="non_correspondence",
            difference_name="registered_difference",
            threshold=0.5,
        ),
    ),
    method=NetworkMethod(
        network=partial(
            SeparateInputsUNet, in_channels=4, out_channels=2, features=(64, 128, 256, 512), own=16
        ),
        scans=("flair", "registered_difference@followup", "non_correspondence@followup"),
        samples=ListedPatches(
            EverySlice(normals=(2,)),
            size_vox=SIZE_VOX,
            batch_size=5,
            balance=PositivePatches(empty_fraction=0.01, times=2),
            augmentation=Augmentation(
                again=SpatialAugmentation(flip=1.0, affine=None, elastic=None, flip_axes=(0,))
            ),
            has_lesion=InMiddleSlice(),
        ),
        objective=Supervised(LesionMask(), Dice()),
        optimization=OPTIMIZATION,
        task="new",
        inference=Inference(WINDOW),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={"dsc": 0.4508, "lesion_recall": 0.7177, "false_lesion_count": 2.3636},
    departures=(
        (
            "The paper's brain masks come from the challenge's preprocessing, which uses Anima. We "
            "use our own brain extraction, and the union of both visits' masks."
        ),
        (
            "The challenge's pairs came registered to their half-way space. We register raw visits "
            "in the same way, before the network registers them further."
        ),
        (
            'What is done to the input, the "original MRIs", is not stated. We correct the bias '
            "field and give the networks only the brain, z-scored."
        ),
        "We run N4 on a copy with 4 mm voxels, as N4 does when it shrinks a 1 mm scan by 4.",
        (
            "The paper's image distance is the normalized cross-correlation, summed over voxels. "
            "Ours is half the squared difference of images standardized within the stack of "
            "slices, whose mean is 1 minus that correlation. We take means over the brain in place "
            "of sums."
        ),
        (
            "Alpha, beta and gamma were chosen empirically and are not stated. We use 0.05, 0.5 "
            "and 0.1. The regularization of the field is not stated. We use the squared "
            "differences between neighbors."
        ),
        "The threshold of the final non-corresponding regions is not stated. We use 0.5.",
        (
            "Which weights of the first network are used is not stated. We use the last ones, "
            "since it learns without labels."
        ),
        (
            "Which slices the first network learns from is not stated. We draw 500 random stacks "
            "an epoch, and apply the choice of slices by lesions only to the second network."
        ),
        (
            "Channels of the first network are not stated. We use 16 to 256 and instance "
            "normalization. The second network has those of Cicek et al., after a block of 16 "
            "channels for each input, with batch normalization."
        ),
        "How the networks pool is not stated. Both pool only within slices, as a stack has three.",
        "The size of the slices is not stated. We use 384 by 384, cropped or padded with 0.",
        (
            "Which slices of a stack the loss of the second network counts is not stated. We count "
            "all three, and choose stacks by their middle one."
        ),
        "The learning rate schedule is not stated. We use a constant rate.",
        (
            "The paper reports Dice and sensitivity for cases with new lesions, and the number of "
            "false lesions for cases without. We leave out its surface distance and its volume of "
            "false lesions, whose units are not stated."
        ),
        (
            "The initial bias is not stated. Training starts everywhere at a probability of 0.12 "
            "that nothing corresponds and no displacement, then at a lesion probability of 0.02."
        ),
        (
            "The paper's five folds were for evaluation, and its last training used all images. We "
            "keep a fold for validation, and use the weights of the second network with the "
            "highest validation Dice."
        ),
        "Threshold and connectivity are not stated. We use 0.5 and 26.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(96, 96, 3),
        learning_rate=2e-3,
        batch_size=4,
        per_epoch=80,
        window=SlidingWindow(overlap=0.5, weighting="uniform", windows_per_batch=8),
    ),
)
