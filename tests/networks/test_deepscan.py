"""The 3D-to-2D network."""

import pytest
import torch

from lesionwise.networks.deepscan import DeepScan, DilatedDenseBlock, deepscan


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_five_slices_give_the_middle_one():
    network = deepscan(4, 2, features=6, growth=3)
    assert network(torch.zeros(3, 4, 16, 24, 5)).shape == (3, 2, 16, 24, 1)


@pytest.mark.parametrize("slices", [3, 4, 6, 9])
def test_another_number_of_slices_is_refused(slices):
    with pytest.raises((ValueError, RuntimeError)):
        deepscan(1, 2, features=4, growth=2)(torch.zeros(1, 1, 8, 8, slices))


def test_the_outermost_slices_count():
    torch.manual_seed(0)
    network = deepscan(1, 2, features=6, growth=3).eval()
    image = torch.randn(1, 1, 16, 16, 5)
    for outer in (0, 4):
        changed = image.clone()
        changed[..., outer] += torch.randn(16, 16)
        assert not torch.allclose(network(changed), network(image))


def test_a_block_keeps_its_input_first_and_its_size():
    block = DilatedDenseBlock(5, 3, (1, 2, 4, 8))
    x = torch.randn(2, 5, 20, 16)
    assert block(x).shape == (2, 5 + 4 * 3, 20, 16)
    torch.testing.assert_close(block(x)[:, :5], x)
    assert [layer[0].dilation[0] for layer in block.layers] == [1, 2, 4, 8]


def test_the_published_stack_and_its_parameters():
    with torch.device("meta"):
        network = deepscan(4, 2)
        output = network(torch.zeros(2, 4, 192, 192, 5))
        first = deepscan(3, 2)(torch.zeros(2, 3, 192, 192, 5))
    assert output.shape == first.shape == (2, 2, 192, 192, 1)

    def block(before):
        layers = sum(9 * (before + 24 * n) * 24 + 2 * 24 for n in range(4))
        return layers + (before + 4 * 24) * 48 + 48

    volume = 27 * 4 * 48 + 2 * 48 + 27 * 48 * 48 + 2 * 48
    expected = volume + 3 * block(48) + 2 * block(96) + 48 * 2 + 2
    assert parameters(network) == expected


def test_each_stack_is_seen_alone():
    network = deepscan(2, 2, features=4, growth=2)
    image = torch.randn(2, 2, 8, 8, 5)
    torch.testing.assert_close(network(image)[1:], network(image[1:]))


def test_everything_learns():
    network = DeepScan(1, features=4, growth=2)
    network(torch.randn(1, 1, 16, 16, 5)).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
