"""Crops around candidates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine import pair_of
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lesionwise.change.candidates import MapComponents
from lesionwise.learning.candidate_crops import (
    AsManyFalse,
    Box,
    CandidateCrops,
    CenteredBoxes,
    MeanAbove,
    PaddedBoxes,
    ReferenceLesions,
    UnequalCrops,
    boxes_of,
)
from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.objective import MeanOverCrops, Supervised
from lesionwise.learning.samples import Augmentation, Reading, SampleRequest
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import CandidateClass, LesionMask
from lesionwise.types import InputError, TrainingData

READING = Reading(("flair",), "new")
SUPERVISED = Supervised(LesionMask(), CrossEntropy())
CROPS = CandidateCrops(
    propose=lambda study: candidates(), boxes=PaddedBoxes(1), size_vox=(16, 16, 16)
)


def candidates():
    """Three candidates of a pair: 1 lies where the new lesion is, 2 and 3 elsewhere."""
    labels = np.zeros((16, 16, 16), dtype=np.int32)
    labels[9:12, 9:13, 9:13] = 1
    labels[2:6, 2:6, 3:8] = 2
    labels[0, 14, 15] = 3
    return labels


def opened(samples=CROPS, objective=SUPERVISED, **settings):
    samples = replace(samples, **settings)
    return samples.open(TrainingData([pair_of(0)]), SampleRequest(READING, objective, seed=0))


def test_a_padded_box_ends_with_the_volume():
    (_, _, first), _, (number, _, last) = boxes_of(candidates(), PaddedBoxes(2), (4, 4, 4))
    assert first == Box((7, 7, 7), (7, 8, 8))
    assert number == 3
    assert last == Box((0, 12, 13), (3, 4, 3))


def test_a_centered_box_has_one_size_and_may_reach_beyond_the_volume():
    found = [box for _, _, box in boxes_of(candidates(), CenteredBoxes(), (5, 4, 4))]
    assert {box.size for box in found} == {(5, 4, 4)}
    np.testing.assert_array_equal(found[0].center_vox, [10, 10.5, 10.5])
    assert found[2].start == (-2, 12, 13)


def test_labels_that_are_nowhere_have_no_box():
    labels = np.zeros((4, 4, 4), dtype=np.int32)
    labels[1, 1, 1] = 3
    assert [number for number, _, _ in boxes_of(labels, PaddedBoxes(), (4, 4, 4))] == [3]


def test_a_candidate_is_true_where_it_shares_a_voxel_with_the_reference():
    source = opened()
    assert source.true.tolist() == [True, False, False]
    assert source.marked.tolist() == [False, False, False]


def test_a_crop_shows_its_box_and_the_whole_reference_in_it():
    source = opened(balance=AsManyFalse())
    shapes = {tuple(source[n]["image"].shape) for n in range(40)}
    assert shapes == {(2, 5, 6, 6), (2, 6, 6, 7), (2, 2, 3, 2)}
    true = next(s for s in (source[n] for n in range(9)) if s["image"].shape[1] == 5)
    image = pair_of(0).followup.scans["flair"].array[8:13, 8:14, 8:14]
    np.testing.assert_array_equal(true["image"][1], image)
    assert true["mask"].sum() == 4 * 4 * 4  # one voxel more along i than the candidate has


def test_a_sample_is_the_same_whenever_it_is_asked_for():
    one, other = opened(), opened()
    _ = other[5], other[0]
    for name, value in one[3].items():
        torch.testing.assert_close(other[3][name], value, rtol=0, atol=0)


def test_a_larger_crop_is_cut_to_the_samples_size_around_its_candidate():
    source = opened(size_vox=(4, 16, 3))
    for number in range(20):
        sample = source[number]
        shape = sample["image"].shape[1:]
        assert shape[0] <= 4
        assert shape[2] <= 3
        if shape == (4, 6, 3) and sample["mask"].any():
            break
    else:
        raise AssertionError("the true candidate was never cut")


def test_the_lesions_of_the_reference_can_be_candidates_too():
    source = opened(propose=lambda study: 0 * candidates(), more=ReferenceLesions("new"))
    assert source.true.tolist() == [True]


def test_studies_without_a_true_candidate_are_refused():
    with pytest.raises(InputError, match="no candidate"):
        opened(propose=lambda study: 0 * candidates())


def test_candidates_are_marked_by_the_mean_of_a_scan():
    study = pair_of(0)
    array = study.followup.scans["flair"].array
    labels = candidates()
    mean = array[labels == 1].mean()
    assert MeanAbove("flair", mean - 0.01)(study, labels)[0]
    assert not MeanAbove("flair", mean + 0.01)(study, labels)[0]
    with pytest.raises(InputError, match="no depth scan"):
        MeanAbove("depth", 0.5)(study, labels)


def classes_of(labels, size_vox):
    """Which candidates are true, and the class that each of 20 crops is to have."""
    samples = opened(
        objective=Supervised(CandidateClass(), CrossEntropy()),
        propose=lambda study: labels,
        boxes=CenteredBoxes(),
        size_vox=size_vox,
        augmentation=Augmentation(spatial=SpatialAugmentation(flip=0.5)),
    )
    return samples.true.tolist(), [float(samples[n]["mask"]) for n in range(20)]


def test_a_crop_has_the_class_of_its_whole_candidate():
    # the new lesion begins at i = 9; the candidate's crop, i = 4 to 7, shows none of it
    long = np.zeros((16, 16, 16), dtype=np.int32)
    long[2:10, 10, 10] = 1
    assert classes_of(long, (4, 4, 4)) == ([True], [1.0] * 20)


def test_a_crop_that_shows_a_lesion_beside_its_candidate_is_false():
    beside = np.zeros((16, 16, 16), dtype=np.int32)
    beside[7, 9:13, 9:13] = 1  # the lesion begins at i = 9, the crop ends at i = 10
    beside[13, 9:13, 9:13] = 2  # in the lesion
    true, classes = classes_of(beside, (8, 8, 8))
    assert true == [False, True]
    assert sorted(classes) == [0.0] * 10 + [1.0] * 10  # one crop of each is an epoch


KIND = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


@given(kinds=KIND, epoch=st.integers(0, 5))
def test_an_epoch_has_every_true_crop_and_as_many_false_ones(kinds, epoch):
    true, marked = (np.array(column) for column in zip(*kinds, strict=True))
    order = AsManyFalse().order(true, marked, epoch, seed=0) if true.any() else np.array([])
    count = int(true.sum())
    assert AsManyFalse().kept(true, marked) == order.size
    if not count:
        return
    assert sorted(order[true[order]]) == np.flatnonzero(true).tolist()
    assert int((~true[order]).sum()) == (count if (~true).any() else 0)


def test_extra_crops_are_shared_among_marked_and_unmarked_places():
    # 100 true and 100 false; 60 more: 51 marked, of which 17 true and 34 false, and 9 others
    true = np.repeat([True, False], (100, 400))
    marked = np.tile([True, False], 250)
    balance = AsManyFalse(extra_fraction=0.3, marked_fraction=0.85, true_fraction=0.33)
    order = balance.order(true, marked, epoch=0, seed=0)
    assert order.size == balance.kept(true, marked) == 260
    assert true[order].sum() == 100 + 17
    counts = np.bincount(order, minlength=500)
    assert counts[true & marked].sum() == 50 + 17
    assert counts[~true].sum() == 100 + 34 + 9


def test_false_crops_come_once_before_any_comes_again():
    true = np.repeat([True, False], (10, 40))
    marked = np.zeros(50, dtype=bool)
    orders = [AsManyFalse().order(true, marked, epoch, seed=0) for epoch in range(4)]
    false = np.concatenate([order[~true[order]] for order in orders])
    assert sorted(false) == list(range(10, 50))


def test_crops_of_unequal_size_stand_side_by_side():
    batches = UnequalCrops(CROPS, crops_per_batch=3)
    source = batches.open(TrainingData([pair_of(0)]), SampleRequest(READING, SUPERVISED, seed=0))
    assert batches.batch_size == 1
    assert source.per_epoch == 1  # one true and one false crop are an epoch
    second = source[1]
    assert list(second) == ["crop-0", "crop-1", "crop-2"]
    crops = opened()
    torch.testing.assert_close(second["crop-2"]["image"], crops[5]["image"], rtol=0, atol=0)
    assert (
        replace(batches, per_epoch=7)
        .open(TrainingData([pair_of(0)]), SampleRequest(READING, SUPERVISED, seed=0))
        .per_epoch
        == 7
    )


def test_the_loss_of_crops_is_the_mean_of_theirs():
    network = nn.Conv3d(2, 2, 3, padding=1)
    crops = opened()
    batch = {f"crop-{n}": {name: value[None] for name, value in crops[n].items()} for n in range(3)}
    losses = MeanOverCrops(SUPERVISED)(network, {}, batch)
    each = [SUPERVISED(network, {}, crop)["total"] for crop in batch.values()]
    torch.testing.assert_close(losses["total"], torch.stack(each).mean())
    losses["total"].backward()
    assert network.weight.grad is not None
    assert float(network.weight.grad.abs().sum()) > 0


def test_components_of_a_map_can_be_the_candidates():
    source = opened(propose=MapComponents("flair", above=1.0))
    assert source.true.any()
    assert not source.true.all()


def test_a_network_that_takes_crops_together_gets_them_all_at_once():
    class Together(nn.Module):
        def forward_crops(self, images):
            self.seen = [tuple(image.shape[2:]) for image in images]
            return [torch.zeros(1, 2, *image.shape[2:]) for image in images]

    network = Together()
    sizes = ((4, 4, 4), (6, 5, 4))
    batch = {
        f"crop-{n}": {"image": torch.zeros(1, 1, *size), "mask": torch.zeros(1, 1, *size)}
        for n, size in enumerate(sizes)
    }
    losses = MeanOverCrops(SUPERVISED)(network, {}, batch)
    assert network.seen == list(sizes)
    assert float(losses["total"]) == pytest.approx(np.log(2))
