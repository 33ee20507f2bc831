import torch
from torch import nn

from lesionwise.learning.critic import ScoreError, WithScore
from lesionwise.learning.losses import Dice
from lesionwise.learning.objective import Supervised
from lesionwise.learning.parts import FrozenNetwork
from lesionwise.learning.targets import LesionMask
from lesionwise.networks.score_critic import ScoreCritic


class Overlap(nn.Module):
    """A critic that knows: the share of the reference that is found."""

    def forward(self, masks):
        return (masks[:, :1] * masks[:, 1:]).sum((2, 3, 4)) / masks[:, :1].sum((2, 3, 4))


def batch():
    mask = torch.zeros(2, 1, 4, 4, 4)
    mask[:, :, 1:3, 1:3, 1:3] = 1
    return {"image": torch.randn(2, 2, 4, 4, 4), "mask": mask}


def test_the_total_is_the_dice_loss_and_a_fifth_of_the_missing_score():
    network = nn.Conv3d(2, 2, 1)
    objective = WithScore(Supervised(LesionMask(), Dice()), weight=0.2)
    losses = objective(network, {"critic": Overlap()}, batch_ := batch())
    found = LesionMask().activate(network(batch_["image"]))
    missing = 1 - Overlap()(torch.cat([batch_["mask"], found], 1)).mean()
    torch.testing.assert_close(losses["critic"], missing)
    dice = Dice()(network(batch_["image"]), batch_)["total"]
    torch.testing.assert_close(losses["total"], dice + 0.2 * missing)
    assert objective.targets == LesionMask()


def test_gradients_pass_through_the_frozen_critic_to_the_network_alone():
    class First:
        network = staticmethod(lambda: ScoreCritic((4, 8)))

    part = FrozenNetwork("critic", First())
    critic = part.build(nn.Identity())
    network = nn.Conv3d(2, 2, 1)
    objective = WithScore(Supervised(LesionMask(), Dice()))
    sample = {"image": torch.randn(1, 2, 8, 8, 8), "mask": torch.ones(1, 1, 8, 8, 8)}
    objective(network, {"critic": critic}, sample)["critic"].backward()
    assert float(network.weight.grad.abs().sum()) > 0
    assert all(p.grad is None for p in critic.parameters())
    assert not part.learns


def test_a_score_is_learned_by_its_squared_error():
    sample = {"image": torch.zeros(2, 2, 4, 4, 4), "score": torch.tensor([[1.0], [0.5]])}

    def half(image):
        return torch.full((len(image), 1), 0.5)

    assert float(ScoreError()(half, {}, sample)["total"]) == 0.125
    assert ScoreError().targets is None
