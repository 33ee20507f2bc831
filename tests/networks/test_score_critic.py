import pytest
import torch

from lesionwise.networks.score_critic import ScoreCritic


@pytest.mark.parametrize("side", [16, 48, 64])
def test_two_masks_of_any_size_get_one_score(side):
    score = ScoreCritic((4, 8, 8, 8))(torch.rand(3, 2, side, side, side))
    assert score.shape == (3, 1)
    assert score.dtype == torch.float32
    assert bool(((score >= 0) & (score <= 1)).all())


def test_the_published_patch_and_how_many_weights():
    with torch.device("meta"):
        network = ScoreCritic()
        assert network.convolutions(torch.empty(1, 2, 64, 64, 64)).shape == (1, 128, 4, 4, 4)
    convolutions = sum(
        27 * a * b + b + 27 * b * b + b
        for a, b in zip((2, 16, 32, 64), (16, 32, 64, 128), strict=True)
    )
    connected = 128 * 128 + 128 + 128 + 1
    assert sum(p.numel() for p in network.parameters()) == convolutions + connected


def test_empty_masks_begin_as_nothing_and_every_lesion_counts_as_much_wherever_it_lies():
    network = ScoreCritic((4, 8))
    assert network.convolutions(torch.zeros(1, 2, 16, 16, 16)).abs().max() == 0
    one, other = torch.zeros(2, 1, 2, 32, 32, 32)
    one[..., 8:10, 8:10, 8:10] = 1
    other[..., 16:18, 20:22, 12:14] = 1  # as far by multiples of four voxels
    torch.testing.assert_close(network(one), network(other))


def test_gradients_reach_the_masks_and_every_weight():
    network = ScoreCritic((4, 8)).train()
    masks = torch.rand(1, 2, 16, 16, 16, requires_grad=True)
    network(masks).sum().backward()
    assert float(masks.grad[:, 1].abs().sum()) > 0
    assert [n for n, p in network.named_parameters() if p.grad is None] == []
