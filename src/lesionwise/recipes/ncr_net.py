"""What does not correspond after a learned registration is refined to new lesions."""

from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.losses import Dice
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import EverySlice, PositivePatches
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
                spatial=SpatialAugmentation(flip=0.5, affine=None, elastic=None, flip_axes=(0,))
            ),
        ),
        objective=Supervised(LesionMask(), Dice()),
        optimization=OPTIMIZATION,
        task="new",
        inference=Inference(WINDOW),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={
        "dsc": 0.4508,
        "lesion_recall": 0.7177,
        "mean_surface_distance": 5.7948,
        "false_lesion_count": 2.3636,
        "false_lesion_volume": 20.0467,
    },
    departures=(
        "brain extraction and bias correction are our own, not Anima's",
        (
            "raw visits are registered half way, as the challenge's pairs were, "
            "before the network registers them further"
        ),
        "whether the networks see the whole head is not stated: the brain alone, z-scored",
        (
            "the image distance is half the squared difference of images standardized in the "
            "stack of slices, whose mean is 1 minus their normalized cross-correlation; means "
            "over the brain stand for sums"
        ),
        (
            "alpha, beta and gamma are empirical and not stated: 0.05, 0.5 and 0.1; the field's "
            "regularization is not stated: the squared steps between neighbors"
        ),
        "the final non-corresponding regions are those above 0.5: not stated",
        "the first network's weights are the last ones: labels play no part in it",
        (
            "the first network learns from stacks drawn at random, 500 an epoch: not stated, and "
            "the choice of slices by lesions is read as that of the second network"
        ),
        (
            "widths of the first network are not stated: 16 to 256, instance normalization; the "
            "second has those of Cicek et al., after a block of 16 channels for each input"
        ),
        "both networks pool within the slices alone, as there are three",
        "of the size of slices nothing is said: 384 by 384, cut or filled up with 0",
        (
            "a slice with lesions comes twice an epoch, each time flipped or not by chance instead "
            "of once each; a stack has lesions where any of its three slices has"
        ),
        "the learning rate schedule is not stated: constant",
        (
            "reported are Dice, sensitivity and distance of cases with new lesions, number and "
            "volume of false lesions of cases without, in units that are not stated; the five "
            "folds were for evaluation, and one network is trained"
        ),
        "the initial bias is not stated: a lesion probability of 0.02 everywhere",
        "which weights are used is not stated: those with the highest validation Dice",
        "threshold and connectivity are not stated: 0.5 and 26",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(96, 96, 3),
        learning_rate=2e-3,
        batch_size=4,
        per_epoch=20,
        window=SlidingWindow(overlap=0.5, weighting="uniform", windows_per_batch=8),
    ),
)
