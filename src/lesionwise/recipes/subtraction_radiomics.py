"""Subtraction with spatial and radiomic constraints, unsupervised."""

from lesionwise.change.candidates import BrighterAtFollowup
from lesionwise.change.features import CandidateFeatures
from lesionwise.instances.components import ConnectedComponents
from lesionwise.methods.candidates import CandidateMethod, Rule, Rules
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.tissue import ClassifyTissue
from lesionwise.recipe import Recipe, msseg2_chapter

RECIPE = Recipe(
    citation=msseg2_chapter("[Chapter on subtraction with spatial constraints and radiomics]"),
    passage="002, line 1942",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToHalfway(),
        ClassifyTissue(),
        ZScore(within="brain", zero_outside=True),
    ),
    method=CandidateMethod(
        propose=BrighterAtFollowup(above=((0.0, 2.0), (0.7, 1.5), (1.0, 1.25)), min_vox=5),
        describe=CandidateFeatures(
            (
                *("in_white", "touches_fluid", "touches_gray", "touches_other", "touches_bright"),
                *("contrast", "least_axis_mm", "sphericity"),
            )
        ),
        decide=Rules(
            (
                Rule("in_white", min_value=0.1),
                Rule("touches_fluid", max_value=0.0),
                Rule("touches_gray", max_value=0.0),
                Rule("touches_other", max_value=0.0),
                Rule("touches_bright", max_value=0.0),
                Rule("contrast", min_value=0.9),
                Rule("least_axis_mm", min_value=1.2),
                Rule("sphericity", min_value=0.2),
            )
        ),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={"lesion_recall": 0.75, "lesion_fpr": 0.38, "dsc": 0.36},
    departures=(
        "The thresholds by mutual information are not given. We chose them on simulated patients.",
        (
            "The paper computes mutual information with ANTs. We compute our own, of the z-scores "
            "in the brain."
        ),
        (
            "SAMSEG is not available here. We classify tissue by the template and the baseline's "
            "brightness."
        ),
        (
            "SAMSEG knows many other structures. Our classes know only what lies outside the brain "
            "as other. Deep nuclei count as gray matter, and brainstem and cerebellum as the "
            "tissue they resemble."
        ),
        (
            "The paper takes baseline lesions from SAMSEG. We take voxels whose mean with their "
            "26 neighbors exceeds the mean of the baseline's brain by more than 2 SD."
        ),
        (
            "Touching is not defined. A component touches a tissue if it shares a voxel or a face "
            "with it."
        ),
        (
            "The visit of the tissue segmentation is not stated, except for lesions. We use the "
            "first time point."
        ),
        (
            "Contrast is not defined. We use the mean inside minus the mean around, in SD of the "
            "brain."
        ),
        (
            'The paper drops lesions with a small axis "and" a low sphericity. We take these as '
            "two limits, each of which drops."
        ),
    ),
)
