"""The 2D U-Net on slices."""

import pytest
import torch
from torch.nn import ConvTranspose2d

from lesionwise.networks.unet_2d import UNet2d, plane_unet


def test_a_slice_comes_back_with_its_size():
    network = plane_unet(1, 2, features=(4, 8, 16))
    assert network(torch.zeros(3, 1, 16, 24, 1)).shape == (3, 2, 16, 24, 1)


def test_the_published_widths_have_so_many_parameters():
    # Ronneberger et al. (2015): 31 031 685 with one channel in and one output channel
    count = sum(p.numel() for p in plane_unet(1, 1).parameters())
    assert count == pytest.approx(31.03e6, abs=0.01e6)


def test_deconvolutions_of_three_voxels_double_the_sides_too():
    network = plane_unet(1, 2, features=(4, 8, 16), up_kernel=3)
    assert network(torch.zeros(1, 1, 16, 24, 1)).shape == (1, 2, 16, 24, 1)
    kernels = {tuple(n.kernel_size) for n in network.modules() if isinstance(n, ConvTranspose2d)}
    assert kernels == {(3, 3)}


def test_each_slice_is_seen_alone():
    network = plane_unet(1, 2, features=(4, 8)).eval()
    image = torch.randn(2, 1, 8, 8, 1)
    torch.testing.assert_close(network(image)[1:], network(image[1:]))


def test_a_side_that_cannot_be_halved_is_refused():
    with pytest.raises(RuntimeError):
        UNet2d(1, features=(4, 8, 16))(torch.zeros(1, 1, 10, 10))
