"""Thresholded subtraction: the baseline that every system for new lesions has to beat."""

from lesionwise.change.candidates import BrighterAtFollowup
from lesionwise.change.features import CandidateFeatures
from lesionwise.instances.components import ConnectedComponents
from lesionwise.methods.candidates import CandidateMethod, Rule, Rules
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.preprocess.registration import RegisterToFirst
from lesionwise.recipe import Citation, Recipe

RECIPE = Recipe(
    citation=Citation(title="A baseline of this project"),
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToFirst(),
        N4(),
        ZScore(within="tissue"),
    ),
    method=CandidateMethod(
        propose=BrighterAtFollowup(above=2.0),
        describe=CandidateFeatures(("volume_mm3",)),
        decide=Rules((Rule("volume_mm3", min_value=14.0),)),
    ),
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    departures=("This recipe follows no publication. We chose its limits on simulated patients.",),
)
