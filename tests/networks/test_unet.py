"""The plain U-Net."""

import pytest
import torch

from lesionwise.networks.blocks import Head, init_head_bias
from lesionwise.networks.unet import UNet


def test_the_output_has_the_input_size_and_six_channels():
    network = UNet(1, 6, features=(4, 8, 16)).eval()
    assert network(torch.zeros(2, 1, 8, 12, 16)).shape == (2, 6, 8, 12, 16)


def test_it_has_as_many_levels_as_widths():
    network = UNet(2, 2, features=(4, 8))
    assert len(network.down) == 2
    assert len(network.up) == 1
    assert network(torch.zeros(1, 2, 6, 6, 6)).shape == (1, 2, 6, 6, 6)


def test_the_published_widths_have_so_many_parameters():
    # Çiçek et al. (2016), section 2: "19069955 parameters in total", three channels in and out
    count = sum(p.numel() for p in UNet(3, 3).parameters())
    assert count == pytest.approx(19_069_955, rel=5e-4)


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("widening", ["first", "second"])
def test_every_kind_of_it_keeps_the_size(norm, widening):
    network = UNet(1, 2, features=(4, 8, 16), norm=norm, widening=widening).eval()
    assert network(torch.zeros(1, 1, 8, 12, 16)).shape == (1, 2, 8, 12, 16)


def test_every_voxel_near_the_middle_sees_its_neighbors():
    network = UNet(1, 1, features=(4, 8, 16)).eval()
    image = torch.randn(1, 1, 32, 32, 32, requires_grad=True)
    network(image)[0, 0, 16, 16, 16].backward()
    assert image.grad is not None
    assert (image.grad[0, 0, 16, 16, :].abs() > 0).sum() > 15


def test_the_head_computes_in_float32_under_autocast():
    head = Head(4, 2)
    features = torch.randn(1, 4, 2, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        seen = head(features)
    assert seen.dtype == torch.float32
    torch.testing.assert_close(seen, head(features))


def test_a_size_that_cannot_be_halved_is_refused():
    with pytest.raises(RuntimeError):
        UNet(1, 2, features=(4, 8, 16))(torch.zeros(2, 1, 10, 10, 10))


def test_a_network_starts_from_the_guess_it_was_given():
    network = UNet(1, 2, features=(4, 8))
    init_head_bias(network, (2.0, -2.0))
    assert network.head.bias.tolist() == [2.0, -2.0]
    init_head_bias(network, (1.0, 1.0, 1.0))  # of another head: nothing to set
    assert network.head.bias.tolist() == [2.0, -2.0]
