"""What tests of recipes ask of a published network: its shapes, its weights, one step."""

import resource

import torch

from lesionwise.learning.objective import Objective


def parameters(method):
    """Weights of a method's network."""
    return sum(p.numel() for p in method.network().parameters())


def shape_of_output(method, size=None, batch=1):
    """Of the published network on its published patch, without any memory."""
    channels = 2 * len(method.scans)
    with torch.device("meta"):
        network = method.network().eval()
        image = torch.empty((batch, channels, *(size or method.samples.size_vox)))
        with torch.no_grad():
            return tuple(network(image).shape)


def one_step(method, size, batch, targets):
    """The losses of one forward and backward pass, and the peak of the process in GiB."""
    torch.manual_seed(0)
    network = method.network().train()
    parts = {part.name: part.build(network) for part in method.parts}
    image = torch.randn((batch, 2 * len(method.scans), *size))
    objective: Objective = method.objective
    losses = objective(network, parts, {"image": image, **targets})
    losses["total"].backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {name: float(value.detach()) for name, value in losses.items()}, peak
