"""Targets and networks of the 3D rows overfit to a toy pair.

One bright lesion is new beside one that was there: to answer, a network has to look at both visits.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from engine import EXACT, PAIRS, SIDE, dice, pair_of

from lesionwise.inference.views import MonteCarlo
from lesionwise.learning.losses import CrossEntropy, Dice, PerChannel
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.positions import EqualClasses, RegularGrid
from lesionwise.learning.samplers import BrainSampling, CenterSampling
from lesionwise.learning.samples import ListedPatches
from lesionwise.learning.stratified import PatchesOfEachStudy
from lesionwise.learning.targets import LesionMask, SoftMasks
from lesionwise.methods.network import Inference
from lesionwise.networks.double_pathway import DoublePathway
from lesionwise.networks.modified_unet import ModifiedUNet
from lesionwise.networks.siamese_unetpp import SiameseUNetPP
from lesionwise.preprocess.raters import RATERS, RatersOfNew
from lesionwise.preprocess.soft_labels import SoftLabels
from lesionwise.types import RunContext, TrainingData

pytestmark = pytest.mark.slow


def learned(method, study, folder):
    """Dice of the mask that a method finds after it learned the study."""
    run = RunContext(folder)
    method.fit(TrainingData([study]), run)
    found = method.load(run)(study).probability > 0.5
    return dice(found, study.changes["new"].array > 0.5)


@pytest.mark.parametrize("attention", [False, True])
def test_soft_labels_are_learned_with_a_normalized_relu(tmp_path, attention):
    study = SoftLabels()(pair_of())
    dropout = 0.1 if attention else 0.0
    method = replace(
        PAIRS,
        network=partial(
            ModifiedUNet, in_channels=2, features=(8, 16), attention=attention, dropout=dropout
        ),
        samples=ListedPatches(
            RegularGrid((8, 8, 8)),
            (SIDE, SIDE, SIDE),
            batch_size=1,
            balance=EqualClasses(),
            references=("new",),
        ),
        objective=Supervised(
            SoftMasks(("new",), initial_logit=0.0), Dice(activated=True, squared=True, smooth=1.0)
        ),
        optimization=Optimization(learning_rate=1e-2, epochs=40),
        inference=Inference(EXACT, dropout=MonteCarlo(passes=4) if attention else None),
    )
    assert learned(method, study, tmp_path) > 0.9
    run = RunContext(tmp_path)
    once, again = (method.load(run)(study).probability for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_the_consensus_is_learned_beside_four_raters(tmp_path):
    method = replace(
        PAIRS,
        network=partial(SiameseUNetPP, in_channels=2, features=(4, 8)),
        samples=PatchesOfEachStudy(
            (SIDE, SIDE, SIDE),
            batch_size=2,
            per_study=20,
            sampling=BrainSampling(0.8),
            references=("new", *RATERS),
        ),
        objective=Supervised(
            SoftMasks(("new", *RATERS)), PerChannel(Dice(activated=True, smooth=1.0))
        ),
        optimization=Optimization(learning_rate=1e-2, epochs=15),
        inference=Inference(replace(EXACT, stride_vox=(8, 8, 8), weighting="uniform")),
    )
    assert learned(method, RatersOfNew()(pair_of()), tmp_path) > 0.9


def test_the_middle_of_a_patch_is_learned_by_two_paths(tmp_path):
    method = replace(
        PAIRS,
        network=partial(
            DoublePathway,
            in_channels=2,
            fine=(8, 8),
            coarse=(8, 8, 8),
            joint=(16,),
            fine_vox=9,
            dropout=0.0,
        ),
        samples=PatchesOfEachStudy(
            (25, 25, 25), batch_size=8, per_study=200, sampling=CenterSampling((5, 5, 5), 0.5)
        ),
        objective=Supervised(LesionMask(), CrossEntropy()),
        optimization=Optimization(learning_rate=1e-2, epochs=4),
        inference=Inference(replace(EXACT, overlap=0.0, weighting="uniform")),
    )
    assert learned(method, pair_of(), tmp_path) > 0.9
