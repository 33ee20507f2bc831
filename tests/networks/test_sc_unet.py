"""The U-Net of blocks with short skip connections."""

import pytest
import torch
from torch.nn import functional

from lesionwise.networks.sc_unet import ScUNet2d, SkipBlock, plane_sc_unet


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_a_slice_comes_back_with_its_size():
    network = plane_sc_unet(4, 2, features=(4, 6, 8))
    assert network(torch.zeros(3, 4, 16, 24, 1)).shape == (3, 2, 16, 24, 1)


def test_without_its_convolutions_a_block_passes_its_input_on():
    block = SkipBlock(3, 3)
    with torch.no_grad():
        block.second.weight.zero_()
        block.second.bias.zero_()
        block.skip.weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(block(x), functional.relu(x))


def test_the_published_widths_have_so_many_parameters():
    # Li et al.: 5x5 kernels in the first block, 3x3 elsewhere; 1x1 for each short skip connection
    def block(before, after, kernel=3):
        first = kernel**2 * before * after + after
        return first + kernel**2 * after * after + after + before * after

    widths = (64, 96, 128, 256, 512)
    expected = block(4, 64, 5) + sum(map(block, widths, widths[1:]))
    expected += sum(block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
    expected += 64 * 2 + 2  # the head
    with torch.device("meta"):
        network = plane_sc_unet(4, 2)
    assert parameters(network) == expected == 8_746_754


def test_the_published_patch_comes_back_with_its_size():
    with torch.device("meta"):
        output = plane_sc_unet(4, 2)(torch.zeros(30, 4, 64, 64, 1))
    assert output.shape == (30, 2, 64, 64, 1)


def test_each_slice_is_seen_alone():
    network = plane_sc_unet(2, 2, features=(4, 8)).eval()
    image = torch.randn(2, 2, 8, 8, 1)
    torch.testing.assert_close(network(image)[1:], network(image[1:]))


def test_a_side_that_cannot_be_halved_is_refused():
    with pytest.raises(RuntimeError):
        ScUNet2d(1, features=(4, 8, 16))(torch.zeros(1, 1, 10, 10))
