"""B3, a multi-stage CNN that reduces false positives, against its document (002, 268 to 341)."""

import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from bids import begin, save_visit

from lesionwise.learning.candidate_crops import AsManyFalse, CenteredBoxes
from lesionwise.learning.targets import CandidateClass, LesionMask
from lesionwise.methods.candidate_network import CandidateNetwork, ScoreOfCandidate
from lesionwise.methods.cascade import AddMaps
from lesionwise.methods.composite import NewByVisitMaps
from lesionwise.networks.resnet import ResNet
from lesionwise.networks.unet import UNet
from lesionwise.preprocess.brain_masks import BetBrain, MaskToBrain, SharedBrain
from lesionwise.preprocess.cord import BrainAndCord, FindCord
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.halfway import RegisterToHalfway
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.learned_brain import BRAIN, LearnBrain
from lesionwise.preprocess.required_lesions import RequireLesions
from lesionwise.run.evaluate import evaluate
from lesionwise.run.learned_steps import learns
from lesionwise.run.load_model import load_model
from lesionwise.run.predict_pairs import predict_pairs
from lesionwise.run.recipes import find_recipe
from lesionwise.run.train import train
from lesionwise.types import InputError

RECIPE = find_recipe("multistage-fpr")
(FIRST,) = (step for step in RECIPE.preprocess if isinstance(step, LearnBrain))
NEW, ALL = (step for step in RECIPE.preprocess if isinstance(step, AddMaps))
CLASSIFIER = RECIPE.method.method


def test_the_steps_come_in_the_order_of_the_document():
    # 002:298-300 N4; 306-310 BET, the cord, the U-Net that learns both; step 2; step 3
    masks = [N4, BetBrain, FindCord, BrainAndCord, RegisterToHalfway]
    narrowed = [LearnBrain, SharedBrain, MaskToBrain, CropToBrain]
    wanted = [*masks, *narrowed, AddMaps, AddMaps]
    assert [type(s) for s in RECIPE.preprocess if type(s) in wanted] == wanted


def test_a_unet_learns_the_mask_of_brain_and_cord_in_patches_of_96_voxels():
    # 002:309-310; patches lie anywhere, so that it sees what is not brain
    method = FIRST.method
    assert method.network.func is UNet
    assert method.network.keywords["in_channels"] == 1
    assert method.samples.size_vox == (96, 96, 96)
    assert method.samples.sampling.lesion_fraction == 0
    assert method.task == BRAIN
    assert isinstance(method.objective.targets, LesionMask)


def test_the_mask_of_brain_and_cord_is_the_largest_region_above_one_half_of_both_visits():
    assert FIRST.above == 0.5
    assert SharedBrain("union") in RECIPE.preprocess


def test_the_first_unet_is_reduced_like_the_others():
    (first,) = (
        s for s in find_recipe("multistage-fpr:reduced").preprocess if isinstance(s, LearnBrain)
    )
    method = first.method
    assert method.samples.size_vox == (32, 32, 32)
    assert method.inference.window == method.selection.window
    assert method.inference.window.engine == "openvino"
    assert sum(weight.numel() for weight in method.network().parameters()) < 300_000


def test_what_a_network_would_lack_is_noticed_before_the_first_one_is_trained():
    first = next(step for step in RECIPE.preprocess if learns(step))
    assert first == RequireLesions(NEW.method.task, auxiliary=ALL.auxiliary)


def test_validation_chooses_nothing_unless_a_run_asks_for_it():
    # departures: the last weights are used, unless the run validates
    assert not RECIPE.method.uses_validation


def test_the_unet_for_new_lesions_sees_both_visits_in_patches_of_96_voxels():
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
    for step, channels in ((FIRST, 1), (NEW, 2), (ALL, 1)):
        with torch.device("meta"):
            network = step.method.network()
            assert network(torch.zeros(2, channels, 96, 96, 96)).shape == (2, 2, 96, 96, 96)


SIDE = 32
SMALL = '''
"""Every step of multistage-fpr on toys: a simpler mask to learn, networks for a few steps."""

from dataclasses import replace

from lesionwise.inference.window import SlidingWindow
from lesionwise.preprocess.brain_masks import BetBrain, OtsuBrain
from lesionwise.preprocess.learned_brain import LearnBrain
from lesionwise.reduction import Reduction, reduced
from lesionwise.recipes.multistage_fpr import REDUCED

FEW = reduced(
    REDUCED,
    Reduction(
        size_vox=(16, 16, 16), batch_size=2, per_epoch=8, epochs=3, window=SlidingWindow(overlap=0)
    ),
)


def on_toys(step):
    if isinstance(step, BetBrain):
        return OtsuBrain(radius_mm=1.0)
    return replace(step, least_ml=1.0) if isinstance(step, LearnBrain) else step


RECIPE = replace(FEW, preprocess=tuple(on_toys(step) for step in FEW.preprocess))
'''


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "toy_fpr.py"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four patients with two visits each; what is new lies beside what was there."""
    root = begin(tmp_path_factory.mktemp("pairs"))
    where = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
    head = (where**2).sum(axis=0) < 13**2
    for number, subject in enumerate("abcd"):
        rng = np.random.default_rng(number)
        old = np.zeros(head.shape, dtype=bool)
        old[8:13, 10:15, 12:17] = True
        new = np.zeros(head.shape, dtype=bool)
        new[18:23, 15 + number : 20 + number, 14:19] = True
        for session, lesions in (("01", old), ("02", old | new)):
            image = head * (100 + 10 * rng.standard_normal(head.shape)) + 60 * lesions
            volumes = {"FLAIR": image.astype(np.float32), "label-L_mask": lesions}
            if session == "02":
                volumes["label-L_desc-new_mask"] = new
            save_visit(root, subject, session, volumes)
    return root


@pytest.mark.slow
def test_all_steps_learn_predict_and_are_scored_by_the_commands(recipe, dataset, tmp_path):
    run = train(recipe, dataset, tmp_path / "run", validation_subjects=["d"], device="cpu")
    described = json.loads((run / "run.json").read_text())
    assert described["status"] == "done"
    networks = {path.parent.relative_to(run).as_posix() for path in run.rglob("model.safetensors")}
    brain, new, old = (RECIPE.preprocess.index(step) for step in (FIRST, NEW, ALL))
    folds = {f"steps/{new}/member-{n}" for n in range(3)}  # one for each training patient
    assert networks == {".", f"steps/{brain}", f"steps/{old}/member-0"} | folds
    kept = sorted((run / "steps" / str(brain) / "masks").iterdir())
    assert len(kept) == 8  # of every visit of four patients

    visits = sorted((dataset / "sub-d").rglob("*_FLAIR.nii.gz"))
    model = load_model(run, trust_recipe=True)
    found = predict_pairs(visits, tmp_path / "out", model=model)
    assert found.failures == {}
    assert sorted((run / "steps" / str(brain) / "masks").iterdir()) == kept
    (mask,) = (tmp_path / "out").rglob("*_space-orig_desc-new_mask.nii.gz")
    assert nibabel.load(mask).shape == (SIDE,) * 3
    anat = dataset / "sub-d" / "ses-02" / "anat"
    scored = evaluate(anat / "sub-d_ses-02_label-L_desc-new_mask.nii.gz", mask)
    assert 0 <= scored.cases[0].result.values["dsc"] <= 1


@pytest.mark.slow
def test_without_masks_of_all_lesions_no_network_is_trained(recipe, dataset, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(dataset, bare)
    for path in bare.rglob("*_label-L_mask.nii.gz"):
        path.unlink()
    with pytest.raises(InputError, match=r"no visit has a lesion mask.*--auxiliary lesions=DATA"):
        train(recipe, bare, tmp_path / "run", validation_subjects=[], device="cpu")
    assert not [*(tmp_path / "run").rglob("*.safetensors"), *(tmp_path / "run").rglob("*.ckpt")]
