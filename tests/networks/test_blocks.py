"""Parts that several networks share."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.blocks import every_nth_voxel
from lesionwise.run.recipes import find_recipe, is_reducible, recipe_names
from lesionwise.types import all_methods


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(7, 8), (4, 5, 9)])
def test_a_convolution_of_every_nth_voxel_is_one_with_that_stride(shape, stride):
    x = torch.randn(2, 3, *shape)
    weight = torch.randn(4, 3, *[1] * len(shape))
    convolve = functional.conv2d if len(shape) == 2 else functional.conv3d
    strided = convolve(x, weight, stride=stride)
    torch.testing.assert_close(convolve(every_nth_voxel(x, stride), weight), strided)


@pytest.mark.parametrize("name", recipe_names())
def test_no_network_has_a_strided_convolution_of_single_voxels(name):
    """Their gradient ends processes on CPUs, which ``every_nth_voxel`` avoids."""
    recipe = find_recipe(f"{name}:reduced" if is_reducible(name) else name)
    learned = [m for step in recipe.preprocess for m in getattr(step, "members", tuple)()]
    methods = [each for m in (recipe.method, *learned) for each in all_methods(m)]
    with torch.device("meta"):
        networks = [m.network() for m in methods if isinstance(m, NetworkMethod)]
    for module in (each for network in networks for each in network.modules()):
        if isinstance(module, nn.Conv2d | nn.Conv3d) and set(module.kernel_size) == {1}:
            assert set(module.stride) == {1}
