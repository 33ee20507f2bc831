import pytest
import torch
from torch import nn

from lesionwise.learning.reconstruction import ConsistentReconstruction


class Fixed(nn.Module):
    """Rebuilds zeros, and says that the visits' features are 1 and 2 apart."""

    def rebuild(self, image):
        zeros = torch.zeros(len(image), 4, 2, 2, 2)
        return torch.zeros_like(image), [(zeros, zeros + 1), (zeros, zeros + 2)]


def test_errors_add_up_over_visits_and_over_levels():
    image = torch.full((2, 2, 4, 4, 4), 3.0)
    losses = ConsistentReconstruction(consistency=0.5)(Fixed(), {}, {"image": image})
    assert losses["reconstruction"] == 2 * 9
    assert losses["consistency"] == 1 + 4
    assert losses["total"] == pytest.approx(18 + 0.5 * 5)


def test_it_needs_no_target_and_predicts_nothing():
    objective = ConsistentReconstruction()
    assert objective.targets is None
    assert dict(objective.make(None)) == {}
