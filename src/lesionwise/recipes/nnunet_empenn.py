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
        "brain extraction by an affine template and rigid registration in place of Anima's",
        "the axes of patch and spacing are not named: sagittal slices of 1 mm first, then k and j",
        "N4 works on a copy of 4 mm, as it does where it shrinks scans of 1 mm by 4",
        (
            "the least-square fit of y = x is read as total least squares: the follow-up gets the "
            "baseline's mean and deviation (the Nyul standardization after it undoes any linear "
            "scale)"
        ),
        "the Nyul standard is learned from the training scans in place of an in-house template",
        "how lesions are enhanced is not stated: by ±0.5 deviations, in half of the patches",
        "how often patches are scaled and turned is not stated: one in five each, as nnU-Net",
        "batch size and optimization but for SGD are nnU-Net's: 0.01, polynomial, Nesterov 0.99",
        "nnU-Net z-scores each scan once more, as it does by default",
        "softmax maps are cut and filtered on the grid of nnU-Net's input: the cropped baseline",
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
