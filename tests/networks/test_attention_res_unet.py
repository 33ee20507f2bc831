"""The residual 2D U-Net with attention gates."""

import torch
from torch import nn
from torch.nn import functional

from lesionwise.networks.attention import AttentionGate
from lesionwise.networks.attention_res_unet import (
    AttentionResUNet2d,
    ResidualUnit,
    plane_attention_res_unet,
)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_a_slice_comes_back_with_its_size():
    network = plane_attention_res_unet(2, 2, features=(4, 8, 16))
    assert network(torch.zeros(3, 2, 16, 24, 1)).shape == (3, 2, 16, 24, 1)


def test_a_unit_whose_convolutions_are_silent_returns_its_projection():
    unit = ResidualUnit(2, 3, stride=2).eval()
    with torch.no_grad():
        unit.body[-1].weight.zero_()
        unit.body[-1].bias.zero_()
    x = torch.randn(2, 2, 8, 8)
    torch.testing.assert_close(unit(x), unit.projection(x[..., ::2, ::2]))


def test_a_projection_is_a_convolution_with_a_stride():
    unit = ResidualUnit(3, 4, stride=2).eval()
    x = torch.randn(2, 3, 8, 10)
    conv, norm = unit.projection
    strided = norm(functional.conv2d(x, conv.weight, conv.bias, stride=2))
    torch.testing.assert_close(unit(x) - unit.body(x), strided)


def test_the_gradient_of_narrow_channels_last_units_comes_back():
    unit = ResidualUnit(8, 16, stride=2)
    x = torch.randn(8, 8, 160, 160).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        y = unit(x)
    y.float().square().sum().backward()
    gradient = unit.projection[0].weight.grad
    unit.zero_grad()
    unit(x).square().sum().backward()
    torch.testing.assert_close(
        gradient, unit.projection[0].weight.grad, rtol=0.1, atol=0.1 * float(gradient.abs().max())
    )


def test_a_unit_leaves_its_input_as_it_is():
    x = torch.randn(1, 2, 4, 4)
    before = x.clone()
    ResidualUnit(2, 2)(x)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_every_skip_connection_has_a_gate_that_the_coarser_level_feeds():
    network = AttentionResUNet2d(2, features=(4, 8, 16))
    gates = [m for m in network.modules() if isinstance(m, AttentionGate)]
    assert [g.gate_map.in_channels for g in gates] == [16, 8]
    assert [g.skip_map.in_channels for g in gates] == [8, 4]


def test_without_gates_it_has_the_layers_of_the_deep_residual_u_net():
    # Zhang, Liu and Wang (2018), table 1: units of 64, 128, 256 and 512, then 256, 128 and 64 of
    # what comes from below and the skip connection together; three channels in, one out
    def unit(before, after, first=False):
        kernels = 9 * before * after + 9 * after * after + before * after
        return kernels + 3 * after + 4 * after + (0 if first else 2 * before)

    expected = unit(3, 64, first=True) + unit(64, 128) + unit(128, 256) + unit(256, 512)
    expected += unit(512 + 256, 256) + unit(256 + 128, 128) + unit(128 + 64, 64) + 64 + 1
    with torch.device("meta"):
        network = plane_attention_res_unet(3, 1)
    assert parameters(network) - parameters(network[0].network.gates) == expected == 8_223_809
    with torch.device("meta"):
        assert parameters(plane_attention_res_unet(2, 2)) == 8_481_733


def test_the_published_slice_comes_back_with_its_size():
    with torch.device("meta"):
        output = plane_attention_res_unet(2, 2)(torch.zeros(8, 2, 512, 512, 1))
    assert output.shape == (8, 2, 512, 512, 1)


def test_each_slice_is_seen_alone():
    network = plane_attention_res_unet(2, 2, features=(4, 8)).eval()
    image = torch.randn(2, 2, 8, 8, 1)
    torch.testing.assert_close(network(image)[1:], network(image[1:]))


def test_everything_learns():
    network = nn.Sequential(AttentionResUNet2d(1, features=(4, 8)))
    network(torch.randn(2, 1, 8, 8)).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
