import pytest
import torch
from torch import nn

from lesionwise.networks.film_unet import FilmNorm, FilmUNet
from lesionwise.networks.instance_unet import InstanceUNet

SPACING = torch.tensor([[1.0, 1.0, 3.0]])


def told(network, image, spacing=SPACING):
    return network(image, spacing_mm=spacing.expand(len(image), 3))


def test_the_output_has_the_size_of_the_patch_in_float32():
    network = FilmUNet(2, 2, (4, 8, 8)).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = told(network, torch.randn(1, 2, 8, 12, 16))
    assert output.shape == (1, 2, 8, 12, 16)
    assert output.dtype == torch.float32
    assert network.conditions == ("spacing_mm",)


def test_training_gives_every_resolution_but_the_coarsest_of_the_decoder():
    network = FilmUNet(1, 2, (4, 4, 4, 4)).train()
    shapes = [tuple(o.shape[2:]) for o in told(network, torch.randn(1, 1, 32, 16, 16))]
    assert shapes == [(32, 16, 16), (16, 8, 8)]


def test_the_published_network_answers_at_four_resolutions_of_the_published_patch():
    with torch.device("meta"):
        network = FilmUNet(6, 2).train()
        outputs = told(network, torch.empty(2, 6, 128, 128, 128), torch.ones(1, 3))
    assert [tuple(o.shape[2:]) for o in outputs] == [(128,) * 3, (64,) * 3, (32,) * 3, (16,) * 3]
    plain = sum(p.numel() for p in InstanceUNet(6, 2, (32, 64, 128, 256, 320, 320)).parameters())
    norms = [m for m in network.modules() if isinstance(m, FilmNorm)]
    told_of = sum(p.numel() for m in norms for p in m.modulate.parameters())
    further = sum(width * 2 + 2 for width in (64, 128, 256))  # heads of deep supervision
    assert sum(p.numel() for p in network.parameters()) == plain + told_of + further
    assert len(norms) == 2 * (6 + 5)  # every normalization


def test_before_anything_is_learned_it_is_plain_instance_normalization():
    norm = FilmNorm(4)
    x = torch.randn(2, 4, 3, 4, 5)
    torch.testing.assert_close(norm(x, torch.randn(2, 3)), nn.InstanceNorm3d(4)(x))


def test_scale_and_shift_are_the_sum_of_the_learned_and_the_told():
    norm = FilmNorm(2)
    with torch.no_grad():
        norm.gamma.copy_(torch.tensor([1.0, 2.0]))
        norm.beta.copy_(torch.tensor([0.5, 0.0]))
        norm.modulate[2].bias.copy_(torch.tensor([10.0, 20.0, 3.0, 4.0]))  # gamma_r, then beta_r
    x = torch.randn(1, 2, 4, 4, 4)
    normal = nn.InstanceNorm3d(2)(x)
    expected = torch.stack([11 * normal[:, 0] + 3.5, 22 * normal[:, 1] + 4], dim=1)
    torch.testing.assert_close(norm(x, torch.zeros(1, 3)), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_another_spacing_changes_the_answer_once_it_is_learned_from(axis):
    network = FilmUNet(1, 2, (4, 8)).eval()
    for module in network.modules():
        if isinstance(module, FilmNorm):
            nn.init.normal_(module.modulate[2].weight)
    image = torch.randn(1, 1, 8, 8, 8)
    other = torch.ones(1, 3)
    other[0, axis] = 3.0
    assert not torch.allclose(told(network, image, torch.ones(1, 3)), told(network, image, other))


def test_every_weight_has_a_gradient_but_those_that_a_zero_hides_at_first():
    network = FilmUNet(2, 2, (4, 8, 8)).train()
    sum(o.square().mean() for o in told(network, torch.randn(1, 2, 16, 16, 16))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
