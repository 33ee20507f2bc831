"""The networks of the two-visit rows: shapes, counts, and what each is named for."""

from functools import partial

import pytest
import torch

from lesionwise.networks.antialias_unet import AntialiasUNet, BlurredGrowth, BlurredStride, binomial
from lesionwise.networks.blocks import Head, init_head_bias
from lesionwise.networks.group_unet import GroupUNet
from lesionwise.networks.instance_unet import InstanceUNet
from lesionwise.networks.pre_unet import PreUNet
from lesionwise.networks.segresnet import seg_resnet

SMALL = {
    "pre": partial(PreUNet, features=(8, 16, 24)),
    "group": partial(GroupUNet, features=(8, 16, 24)),
    "antialias": partial(AntialiasUNet, features=(4, 4, 8)),
    "instance": partial(InstanceUNet, features=(4, 8, 12)),
    "segresnet": partial(seg_resnet, features=8, blocks=(1, 2)),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_keeps_the_size_and_answers_in_float32(name):
    network = SMALL[name](in_channels=2, out_channels=2).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(1, 2, 8, 12, 16))
    assert output.shape == (1, 2, 8, 12, 16)
    assert output.dtype == torch.float32


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_has_a_gradient(name):
    network = SMALL[name](in_channels=2, out_channels=2).train()
    output = network(torch.randn(2, 2, 8, 8, 8))
    outputs = output if isinstance(output, tuple) else (output,)
    sum(each.square().mean() for each in outputs).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []


@pytest.mark.parametrize("name", SMALL)
def test_a_first_guess_reaches_the_last_layer(name):
    network = SMALL[name](in_channels=2, out_channels=2)
    init_head_bias(network, (2.0, -2.0))
    heads = [module for module in network.modules() if isinstance(module, Head)]
    assert heads
    assert all(head.bias.tolist() == [2.0, -2.0] for head in heads)


def test_pre_unet_answers_at_three_resolutions_in_training_alone():
    network = PreUNet(2, 2, features=(8, 16, 24, 32))
    image = torch.randn(1, 2, 16, 16, 8)
    shapes = [tuple(output.shape[2:]) for output in network.train()(image)]
    assert shapes == [(16, 16, 8), (8, 8, 4), (4, 4, 2)]
    assert isinstance(network.eval()(image), torch.Tensor)


def test_pre_unet_takes_groups_of_8_channels():
    norms = [m for m in PreUNet(2, 2).modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {norm.num_channels // norm.num_groups for norm in norms} == {8}


def test_group_unet_drops_half_after_each_pooling():
    network = GroupUNet(2, 2, features=(8, 16))
    assert network.dropout.p == 0.5
    dropped = []
    network.dropout.register_forward_hook(lambda m, i, o: dropped.append((o == 0).float().mean()))
    network.train()(torch.rand(1, 2, 16, 16, 16))
    assert len(dropped) == 1
    assert dropped[0] > 0.4


def test_group_unet_normalizes_two_channels_by_two_groups():
    first = next(m for m in GroupUNet(2, 2).modules() if isinstance(m, torch.nn.GroupNorm))
    assert (first.num_groups, first.num_channels) == (2, 2)


def identity(module):
    with torch.no_grad():
        module.convolution.weight.zero_()
        module.convolution.bias.zero_()
        for channel in range(module.convolution.weight.shape[0]):
            module.convolution.weight[channel, channel, 1, 1, 1] = 1
    return module


def test_the_blur_adds_up_to_1_along_each_axis():
    assert binomial(3).shape == (3, 1, 3, 3, 3)
    torch.testing.assert_close(binomial(3).sum(dim=(1, 2, 3, 4)), torch.ones(3))
    torch.testing.assert_close(binomial(1)[0, 0, 1, 1], torch.tensor([0.25, 0.5, 0.25]) / 4)


def test_an_anti_aliased_stride_blurs_a_checkerboard_away():
    index = torch.arange(8)
    board = ((index[:, None, None] + index[None, :, None] + index[None, None, :]) % 2).float()
    seen = identity(BlurredStride(1))(board[None, None])
    assert seen.shape == (1, 1, 4, 4, 4)
    torch.testing.assert_close(seen[0, 0, 1:, 1:, 1:], torch.full((3, 3, 3), 0.5))


def test_anti_aliased_growth_interpolates_a_ramp():
    ramp = torch.arange(4.0)[:, None, None].expand(4, 2, 2)
    seen = identity(BlurredGrowth(1))(ramp[None, None])[0, 0]
    assert seen.shape == (8, 4, 4)
    torch.testing.assert_close(seen[:7, 0, 0], torch.arange(7) / 2)


def test_anti_aliased_growth_keeps_a_constant():
    seen = identity(BlurredGrowth(2))(torch.full((1, 2, 3, 3, 3), 5.0))
    torch.testing.assert_close(seen, torch.full((1, 2, 6, 6, 6), 5.0))


def test_segresnet_halves_between_its_levels():
    pytest.importorskip("monai")
    network = seg_resnet(2, 2, features=8, blocks=(4, 4))
    strides = [
        m for m in network.modules() if isinstance(m, torch.nn.Conv3d) and m.stride == (2, 2, 2)
    ]
    assert len(strides) == 1
    assert any(isinstance(m, torch.nn.BatchNorm3d) for m in network.modules())
    assert any(isinstance(m, torch.nn.ConvTranspose3d) for m in network.modules())
