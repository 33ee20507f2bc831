"""Losses: the published reference vectors, and what must not change them."""

import json

import numpy as np
import pytest
import torch

from lesionwise.learning.losses import InstanceLoss, SegmentationLoss, soft_dice_loss


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
