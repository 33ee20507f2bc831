"""Losses: the published reference vectors, and what must not change them."""

import json

import numpy as np
import pytest
import torch

from lesionwise.learning.losses import (
    CrossEntropy,
    DeepSupervision,
    Dice,
    Focal,
    InstanceLoss,
    SegmentationLoss,
    WeightedSum,
    soft_dice_loss,
)


def _vectors(shared, case):
    path = shared(f"oracle/losses/{case}.npz")
    options = json.loads(path.with_suffix(".json").read_text())
    arrays = np.load(path)
    heads = [
        torch.from_numpy(arrays[name]).requires_grad_()
        for name in ("semantic_logits", "center_heatmap_pred", "offsets_pred")
    ]
    targets = {
        "mask": torch.from_numpy(arrays["semantic_ref"].astype(np.float32)),
        "heatmap": torch.from_numpy(arrays["center_heatmap_ref"]),
        "offsets": torch.from_numpy(arrays["offsets_ref"]),
    }
    if "weights" in arrays:
        targets["weights"] = torch.from_numpy(arrays["weights"])
    return heads, targets, options["expected"], arrays


@pytest.mark.parametrize("case", ["loss01", "loss02", "loss04"])
def test_parts_and_gradients_equal_the_reference_vectors(shared, case):
    heads, targets, expected, arrays = _vectors(shared, case)
    loss = InstanceLoss(SegmentationLoss(focal=1.0, dice=0.5, gamma=2.0), heatmap=1.0, offsets=1.0)
    parts = loss(torch.cat(heads, dim=1), targets)
    names = {"center_heatmap": "heatmap"}
    for name in ("total", "dice", "focal", "center_heatmap", "offsets"):
        assert parts[names.get(name, name)].item() == pytest.approx(expected[name], rel=1e-5)
    parts["total"].backward()
    for head, name in zip(heads, ("semantic", "center", "offsets"), strict=True):
        assert head.grad is not None
        np.testing.assert_allclose(head.grad.numpy(), arrays[f"expected_grad_{name}"], atol=1e-5)


def test_alpha_and_beta_weigh_heatmap_and_offsets():
    output = torch.randn(1, 6, 4, 4, 4)
    targets = {
        "mask": torch.ones(1, 1, 4, 4, 4),
        "heatmap": torch.rand(1, 1, 4, 4, 4),
        "offsets": torch.randn(1, 3, 4, 4, 4),
    }
    parts = InstanceLoss(heatmap=2000.0, offsets=0.5)(output, targets)
    segmentation = SegmentationLoss()(output, targets)["total"]
    expected = segmentation + 2000 * parts["heatmap"] + 0.5 * parts["offsets"]
    torch.testing.assert_close(parts["total"], expected)


def test_offsets_outside_of_reference_lesions_cost_nothing():
    output = torch.zeros(1, 6, 2, 2, 2)
    output[:, 3:] = 100.0
    targets = {
        "mask": torch.zeros(1, 1, 2, 2, 2),
        "heatmap": torch.zeros(1, 1, 2, 2, 2),
        "offsets": torch.zeros(1, 3, 2, 2, 2),
    }
    assert InstanceLoss()(output, targets)["offsets"].item() == 0


def test_empty_against_empty_has_no_dice_loss():
    empty = torch.zeros(2, 1, 3, 3, 3)
    assert soft_dice_loss(empty, empty).item() == 0


def test_extreme_logits_stay_finite():
    output = torch.tensor([60.0, -60.0]).reshape(1, 2, 1, 1, 1).requires_grad_()
    parts = SegmentationLoss()(output, {"mask": torch.ones(1, 1, 1, 1, 1)})
    parts["total"].backward()
    assert torch.isfinite(parts["total"])
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()


@pytest.fixture
def logits_and_mask():
    generator = torch.Generator().manual_seed(0)
    output = torch.randn((2, 2, 4, 5, 6), generator=generator, requires_grad=True)
    mask = (torch.rand((2, 1, 4, 5, 6), generator=generator) < 0.2).float()
    return output, {"mask": mask}


def test_cross_entropy_is_torchs(logits_and_mask):
    output, targets = logits_and_mask
    expected = torch.nn.functional.cross_entropy(output, targets["mask"][:, 0].long())
    torch.testing.assert_close(CrossEntropy()(output, targets)["total"], expected)


def test_the_lesion_weight_multiplies_lesion_voxels_alone(logits_and_mask):
    output, targets = logits_and_mask
    each = torch.nn.functional.cross_entropy(output, targets["mask"][:, 0].long(), reduction="none")
    expected = torch.where(targets["mask"][:, 0] > 0, 7 * each, each).mean()
    torch.testing.assert_close(CrossEntropy(lesion_weight=7.0)(output, targets)["total"], expected)


def test_a_focal_loss_without_focus_is_the_cross_entropy(logits_and_mask):
    output, targets = logits_and_mask
    torch.testing.assert_close(
        Focal(gamma=0.0)(output, targets)["total"], CrossEntropy()(output, targets)["total"]
    )


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_dice_and_focal_are_monais(logits_and_mask, squared, background):
    losses = pytest.importorskip("monai.losses")
    output, targets = logits_and_mask
    both = torch.cat([1 - targets["mask"], targets["mask"]], dim=1)
    theirs = losses.DiceLoss(
        include_background=background, softmax=True, squared_pred=squared, smooth_nr=1e-5
    )
    ours = Dice(background=background, squared=squared)
    torch.testing.assert_close(ours(output, targets)["total"], theirs(output, both))


def test_dice_of_a_batch_takes_its_sums_over_all_samples():
    output = torch.zeros((2, 2, 1, 1, 2))
    mask = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).reshape(2, 1, 1, 1, 2)
    total = Dice(over="batch", smooth=0.0)(output, {"mask": mask})["total"]
    assert float(total) == pytest.approx(1 - 2 * 1.0 / (2 + 2))  # p is 0.5 everywhere


def test_a_weighted_sum_adds_its_terms_up_and_names_them(logits_and_mask):
    output, targets = logits_and_mask
    parts = WeightedSum(((0.5, CrossEntropy()), (2.0, Dice())))(output, targets)
    expected = 0.5 * parts["crossentropy"] + 2.0 * parts["dice"]
    torch.testing.assert_close(parts["total"], expected)


def test_deep_supervision_weighs_resolutions_against_smaller_targets():
    mask = torch.zeros((1, 1, 4, 4, 4))
    mask[..., :2] = 1
    targets = {"mask": mask}
    full = torch.zeros((1, 2, 4, 4, 4))
    half = torch.zeros((1, 2, 2, 2, 2))
    half[:, 1, ..., :1] = 50
    half[:, 0, ..., 1:] = 50  # right everywhere
    loss = DeepSupervision(CrossEntropy(), weights=(1.0, 0.5))
    total = loss((full, half), targets)["total"]
    assert float(total) == pytest.approx(np.log(2) * 1.0 / 1.5)
    assert float(loss(full, targets)["total"]) == pytest.approx(np.log(2))


def test_deep_supervision_names_a_missing_weight():
    output = (torch.zeros((1, 2, 2, 2, 2)),) * 3
    with pytest.raises(ValueError, match="3 outputs, 2 weights"):
        DeepSupervision(Dice(), weights=(1.0, 0.5))(output, {"mask": torch.zeros((1, 1, 2, 2, 2))})
