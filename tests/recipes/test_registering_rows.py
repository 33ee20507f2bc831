"""B28 against its document (002, lines 3229 to 3377) and B29 against its own (3378 to 3511)."""

from lesionwise.learning.losses import CrossEntropy, Dice
from lesionwise.learning.optimizers import Adam
from lesionwise.learning.positions import (
    EverySlice,
    InMiddleSlice,
    PositivePatches,
    RegularGrid,
)
from lesionwise.learning.registration import NonCorrespondence, SegmentAndRegister
from lesionwise.learning.samples import ListedPatches, UnlabelledPatches
from lesionwise.methods.registered import AddRegistered
from lesionwise.metrics.names import NAMES
from lesionwise.networks.joint_registration import JointRegistrationUNet
from lesionwise.networks.ncr_net import NcrNet, SeparateInputsUNet
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.standardize import MatchHistogramToTraining
from lesionwise.run.recipes import find_recipe

B28, B29 = find_recipe("ncr-net"), find_recipe("joint-registration")
(REGISTERED,) = (step for step in B28.preprocess if isinstance(step, AddRegistered))


def test_b28_registers_without_labels_first():
    # 002:3268-3308: unsupervised; encoder and two decoders; masked distance and three terms
    first = REGISTERED.method
    assert first.network.func is NcrNet
    assert isinstance(first.objective, NonCorrespondence)
    assert min(first.objective.alpha, first.objective.beta, first.objective.gamma) > 0
    assert isinstance(first.samples, UnlabelledPatches)


def test_b28_refines_the_difference_the_map_and_both_scans():
    # 002:3317-3323
    method = B28.method
    assert method.scans == (
        "flair",
        f"{REGISTERED.difference_name}@followup",
        f"{REGISTERED.map_name}@followup",
    )
    assert method.network.func is SeparateInputsUNet
    assert method.network.keywords["in_channels"] == 4
    assert method.objective.loss == Dice()


def test_b28_sees_three_slices_those_with_lesions_twice_and_one_percent_of_the_others():
    # 002:3325-3335: three slices; twice, once flipped; 1 %; 400 epochs, batches of 5, Adam 1e-4
    samples = B28.method.samples
    assert isinstance(samples, ListedPatches)
    assert samples.positions == EverySlice(normals=(2,))
    assert samples.balance == PositivePatches(empty_fraction=0.01, times=2)
    assert samples.has_lesion == InMiddleSlice()
    assert samples.augmentation.spatial is None
    again = samples.augmentation.again
    assert (again.flip, again.flip_axes, again.affine, again.elastic) == (1.0, (0,), None, None)
    for method in (B28.method, REGISTERED.method):
        assert method.samples.size_vox[2] == 3
        assert method.samples.batch_size == 5
        assert method.optimization.epochs == 400
        assert method.optimization.learning_rate == 1e-4
        assert isinstance(method.optimization.optimizer, Adam)


def test_b28_reports_the_scores_of_its_table():
    # 002:3377: NCR- and U-Net(B, F, F-B o phi, N); its distance and volume have no unit
    assert B28.reported == {"dsc": 0.4508, "lesion_recall": 0.7177, "false_lesion_count": 2.3636}
    assert set(B28.reported) <= set(NAMES)


def test_b29_learns_field_and_lesions_end_to_end():
    # 002:3408-3472
    assert B29.method.network.func is JointRegistrationUNet
    assert B29.method.objective == SegmentAndRegister(CrossEntropy(), smooth=0.01)
    steps = [type(step) for step in B29.preprocess]
    assert steps.index(N4) < steps.index(MatchHistogramToTraining)  # 002:3496-3500


def test_b29_is_trained_as_the_document_says():
    # 002:3503-3511: 32 every 16; Adam, batches of 4, 30 epochs, ends after 5 without more accuracy
    method = B29.method
    assert method.samples.size_vox == (32, 32, 32)
    assert method.samples.positions == RegularGrid((16, 16, 16))
    assert method.samples.batch_size == 4
    assert isinstance(method.optimization.optimizer, Adam)
    assert method.optimization.epochs == 30
    stopping = method.optimization.early_stopping
    assert (stopping.patience, stopping.unit) == (5, "epochs")
    assert stopping.metric == "validation_accuracy"
    assert method.selection.by == ("accuracy",)
    assert method.selection.reason(1) == "highest validation accuracy"
