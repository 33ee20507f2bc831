"""A 2D network behind five axes: order of channels, shapes, tuples, conditions."""

import pytest
import torch
from torch import nn

from lesionwise.inference.window import call_network
from lesionwise.networks.blocks import Head, init_head_bias
from lesionwise.networks.planes import InPlane


def test_channels_are_all_slices_of_one_scan_and_then_of_the_next():
    seen = []

    def record(slices):
        seen.append(slices)
        return slices[:, :1]

    module = nn.Identity()
    module.forward = record
    scans, count = 2, 3
    image = torch.arange(scans * count).float().reshape(1, scans, 1, 1, count)
    image = image.expand(4, scans, 5, 6, count)
    output = InPlane(module)(image)
    assert seen[0].shape == (4, 6, 5, 6)
    assert seen[0][0, :, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert output.shape == (4, 1, 5, 6, 1)


def test_a_slice_is_what_the_2d_network_makes_of_it():
    torch.manual_seed(0)
    body = nn.Conv2d(2, 3, 3, padding=1)
    image = torch.rand(2, 2, 6, 7, 1)
    torch.testing.assert_close(InPlane(body)(image)[..., 0], body(image[..., 0]))


def test_outputs_of_several_resolutions_stay_a_tuple():
    class Two(nn.Module):
        def forward(self, x):
            return x, nn.functional.avg_pool2d(x, 2)

    full, half = InPlane(Two())(torch.rand(1, 1, 8, 8, 1))
    assert full.shape == (1, 1, 8, 8, 1)
    assert half.shape == (1, 1, 4, 4, 1)


@pytest.mark.parametrize("last", ["plane", "head"])
def test_the_output_is_float32(last):
    network = nn.Sequential(InPlane(nn.Conv2d(3, 4, 3)), Head(4, 2))
    with torch.autocast("cpu", torch.bfloat16):
        output = (network if last == "head" else network[0])(torch.rand(1, 1, 8, 8, 3))
    assert output.dtype == torch.float32


def test_a_head_after_it_takes_initial_values_and_everything_learns():
    network = nn.Sequential(InPlane(nn.Conv2d(3, 4, 3, padding=1)), Head(4, 2))
    init_head_bias(network, (2.0, -2.0))
    assert network[1].bias.tolist() == [2.0, -2.0]
    network(torch.rand(1, 1, 8, 8, 3)).square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_conditions_reach_the_2d_network():
    class Scaled(nn.Module):
        conditions = ("spacing_mm",)

        def forward(self, x, spacing_mm):
            return x * spacing_mm[:, 2].view(-1, 1, 1, 1)

    network = InPlane(Scaled())
    assert network.conditions == ("spacing_mm",)
    spacing = {"spacing_mm": torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 5.0]])}
    output = call_network(network, torch.ones(2, 1, 4, 4, 1), spacing)
    assert output.amax((1, 2, 3, 4)).tolist() == [3.0, 5.0]
