"""Networks of the rows B28 and B29."""

import itertools

import pytest
import torch

from lesionwise.networks.joint_registration import FieldUNet, JointRegistrationUNet
from lesionwise.networks.ncr_net import NcrNet, SeparateInputsUNet
from lesionwise.networks.warp import warp

NETWORKS = {
    "ncr": (lambda: NcrNet((4, 8)), 2, 4, 3),
    "separate": (lambda: SeparateInputsUNet(4, 2, (4, 8), own=2), 4, 2, 3),
    "joint": (lambda: JointRegistrationUNet((4, 8), (4, 4), (4, 4, 4)), 2, 5, 16),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_have_the_size_of_the_patch_and_of_stacks_the_middle_slice_is_predicted(name):
    make, channels, out, slices = NETWORKS[name]
    network = make()
    image = torch.randn(2, channels, 16, 32, slices)
    assert network.train()(image).shape == (2, out, 16, 32, slices)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        predicted = network.eval()(image)
    assert predicted.shape == (2, out, 16, 32, 1 if slices == 3 else slices)
    assert predicted.dtype == torch.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_has_a_gradient(name):
    make, channels, _, slices = NETWORKS[name]
    network = make().train()
    network(torch.randn(2, channels, 16, 16, slices)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("make", [lambda: NcrNet((4, 8)), lambda: FieldUNet((4, 4), (4, 4, 4))])
def test_it_begins_with_next_to_no_displacement(make):
    field = make().eval()(torch.randn(1, 2, 16, 16, 4))[:, -3:]
    assert float(field.detach().abs().max()) < 0.01


def test_the_published_networks_on_their_patches():
    with torch.device("meta"):
        stack = torch.empty(5, 4, 384, 384, 3)
        assert NcrNet().train()(stack[:, :2]).shape == (5, 4, 384, 384, 3)
        assert SeparateInputsUNet(4, 2).train()(stack).shape == (5, 2, 384, 384, 3)
        joint = JointRegistrationUNet()
        assert joint(torch.empty(4, 2, 32, 32, 32)).shape == (4, 5, 32, 32, 32)
    down, up = (2, 16, 32, 32, 32), ((32, 32), (64, 32), (64, 32), (48, 32))
    counted = sum(27 * a * b + b for a, b in itertools.pairwise(down))
    counted += sum(27 * a * b + b for a, b in (*up, (34, 32), (32, 16), (16, 16)))
    counted += 16 * 3 + 3
    assert sum(p.numel() for p in joint.registration.parameters()) == counted


def test_the_second_network_has_the_parameters_of_cicek():
    # Çiçek et al.: 19 069 955 with three channels in and out. Theirs doubles sides along three axes
    # in upsampling, ours along two; their convolutions but those have a bias, ours normalization.
    with torch.device("meta"):
        network = SeparateInputsUNet(4, 2, own=16)
    first, *others = (m for m in network.encoder.modules() if isinstance(m, torch.nn.Conv3d))
    others += [m for m in network.decoder.modules() if isinstance(m, torch.nn.Conv3d)]
    theirs = 27 * 3 * first.out_channels + 64 * 3 + 3
    theirs += sum(m.weight.numel() for m in others)
    theirs += sum(m.out_channels for m in (first, *others))
    theirs += sum(2 * m.weight.numel() for m in network.decoder.rise)
    assert theirs == 19_069_955


def test_a_shift_is_learned_in_its_direction():
    torch.manual_seed(0)
    where = torch.stack(torch.meshgrid(*[torch.arange(16.0)] * 3, indexing="ij"))

    def ball(i):
        middle = torch.tensor([i, 8.0, 8.0]).reshape(3, 1, 1, 1)
        return torch.exp(-((where - middle) ** 2).sum(0) / 18)[None, None]

    first, second = ball(9.5), ball(8.0)  # what lies at 8 now lay at 9.5
    network = FieldUNet((8, 8), (8, 8, 8))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    pair = torch.cat([first, second], dim=1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (warp(first, network(pair)) - second).square().mean()
        loss.backward()
        optimizer.step()
    field = network(pair)[0, :, 6:11, 6:11, 6:11].mean(dim=(1, 2, 3))
    before = float((first - second).square().mean())
    assert float(loss) < 0.2 * before
    assert 0.8 < float(field[0]) < 2.2
