"""The rows on planes: a step of the published network on a published patch, and shapes of batches.

One core, float32, one sample: ``python -m pytest -m "" tests/recipes/test_plane_rows.py -k step``.
Peak memory of the process: sc-unet 0.7 GiB, tiramisu-25d 0.8, deepscan 0.9, triplanar-unet 1.1;
att-res-unet-triplane on its slice of 512 x 512 was not measured.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.inference.window import SlidingWindow, call_network
from lesionwise.methods.network import NetworkMethod, NetworkPredictor
from lesionwise.networks.blocks import init_head_bias
from lesionwise.run.recipes import find_recipe
from lesionwise.types import Grid, InputError, Study, Visit, Volume, all_methods

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
    init_head_bias(network, method.objective.targets.initial_logits)
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


def small(row):
    """The row's last network, reduced, on windows of 32 pixels, with weights that say something."""
    method = networks(f"{row}:reduced")[-1]
    size = (32, 32, method.samples.size_vox[2])
    torch.manual_seed(1)
    network = method.network().eval()
    window = SlidingWindow(overlap=0.25, windows_per_batch=5, precision="float32")
    method = replace(
        method,
        samples=replace(method.samples, size_vox=size),
        inference=replace(method.inference, window=window, size_vox=None),
    )
    return method, network, window


def predictor(row, infer=None):
    method, network, window = small(row)
    made = None if infer is None else infer(network)
    device = torch.device("cpu")
    return NetworkPredictor(method, method.objective.targets, network, device, window, infer=made)


def scanned(shape, spacing_mm):
    """Two visits of noise with every scan that any of the rows reads."""
    grid = Grid(shape, np.diag([*spacing_mm, 1.0]))
    visits = []
    for number in range(2):
        image = np.random.default_rng(number).standard_normal(shape).astype(np.float32)
        names = ("flair", "attention", "lesion_probability")
        visits.append(Visit({name: Volume(image, grid) for name in names}))
    return Study("07", tuple(visits))


@pytest.mark.parametrize("row", [*FAST, *SLOW])
@pytest.mark.parametrize("thick", [0, 1, 2])
def test_scans_with_thick_slices_along_any_axis_are_predicted(row, thick):
    shape, spacing = [20, 22, 24], [1.0, 1.0, 1.0]
    shape[thick], spacing[thick] = 4, 6.0
    maps = predictor(row)(scanned(tuple(shape), spacing))
    assert maps.probability.shape == tuple(shape)
    assert maps.grid.spacing_mm == pytest.approx(tuple(spacing))
    assert 0 <= float(maps.probability.min()) <= float(maps.probability.max()) <= 1


@pytest.mark.parametrize("row", [*FAST, *SLOW])
def test_a_scan_of_one_slice_is_refused_in_one_line(row):
    with pytest.raises(InputError, match=r"^sub-07: only one slice along k") as fault:
        predictor(row)(scanned((20, 22, 1), (1.0, 1.0, 5.0)))
    assert "\n" not in str(fault.value)


@pytest.mark.skipif(not has_openvino(), reason="OpenVINO is not installed")
@pytest.mark.parametrize("row", [*FAST, *SLOW])
def test_openvino_says_what_torch_says(row):
    study = scanned((9, 20, 24), (1.0, 1.0, 1.0))
    plain = predictor(row)(study)
    fast = predictor(row, lambda network: OpenVinoNetwork(network, use_bf16=False))(study)
    differ = np.abs(plain.probability - fast.probability)
    # votes may tip where a plane's probability is at the threshold
    assert float(np.quantile(differ, 0.999)) < 1e-3
