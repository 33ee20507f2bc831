"""Losses: the published reference vectors, and what must not change them."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.learning.losses import (
    CrossEntropy,
    DeepSupervision,
    Dice,
    Focal,
    GeneralizedDice,
    InstanceLoss,
    PerChannel,
    SquaredError,
    TopKCrossEntropy,
    WeightedSum,
    center_crop_to,
)

FOCAL_AND_DICE = WeightedSum(((1.0, Focal(gamma=2.0)), (0.5, Dice())))


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
    return heads, targets, options["expected"], arrays


@pytest.mark.parametrize("case", ["loss01", "loss04"])
def test_parts_and_gradients_equal_the_reference_vectors(shared, case):
    heads, targets, expected, arrays = _vectors(shared, case)
    loss = InstanceLoss(FOCAL_AND_DICE, heatmap=1.0, offsets=1.0)
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
    segmentation = FOCAL_AND_DICE(output, targets)["total"]
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
    assert Dice(activated=True)(empty, {"mask": empty})["total"].item() == 0


def test_extreme_logits_stay_finite():
    output = torch.tensor([60.0, -60.0]).reshape(1, 2, 1, 1, 1).requires_grad_()
    parts = FOCAL_AND_DICE(output, {"mask": torch.ones(1, 1, 1, 1, 1)})
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


def test_a_weighted_sum_names_each_of_several_losses_of_one_class(logits_and_mask):
    terms = ((1.0, Dice()), (1.0, Dice(squared=True)), (0.5, CrossEntropy()))
    parts = WeightedSum(terms)(*logits_and_mask)
    assert sorted(parts) == ["crossentropy", "dice", "dice_2", "total"]
    assert parts["dice"] != parts["dice_2"]
    torch.testing.assert_close(
        parts["total"], parts["dice"] + parts["dice_2"] + 0.5 * parts["crossentropy"]
    )


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


def _waves():
    """An output and targets without random numbers; the second sample has no lesion."""
    index = torch.arange(360)
    mask = (torch.arange(120).reshape(2, 1, 3, 4, 5) % 7 == 0).float()
    mask[1] = 0
    return torch.sin(torch.arange(720) * 0.37).reshape(2, 6, 3, 4, 5) * 3, {
        "mask": mask,
        "heatmap": torch.cos(index[:120] * 0.11).reshape(2, 1, 3, 4, 5).abs(),
        "offsets": torch.cos(index * 0.23).reshape(2, 3, 3, 4, 5) * 4,
    }


def test_the_losses_are_those_of_earlier_versions():
    output, targets = _waves()
    parts = InstanceLoss()(output, targets)
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(
        {
            "total": 9050.4921875,
            "focal": 1.6943244934082031,
            "dice": 0.8913544416427612,
            "heatmap": 4.523463726043701,
            "offsets": 2.85038161277771,
        },
        rel=1e-6,
    )
    assert FOCAL_AND_DICE(output, targets)["total"].item() == pytest.approx(2.14000177383, rel=1e-6)
    both = Dice(background=True, squared=True)(output, targets)["total"]
    assert both.item() == pytest.approx(0.58819806575, rel=1e-6)


def test_focal_and_dice_are_their_formulas():
    output, targets = _waves()
    mask = targets["mask"].double().numpy()[:, 0]
    p = 1 / (1 + np.exp((output[:, 0] - output[:, 1]).double().numpy()))
    true = np.where(mask > 0, p, 1 - p)
    focal = (-((1 - true) ** 2) * np.log(true)).mean()
    axes = (1, 2, 3)
    sums = (p * mask).sum(axes), p.sum(axes) + mask.sum(axes)
    dice = (1 - (2 * sums[0] + 1e-5) / (sums[1] + 1e-5)).mean()
    parts = FOCAL_AND_DICE(output, targets)
    assert parts["focal"].item() == pytest.approx(focal, rel=1e-5)
    assert parts["dice"].item() == pytest.approx(dice, rel=1e-5)
    assert parts["total"].item() == pytest.approx(focal + 0.5 * dice, rel=1e-5)


def test_generalized_dice_is_monais(logits_and_mask):
    losses = pytest.importorskip("monai.losses")
    output, targets = logits_and_mask
    both = torch.cat([1 - targets["mask"], targets["mask"]], dim=1)
    theirs = losses.GeneralizedDiceLoss(softmax=True, smooth_nr=0, smooth_dr=0)
    torch.testing.assert_close(GeneralizedDice()(output, targets)["total"], theirs(output, both))


def test_generalized_dice_weighs_lesions_as_much_as_what_is_around_them():
    mask = torch.zeros((1, 1, 10, 10, 10))
    mask[0, 0, 0, 0, :2] = 1
    half_of_each = torch.zeros((1, 2, 10, 10, 10))
    half_of_each[:, 0] = 100.0
    half_of_each[0, :, 0, 0, 0] = torch.tensor([-100.0, 100.0])
    w = 1 / 2**2, 1 / 998**2
    shared, both = w[0] * 1 + w[1] * 998, w[0] * (2 + 1) + w[1] * (998 + 999)
    loss = GeneralizedDice()(half_of_each, {"mask": mask})["total"]
    assert loss.item() == pytest.approx(1 - 2 * shared / both, rel=1e-5)


def test_without_lesion_generalized_dice_is_the_mean_probability(logits_and_mask):
    output, targets = logits_and_mask
    empty = {"mask": torch.zeros_like(targets["mask"])}
    expected = torch.sigmoid(output[:, 1] - output[:, 0]).mean()
    loss = GeneralizedDice()(output, empty)["total"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert torch.isfinite(output.grad).all()


def test_top_k_takes_the_hardest_voxels(logits_and_mask):
    output, targets = logits_and_mask
    each = torch.nn.functional.cross_entropy(output, targets["mask"][:, 0].long(), reduction="none")
    hardest = each.flatten().sort(descending=True).values[:24]  # a tenth of 240
    torch.testing.assert_close(TopKCrossEntropy(0.1)(output, targets)["total"], hardest.mean())


def test_top_k_of_everything_is_the_cross_entropy_and_of_almost_nothing_one_voxel(logits_and_mask):
    output, targets = logits_and_mask
    every = TopKCrossEntropy(1.0)(output, targets)["total"]
    torch.testing.assert_close(every, CrossEntropy()(output, targets)["total"])
    one = TopKCrossEntropy(1e-6)(output, targets)["total"]
    assert one > TopKCrossEntropy(0.1)(output, targets)["total"]


def test_soft_dice_is_smallest_at_the_soft_label():
    label = torch.tensor([0.0, 0.25, 0.5, 1.0]).reshape(1, 1, 1, 2, 2)
    dice = Dice(squared=True, activated=True)
    assert dice(label, {"mask": label})["total"].item() == pytest.approx(0, abs=1e-6)
    for other in (label**2, label**0.5, (label > 0.3).float()):
        assert dice(other, {"mask": label})["total"] > 0.005


def test_an_activated_output_is_taken_as_it_is(logits_and_mask):
    output, targets = logits_and_mask
    probability = torch.sigmoid(output[:, 1:2] - output[:, 0:1])
    torch.testing.assert_close(
        Dice(activated=True)(probability, targets)["total"], Dice()(output, targets)["total"]
    )


def test_the_squared_error_compares_a_tanh_with_minus_1_and_1():
    output = torch.tensor([-1.0, 0.0, 1.0, 1.0]).reshape(1, 1, 1, 2, 2)
    mask = torch.tensor([0.0, 0.0, 1.0, 0.0]).reshape(1, 1, 1, 2, 2)
    loss = SquaredError(values=(-1.0, 1.0))(output, {"mask": mask})["total"]
    assert loss.item() == (0 + 1 + 0 + 4) / 4
    loss = SquaredError("label")(output, {"label": mask})["total"]
    assert loss.item() == (1 + 0 + 0 + 1) / 4


EVERY = (
    CrossEntropy(lesion_weight=3.0),
    TopKCrossEntropy(1.0),
    Focal(),
    Dice(),
    Dice(background=True, squared=True),
    GeneralizedDice(),
    SquaredError(),
    FOCAL_AND_DICE,
    DeepSupervision(FOCAL_AND_DICE),
)


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_sample_weights_multiply_the_cost_of_each_sample(loss, logits_and_mask):
    output, targets = logits_and_mask
    alone = [
        loss(output[n : n + 1], {"mask": targets["mask"][n : n + 1]})["total"] for n in range(2)
    ]
    weighted = loss(output, {**targets, "sample_weight": torch.tensor([1.0, 1 / 3])})["total"]
    torch.testing.assert_close(weighted, (alone[0] + alone[1] / 3) / 2)


@pytest.mark.parametrize("loss", [*EVERY, Dice(over="batch")], ids=repr)
def test_sample_weights_of_1_change_nothing(loss, logits_and_mask):
    output, targets = logits_and_mask
    weighted = loss(output, {**targets, "sample_weight": torch.ones(2)})["total"]
    torch.testing.assert_close(weighted, loss(output, targets)["total"])


def test_a_sample_of_weight_0_leaves_the_dice_of_a_batch():
    output, targets = _waves()
    loss = Dice(over="batch")
    weighted = loss(output, {**targets, "sample_weight": torch.tensor([1.0, 0.0])})["total"]
    first = {name: target[:1] for name, target in targets.items()}
    torch.testing.assert_close(weighted, loss(output[:1], first)["total"])


def test_sample_weights_multiply_every_part_of_the_instance_loss():
    output, targets = _waves()
    parts = InstanceLoss()(output, targets)
    halved = InstanceLoss()(output, {**targets, "sample_weight": torch.tensor([0.5, 0.5])})
    for name, value in parts.items():
        torch.testing.assert_close(halved[name], value / 2)


@pytest.mark.parametrize("loss", EVERY, ids=repr)
def test_a_smaller_output_is_compared_with_the_middle_of_its_targets(loss, logits_and_mask):
    output, targets = logits_and_mask
    small = output[:, :, 1:3, 1:4, 2:4]
    middle = {"mask": targets["mask"][:, :, 1:3, 1:4, 2:4]}
    torch.testing.assert_close(loss(small, targets)["total"], loss(small, middle)["total"])


def test_the_instance_loss_takes_the_middle_of_every_target():
    output, targets = _waves()
    inner = (..., slice(1, 2), slice(1, 3), slice(1, 4))
    parts = InstanceLoss()(output[inner], targets)
    expected = InstanceLoss()(output[inner], {name: t[inner] for name, t in targets.items()})
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)


def test_the_middle_slice_of_three_is_kept():
    stack = torch.arange(3.0).expand(1, 1, 4, 4, 3)
    np.testing.assert_array_equal(center_crop_to(stack, (4, 4, 1)), torch.ones(1, 1, 4, 4, 1))


@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    left_out=st.tuples(*[st.integers(0, 4)] * 3),
)
def test_a_center_crop_leaves_as_much_out_on_either_side(shape, left_out):
    large = tuple(n + o for n, o in zip(shape, left_out, strict=True))
    index = torch.stack(torch.meshgrid(*map(torch.arange, large), indexing="ij"))[None]
    cropped = center_crop_to(index, shape)
    assert cropped.shape[2:] == shape
    for axis in range(3):
        before = int(cropped[0, axis].min())
        after = large[axis] - 1 - int(cropped[0, axis].max())
        assert after - before in (0, 1)


@pytest.mark.parametrize("size", [(3, 5, 4), (4, 4)])
def test_a_target_that_is_too_small_is_an_error(size):
    with pytest.raises(ValueError, match=r"a target of only \(4, 4, 4\)"):
        center_crop_to(torch.zeros(1, 1, 4, 4, 4), size)


def test_deep_supervision_leaves_other_entries_of_a_batch_alone(logits_and_mask):
    output, targets = logits_and_mask
    half = output[..., ::2, ::2, ::2]
    loss = DeepSupervision(Dice(), weights=(1.0, 0.5))
    batch = {**targets, "spacing_mm": torch.ones(2, 3), "image": output}
    torch.testing.assert_close(
        loss((output, half), batch)["total"], loss((output, half), targets)["total"]
    )


def test_each_channel_is_compared_with_its_own_mask():
    output = torch.rand(2, 3, 4, 4, 4)
    mask = (torch.rand(2, 3, 4, 4, 4) > 0.5).float()
    one = Dice(activated=True)
    parts = PerChannel(one)(output, {"mask": mask})
    each = [one(output[:, n : n + 1], {"mask": mask[:, n : n + 1]})["total"] for n in range(3)]
    torch.testing.assert_close(parts["total"], sum(each) / 3)
    torch.testing.assert_close(parts["first"], each[0])


def test_another_number_of_masks_than_of_channels_is_refused():
    with pytest.raises(ValueError, match="3 channels, 2 masks"):
        PerChannel(Dice(activated=True))(
            torch.rand(1, 3, 2, 2, 2), {"mask": torch.rand(1, 2, 2, 2, 2)}
        )
