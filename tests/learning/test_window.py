"""Sliding window: equal to the whole where the network looks at one voxel; mirroring."""

import numpy as np
import pytest
import torch
from torch import nn

from lesionwise.learning.window import (
    SlidingWindow,
    gaussian_weights,
    mirrored_mean,
    slide,
    window_starts,
)

CPU = torch.device("cpu")
EXACT = SlidingWindow(overlap=0.5, precision="float32")


@pytest.mark.parametrize(
    ("length", "size", "overlap"),
    [(10, 4, 0.5), (7, 4, 0.25), (4, 4, 0.5), (3, 4, 0.5), (97, 16, 0.9)],
)
def test_windows_cover_everything_and_stay_inside(length, size, overlap):
    starts = window_starts(length, size, overlap)
    covered = np.zeros(max(length, size), dtype=bool)
    for start in starts:
        covered[start : start + size] = True
    assert covered.all()
    assert starts[-1] + size == max(length, size)
    assert max(np.diff(starts), default=0) <= max(1, int(size * (1 - overlap)))


def test_a_network_of_single_voxels_is_applied_as_to_the_whole():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 4, 1), nn.ReLU(), nn.Conv3d(4, 3, 1)).eval()
    images = [np.random.default_rng(n).standard_normal((13, 9, 21)) for n in range(2)]
    seen = slide(network, images, None, (8, 8, 8), ("a", "b", "c"), EXACT, CPU)
    with torch.no_grad():
        whole = network(torch.from_numpy(np.stack(images)).float()[None])[0].numpy()
    np.testing.assert_allclose(seen, whole, atol=1e-5)


def test_a_convolution_is_right_away_from_window_edges():
    torch.manual_seed(0)
    network = nn.Conv3d(1, 1, 3, padding=1).eval()
    image = np.random.default_rng(0).standard_normal((32, 16, 16)).astype(np.float32)
    seen = slide(network, [image], None, (16, 16, 16), ("a",), EXACT, CPU)[0]
    with torch.no_grad():
        whole = network(torch.from_numpy(image)[None, None])[0, 0].numpy()
    # A window's outer voxels miss a neighbor; their weight is at most that of their distance.
    np.testing.assert_allclose(seen[9:15, 8, 8], whole[9:15, 8, 8], atol=1e-5)


def test_a_volume_smaller_than_the_window_keeps_its_shape():
    seen = slide(nn.Identity(), [np.ones((5, 6, 7))], None, (8, 8, 8), ("a",), EXACT, CPU)
    np.testing.assert_allclose(seen, np.ones((1, 5, 6, 7)), atol=1e-6)


def test_windows_without_brain_are_not_computed():
    calls = []

    def count(patches):
        calls.append(len(patches))
        return patches

    brain = np.zeros((32, 8, 8), dtype=bool)
    brain[30, 4, 4] = True
    seen = slide(count, [np.ones(brain.shape)], brain, (8, 8, 8), ("a",), EXACT, CPU)[0]
    assert sum(calls) == 1
    assert seen[:24].max() == 0
    np.testing.assert_allclose(seen[24:], 1)


def test_without_any_brain_everything_is_zero():
    brain = np.zeros((8, 8, 8), dtype=bool)
    seen = slide(nn.Identity(), [np.ones(brain.shape)], brain, (8, 8, 8), ("a",), EXACT, CPU)
    assert not seen.any()


def test_several_windows_at_once_change_nothing():
    image = np.random.default_rng(0).standard_normal((20, 20, 9))
    one = slide(nn.Tanh(), [image], None, (8, 8, 8), ("a",), EXACT, CPU)
    many = SlidingWindow(precision="float32", windows_per_batch=5)
    np.testing.assert_array_equal(
        one, slide(nn.Tanh(), [image], None, (8, 8, 8), ("a",), many, CPU)
    )


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


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_mirrored_averaging_leaves_an_equivariant_network_as_it_is(axes):
    image = torch.rand(2, 1, 5, 6, 7)
    maps = ("probability", "offset_i", "offset_j", "offset_k")
    network = PointsToTheBrightest()
    torch.testing.assert_close(mirrored_mean(network, image, maps, axes), network(image))


def test_mirrored_averaging_averages_a_one_sided_network():
    def left(patches):
        return patches * torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1)

    seen = mirrored_mean(left, torch.ones(1, 1, 2, 1, 1), ("probability",), (0,))
    assert seen.flatten().tolist() == [0.5, 0.5]


def test_weights_peak_in_the_middle_and_vanish_nowhere():
    weights = gaussian_weights((9, 7, 5))
    assert weights[4, 3, 2] == weights.max() == 1
    assert weights.min() >= 1e-3
