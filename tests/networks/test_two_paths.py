"""The two-path network: what it sees, and where its paths meet."""

import pytest
import torch

from lesionwise.networks.double_pathway import DoublePathway, _middle

SMALL = {"fine": (4, 6), "coarse": (4, 6, 8), "joint": (8,), "fine_vox": 9}


def test_the_published_patch_gives_its_middle():
    with torch.device("meta"):
        network = DoublePathway(2).eval()
        assert network(torch.empty(1, 2, 97, 97, 97)).shape == (1, 2, 19, 19, 19)
        assert network.fine(torch.empty(1, 2, 33, 33, 33)).shape == (1, 90, 19, 19, 19)
        assert network.coarse(torch.empty(1, 2, 33, 33, 33)).shape == (1, 100, 17, 17, 17)


def test_half_precision_ends_in_float32():
    network = DoublePathway(1, **SMALL).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(1, 1, 25, 25, 25))
    assert output.shape == (1, 2, 5, 5, 5)
    assert output.dtype == torch.float32


class Place(torch.nn.Module):
    """Every convolution replaced by the crop that it makes."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, x):
        n = self.layers
        return x[..., n:-n, n:-n, n:-n]


@pytest.mark.parametrize(
    ("patch", "fine_vox", "fine", "coarse"), [(97, 33, 7, 8), (49, 21, 4, 4), (25, 9, 2, 3)]
)
def test_a_coarse_voxel_lies_on_the_three_fine_ones_around_it(patch, fine_vox, fine, coarse):
    network = DoublePathway(1, fine=(1,) * fine, coarse=(1,) * coarse, joint=(2,),
                            fine_vox=fine_vox, dropout=0.0)  # fmt: skip
    network.fine, network.coarse = Place(fine), Place(coarse)
    network.joint, network.head = torch.nn.Identity(), torch.nn.Identity()
    index = torch.arange(float(patch)).reshape(1, 1, -1, 1, 1).expand(1, 1, patch, patch, patch)
    both = network(index)
    away = both[0, 1] - both[0, 0]  # the coarse sample's place less the fine voxel's
    assert away.abs().max() == 1
    assert sorted(away.unique().tolist()) == [-1, 0, 1]


def test_what_lies_beyond_the_fine_path_reaches_the_middle():
    network = DoublePathway(1, **SMALL).eval()
    image = torch.randn(1, 1, 25, 25, 25)
    far = image.clone()
    far[..., 3, 12, 12] += 10.0  # outside of the fine path's middle 9 voxels
    with torch.no_grad():
        assert not torch.equal(network(image), network(far))


def test_a_patch_without_a_middle_is_refused():
    with pytest.raises(ValueError, match="do not lie in the middle"):
        _middle(torch.empty(1, 1, 10, 10, 10), (9, 9, 9))
    with pytest.raises(ValueError, match="do not lie in the middle"):
        DoublePathway(1, **SMALL)(torch.empty(1, 1, 7, 7, 7))


def test_every_weight_has_a_gradient():
    network = DoublePathway(2, **SMALL).train()
    network(torch.randn(2, 2, 25, 25, 25)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
