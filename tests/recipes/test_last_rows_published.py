"""The published networks of B8, B9, B22, B27, B28 and B29 learn one step on the published patch.

Where that asks for more than 16 GiB the batch or the patch is smaller, as it says beside it.
"""

import numpy as np
import pytest
import torch
from torch import nn

from lesionwise.learning.samples import Sample
from lesionwise.methods.registered import AddRegistered
from lesionwise.run.recipes import find_recipe

pytestmark = pytest.mark.slow


def batch_of(objective, channels, size, batch):
    """Noise with one lesion in the middle, and the objective's targets."""
    torch.manual_seed(0)
    instances = np.zeros(size, np.int32)
    instances[tuple(slice(n // 3, n // 3 + max(1, n // 4)) for n in size)] = 1
    image = torch.randn(batch, channels, *size)
    sample = Sample(image[0].numpy(), instances, {}, (1.0, 1.0, 1.0))
    made = {
        name: torch.from_numpy(array)[None].expand(batch, *array.shape)
        for name, array in objective.make(sample).items()
    }
    return {"image": image, "spacing_mm": torch.ones(batch, 3), **made}


def one_step(method, objective, batch, parts):
    """Every weight gets a finite gradient."""
    network = method.network().train()
    losses = objective(network, parts, batch)
    losses["total"].backward()
    assert torch.isfinite(losses["total"])
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


def frozen(method):
    return {part.name: part.build(nn.Identity()).eval() for part in method.parts}


def test_b8_on_its_patch_with_its_critic():
    method = find_recipe("lesionwise-metric").method
    batch = batch_of(method.objective, 2, (64, 64, 64), method.samples.batch_size)
    one_step(method, method.objective, batch, frozen(method))


def test_b9_on_a_pair_that_is_painted():
    method = find_recipe("synthetic-new-lesions").method
    objective = method.objective.of("synthetic-1")
    batch = batch_of(objective, 2, (64, 64, 64), 1)
    lesion = batch["mask"][:, 0]
    empty = torch.zeros_like(lesion)
    batch |= {
        "remove": torch.stack([lesion, empty], dim=1),
        "add": torch.stack([empty, lesion], dim=1),
        "noise": torch.randn(1, 1, 64, 64, 64),
    }
    one_step(method, objective, batch, frozen(method))


def test_b22_on_one_patch_of_96():  # two of 128 do not fit
    method = find_recipe("rater-consensus").method.methods[0]
    batch = batch_of(method.objective, 6, (96, 96, 96), 1)
    one_step(method, method.objective, batch, {})


def test_b28_on_one_stack():  # five do not fit
    recipe = find_recipe("ncr-net")
    (step,) = (step for step in recipe.preprocess if isinstance(step, AddRegistered))
    for method, channels in ((step.method, 2), (recipe.method, 4)):
        batch = batch_of(method.objective, channels, (384, 384, 3), 1)
        one_step(method, method.objective, batch, {})


def test_b29_on_its_patch():
    method = find_recipe("joint-registration").method
    batch = batch_of(method.objective, 2, (32, 32, 32), method.samples.batch_size)
    one_step(method, method.objective, batch, {})
