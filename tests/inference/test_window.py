"""Sliding window: equal to the whole where the network looks at one voxel; margins; order."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lesionwise.inference.views import MonteCarlo, Planes
from lesionwise.inference.window import (
    UNSEEN_LOGIT,
    SlidingWindow,
    call_network,
    gaussian_weights,
    sliding_window_inference,
    window_starts,
)
from lesionwise.learning.positions import RegularGrid
from lesionwise.types import InputError

CPU = torch.device("cpu")
EXACT = SlidingWindow(overlap=0.5, precision="float32")


def predict(apply, images, brain=None, size=(8, 8, 8), maps=("a",), window=EXACT, **options):
    return sliding_window_inference(apply, images, brain, size, maps, window, CPU, **options)


def noise(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def convolution(kernel, padding=0):
    torch.manual_seed(0)
    return nn.Conv3d(1, 1, kernel, padding=padding).eval()


def whole(network, image):
    with torch.no_grad():
        return network(torch.from_numpy(image)[None, None])[0, 0].numpy()


@given(
    length=st.integers(1, 120),
    size=st.integers(1, 40),
    overlap=st.floats(0, 0.95),
    stride=st.none() | st.integers(1, 40),
)
@settings(deadline=None)
def test_windows_cover_everything_and_stay_inside(length, size, overlap, stride):
    if stride is not None and stride > size:
        return
    starts = window_starts(length, size, overlap, stride)
    covered = np.zeros(max(length, size), dtype=bool)
    for start in starts:
        covered[start : start + size] = True
    assert covered.all()
    assert starts[0] == 0
    assert starts[-1] + size == max(length, size)
    assert len(set(starts)) == len(starts)
    step = stride or max(1, int(size * (1 - overlap)))
    assert max(np.diff(starts), default=0) <= step


def test_a_stride_is_kept_to_the_last_window_but_one():
    assert window_starts(20, 8, 0.5, stride=5) == [0, 5, 10, 12]


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(InputError, match="a stride of 9 voxels does not fit windows of 8"):
        window_starts(20, 8, 0.5, stride=9)


def test_a_network_of_single_voxels_is_applied_as_to_the_whole():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(2, 4, 1), nn.ReLU(), nn.Conv3d(4, 3, 1)).eval()
    images = [np.random.default_rng(n).standard_normal((13, 9, 21)) for n in range(2)]
    seen = predict(network, images, maps=("a", "b", "c"))
    with torch.no_grad():
        expected = network(torch.from_numpy(np.stack(images)).float()[None])[0].numpy()
    np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_a_convolution_is_right_away_from_window_edges():
    network, image = convolution(3, padding=1), noise(32, 16, 16)
    seen = predict(network, [image], size=(16, 16, 16))[0]
    # A window's outer voxels miss a neighbor; their weight is at most that of their distance.
    np.testing.assert_allclose(seen[9:15, 8, 8], whole(network, image)[9:15, 8, 8], atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 17, 31), (5, 6, 7), (9, 9, 9)])
@pytest.mark.parametrize("weighting", ["gaussian", "uniform"])
@pytest.mark.parametrize("stride", [None, (3, 5, 4)])
def test_convolutions_without_padding_are_those_of_the_zero_padded_volume(shape, weighting, stride):
    valid = nn.Sequential(convolution((3, 5, 3)), convolution((3, 1, 3))).eval()
    image = noise(*shape)
    window = SlidingWindow(precision="float32", weighting=weighting, stride_vox=stride)
    seen = predict(valid, [image], size=(9, 9, 9), window=window)[0]
    padded = np.pad(image, ((2, 2), (2, 2), (2, 2)))
    np.testing.assert_allclose(seen, whole(valid, padded), atol=1e-5)


def test_three_slices_in_give_the_middle_one():
    image = noise(10, 12, 5)
    seen = predict(lambda patches: patches[..., 1:2], [image], size=(8, 8, 3))[0]
    np.testing.assert_allclose(seen, image, atol=1e-6)


def test_every_slice_has_its_neighbors_and_zeros_beyond_the_border():
    image = noise(8, 8, 4)
    seen = predict(lambda patches: patches.sum(-1, keepdim=True), [image], size=(8, 8, 3))[0]
    padded = np.pad(image, ((0, 0), (0, 0), (1, 1)))
    np.testing.assert_allclose(
        seen, padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:], atol=1e-5
    )


def test_a_window_counts_by_the_brain_in_its_output_and_not_in_its_margin():
    calls = []

    def middle(patches):
        calls.append(len(patches))
        return patches[..., 1:2]

    brain = np.zeros((8, 8, 6), dtype=bool)
    brain[3, 3, 2] = True
    progress = []
    seen = predict(
        middle,
        [np.ones(brain.shape)],
        brain,
        size=(8, 8, 3),
        on_progress=lambda done, total: progress.append((done, total)),
    )[0]
    assert np.unique(np.nonzero(seen)[2]).tolist() == [2]
    assert progress == [(1, 1)]
    assert sum(calls) == 2  # one to learn the output's size


@pytest.mark.parametrize("cut", [slice(1, None), slice(0, 0)])
def test_an_output_that_is_not_in_the_middle_is_refused(cut):
    with pytest.raises(InputError, match="the margin must be the same on both sides"):
        predict(lambda patches: patches[..., cut], [np.ones((8, 8, 8))])


def test_an_output_larger_than_the_input_is_refused():
    with pytest.raises(InputError, match="returns 16 x 16 x 16 voxels for 8 x 8 x 8"):
        predict(nn.Upsample(scale_factor=2), [np.ones((8, 8, 8))])


def test_another_number_of_maps_is_refused():
    with pytest.raises(InputError, match="the network returns 1 maps, not 2"):
        predict(nn.Identity(), [np.ones((8, 8, 8))], maps=("a", "b"))


def test_a_volume_smaller_than_the_window_keeps_its_shape():
    seen = predict(nn.Identity(), [np.ones((5, 6, 7))])
    np.testing.assert_allclose(seen, np.ones((1, 5, 6, 7)), atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 6, 7), (8, 1, 4), (3, 2, 8)])
def test_a_volume_smaller_than_the_window_lies_in_it_as_a_patch_does_in_training(shape):
    size = (8, 8, 8)
    (patch,) = RegularGrid(stride_vox=size).of(shape, size)
    place = torch.arange(512.0).reshape(1, 1, *size)
    (seen,) = predict(lambda patches: place, [np.ones(shape)])
    first = np.unravel_index(int(seen[0, 0, 0]), size)
    assert tuple(-start for start in patch.start) == first


def test_a_brain_in_a_volume_smaller_than_the_window_is_found_in_its_place():
    brain = np.zeros((3, 16, 3), dtype=bool)
    brain[2, 15, 2] = True
    seen = predict(lambda patches: torch.ones_like(patches), [np.ones(brain.shape)], brain)
    assert seen[0, :, 8:].min() == 1
    assert seen[0, :, :8].max() == 0


def test_a_logit_that_no_window_saw_is_far_below_0_and_any_other_map_is_0():
    brain = np.zeros((16, 8, 8), dtype=bool)
    brain[12, 4, 4] = True
    ones = lambda patches: torch.ones(1, 2, *patches.shape[2:])  # noqa: E731
    maps = predict(ones, [np.ones(brain.shape)], brain, maps=("logit", "heatmap"))
    assert np.unique(maps[0, :8]).tolist() == [UNSEEN_LOGIT]
    assert np.unique(maps[1, :8]).tolist() == [0]
    assert np.unique(maps[:, 8:]).tolist() == [1]


def test_the_mean_of_planes_shows_no_lesion_where_some_of_them_did_not_look():
    brain = np.zeros((24, 24, 24), dtype=bool)
    brain[8:16, 8:16, 8:16] = True
    background = lambda patches: torch.full((1, 1, *patches.shape[2:]), -6.0)  # noqa: E731

    def one(images, brain, spacing_mm):
        return predict(background, images, brain, size=(24, 24, 1), maps=("logit",))

    mean = Planes()(one, [np.ones(brain.shape)], brain, (1.0, 1.0, 1.0), ("logit",))
    assert mean.max() == -6


def test_windows_without_brain_are_not_computed():
    calls = []

    def count(patches):
        calls.append(len(patches))
        return patches

    brain = np.zeros((32, 8, 8), dtype=bool)
    brain[30, 4, 4] = True
    seen = predict(count, [np.ones(brain.shape)], brain)[0]
    assert sum(calls) == 1
    assert seen[:24].max() == 0
    np.testing.assert_allclose(seen[24:], 1)


def boxes():
    sides = [st.tuples(st.integers(0, 19), st.integers(1, 20)) for _ in range(3)]
    return st.tuples(*sides).map(lambda each: [(min(a, b - 1), max(b, a + 1)) for a, b in each])


@given(box=boxes(), size=st.tuples(*[st.integers(1, 24)] * 3), stride=st.none() | st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_windows_over_the_brain_see_all_of_it(box, size, stride):
    steps = None if stride is None else tuple(min(stride, n) for n in size)
    window = replace(EXACT, cover="brain", stride_vox=steps)
    brain = np.zeros((20, 20, 20), dtype=bool)
    brain[tuple(slice(a, b) for a, b in box)] = True
    found = predict(torch.ones_like, [noise(20, 20, 20)], brain, size, window=window)
    assert (found[0][brain] == 1).all()


def test_windows_over_the_brain_are_fewer_and_lie_at_its_borders():
    seen = []

    def apply(patches):
        seen.append(patches[:, 0, 0, 0, 0].tolist())
        return patches

    corners = np.arange(30.0, dtype=np.float32)[:, None, None] * np.ones((30, 8, 8), np.float32)
    brain = np.zeros((30, 8, 8), dtype=bool)
    brain[5:21] = True
    found = predict(apply, [corners], brain, window=replace(EXACT, cover="brain"))
    assert seen == [[5.0], [9.0], [13.0]]
    assert found[0][brain] == pytest.approx(corners[brain])
    seen.clear()
    predict(apply, [corners], brain)
    assert len(seen) == 6


def test_a_window_longer_than_the_brain_lies_around_it_and_inside_the_volume():
    starts = []

    def apply(patches):
        starts.append(int(patches[0, 0, 0, 0, 0]))
        return patches

    corners = np.arange(30.0, dtype=np.float32)[:, None, None] * np.ones((30, 8, 8), np.float32)
    for first, last in ((10, 14), (0, 3), (28, 30)):
        brain = np.zeros((30, 8, 8), dtype=bool)
        brain[first:last] = True
        predict(apply, [corners], brain, window=replace(EXACT, cover="brain"))
    assert starts == [8, 0, 22]


@given(box=boxes(), size=st.tuples(*[st.integers(1, 24)] * 3), fit=st.integers(1, 5))
@settings(deadline=None, max_examples=60)
def test_fitted_windows_see_all_of_the_brain_and_are_not_more(box, size, fit):
    calls = {}

    def apply(patches):
        calls[fitted] = calls.get(fitted, 0) + len(patches)
        return torch.ones_like(patches)

    brain = np.zeros((20, 20, 20), dtype=bool)
    brain[tuple(slice(a, b) for a, b in box)] = True
    for fitted in (None, fit):
        window = replace(EXACT, cover="brain", fit=fitted)
        found = predict(apply, [noise(20, 20, 20)], brain, size, window=window)
        assert (found[0][brain] == 1).all()
    assert calls[fit] <= calls[None]


@pytest.mark.parametrize(
    ("length", "fitted"),
    [
        (178, 72),  # three windows: 72 + 2 * 54 covers 180, 64 + 2 * 48 does not
        (140, 80),  # two
        (96, 96),
        (90, 96),  # one
        (88, 88),
        (20, 48),  # no shorter than half
    ],
)
def test_fitted_windows_are_as_short_as_their_number_allows(length, fitted):
    sizes = set()

    def apply(patches):
        sizes.add(tuple(patches.shape[2:]))
        return patches

    window = replace(EXACT, overlap=0.25, fit=8)
    predict(apply, [noise(length, 3, 2)], None, (96, 5, 2), window=window)
    assert sizes == {(fitted, 5, 2)}


@pytest.mark.parametrize("wrong", [{"fit": 0}, {"fit": 8, "stride_vox": (4, 4, 4)}])
def test_windows_that_cannot_be_fitted_are_refused(wrong):
    with pytest.raises(ValueError, match="fit must be"):
        SlidingWindow(**wrong)


def test_without_any_brain_everything_is_zero():
    brain = np.zeros((8, 8, 8), dtype=bool)
    assert not predict(nn.Identity(), [np.ones(brain.shape)], brain).any()


def test_several_windows_at_once_change_nothing():
    image = noise(20, 20, 9)
    many = SlidingWindow(precision="float32", windows_per_batch=5)
    np.testing.assert_array_equal(
        predict(nn.Tanh(), [image]), predict(nn.Tanh(), [image], window=many)
    )


def test_windows_beside_each_other_are_added_in_their_order():
    """The first window is the last to be done."""
    image = noise(20, 20, 9)
    last = threading.Event()

    def delayed(patches):
        if np.array_equal(patches[0, 0].numpy(), image[:8, :8, :8].astype(np.float32)):
            assert last.wait(timeout=30)
        else:
            last.set()
        return patches.tanh()

    np.testing.assert_array_equal(predict(delayed, [image], at_once=3), predict(nn.Tanh(), [image]))


def test_an_error_in_a_window_beside_others_is_raised():
    def failing(patches):
        raise InputError("no answer")

    with pytest.raises(InputError, match="no answer"):
        predict(failing, [noise(20, 20, 9)], at_once=2)


def test_few_windows_are_computed_before_they_are_used():
    ahead, used, begun = [], 0, 0

    def counted(patches):
        nonlocal begun
        begun += 1
        return patches

    def on_progress(done, total):
        nonlocal used
        used = done
        ahead.append(begun - done)

    predict(counted, [noise(40, 20, 9)], at_once=2, on_progress=on_progress)
    assert used > 20
    assert max(ahead) <= 2


def test_uniform_weighting_averages_windows_alike():
    values = iter([1.0, 3.0])

    def constant(patches):
        return torch.full_like(patches, next(values))

    window = SlidingWindow(precision="float32", weighting="uniform", stride_vox=(4, 8, 8))
    seen = predict(constant, [np.ones((12, 8, 8))], window=window)[0]
    assert seen[:, 0, 0].tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


def test_weights_peak_in_the_middle_and_vanish_nowhere():
    weights = gaussian_weights((9, 7, 5))
    assert weights[4, 3, 2] == weights.max() == 1
    assert weights.min() >= 1e-3


class Conditioned(nn.Module):
    conditions = ("spacing_mm",)

    def forward(self, image, spacing_mm):
        return image * spacing_mm[:, 2].view(-1, 1, 1, 1, 1)


def test_a_network_gets_the_conditions_it_names_of_each_sample():
    image = torch.ones(2, 1, 2, 2, 2)
    given = {"spacing_mm": torch.tensor([[1.0, 1.0, 3.0], [1.0, 1.0, 5.0]]), "age": torch.ones(2)}
    assert call_network(Conditioned(), image, given).amax((1, 2, 3, 4)).tolist() == [3.0, 5.0]
    assert call_network(nn.Identity(), image, given) is image


def test_one_condition_serves_all_windows_of_a_volume():
    spacing = {"spacing_mm": torch.tensor([1.0, 1.0, 3.0])}
    seen = predict(
        lambda patches: call_network(Conditioned(), patches, spacing),
        [np.ones((8, 8, 20))],
        window=SlidingWindow(precision="float32", windows_per_batch=4),
    )
    np.testing.assert_allclose(seen, 3.0, rtol=1e-6)


def test_a_missing_condition_is_named():
    with pytest.raises(InputError, match="the network needs spacing_mm of each sample"):
        call_network(Conditioned(), torch.ones(1, 1, 2, 2, 2))


def dropping():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 1), nn.Dropout3d(0.5), nn.Conv3d(8, 1, 1)).eval()
    dropout = MonteCarlo(passes=3, seed=5)
    return dropout.around(network, network), dropout.seed


@pytest.mark.parametrize("windows_per_batch", [1, 4])
def test_dropout_is_the_same_twice_and_leaves_the_random_state_alone(windows_per_batch):
    apply, seed = dropping()
    image = noise(16, 8, 8)
    first = predict(apply, [image], seed=seed)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    window = SlidingWindow(precision="float32", windows_per_batch=windows_per_batch)
    again = predict(apply, [image], window=window, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, predict(apply, [image], seed=seed + 1))


def test_dropout_in_a_window_does_not_depend_on_the_windows_before():
    apply, seed = dropping()
    image = noise(24, 8, 8)
    brain = np.zeros(image.shape, dtype=bool)
    brain[23] = True
    everywhere = predict(apply, [image], seed=seed)[0]
    last = predict(apply, [image], brain, seed=seed)[0]
    assert not last[:16].any()
    np.testing.assert_array_equal(last[20:], everywhere[20:])


def test_dropout_differs_between_windows():
    apply, seed = dropping()
    window = SlidingWindow(overlap=0.0, precision="float32")
    seen = predict(apply, [np.ones((16, 8, 8))], window=window, seed=seed)[0]
    assert not np.allclose(seen[:8], seen[8:])
