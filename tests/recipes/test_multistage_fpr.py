"""B3, a multi-stage CNN that reduces false positives, against its document (002, 268 to 341)."""

import torch

from lesionwise.learning.candidate_crops import AsManyFalse, CenteredBoxes
from lesionwise.learning.targets import CandidateClass, LesionMask
from lesionwise.methods.candidate_network import CandidateNetwork, ScoreOfCandidate
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import NewByVisitMaps
from lesionwise.networks.resnet import ResNet
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.brain_masks import BetBrain, MaskToBrain
from lesionwise.preprocess.cord import BrainAndCord, FindCord
from lesionwise.preprocess.intensity import N4
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("multistage-fpr")
NEW, ALL = (step for step in RECIPE.preprocess if isinstance(step, AddMaps))
CLASSIFIER = RECIPE.method.method


def test_the_steps_come_in_the_order_of_the_document():
    # 002:298-300 N4; 309-311 BET, then the cord; step 2; step 3
    wanted = [N4, BetBrain, FindCord, BrainAndCord, MaskToBrain, AddMaps, AddMaps]
    assert [type(s) for s in RECIPE.preprocess if type(s) in wanted] == wanted


def test_the_first_unet_sees_both_visits_in_patches_of_96_voxels():
    # 002:315-319: 96 by 96 by 96, baseline and follow-up concatenated, the given mask, a 3D U-Net
    method = NEW.method
    assert method.samples.size_vox == (96, 96, 96)
    assert method.scans == ("flair",)
    assert not NEW.per_visit
    assert method.network.func is UNet
    assert method.network.keywords["in_channels"] == 2
    assert method.task == "new"
    assert isinstance(method.objective.targets, LesionMask)


def test_the_classifier_learns_from_candidates_of_patients_the_unet_has_not_seen():
    assert NEW.folds > 1


def test_a_resnet_judges_patches_around_candidates():
    # 002:319-322: a sensitive U-Net, false positives reduced by a 3D ResNet patch by patch
    assert isinstance(CLASSIFIER, CandidateNetwork)
    assert isinstance(CLASSIFIER.merge, ScoreOfCandidate)
    samples = CLASSIFIER.network.samples
    assert samples.propose.scan == NEW.name
    assert samples.propose.above < 0.5
    assert isinstance(samples.boxes, CenteredBoxes)
    assert samples.balance == AsManyFalse()
    assert CLASSIFIER.network.network.func is ResNet
    assert isinstance(CLASSIFIER.network.objective.targets, CandidateClass)


def test_whole_lesions_of_each_visit_are_compared_with_what_is_left():
    # 002:325-332: a 3D U-Net for whole lesions, patch by patch; clusters compared
    assert ALL.per_visit
    assert ALL.method.task == "lesions"
    assert ALL.method.network.func is UNet
    assert ALL.method.network.keywords["in_channels"] == 1
    assert isinstance(RECIPE.method, NewByVisitMaps)
    assert RECIPE.method.scan == ALL.name
    assert RECIPE.method.mask_above == RECIPE.threshold


def test_the_figures_are_those_of_two_validation_patients():
    # 002:336-339
    assert RECIPE.reported == {
        "dsc_most_lesions": 0.75,
        "lesion_f1_most_lesions": 0.68,
        "dsc_one_lesion": 0.74,
        "lesion_f1_one_lesion": 0.8,
    }
    assert RECIPE.task == "new"


def test_the_published_unets_take_their_patch_on_the_meta_device():
    for step, channels in ((NEW, 2), (ALL, 1)):
        with torch.device("meta"):
            network = step.method.network()
            assert network(torch.zeros(2, channels, 96, 96, 96)).shape == (2, 2, 96, 96, 96)
