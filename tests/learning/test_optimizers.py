"""Each optimizer is built as it says."""

import pytest
import torch
from torch import nn

from lesionwise.learning.optimizers import Adam, AdamW, RmsProp, Sgd


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))


@pytest.mark.parametrize(
    ("optimizer", "kind", "defaults"),
    [
        (AdamW(), torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        (Adam(betas=(0.5, 0.999)), torch.optim.Adam, {"betas": (0.5, 0.999)}),
        (Sgd(momentum=0.99, nesterov=True), torch.optim.SGD, {"momentum": 0.99, "nesterov": True}),
        (Sgd(), torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
    ],
    ids=repr,
)
def test_settings_arrive(network, optimizer, kind, defaults):
    built = optimizer.build(network, learning_rate=0.1, weight_decay=0.01)
    assert type(built) is kind
    (group,) = built.param_groups
    assert len(group["params"]) == 4
    for name, value in {"lr": 0.1, "weight_decay": 0.01, **defaults}.items():
        assert group[name] == value


def test_kernels_alone_decay(network):
    built = AdamW(decays="kernels").build(network, learning_rate=0.1, weight_decay=0.01)
    decays = {id(p): g["weight_decay"] for g in built.param_groups for p in g["params"]}
    assert decays[id(network[0].weight)] == 0.01
    assert decays[id(network[0].bias)] == 0
    assert decays[id(network[1].weight)] == 0
    assert len(decays) == 4


def test_rmsprop_takes_its_settings(network):
    built = RmsProp(decay=0.9, momentum=0.6, epsilon=1e-4).build(network, 0.1, 0.01)
    assert type(built) is torch.optim.RMSprop
    (group,) = built.param_groups
    wanted = {"lr": 0.1, "alpha": 0.9, "momentum": 0.6, "eps": 1e-4, "weight_decay": 0.01}
    assert {name: group[name] for name in wanted} == wanted
