"""nnU-Net on two visits with jointly corrected intensities; results on the baseline's grid."""

from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.optimizers import Sgd
from lesionwise.methods.clean_maps import DropSmallPatches
from lesionwise.methods.nnunet import Augmentation, Learning, LesionEnhancement, NnunetMethod, Plans
from lesionwise.preprocess.brain_masks import SharedBrain, TemplateMaskBrain
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.pair import JointRescale
from lesionwise.preprocess.registration import RegisterToFirst
from lesionwise.preprocess.standardize import Nyul
from lesionwise.recipe import Output, Recipe, msseg2_chapter
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on a workflow with nnU-Net for serial FLAIR images]"),
    passage="002, line 163",
    scans=("flair",),
    preprocess=(
        TemplateMaskBrain(),
        RegisterToFirst(),
        SharedBrain(of="first"),
        CropToBrain(margin_mm=0.0),
        N4(),
        JointRescale(),
        Nyul(),
    ),
    method=NnunetMethod(
        scans=("flair",),
        task="new",
        configuration="3d_fullres",
        plans=Plans(
            first_axis="i",
            spacing_mm=(1.0, 0.5, 0.5),
            patch_size_vox=(64, 160, 192),
            dropout=0.2,
        ),
        learning=Learning(
            loss="dice+ce",
            optimizer=Sgd(momentum=0.99, nesterov=True),
            epochs=1000,
            batches_per_epoch=250,
        ),
        augmentation=Augmentation(
            scaling=(0.85, 1.25),
            rotation_deg=15.0,
            mirror=("i",),
            intensity=False,
            enhancement=LesionEnhancement(probability=0.5, shift=(-0.5, 0.5)),
        ),
        cleanup=DropSmallPatches(volume_mm3=4.0, patch_above=0.2, connectivity=26),
    ),
    threshold=0.2,
    to_instances=ConnectedComponents(connectivity=26),
    visits=2,
    task="new",
    output=Output(grid="baseline", resample="labels"),
    departures=(
        (
            "The paper uses Anima for brain extraction and rigid registration. We extract the "
            "brain by an affine registration to a template and register with our own rigid "
            "registration."
        ),
        (
            "The paper trains on 37 of the challenge's patients and 53 of its own, with lesions "
            "added where they were missed. We train on the given data as they are."
        ),
        (
            "The axes of patch and spacing are not named. We put sagittal slices of 1 mm first, "
            "then k and j."
        ),
        "We run N4 on a copy with 4 mm voxels, as N4 does when it shrinks a 1 mm scan by 4.",
        (
            "The least-squares fit of y = x is not described in detail. It is read as total least "
            "squares: the follow-up gets the baseline's mean and standard deviation. The Nyul "
            "standardization after it undoes any linear scale."
        ),
        (
            "The paper's Nyul standard is an in-house template. Ours is learned from the training "
            "scans."
        ),
        (
            "How lesions are enhanced is not stated. We change them by up to ±0.5 standard "
            "deviations in half of the patches."
        ),
        (
            "How often patches are scaled and rotated is not stated. We do each for one in five "
            "patches, as nnU-Net does."
        ),
        (
            "Batch size and the details of SGD are not stated. We use nnU-Net's: a learning rate "
            "of 0.01, a polynomial schedule, and Nesterov momentum of 0.99."
        ),
        (
            "Whether nnU-Net normalizes again is not stated. It takes the z-score of each scan "
            "once more, as it does by default."
        ),
        (
            "The grid on which maps are thresholded and filtered is not stated. We use that of "
            "nnU-Net's input: the cropped baseline."
        ),
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        {"base_features": 8, "spacing_mm": (1.0, 1.0, 1.0)},
        size_vox=(32, 32, 32),
        batch_size=2,
        per_epoch=40,
        learning_rate=1e-2,
        epochs=10_000,
    ),
)
