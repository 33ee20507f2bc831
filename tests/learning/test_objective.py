"""Objectives that choose what is learned from."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lesionwise.learning.losses import Dice, SquaredError
from lesionwise.learning.objective import HardExamples, Supervised
from lesionwise.learning.samples import Sample
from lesionwise.learning.targets import SoftMasks


class Constant(nn.Module):
    """The image times a weight, and what it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.asked = []

    def forward(self, image):
        self.asked.append(image.detach().clone())
        return self.weight * image


@dataclass(frozen=True)
class Distance:
    """The mean distance of output and mask."""

    def __call__(self, output, targets):
        return {"total": (output - targets["mask"]).abs().mean()}


RULE = HardExamples(Supervised(SoftMasks(), Distance()), fraction=0.25)


def batch_of(errors):
    image = torch.zeros(len(errors), 1, 2, 2, 2)
    mask = torch.tensor(errors).reshape(-1, 1, 1, 1, 1).expand_as(image)
    return {"image": image + torch.arange(float(len(errors))).reshape(-1, 1, 1, 1, 1) * 1e-3,
            "mask": mask.clone()}  # fmt: skip


def learned(network):
    """Numbers of the samples that the network saw."""
    return (network.asked[-1][:, 0, 0, 0, 0] * 1e3).round().int().tolist()


def test_the_worst_quarter_by_the_judge_is_learned_from():
    network, judge = Constant(), Constant()
    losses = RULE(network, {"judge": judge}, batch_of([0.1, 0.9, 0.3, 0.2, 0.8, 0.0, 0.4, 0.5]))
    assert learned(network) == [1, 4]
    torch.testing.assert_close(losses["total"].detach(), torch.tensor((0.899 + 0.796) / 2))


class Rounded(Distance):
    def __call__(self, output, targets):
        return {"total": (output - targets["mask"]).abs().mean().round(decimals=3)}


def test_of_equal_samples_the_first_count():
    network, batch = Constant(), batch_of([0.5] * 8)
    batch["mask"] = batch["image"] + 0.5
    HardExamples(Supervised(SoftMasks(), Rounded()), 0.25)(network, {"judge": Constant()}, batch)
    assert learned(network) == [0, 1]


def test_no_gradient_reaches_the_judge_and_it_never_sees_more_than_is_learned():
    network, judge = Constant(), Constant()
    losses = RULE(network, {"judge": judge}, batch_of([0.1, 0.9, 0.3, 0.2, 0.8, 0.0, 0.4, 0.5]))
    losses["total"].backward()
    assert network.weight.grad is not None
    assert judge.weight.grad is None
    assert [len(image) for image in judge.asked] == [2, 2, 2, 2]
    assert not losses["judged"].requires_grad


def test_a_batch_of_one_is_learned_from():
    network = Constant()
    RULE(network, {"judge": Constant()}, batch_of([0.3]))
    assert len(network.asked[-1]) == 1


def test_the_judge_and_not_the_network_decides():
    network, judge = Constant(), Constant()
    with torch.no_grad():
        judge.weight.fill_(-1.0)
    batch = batch_of([0.0] * 4)
    batch["image"] = (
        torch.tensor([0.1, 0.2, 0.9, 0.3]).reshape(-1, 1, 1, 1, 1).expand(4, 1, 2, 2, 2)
    )
    batch["mask"] = batch["image"].clone()  # the network itself makes no error
    RULE(network, {"judge": judge}, batch)
    assert network.asked[-1][0, 0, 0, 0, 0].item() == np.float32(0.9)


def test_targets_are_those_of_the_supervised_objective():
    image = np.zeros((1, 2, 2, 2), np.float32)
    instances = np.ones((2, 2, 2), np.int32)
    made = RULE.make(Sample(image, instances, {}, (1.0, 1.0, 1.0)))
    assert made["mask"].sum() == 8
    assert RULE.targets == SoftMasks()


@dataclass(frozen=True)
class Nearness:
    """The smallest where ``Distance`` is largest."""

    def __call__(self, output, targets):
        return {"total": -(output - targets["mask"]).abs().mean()}


def test_an_error_of_its_own_ranks_the_samples():
    network = Constant()
    rule = HardExamples(Supervised(SoftMasks(), Distance()), fraction=0.25, error=Nearness())
    rule(network, {"judge": Constant()}, batch_of([0.1, 0.9, 0.3, 0.2, 0.8, 0.0, 0.4, 0.5]))
    assert learned(network) == [5, 0]


def test_missed_lesions_rank_above_faint_false_ones_by_the_squared_error():
    # eight voxels of 512 missed; all others nearly right in either sample
    found = torch.full((2, 1, 8, 8, 8), 0.02)
    mask = torch.zeros_like(found)
    mask[1, 0, :2, :2, :2] = 1
    dice = Dice(activated=True)
    by_dice = [float(dice(found[n : n + 1], {"mask": mask[n : n + 1]})["total"]) for n in (0, 1)]
    by_square = [
        float(SquaredError()(found[n : n + 1], {"mask": mask[n : n + 1]})["total"]) for n in (0, 1)
    ]
    assert by_dice[0] > by_dice[1]
    assert by_square[1] > by_square[0]
