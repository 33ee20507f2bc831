"""Gradients in bfloat16 are those in float32, also of the smallest volumes."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from lesionwise.learning.exact_gradients import ExactConv3d, with_exact_gradients
from lesionwise.networks.blocks import Head


def gradient_of(conv, image, use_bf16):
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
        output = conv(image)
    output.float().square().sum().backward()
    return conv.weight.grad.clone()


@pytest.mark.parametrize(
    "shape", [(2, 2, 2), (2, 8, 8), (8, 8, 2), (1, 4, 1), (3, 3, 3), (4, 1, 2)]
)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [8, 64])
def test_the_gradient_of_weights_is_that_in_float32(shape, stride, channels):
    torch.manual_seed(0)
    conv = nn.Conv3d(channels, channels, kernel_size=3, stride=stride, padding=1)
    with_exact_gradients(conv)
    image = torch.randn(2, channels, *shape)
    expected = gradient_of(conv, image, use_bf16=False)
    found = gradient_of(conv, image, use_bf16=True)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_only_what_is_smaller_than_the_kernel_is_computed_in_float32():
    conv = ExactConv3d(1, 1, kernel_size=3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(torch.zeros(1, 1, 3, 3, 3)).dtype == torch.bfloat16
        assert conv(torch.zeros(1, 1, 3, 2, 3)).dtype == torch.float32


def test_weights_names_and_results_stay():
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), Head(2, 1))
    before, image = deepcopy(network), torch.randn(1, 1, 4, 4, 4)
    with_exact_gradients(network)
    assert [type(m) for m in network] == [ExactConv3d, nn.ReLU, Head]
    assert list(network.state_dict()) == list(before.state_dict())
    torch.testing.assert_close(network(image), before(image), rtol=0, atol=0)
    assert type(deepcopy(network)[0]) is ExactConv3d
