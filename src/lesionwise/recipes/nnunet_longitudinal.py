"""nnU-Net on baseline and follow-up in MNI space, with Adam and a rate that falls at plateaus."""

from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.schedules import JointPlateau
from lesionwise.methods.nnunet import Learning, NnunetMethod, Plans
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.template_registration import RegisterHeadToTemplate
from lesionwise.recipe import Citation, Recipe
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=Citation(
        authors=(
            "Eloy Martínez-Heras, Adrian Vicente-Gomez, Francesc Vivó, Marcos Diaz-Hurtado, "
            "Baris Kanber, Jordi Casas-Roma, Sara Llufriu, Ferran Prados"
        ),
        title="Longitudinal Segmentation of Multiple Sclerosis Lesions Using nnU-Net Architecture",
    ),
    passage="004, section 2",
    scans=("flair",),
    preprocess=(RegisterHeadToTemplate(), ExtractBrain(), N4(), CropToBrain()),
    method=NnunetMethod(
        scans=("flair",),
        task="new",
        configuration="3d_fullres",
        plans=Plans(normalization="z-score"),
        learning=Learning(
            optimizer=Adam(),
            learning_rate=0.01,
            schedule=JointPlateau(
                ("total", "validation_loss"), gamma=1 / 5, patience=30, min_drop=0.005
            ),
            epochs=300,
            batches_per_epoch=250,
            save_every=25,
        ),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={"dsc": 0.58, "dsc_sd": 0.35, "voxel_recall": 0.62, "voxel_recall_sd": 0.36},
    departures=(
        "HD-BET is a program of its own: brain extraction is ours (ExternalBrain runs HD-BET)",
        "the follow-up reaches MNI space through the baseline, so that the two stay aligned",
        (
            "the MNI template is the symmetric one of 2009, which has no skull: it wears a cap of "
            "bone and scalp of common thickness; heads are aligned to it within 4 mm"
        ),
        "N4 works on a copy of 4 mm, as it does where it shrinks scans of 1 mm by 4",
        "loss and augmentation are not stated: Dice + cross-entropy, and nnU-Net's own",
        "'training and validation losses' is read as: a drop of either keeps the rate",
        "Adam's weight decay is not stated: 3e-5, nnU-Net's",
        "five folds are the command's --folds; the final weights of each predict",
        "the table's mean recall is 0.58, its last row says 0.62",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        {"base_features": 8},
        size_vox=(32, 32, 32),
        batch_size=2,
        per_epoch=40,
        learning_rate=2e-3,
        epochs=10_000,
    ),
)
