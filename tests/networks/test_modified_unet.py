"""The modified 3D U-Net: its output, its gates, its dropout."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.inference.views import dropout_on
from lesionwise.networks.attention import AttentionGate
from lesionwise.networks.mined_unet import MinedUNet
from lesionwise.networks.modified_unet import ModifiedUNet, NormalizedReLU

SMALL = {"features": (4, 8, 12)}


def test_the_normalized_relu_is_between_0_and_1_and_each_sample_reaches_1():
    x = torch.randn(3, 1, 4, 4, 4) * torch.tensor([0.01, 1.0, 50.0]).reshape(3, 1, 1, 1, 1)
    out = NormalizedReLU()(x)
    assert out.min() == 0
    torch.testing.assert_close(out.amax(dim=(1, 2, 3, 4)), torch.ones(3))
    torch.testing.assert_close(out[:1], NormalizedReLU()(x[:1]))  # whatever else is in the batch


def test_without_a_positive_value_all_is_0_and_gradients_pass():
    x = torch.rand(2, 1, 2, 2, 2) * torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1, 1)
    x.requires_grad_()
    out = NormalizedReLU()(x)
    assert not out[0].any()
    assert out[1].max() == 1
    weights = torch.randn(2, 1, 2, 2, 2)
    (out * weights).sum().backward()
    torch.testing.assert_close(x.grad[0], weights[0])
    assert not torch.equal(x.grad[1], weights[1])


@given(st.floats(1e-3, 1e3))
def test_scaling_changes_nothing(factor):
    x = torch.randn(1, 1, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(NormalizedReLU()(factor * x), NormalizedReLU()(x))


@pytest.mark.parametrize("attention", [False, True])
def test_the_size_stays_and_the_answer_is_float32_between_0_and_1(attention):
    network = ModifiedUNet(2, attention=attention, **SMALL).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(1, 2, 8, 12, 16))
    assert output.shape == (1, 1, 8, 12, 16)
    assert output.dtype == torch.float32
    assert 0 <= output.min() <= output.max() <= 1


def test_brightness_and_contrast_of_a_patch_do_not_matter():
    network = ModifiedUNet(1, **SMALL).eval()
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            network(image), network(300 * image + 1000), atol=1e-3, rtol=1e-3
        )


def test_four_downsamplings_are_strided_and_upsamplings_nearest():
    modules = list(ModifiedUNet(2).modules())
    strided = [m for m in modules if isinstance(m, torch.nn.Conv3d) and m.stride == (2, 2, 2)]
    grown = [m for m in modules if isinstance(m, torch.nn.Upsample)]
    assert len(strided) == len(grown) == 4
    assert {m.mode for m in grown} == {"nearest"}
    assert not any(isinstance(m, torch.nn.MaxPool3d | torch.nn.ConvTranspose3d) for m in modules)


def test_gates_lie_on_every_skip_but_the_first():
    gates = [m for m in ModifiedUNet(2, attention=True).modules() if isinstance(m, AttentionGate)]
    assert [gate.skip_map.in_channels for gate in gates] == [128, 64, 32]


@pytest.mark.parametrize(
    "network", [ModifiedUNet(2, attention=True, dropout=0.2, **SMALL), MinedUNet(2, groups=4)]
)
def test_every_weight_has_a_gradient(network):
    network.train()(torch.randn(2, 2, 16, 16, 16)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_dropout_can_be_left_on():
    network = ModifiedUNet(1, dropout=0.5, **SMALL).eval()
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(image))
        with dropout_on(network):
            assert not torch.equal(network(image), network(image))


def test_the_mined_network_answers_with_a_probability_in_float32():
    network = MinedUNet(2).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(1, 2, 8, 12, 16))
    assert output.shape == (1, 1, 8, 12, 16)
    assert output.dtype == torch.float32
    assert 0 < output.min() < output.max() < 1
