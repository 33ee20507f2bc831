"""Views: mirror images, planes and dropout leave an equivariant network as it is."""

import numpy as np
import pytest
import torch
from torch import nn

from lesionwise.inference.views import (
    MirroredPlanes,
    MonteCarlo,
    Planes,
    dropout_on,
    has_dropout_on,
    mirrored_mean,
)
from lesionwise.types import InputError

MAPS = ("probability", "offset_i", "offset_j", "offset_k")


class PointsToTheBrightest(nn.Module):
    """Probability and exact offsets to the brightest voxel of each patch."""

    def forward(self, patches):
        maps = torch.zeros(len(patches), 4, *patches.shape[2:])
        maps[:, 0] = patches[:, 0]
        for n, patch in enumerate(patches[:, 0]):
            peak = np.unravel_index(int(patch.argmax()), patch.shape)
            for axis, index in enumerate(
                torch.meshgrid(*map(torch.arange, patch.shape), indexing="ij")
            ):
                maps[n, 1 + axis] = float(peak[axis]) - index
        return maps


def predict(images, brain, spacing_mm):
    patches = torch.from_numpy(np.ascontiguousarray(images[0]))[None, None]
    return PointsToTheBrightest()(patches)[0].numpy()


def noise(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_mirrored_averaging_leaves_an_equivariant_network_as_it_is(axes):
    image = torch.rand(2, 1, 5, 6, 7)
    network = PointsToTheBrightest()
    torch.testing.assert_close(mirrored_mean(network, image, MAPS, axes), network(image))


def test_mirrored_averaging_averages_a_one_sided_network():
    def left(patches):
        return patches * torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1)

    seen = mirrored_mean(left, torch.ones(1, 1, 2, 1, 1), ("probability",), (0,))
    assert seen.flatten().tolist() == [0.5, 0.5]


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2), (2, 0)])
def test_planes_leave_an_equivariant_network_as_it_is(axes):
    image = noise(5, 6, 7)
    seen = Planes(axes)(predict, [image], None, (1.0, 1.0, 1.0), MAPS)
    np.testing.assert_allclose(seen, predict([image], None, None), atol=1e-6)


def test_each_plane_gets_its_own_order_of_axes_brain_and_spacing():
    image = np.zeros((5, 6, 7), dtype=np.float32)
    brain = np.zeros(image.shape, dtype=bool)
    brain[4, 5, 6] = True
    seen = []

    def record(images, brain, spacing_mm):
        seen.append((images[0].shape, brain.shape, brain[-1, -1, -1], spacing_mm))
        return images[0][None]

    Planes()(record, [image], brain, (1.0, 2.0, 3.0), ("probability",))
    assert seen == [
        ((6, 7, 5), (6, 7, 5), True, (2.0, 3.0, 1.0)),
        ((5, 7, 6), (5, 7, 6), True, (1.0, 3.0, 2.0)),
        ((5, 6, 7), (5, 6, 7), True, (1.0, 2.0, 3.0)),
    ]


def _constant(*values):
    """Predicts constants, one for each call."""
    left = list(values)

    def predict(images, brain, spacing_mm):
        value = left.pop(0)
        return np.stack(
            [np.full(images[0].shape, v, dtype=np.float32) for v in (value, 10 * value)]
        )

    return predict


def test_a_mean_of_planes_is_that_of_each_map():
    seen = Planes()(
        _constant(0.2, 0.4, 0.9), [noise(2, 3, 4)], None, (1.0,) * 3, ("probability", "heatmap")
    )
    np.testing.assert_allclose(seen[0], 0.5, rtol=1e-6)
    np.testing.assert_allclose(seen[1], 5.0, rtol=1e-6)


def test_a_vote_is_the_share_of_planes_above_the_threshold():
    planes = Planes(combine="vote", threshold=0.4)
    seen = planes(
        _constant(0.2, 0.4, 0.9), [noise(2, 3, 4)], None, (1.0,) * 3, ("probability", "heatmap")
    )
    np.testing.assert_allclose(seen[0], 1 / 3, rtol=1e-5)  # 0.4 is in float32 slightly above
    np.testing.assert_allclose(seen[1], 5.0, rtol=1e-6)


def test_votes_need_a_probability():
    with pytest.raises(ValueError, match="none"):
        Planes(combine="vote")(predict, [noise(2, 3, 4)], None, (1.0,) * 3, ("logit",))


def test_planes_need_an_axis_of_the_volume():
    for axes in ((), (3,)):
        with pytest.raises(ValueError, match="axes"):
            Planes(axes)


def test_planes_change_neither_image_nor_what_was_predicted():
    image = noise(3, 3, 3)
    kept = image.copy()
    Planes(combine="vote")(
        lambda images, brain, spacing_mm: images[0][None], [image], None, (1.0,) * 3, MAPS[:1]
    )
    np.testing.assert_array_equal(image, kept)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 16, 1), nn.BatchNorm3d(16), nn.Dropout3d(0.5), nn.Dropout(0.1)
    ).eval()


def test_only_dropout_layers_are_switched_on_and_all_is_as_before():
    layers = network()
    layers[3].train()
    with dropout_on(layers):
        assert [layer.training for layer in layers] == [False, False, True, True]
        assert has_dropout_on(layers)
    assert [layer.training for layer in layers] == [False, False, False, True]


def test_layers_are_as_before_after_an_error_too():
    layers = network()
    with pytest.raises(RuntimeError), dropout_on(layers):
        layers(torch.zeros(1, 2, 1, 1, 1))
    assert not has_dropout_on(layers)


def test_normalization_keeps_its_averages():
    layers = network()
    before = layers[1].running_mean.clone()
    MonteCarlo(passes=2).around(layers, layers)(torch.rand(1, 1, 4, 4, 4))
    assert torch.equal(layers[1].running_mean, before)


def test_many_passes_come_near_the_prediction_without_dropout():
    layers = network()
    image = torch.rand(1, 1, 2, 2, 2)
    torch.manual_seed(1)
    with torch.no_grad():
        expected = layers(image)
        one = MonteCarlo(passes=1).around(layers, layers)(image)
        many = MonteCarlo(passes=2000).around(layers, layers)(image)
    assert (one - expected).abs().max() > 0.5 * expected.abs().max()
    assert (many - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_network_without_dropout_is_refused():
    with pytest.raises(ValueError, match="Conv3d has no dropout layer"):
        MonteCarlo().around(nn.Conv3d(1, 1, 1), nn.Identity())
    with pytest.raises(ValueError, match="passes"):
        MonteCarlo(passes=0)


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_mirrored_planes_leave_an_equivariant_network_as_it_is(axes):
    image = noise(5, 6, 7)
    views = MirroredPlanes(Planes((0, 1, 2)), axes)
    seen = views(predict, [image], None, (1.0, 1.0, 1.0), MAPS)
    np.testing.assert_allclose(seen, predict([image], None, None), atol=1e-6)


def test_three_planes_and_left_and_right_are_six_predictions_of_one_axis_of_the_volume():
    image = np.zeros((4, 5, 6), dtype=np.float32)
    image[0] = 1.0
    brain = image > 0
    seen = []

    def record(images, inside, spacing_mm):
        seen.append((images[0].copy(), inside.copy(), spacing_mm))
        return images[0][None].astype(np.float32)

    found = MirroredPlanes(Planes(axes=(2, 1, 0)))(
        record, [image], brain, (1.0, 2.0, 3.0), ("logit",)
    )
    np.testing.assert_array_equal(found[0], image)
    assert [order[0].shape for order in seen] == [(4, 5, 6), (4, 6, 5), (5, 6, 4)] * 2
    left = [(array[0].any(), array[-1].any()) for array, _, _ in seen[:2] + seen[3:5]]
    assert left == [(True, False)] * 2 + [(False, True)] * 2
    assert seen[2][0][..., 0].all()
    assert seen[5][0][..., -1].all()
    assert all((inside == (array > 0)).all() for array, inside, _ in seen)
    assert seen[5][2] == (2.0, 3.0, 1.0)


def test_mirrored_planes_average_what_a_one_sided_network_says():
    def right(images, brain, spacing_mm):
        side = np.linspace(0, 1, images[0].shape[0])[:, None, None]
        return (np.ones_like(images[0]) * side)[None].astype(np.float32)

    found = MirroredPlanes(Planes(axes=(2,)))(
        right, [np.ones((5, 3, 3), np.float32)], None, (1.0, 1.0, 1.0), ("logit",)
    )
    np.testing.assert_allclose(found, 0.5)


@pytest.mark.parametrize(("axes", "flat"), [((0, 1, 2), 2), ((0, 1, 2), 0), ((0,), 1), ((0,), 2)])
def test_planes_across_a_single_slice_are_refused(axes, flat):
    shape = tuple(1 if axis == flat else 6 for axis in range(3))
    with pytest.raises(InputError, match=f"only one slice along {'ijk'[flat]}"):
        Planes(axes)(predict, [noise(*shape)], None, (1.0, 1.0, 1.0), MAPS)


def test_a_single_slice_can_be_seen_as_that_slice():
    image = noise(1, 6, 7)
    seen = Planes((0,))(predict, [image], None, (1.0, 1.0, 1.0), MAPS)
    np.testing.assert_allclose(seen, predict([image], None, None), atol=1e-6)
