"""The attention gate: its formula, its shapes in 2D and 3D, and what it lets pass."""

import pytest
import torch
from torch.nn import functional

from lesionwise.networks.attention import AttentionGate


@pytest.mark.parametrize("dims", [2, 3])
def test_a_skip_connection_comes_back_with_its_shape(dims):
    gate = AttentionGate(6, 8, 3, dims=dims)
    skip, coarse = torch.rand(2, 6, *(8, 12, 4)[:dims]), torch.rand(2, 8, *(4, 6, 2)[:dims])
    assert gate(skip, coarse).shape == skip.shape
    assert gate.coefficients(skip, coarse).shape == (2, 1, *skip.shape[2:])


def test_all_channels_of_a_place_are_weighed_alike_by_less_than_one():
    gate = AttentionGate(4, 5, 2, dims=2)
    skip = torch.rand(1, 4, 8, 8) + 0.1
    ratio = gate(skip, torch.randn(1, 5, 4, 4)) / skip
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert bool((ratio > 0).all())
    assert bool((ratio < 1).all())


def test_at_one_resolution_it_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    gate = AttentionGate(4, 5, 3, dims=3, stride=1)
    skip, other = torch.randn(1, 4, 3, 4, 5), torch.randn(1, 5, 3, 4, 5)
    x, g = skip[0, :, 1, 2, 3], other[0, :, 1, 2, 3]
    hidden = gate.skip_map.weight.flatten(1) @ x + gate.gate_map.weight.flatten(1) @ g
    hidden = functional.relu(hidden + gate.gate_map.bias)
    expected = torch.sigmoid(gate.weigh.weight.flatten(1) @ hidden + gate.weigh.bias) * x
    torch.testing.assert_close(gate(skip, other)[0, :, 1, 2, 3], expected)


def test_a_gate_of_another_size_is_interpolated():
    gate = AttentionGate(2, 2, 1, dims=3)
    assert gate(torch.rand(1, 2, 8, 8, 8), torch.rand(1, 2, 2, 2, 2)).shape == (1, 2, 8, 8, 8)


def test_where_it_is_closed_nothing_passes():
    gate = AttentionGate(3, 3, 2, dims=2)
    with torch.no_grad():
        gate.weigh.weight.zero_()
        gate.weigh.bias.fill_(-200.0)
    assert not gate(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 2, 2)).any()


def test_skip_and_gate_both_learn():
    gate = AttentionGate(3, 4, 16, dims=2)  # of two units, both may be 0
    skip = torch.rand(1, 3, 4, 4, requires_grad=True)
    coarse = torch.rand(1, 4, 2, 2, requires_grad=True)
    gate(skip, coarse).sum().backward()
    assert skip.grad.abs().sum() > 0
    assert coarse.grad.abs().sum() > 0
