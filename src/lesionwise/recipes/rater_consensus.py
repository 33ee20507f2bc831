"""One network for each rater, and one that learns the consensus from their maps."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.window import SlidingWindow
from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.intensity_transforms import (
    Blur,
    Brightness,
    Contrast,
    Gamma,
    Noise,
    OnChannels,
)
from lesionwise.learning.lesion_weights import SizeWeightedMask, VoxelWeightedCrossEntropy
from lesionwise.learning.losses import DeepSupervision
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.optimizers import Sgd
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.schedules import Polynomial
from lesionwise.learning.spatial_transforms import RandomAffine, SpatialAugmentation
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import Ensemble
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.networks.film_unet import FilmUNet
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import SharedBrain
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.preprocess.raters import RATERS, RatersOfNew
from lesionwise.preprocess.standardize import Nyul
from lesionwise.recipe import Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

FOLDS = 4
FEATURES = (32, 64, 128, 256, 320, 320)

CONSENSUS = NetworkMethod(
    network=partial(FilmUNet, in_channels=2 + len(RATERS), out_channels=2, features=FEATURES),
    scans=("flair", *(f"{rater}-map@followup" for rater in RATERS)),
    samples=Patches(
        size_vox=(128, 128, 128),
        batch_size=2,
        per_epoch=500,
        sampling=PatchSampling(lesion_fraction=1 / 3),
        augmentation=Augmentation(
            spatial=SpatialAugmentation(
                flip=0.5, affine=RandomAffine(0.2, rotation_deg=30.0), elastic=None
            ),
            intensity=OnChannels(
                scans=("flair",),
                effects=(
                    Noise((0.0, 0.1), probability=0.1),
                    Blur((0.5, 1.0), probability=0.1),
                    Brightness((0.75, 1.25), probability=0.15),
                    Contrast((0.75, 1.25), probability=0.15),
                    Gamma((0.7, 1.5), probability=0.3, keep_moments=True),
                ),
            ),
        ),
    ),
    objective=Supervised(
        SizeWeightedMask(reference_mm3=100.0),
        DeepSupervision(VoxelWeightedCrossEntropy(), weights=(1.0, 0.5, 0.25, 0.125)),
    ),
    optimization=Optimization(
        learning_rate=1e-2,
        epochs=1000,
        optimizer=Sgd(momentum=0.99, nesterov=True),
        weight_decay=3e-5,
        schedule=Polynomial(0.9),
    ),
    task="new",
    inference=Inference(SlidingWindow(overlap=0.5, mirror_axes=(0, 1, 2), weighting="nnunet")),
    selection=Selection(every=50),
)
EXPERT = replace(
    CONSENSUS,
    network=partial(FilmUNet, in_channels=2, out_channels=2, features=FEATURES),
    scans=("flair",),
)

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on networks for raters and their consensus]"),
    passage="002, line 2494, section 2",
    scans=("flair",),
    preprocess=(
        RatersOfNew(),
        DeformToLast(method="syn", linear="affine"),
        ExtractBrain(),
        SharedBrain("last"),
        N4(),
        CropToBrain(),
        Nyul(within="brain", zero_outside=True),
        ZScore(within="brain", zero_outside=True),
        *(
            AddMaps(
                replace(EXPERT, task=rater),
                name=f"{rater}-map",
                folds=FOLDS,
                per_visit=False,
            )
            for rater in RATERS
        ),
    ),
    method=Ensemble((CONSENSUS,) * FOLDS, combine="mean", folds=FOLDS),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=(
        (
            "The paper has masks of four raters. Where a pair has none, we use the consensus in "
            "place of each rater, so all four networks learn the same. 'lesionwise simulate "
            "--raters 4' simulates raters who differ."
        ),
        (
            "How the training maps of the raters' networks are made is not stated. The consensus "
            "network learns from maps of networks that have not seen the patient, in four parts. A "
            "new patient's maps are the mean of the four."
        ),
        (
            "The paper builds on nnU-Net. We implement its network, deep supervision, optimizer, "
            "schedule and sliding window on our own engine, without resampling. Its planning is "
            "not used: patches of 128, batches of 2, strides of 2 along every axis."
        ),
        "nnU-Net limits the norm of the gradient to 12. We do not limit it.",
        (
            "We average probabilities over windows, mirrored views and networks, as the first "
            "version of nnU-Net does. Its second version averages logits."
        ),
        (
            "Augmentation is nnU-Net's. We leave out its scaling and low resolution, as they "
            "contradict the voxel size that the network receives, and its gamma of inverted "
            "intensities, which it applies to a tenth of the patches. We change each visit by "
            "itself, and do not clip changed contrast to the range of intensities."
        ),
        (
            "What the intensity transforms act on is not stated. We apply them only to the scans, "
            "not to the raters' maps."
        ),
        (
            "The weight of a lesion's voxels is left to another paper. We use 1 + the square root "
            "of 100 mm³ over the lesion's volume. Of a lesion that the patch cuts, only the part "
            "inside counts."
        ),
        "The paper names only cross-entropy. We minimize it alone, without nnU-Net's Dice.",
        (
            "The perceptron (MLP) of each normalization is not described. We use one hidden layer "
            "of 16, which receives the logarithm of the voxel size along each axis."
        ),
        "Brain extraction is not stated. We use our own, and set voxels outside the brain to 0.",
        (
            "The target of the diffeomorphic registration and its place among the steps are not "
            "stated. We bring the baseline onto the follow-up's grid before N4, after an affine "
            "registration."
        ),
        "We run N4 on a copy with 4 mm voxels, as N4 does when it shrinks a 1 mm scan by 4.",
        "A z-score is not stated. We apply it after Nyul's standardization, as nnU-Net does.",
        (
            "The initial bias is not stated. Training starts at a lesion probability of 0.02 "
            "everywhere."
        ),
        (
            "Which weights are used is not stated. For the consensus we use those with the highest "
            "Dice on the fold left out; for the raters' networks the last ones, unless the run "
            "validates."
        ),
        "Threshold and connectivity are not stated. We use 0.5 and 26.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        network={"features": (8, 16, 32, 64)},
        size_vox=(48, 48, 48),
        batch_size=2,
        per_epoch=40,
        window=SlidingWindow(overlap=0.5, windows_per_batch=4, weighting="nnunet"),
    ),
)
