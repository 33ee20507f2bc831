import numpy as np
import pytest
import torch
from torch import nn

from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.registration import (
    MapAndField,
    MaskAndField,
    NonCorrespondence,
    SegmentAndRegister,
    displacement_mm,
)
from lesionwise.networks.warp import warp

SIDE = 12


class Answer(nn.Module):
    """Gives one output, whatever it is shown."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, image):
        return self.output


def smooth(seed=0):
    torch.manual_seed(seed)
    coarse = torch.randn(1, 1, 4, 4, 4)
    return nn.functional.interpolate(coarse, (SIDE,) * 3, mode="trilinear")


def output(logit=-20.0, field=(0.0, 0.0, 0.0)):
    """Of a network that says the same everywhere."""
    values = torch.tensor([logit, *field]).reshape(1, 4, 1, 1, 1)
    return values.expand(1, 4, SIDE, SIDE, SIDE).clone()


def losses(pair, answer, **weights):
    return NonCorrespondence(**weights)(Answer(answer), {}, {"image": pair})


def test_equal_visits_cost_nothing():
    pair = torch.cat([smooth(), smooth()], dim=1)
    found = losses(pair, output())
    for name in ("distance", "smoothness", "size", "edges", "total"):
        assert float(found[name]) == pytest.approx(0, abs=1e-6)


def test_the_distance_is_one_minus_the_correlation():
    pair = torch.cat([smooth(0), smooth(1)], dim=1)
    correlation = torch.corrcoef(pair[0].flatten(1))[0, 1]
    assert float(losses(pair, output())["distance"]) == pytest.approx(
        1 - float(correlation), abs=1e-3
    )


def test_it_is_masked_by_the_map_which_costs_its_size():
    pair = torch.cat([smooth(0), smooth(1)], dim=1)
    found = losses(pair, output(logit=20.0), beta=0.3)
    assert float(found["distance"]) == pytest.approx(0, abs=1e-6)
    assert float(found["total"]) == pytest.approx(0.3, abs=1e-6)


def test_the_true_field_costs_less_than_none_and_the_opposite_more():
    first = smooth()
    second = warp(first, output(field=(1.0, 0.0, 0.0))[:, 1:])
    pair = torch.cat([first, second], dim=1)
    none, right, wrong = (
        float(losses(pair, output(field=(i, 0.0, 0.0)))["distance"]) for i in (0.0, 1.0, -1.0)
    )
    assert right < 1e-4 < none < wrong


def test_edges_of_the_map_cost_at_most_one_a_voxel():
    pair = torch.cat([smooth(), smooth()], dim=1)
    answer = output()
    answer[:, 0, SIDE // 2 :] = 20.0
    found = losses(pair, answer, gamma=2.0, beta=0.0)
    # one layer of voxels steps by 1 along one axis
    assert float(found["edges"]) == pytest.approx(np.tanh(1) / SIDE, rel=1e-4)


def test_voxels_outside_the_brain_count_for_nothing():
    inside = torch.zeros(1, 1, SIDE, SIDE, SIDE)
    inside[:, :, :6] = 1
    pair = torch.cat([smooth(0), smooth(1)], dim=1) * inside
    answer = output()
    answer[:, 0, 6:] = 20.0  # the map says everything there
    assert float(losses(pair, answer)["size"]) == pytest.approx(0, abs=1e-6)


def test_it_asks_for_no_label():
    assert dict(NonCorrespondence().make(None)) == {}
    assert MapAndField().maps == ("probability", "field_i", "field_j", "field_k")


def test_lesions_and_the_field_are_learned_together():
    first = smooth()
    second = warp(first, output(field=(0.0, 1.0, 0.0))[:, 1:])
    mask = (torch.rand(1, 1, SIDE, SIDE, SIDE) > 0.7).float()
    batch = {"image": torch.cat([first, second], dim=1), "mask": mask}
    answer = torch.randn(1, 5, SIDE, SIDE, SIDE)
    answer[:, 2:] = output(field=(0.0, 1.0, 0.0))[:, 1:]
    found = SegmentAndRegister(CrossEntropy(), smooth=0.5)(Answer(answer), {}, batch)
    entropy = CrossEntropy()(answer[:, :2], batch)["total"]
    assert float(found["similarity"]) == pytest.approx(0, abs=1e-6)
    assert float(found["smoothness"]) == 0
    assert float(found["total"]) == pytest.approx(float(entropy), rel=1e-5)
    answer[:, 2, 0] = 1.0  # one layer steps by 1
    stepped = SegmentAndRegister(CrossEntropy(), smooth=0.5)(Answer(answer), {}, batch)
    assert float(stepped["smoothness"]) == pytest.approx(1 / SIDE)
    rest = float(stepped["total"]) - float(stepped["similarity"]) - float(entropy)
    assert rest == pytest.approx(0.5 / SIDE, rel=1e-3)


def test_the_output_means_a_probability_and_a_field():
    answer = torch.randn(1, 5, 2, 2, 2)
    maps = MaskAndField().activate(answer)
    torch.testing.assert_close(maps[:, :1], torch.softmax(answer[:, :2], 1)[:, 1:])
    torch.testing.assert_close(maps[:, 1:], answer[:, 2:])
    assert len(MaskAndField().maps) == maps.shape[1]


def test_a_field_in_mm_has_the_spacing_of_its_axes():
    field = {f"field_{axis}": np.ones((2, 2, 2)) for axis in "ijk"}
    mm = displacement_mm(field, (1.0, 0.5, 3.0))
    assert mm.dtype == np.float32
    assert [float(mm[axis, 0, 0, 0]) for axis in range(3)] == [1.0, 0.5, 3.0]
