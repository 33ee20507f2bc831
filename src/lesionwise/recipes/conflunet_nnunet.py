"""ConfLUNet on nnU-Net: its planned network with three heads; lesions separated by offsets."""

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
        "the rate lies in a range and decays: from one end to the other along a polynomial",
        "epochs, patch and batch size are left to nnU-Net: 1000 of 250 batches, its plans",
        "weights of the regression losses are not stated: 2000 and 0.5, the ConfLUNet paper's best",
        "the Gaussian's width is not stated: 2 mm, as in the ConfLUNet paper",
        "deep supervision acts on the mask; heatmap and offsets are learned at full resolution",
        "nnU-Net 2 leaves elastic deformation out, the guide names it: with probability 0.2",
        "labels go through augmentation by nearest neighbor, so that instances stay apart",
        "least height and window of center peaks are stated nowhere: 0.1 and 3 voxels, all peaks",
        (
            "which grid voxels are grouped on is not stated: the scan's own, to which heatmap and "
            "offsets are brought; distances count in its voxels, whatever their sides"
        ),
        "a lesion is what goes to one center, in one piece or several: nothing is said of pieces",
        "where the heatmap has no peak at all, each component of the mask is a lesion",
        "weight decay is not stated: none",
        "of BET and HD-BET, which it names as examples, it is BET, our implementation of it",
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
