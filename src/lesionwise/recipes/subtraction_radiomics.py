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
        "the thresholds by mutual information are not given: chosen on simulated patients",
        "mutual information is ours, of the z-scores in the brain, not that of ANTs",
        "SAMSEG is not available: tissue classes from the template and the baseline's brightness",
        (
            "of other structures those classes know only what lies outside the brain; deep "
            "nuclei count as gray matter, brainstem and cerebellum as what they resemble"
        ),
        "baseline lesions: brighter than the baseline's mean by more than 2 SD",
        "touching is read as sharing a voxel or a face with a voxel",
        "white matter and what is touched are those of the first time point",
        "contrast is not defined: mean inside minus mean around, in SD of the brain",
        "axis and sphericity are read as two limits, each of which drops",
    ),
)
