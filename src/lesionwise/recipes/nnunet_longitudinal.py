"""nnU-Net on two visits in MNI space, with Adam and a learning rate that falls at plateaus."""

from lesionwise.instances.components import ConnectedComponents
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.schedules import JointPlateau
from lesionwise.methods.nnunet import Learning, NnunetMethod, Plans
from lesionwise.preprocess.brain import ExtractBrain
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
    preprocess=(RegisterHeadToTemplate(), ExtractBrain(), N4()),
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
        (
            "The paper uses HD-BET, a separate program. We use our own brain extraction "
            "(ExternalBrain runs HD-BET)."
        ),
        (
            "How the follow-up is registered is not stated. It reaches MNI space through the "
            "baseline, so that both stay aligned."
        ),
        (
            "The MNI template is not specified. We use the symmetric one of 2009, which has no "
            "skull. We add bone and scalp of typical thickness; heads are aligned to it within 4 "
            "mm."
        ),
        "We run N4 on a copy with 4 mm voxels, as N4 does when it shrinks a 1 mm scan by 4.",
        (
            "Which voxels define the z-scores is not stated. We leave the crop to the brain to "
            "nnU-Net, which then uses the voxels of the brain."
        ),
        (
            "Loss and augmentation are not stated. We use Dice + cross-entropy and nnU-Net's own "
            "augmentation."
        ),
        (
            '"Training and validation losses" can be read in two ways. In ours, a drop of either '
            "one keeps the rate."
        ),
        "Adam's weight decay is not stated. We use 3e-5, nnU-Net's.",
        (
            "The paper has five folds. Here they are the command's --folds, and the final weights "
            "of each are used in prediction."
        ),
        "The table's mean recall is 0.58, but its last row says 0.62.",
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
