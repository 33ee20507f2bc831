"""2D nnU-Net on axial FLAIR slices of 512 × 512."""

from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.optimizers import Sgd
from lesionwise.learning.schedules import Polynomial
from lesionwise.methods.nnunet import (
    AugmentedCopies,
    DropPlainSlices,
    Learning,
    NnunetMethod,
    Plans,
)
from lesionwise.preprocess.brain_masks import BetBrain, MaskToBrain
from lesionwise.preprocess.intensity import Rescale01
from lesionwise.preprocess.slices import ResizeSlices
from lesionwise.recipe import Citation, Recipe
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=Citation(
        authors=(
            "Ali Arian Darestani, Mahsa Naeeni Davarani, Virginia Guillen-Cañas, "
            "Hasan Hashemi, Amin Zarei, Sanaz Heydari Havadaragh, Mohammad Hossein Harirchian"
        ),
        title=(
            "Convolutional neural network based system for fully automatic FLAIR MRI "
            "segmentation in multiple sclerosis diagnosis"
        ),
        year=2025,
        published="Scientific Reports",
        identifier="doi:10.1038/s41598-025-14112-x",
    ),
    passage="003, methods",
    scans=("flair",),
    preprocess=(BetBrain(), MaskToBrain(), Rescale01(), ResizeSlices((512, 512))),
    method=NnunetMethod(
        scans=("flair",),
        configuration="2d",
        case_steps=(
            DropPlainSlices(min_entropy_bits=0.01),
            AugmentedCopies(
                copies=5, rotation_deg=40.0, shift=0.2, shear_deg=20.0, zoom=0.2, flip=True
            ),
        ),
        plans=Plans(
            first_axis="k",
            keep_voxels=True,
            normalization="none",
            base_features=32,
            down_sampling="max pooling",
        ),
        learning=Learning(
            loss="dice+bce",
            optimizer=Sgd(momentum=0.99, nesterov=True),
            weight_decay=3e-5,
            learning_rate=0.01,
            schedule=Polynomial(power=0.9),
            epochs=250,
        ),
    ),
    to_instances=ConnectedComponents(),
    reported={
        "slice_accuracy": 0.833,
        "slice_sensitivity_as_printed": 0.995,
        "slice_ppv_as_printed": 0.751,
        "slice_npv_as_printed": 0.993,
        "slice_sensitivity_from_counts": 0.670,
        "slice_specificity_from_counts": 0.995,
        "slice_ppv_from_counts": 0.993,
        "slice_npv_from_counts": 0.751,
        "dsc": 0.703,
        "voxel_ppv": 0.753,
        "iou": 0.560,
        "voxel_sensitivity": 0.711,
        "hd95": 28.3,
        "external_slice_accuracy": 0.761,
        "external_slice_sensitivity_as_printed": 1.0,
        "external_slice_ppv_as_printed": 0.677,
        "external_slice_npv_as_printed": 1.0,
        "external_slice_sensitivity_from_counts": 0.522,
        "external_slice_specificity_from_counts": 1.0,
        "external_slice_ppv_from_counts": 1.0,
        "external_slice_npv_from_counts": 0.676,
        "external_dsc": 0.748,
    },
    departures=(
        (
            "The paper uses FSL for skull stripping. We use our own implementation of its BET "
            "(Smith 2002)."
        ),
        (
            "Over which voxels intensities are scaled to [0, 1] is not stated. We use the "
            "patient's volume without its skull."
        ),
        (
            "The paper removes slices whose mask has little entropy from the data set. We remove "
            "them only from training, since its test counts include slices without lesions."
        ),
        (
            "How slices enter nnU-Net is not stated. The slices of a patient form one volume with "
            "voxels of 1 mm, and nnU-Net resamples nothing."
        ),
        "What fills the border of a shifted slice is not stated. We repeat its border.",
        (
            "Whether nnU-Net's own augmentation is on is not stated. It augments the five copies "
            "once more, as it does by default."
        ),
        (
            "The paper sets patch and batch size automatically. We use those that nnU-Net plans "
            "for its own network, which has no pooling."
        ),
        (
            "The paper tests on a quarter of the images and trains five folds. Here the command "
            "makes both, by patient."
        ),
        (
            "The printed names of the slice scores seem to be swapped. We list the scores from its "
            "counts beside them."
        ),
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        {"base_features": 16},
        size_vox=(96, 96),
        batch_size=8,
        per_epoch=160,
        learning_rate=1e-2,
        epochs=10_000,
    ),
)
