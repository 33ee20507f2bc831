"""Subtraction with spatial and radiomic constraints, unsupervised."""

from lesionwise.change.candidates import BrighterAtFollowup
from lesionwise.change.features import CandidateFeatures
from lesionwise.instances.components import ConnectedComponents
from lesionwise.methods.candidates import CandidateMethod, Rule, Rules
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.registration import RegisterToFirst
from lesionwise.preprocess.tissue import ClassifyTissue
from lesionwise.recipe import Recipe

RECIPE = Recipe(
    source="002, line 1942",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToFirst(),
        ClassifyTissue(),
        ZScore(within="brain", zero_outside=True),
    ),
    method=CandidateMethod(
        propose=BrighterAtFollowup(above=((0.0, 2.0), (0.7, 1.5), (1.0, 1.25)), min_vox=5),
        describe=CandidateFeatures(
            (
                *("in_white", "in_fluid", "in_gray", "in_bright"),
                *("contrast", "least_axis_mm", "sphericity"),
            )
        ),
        decide=Rules(
            (
                Rule("in_white", least=0.1),
                Rule("in_fluid", most=0.5),
                Rule("in_gray", most=0.5),
                Rule("in_bright", most=0.0),
                Rule("contrast", least=0.9),
                Rule("least_axis_mm", least=1.2),
                Rule("sphericity", least=0.2),
            )
        ),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    finds="new",
    reported={"lesion_recall": 0.75, "lesion_fpr": 0.38, "dsc": 0.36},
    departures=(
        "the thresholds by mutual information are not given: chosen on simulated patients",
        "SAMSEG is not at hand: tissue classes from the template and the baseline's brightness",
        "touching fluid or gray matter is read as lying in it by more than half",
        "baseline lesions: brighter than the baseline's mean by more than 2 SD",
        "touching a baseline lesion is read as sharing a voxel",
        "contrast is not defined: mean inside minus mean around, in SD of the brain",
        "axis and sphericity are read as two limits, each of which drops",
    ),
)
