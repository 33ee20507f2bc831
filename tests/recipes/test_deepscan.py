"""B25 against its document (002, lines 2850 to 2947)."""

from itertools import pairwise

import numpy as np

from lesionwise.inference.views import MirroredPlanes
from lesionwise.learning.intensity_transforms import DropChannels
from lesionwise.learning.losses import Focal
from lesionwise.learning.schedules import TrainingProgress
from lesionwise.learning.targets import LesionLogit
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import Pretrained
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.preprocess.geometry import Resample
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.registration import RegisterToLast
from lesionwise.run.recipes import auxiliary_sets, find_recipe

RECIPE = find_recipe("deepscan")
NEW = RECIPE.method
STAGE_ONE = next(step for step in RECIPE.preprocess if isinstance(step, AddMaps))


def test_the_skull_is_stripped_before_a_rigid_registration_and_1_mm():
    # 002:2896-2902, 2918, 2925-2938, 2943-2946: stripped; registered to timepoint 2; 1 mm; z-score
    # of what is not 0
    wanted = [ExtractBrain, MaskToBrain, RegisterToLast, Resample, ZScore, AddMaps]
    steps = [step for step in RECIPE.preprocess if type(step) in wanted]
    assert [type(step) for step in steps] == wanted
    assert steps[2].model == "rigid"
    assert steps[3].spacing_mm == 1.0
    assert (steps[4].within, steps[4].zero_outside) == ("nonzero", True)


def test_the_first_network_learns_from_three_contrasts_and_then_loses_one_or_two():
    # 002:2917-2922
    method = STAGE_ONE.method
    assert isinstance(method, Pretrained)
    assert method.first.scans == method.then.scans == ("flair", "t1w", "t2w")
    assert method.first.task == method.then.task == "lesions"
    assert method.first.samples.augmentation.intensity is None
    dropped = method.then.samples.augmentation.intensity
    assert isinstance(dropped, DropChannels)
    assert {1, 2} <= set(dropped.counts)
    assert (STAGE_ONE.per_visit, STAGE_ONE.auxiliary.name) == (True, "lesions")
    assert auxiliary_sets(RECIPE)["lesions"].scans == ("flair", "t1w", "t2w")


def test_the_second_network_has_the_same_structure_and_four_channels():
    # 002:2923-2928: two FLAIR and two lesion maps, one output: the new lesion class
    assert NEW.scans == ("flair", "lesion_probability")
    assert NEW.network.func is STAGE_ONE.method.first.network.func
    assert NEW.network.keywords["in_channels"] == 4
    assert (NEW.task, RECIPE.task) == ("new", "new")


def test_it_is_trained_for_20_epochs_of_5000_batches_with_restarts():
    # 002:2935-2937: focal loss; cosine annealing with restarts, 1e-5 to 1e-7, 20 x 5000
    assert isinstance(NEW.objective.loss, Focal)
    optimization = NEW.optimization
    assert (optimization.learning_rate, optimization.epochs) == (1e-5, 20)
    assert NEW.samples.per_epoch == 5000 * NEW.samples.batch_size
    rates = [optimization.rate(TrainingProgress(at, 20)) for at in np.linspace(0, 1, 4000)]
    assert max(rates) == 1e-5
    assert abs(min(rates) - 1e-7) < 1e-8
    assert sum(b > 5 * a for a, b in pairwise(rates)) > 1  # restarts


def test_six_logits_are_averaged():
    # 002:2938-2942: axial, coronal and sagittal, each mirrored in the sagittal direction too
    views = NEW.inference.planes
    assert isinstance(views, MirroredPlanes)
    assert views.axes == (0,)
    assert (sorted(views.planes.axes), views.planes.combine) == ([0, 1, 2], "mean")
    assert isinstance(NEW.objective.targets, LesionLogit)
    assert RECIPE.output.resample == "logits"


def test_the_reported_dice_is_that_of_the_cross_validation():
    # 002:2948
    assert RECIPE.reported == {"dsc": 0.56}
