"""The rows on planes: a step of the published network on a published patch, and shapes of batches.

One core, float32, one sample: ``python -m pytest -m "" tests/recipes/test_plane_rows.py -k step``.
"""

import pytest
import torch

from lesionwise.inference.window import call_network
from lesionwise.methods.network import NetworkMethod
from lesionwise.networks.blocks import start_from
from lesionwise.run.recipes import find_recipe
from lesionwise.types import all_methods

FAST = ("sc-unet", "triplanar-unet", "tiramisu-25d", "deepscan")
SLOW = ("att-res-unet-triplane",)


def networks(row):
    recipe = find_recipe(row)
    return [m for m in all_methods(recipe.method) if isinstance(m, NetworkMethod)]


def channels(method, visits=2):
    """How many channels a method's network sees of two visits."""
    return sum(1 if "@" in scan else visits for scan in method.scans)


@pytest.mark.parametrize(
    "row", [*FAST, *(pytest.param(row, marks=pytest.mark.slow) for row in SLOW)]
)
def test_the_published_network_learns_a_step_on_its_published_patch(row):
    torch.manual_seed(0)
    method = networks(row)[0]
    network = method.network()
    start_from(network, method.objective.targets.first_guess)
    size = method.samples.size_vox
    image = torch.randn(1, channels(method), *size)
    mask = torch.zeros(1, 1, *size)
    middle = tuple(slice(n // 2 - n // 8, n // 2 + n // 8 + 1) for n in size)
    mask[(0, 0, *middle)] = 1.0
    image += mask
    optimizer = method.optimization.build(network)
    before = [p.detach().clone() for p in network.parameters()]
    loss = method.objective.loss(call_network(network, image), {"mask": mask})["total"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for p in network.parameters())
    assert all(bool(torch.isfinite(p.grad).all()) for p in network.parameters())
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize("row", [*FAST, *SLOW])
def test_the_published_batch_has_the_shape_that_the_targets_ask_for(row):
    for method in networks(row):
        size, batch = method.samples.size_vox, method.samples.batch_size
        with torch.device("meta"):
            network = method.network().eval()
            output = network(torch.zeros(batch, channels(method), *size))
        assert output.shape == (batch, method.objective.targets.out_channels, *size[:2], 1)
