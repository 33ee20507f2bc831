"""Targets: hand-worked lesions, the published reference vectors."""

import numpy as np
import pytest
import torch

from lesionwise.learning.targets import (
    CANDIDATE,
    ActivatedMask,
    CandidateClass,
    CentersAndOffsets,
    LesionMask,
    Reference,
    SoftMasks,
    center_heatmap,
    centers_of_mass,
    offsets_to_centers,
)

CASES = ("target01", "target02", "target05", "target06")


def test_a_center_is_the_mean_index_of_its_lesion():
    instances = np.zeros((5, 4, 3), dtype=np.uint16)
    instances[1, 1, 0] = instances[3, 1, 1] = 7
    labels, centers = centers_of_mass(instances)
    assert labels.tolist() == [7]
    assert centers.tolist() == [[2.0, 1.0, 0.5]]


def test_no_lesion_has_no_center():
    labels, centers = centers_of_mass(np.zeros((3, 3, 3), dtype=np.int32))
    assert labels.shape == (0,)
    assert centers.shape == (0, 3)


def test_offsets_are_ordered_i_j_k():
    instances = np.zeros((3, 3, 5), dtype=np.int32)
    instances[1, 1, 0] = instances[1, 1, 4] = 1
    labels, centers = centers_of_mass(instances)
    offsets = offsets_to_centers(instances, labels, centers)
    assert offsets[:, 1, 1, 0].tolist() == [0, 0, 2]
    assert offsets[:, 1, 1, 4].tolist() == [0, 0, -2]
    assert not offsets[:, instances == 0].any()


def test_offsets_follow_labels_with_gaps():
    instances = np.zeros((6, 1, 1), dtype=np.int32)
    instances[0:2, 0, 0] = 900
    instances[4:6, 0, 0] = 3
    labels, centers = centers_of_mass(instances)
    offsets = offsets_to_centers(instances, labels, centers)
    assert offsets[0, :, 0, 0].tolist() == [0.5, -0.5, 0, 0, 0.5, -0.5]


def test_the_gaussian_is_as_wide_in_mm_along_every_axis():
    center = np.array([[10, 10, 10]])
    heatmap = center_heatmap(center, (21, 21, 21), (1.0, 2.0, 0.5), sigma_mm=2.0)
    expected = np.exp(-(4.0**2) / 8)
    assert heatmap[10, 10, 10] == 1
    assert heatmap[14, 10, 10] == pytest.approx(expected, abs=1e-6)
    assert heatmap[10, 12, 10] == pytest.approx(expected, abs=1e-6)
    assert heatmap[10, 10, 18] == pytest.approx(expected, abs=1e-6)


def test_neighboring_gaussians_are_joined_by_their_maximum():
    centers = np.array([[4, 4, 4], [6, 4, 4]])
    heatmap = center_heatmap(centers, (11, 9, 9), (1.0, 1.0, 1.0), sigma_mm=2.0)
    assert heatmap.max() == 1
    assert heatmap[5, 4, 4] == pytest.approx(np.exp(-1 / 8), abs=1e-6)


def test_a_center_near_the_edge_is_drawn_as_far_as_the_volume_reaches():
    heatmap = center_heatmap(np.array([[0.0, 0.5, 2.0]]), (2, 2, 3), (1.0, 1.0, 1.0), sigma_mm=1.0)
    assert heatmap[0, 0, 2] == pytest.approx(np.exp(-0.125), abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_targets_equal_the_reference_vectors(shared, case):
    # The vectors count σ in voxels: with voxels of 1 mm that is ours.
    vectors = np.load(shared(f"oracle/targets/{case}.npz"))
    made = CentersAndOffsets(sigma_mm=2.0).make(Reference(vectors["instances"], (1.0, 1.0, 1.0)))
    np.testing.assert_allclose(made["heatmap"][0], vectors["expected_center_heatmap"], atol=1e-6)
    np.testing.assert_allclose(made["offsets"], vectors["expected_offsets"], atol=1e-5)
    np.testing.assert_array_equal(made["mask"][0], vectors["instances"] > 0)


def test_activation_gives_the_softmax_and_leaves_the_other_heads_alone():
    output = torch.randn(2, 6, 3, 3, 3)
    maps = CentersAndOffsets().activate(output)
    torch.testing.assert_close(maps[:, 0], torch.softmax(output[:, :2], dim=1)[:, 1])
    torch.testing.assert_close(maps[:, 1:], output[:, 2:])
    assert len(CentersAndOffsets().maps) == maps.shape[1]


def test_the_mask_alone_has_one_map():
    made = LesionMask().make(Reference(np.array([[[0, 5]]]), (1.0, 1.0, 1.0)))
    assert made["mask"].tolist() == [[[[0.0, 1.0]]]]
    assert LesionMask().activate(torch.zeros(1, 2, 1, 1, 1)).item() == 0.5


def test_an_activated_channel_is_read_between_its_two_values():
    targets = ActivatedMask(values=(-1.0, 1.0))
    output = torch.tensor([-1.0, -0.5, 0.0, 1.0, 1.2]).reshape(1, 1, 5, 1, 1)
    assert targets.activate(output).flatten().tolist() == [0.0, 0.25, 0.5, 1.0, 1.0]
    assert targets.out_channels == len(targets.initial_logits) == len(targets.maps) == 1
    made = targets.make(Reference(np.array([[[0, 3]]]), (1.0, 1.0, 1.0)))
    assert made["mask"].tolist() == [[[[0.0, 1.0]]]]


def test_soft_masks_are_the_mask_of_what_is_to_be_found():
    labels = np.zeros((2, 2, 2), np.int32)
    labels[0, 0, 0] = 7
    made = SoftMasks().make(Reference(labels, (1.0, 1.0, 1.0)))
    assert made["mask"].shape == (1, 2, 2, 2)
    assert made["mask"].sum() == 1
    assert (SoftMasks().out_channels, SoftMasks().initial_logits) == (1, (-4.0,))


def test_soft_masks_take_fractions_as_they_are_and_labels_as_0_or_1():
    nothing = np.zeros((1, 1, 2), np.int32)
    labels = {
        "new": np.array([[[0.25, 1.2]]], np.float32),
        "rater": np.array([[[3, 0]]], np.int32),
    }
    targets = SoftMasks(("new", "rater"))
    made = targets.make(Reference(nothing, (1.0, 1.0, 1.0), labels))["mask"]
    np.testing.assert_array_equal(made, np.array([[[[0.25, 1.0]]], [[[1, 0]]]], np.float32))
    assert made.dtype == np.float32
    assert targets.out_channels == 2


def test_the_first_of_several_soft_masks_is_predicted():
    output = torch.rand(1, 5, 2, 2, 2)
    torch.testing.assert_close(SoftMasks(("a", "b")).activate(output), output[:, :1])


@pytest.mark.parametrize("is_true", [False, True])
def test_a_candidate_has_the_class_that_its_samples_say(is_true):
    # whether a lesion lies in the crop does not count
    instances = np.zeros((2, 2, 2), dtype=np.int32)
    instances[0] = int(not is_true)
    label = np.full(instances.shape, is_true)
    made = CandidateClass().make(Reference(instances, (1.0, 1.0, 1.0), {CANDIDATE: label}))
    assert made["mask"].tolist() == [[[[float(is_true)]]]]
