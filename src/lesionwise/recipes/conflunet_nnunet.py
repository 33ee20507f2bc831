"""ConfLUNet on nnU-Net: its planned network with three heads; offsets separate lesions."""

from lesionwise.instances.filters import DropSmall
from lesionwise.instances.offsets import OffsetVoting
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.schedules import Polynomial
from lesionwise.methods.nnunet import Augmentation, InstanceHeads, Learning, NnunetMethod, Plans
from lesionwise.preprocess.brain_masks import BetBrain
from lesionwise.recipe import Citation, Recipe
from lesionwise.reduction import Reduction, reduced

RECIPE = Recipe(
    citation=Citation(
        authors="BenchChem Technical Support Team",
        title="Implementing ConfLUNet for Enhanced MS Lesion Segmentation: A Detailed Guide",
        year=2025,
    ),
    passage="000",
    scans=("flair",),
    preprocess=(BetBrain(),),
    method=NnunetMethod(
        scans=("flair",),
        plans=Plans(normalization="z-score"),
        heads=InstanceHeads(sigma_mm=2.0, heatmap=2000.0, offsets=0.5),
        learning=Learning(
            optimizer=Adam(),
            weight_decay=0.0,
            learning_rate=1e-4,
            schedule=Polynomial(power=0.9, end=0.1),
            loss="dice+ce",
        ),
        augmentation=Augmentation(elastic=0.2),
    ),
    to_instances=OffsetVoting(
        center_threshold=0.1, nms_size_vox=3, connectivity=None, reach_vox=None, fragment_mm3=0.0
    ),
    refine=(DropSmall(min_volume_mm3=3, min_extent_mm=0),),
    reported={
        "pq": 0.420,
        "pq_cc": 0.375,
        "pq_acls": 0.368,
        "lesion_f1": 0.673,
        "lesion_f1_cc": 0.616,
        "lesion_f1_acls": 0.599,
        "clu_f1": 0.815,
        "clu_recall_over_cc": 0.125,
        "clu_precision_over_acls": 0.312,
    },
    departures=(
        (
            "The guide gives a range for the learning rate and says that it decays. Ours falls "
            "from one end of the range to the other along a polynomial."
        ),
        (
            "The guide leaves epochs and batch size to nnU-Net. We use nnU-Net's 1000 epochs of "
            "250 batches, and the patch and batch size it plans."
        ),
        (
            "Weights of the regression losses are not stated. We use 2000 and 0.5, the best of the "
            "ConfLUNet paper."
        ),
        (
            "The center of a lesion that a patch cuts is not defined. We use the middle of the "
            "part that the patch shows."
        ),
        "The Gaussian's width is not stated. We use 2 mm, as in the ConfLUNet paper.",
        (
            "Deep supervision is not mentioned. We use it for the mask; heatmap and offsets are "
            "learned at full resolution."
        ),
        (
            "The guide names elastic deformation, which nnU-Net 2 leaves out. We apply it with "
            "probability 0.2."
        ),
        (
            "How labels are augmented is not stated. We use nearest neighbor, so that instances "
            "stay separate."
        ),
        (
            "The minimum height and the window of center peaks are not stated. We use 0.1 and 3 "
            "voxels, and keep all peaks."
        ),
        (
            "The grid on which voxels are grouped is not stated. We use the scan's own grid, to "
            "which heatmap and offsets are resampled. Distances are in its voxels, whatever their "
            "size."
        ),
        (
            "Whether a lesion must be connected is not stated. We take all voxels of one center as "
            "one lesion, in one piece or several."
        ),
        "A heatmap without peaks is not mentioned. Each component of the mask is then a lesion.",
        "Weight decay is not stated. We use none.",
        "The guide names BET and HD-BET as examples. We use our own implementation of BET.",
    ),
)

REDUCED = reduced(
    RECIPE,
    Reduction(
        {"base_features": 8},
        size_vox=(32, 32, 32),
        batch_size=2,
        per_epoch=40,
        learning_rate=5e-3,
        epochs=10_000,
        heatmap=100.0,
    ),
)
