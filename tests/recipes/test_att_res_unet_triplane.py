"""B7 against its document (002, lines 665 to 765)."""

from lesionwise.learning.losses import Dice, Focal
from lesionwise.learning.positions import EverySlice
from lesionwise.methods.composite import PositiveCases
from lesionwise.networks.attention import AttentionGate
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.run.recipes import find_recipe

RECIPE = find_recipe("att-res-unet-triplane")
NETWORK = RECIPE.method.method


def test_the_skull_is_removed_and_both_visits_are_channels():
    # 002:691-693, 704-705: skull removed; first and second time point stacked, two channels
    steps = [type(step) for step in RECIPE.preprocess]
    assert steps.index(ExtractBrain) < steps.index(MaskToBrain)
    assert NETWORK.scans == ("flair",)
    assert NETWORK.network.keywords["in_channels"] == 2


def test_slices_of_all_three_planes_are_padded_to_512():
    # 002:702-708
    samples = NETWORK.samples
    assert samples.positions == EverySlice(normals=(0, 1, 2))
    assert samples.size_vox == (512, 512, 1)


def test_patients_without_new_lesions_do_not_train():
    # 002:716-718: 29 of the 40 have new lesions, split 24 and 5
    assert isinstance(RECIPE.method, PositiveCases)
    assert (RECIPE.method.task, NETWORK.task, RECIPE.task) == ("new", "new", "new")


def test_focal_and_dice_loss_with_flips_and_rotations():
    # 002:723-726
    loss = NETWORK.objective.loss
    assert [type(part) for _, part in loss.terms] == [Focal, Dice]
    spatial = NETWORK.samples.augmentation.spatial
    assert spatial.flip > 0
    assert spatial.affine.rotation_deg > 0
    assert NETWORK.samples.augmentation.intensity is None


def test_the_planes_vote():
    # 002:730-732
    planes = NETWORK.inference.planes
    assert (sorted(planes.axes), planes.combine) == ([0, 1, 2], "vote")
    assert RECIPE.threshold == 0.5
    assert RECIPE.output.resample == "labels"  # the mask, not shares of votes, is resampled


def test_the_network_has_residual_units_and_a_gate_per_skip_connection():
    # 002:738-756
    network = NETWORK.network()
    gates = [m for m in network.modules() if isinstance(m, AttentionGate)]
    assert len(gates) == 3
