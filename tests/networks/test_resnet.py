"""The residual network that judges patches."""

import torch

from lesionwise.networks.resnet import ResidualBlock, ResNet


def test_a_patch_gets_one_answer():
    network = ResNet(2, 2, features=(2, 3, 4, 5), blocks=(1, 1, 1, 1))
    for size in ((16, 16, 16), (32, 20, 17)):
        assert network(torch.randn(2, 2, *size)).shape == (2, 2, 1, 1, 1)


def test_the_published_network_has_eighteen_layers_and_sees_a_patch_on_the_meta_device():
    with torch.device("meta"):
        network = ResNet(2, 2)
        assert network(torch.zeros(16, 2, 32, 32, 32)).shape == (16, 2, 1, 1, 1)
    convolutions = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv3d) and "shortcut" not in name
    ]
    assert len(convolutions) == 18  # the head takes the place of the fully connected layer
    widths = [block.body[0].out_channels for block in network.stages]
    assert widths == [64, 64, 128, 128, 256, 256, 512, 512]


def test_a_block_adds_what_it_was_given():
    block = ResidualBlock(3, 3, stride=1).eval()
    torch.nn.init.zeros_(block.body[3].weight)
    x = torch.randn(1, 3, 4, 4, 4)
    torch.testing.assert_close(block(x), x.relu())


def test_a_block_that_halves_the_patch_projects_what_it_was_given():
    block = ResidualBlock(3, 6, stride=2)
    assert block(torch.randn(2, 3, 8, 8, 8)).shape == (2, 6, 4, 4, 4)


def test_a_patch_passes_forward_and_backward():
    network = ResNet(1, 2, features=(2, 3, 4, 5))
    network(torch.randn(2, 1, 16, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
