import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.learning.lesion_weights import (
    SizeWeightedMask,
    VoxelWeightedCrossEntropy,
    lesion_weights,
)
from lesionwise.learning.losses import CrossEntropy, DeepSupervision
from lesionwise.learning.targets import Reference


def two_lesions():
    labels = np.zeros((8, 8, 8), dtype=np.int32)
    labels[0, 0, 0] = 1
    labels[3:7, 3:7, 3:7] = 2
    return labels


def test_each_lesion_weighs_by_its_volume_and_all_else_by_one():
    made = SizeWeightedMask(reference_mm3=128.0).make(Reference(two_lesions(), (1.0, 1.0, 2.0)))
    weight = made["voxel_weight"][0]
    assert weight[0, 0, 0] == pytest.approx(1 + (128 / 2) ** 0.5)
    assert weight[4, 4, 4] == pytest.approx(1 + 1)
    assert (weight[two_lesions() == 0] == 1).all()
    np.testing.assert_array_equal(made["mask"][0], two_lesions() > 0)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500))
def test_a_smaller_lesion_weighs_more_per_voxel_and_less_in_all(one, other):
    mask = np.zeros((2, 3, 502), dtype=bool)
    mask[0, 0, :one] = mask[0, 2, :other] = True
    weight = lesion_weights(mask, 1.0, 100.0)
    first, second = weight[0, 0, 0], weight[0, 2, 0]
    if one < other:
        assert first > second
        assert first * one < second * other
    assert min(first, second) > 1


def test_without_lesions_every_voxel_weighs_one():
    made = SizeWeightedMask().make(Reference(np.zeros((2, 2, 2), np.int32), (1.0, 1.0, 1.0)))
    assert (made["voxel_weight"] == 1).all()
    assert not made["mask"].any()


def test_the_loss_is_the_weighted_mean_of_the_cross_entropy():
    output = torch.randn(2, 2, 4, 4, 4)
    mask = (torch.rand(2, 1, 4, 4, 4) > 0.5).float()
    ones = torch.ones_like(mask)
    plain = CrossEntropy()(output, {"mask": mask})["total"]
    loss = VoxelWeightedCrossEntropy()
    torch.testing.assert_close(loss(output, {"mask": mask, "voxel_weight": ones})["total"], plain)
    heavy = loss(output, {"mask": mask, "voxel_weight": 1 + mask})["total"]
    twice = CrossEntropy(lesion_weight=2.0)(output, {"mask": mask})["total"]
    torch.testing.assert_close(heavy, twice)


def test_weights_come_down_to_coarser_resolutions_with_their_mask():
    made = SizeWeightedMask().make(Reference(two_lesions(), (1.0, 1.0, 1.0)))
    targets = {name: torch.from_numpy(a)[None] for name, a in made.items()}
    loss = DeepSupervision(VoxelWeightedCrossEntropy(), weights=(1.0, 0.5))
    outputs = (torch.randn(1, 2, 8, 8, 8), torch.randn(1, 2, 4, 4, 4))
    assert torch.isfinite(loss(outputs, targets)["total"])
