"""Where patches lie and in which order they come."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.learning.samplers import (
    BrainSampling,
    CenterSampling,
    EpochSampler,
    PatchSampling,
    SlicesWithLesion,
    WeightedSampling,
    start_within,
)

NONE = np.empty((0, 3))


@given(
    shape=st.tuples(*[st.integers(5, 40)] * 3),
    seed=st.integers(0, 9),
    share=st.sampled_from([0.0, 1.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_patch_lies_in_the_volume_or_around_it(shape, seed, share):
    rng = np.random.default_rng(seed)
    center = rng.uniform(0, np.array(shape) - 1)[None]
    start = PatchSampling(share).position(shape, center, (16, 16, 16), rng)
    for first, n in zip(start, shape, strict=True):
        assert 0 <= first <= n - 16 if n >= 16 else first <= 0 and first + 16 >= n


@given(data=st.data(), shape=st.tuples(*[st.integers(1, 30)] * 3))
def test_a_patch_that_is_moved_into_the_volume_keeps_its_voxels_of_it(data, shape):
    size = data.draw(st.tuples(*[st.integers(1, 20)] * 3))
    voxel = data.draw(st.tuples(*[st.integers(0, n - 1) for n in shape]))
    wanted = [v - data.draw(st.integers(0, s - 1)) for v, s in zip(voxel, size, strict=True)]
    start = start_within(shape, size, wanted)
    for first, s, n, v, w in zip(start, size, shape, voxel, wanted, strict=True):
        assert first <= v < first + s
        assert 0 <= first <= n - s if n >= s else first <= 0 and first + s >= n
        assert first == w or n <= s or not 0 <= w <= n - s  # no further than needed


def test_a_lesion_patch_holds_a_lesion_center():
    center = np.array([[50.0, 60.0, 5.0]])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        start = PatchSampling(1.0).position((100, 100, 100), center, (16, 16, 16), rng)
        assert all(s <= c < s + 16 for s, c in zip(start, center[0], strict=True))


def test_a_center_lies_in_the_inner_three_quarters_alike_on_both_sides():
    center, rng = np.array([[50.0, 50.0, 50.0]]), np.random.default_rng(0)
    starts = [PatchSampling(1.0).position((101,) * 3, center, (16,) * 3, rng) for _ in range(1000)]
    places, counts = np.unique(50 - np.array(starts), return_counts=True)
    assert places.tolist() == list(range(2, 14))  # of 0 to 15: two are left at either end
    assert counts.min() > 0.8 * counts.mean()


def test_a_patch_of_one_voxel_around_a_lesion_is_the_slice_of_its_center():
    center, rng = np.array([[10.0, 10.0, 10.0]]), np.random.default_rng(0)
    for _ in range(50):
        assert PatchSampling(1.0).position((21, 21, 21), center, (8, 8, 1), rng)[2] == 10


def test_every_lesion_is_as_likely_whatever_the_share_of_random_patches():
    rng = np.random.default_rng(0)
    centers = np.array([[10.0, 10, 10], [90.0, 90, 90]])
    first = [PatchSampling(1.0).position((100,) * 3, centers, (8,) * 3, rng)[0] for _ in range(400)]
    assert 150 < np.sum(np.array(first) < 50) < 250


def test_random_patches_reach_both_ends():
    rng = np.random.default_rng(0)
    first = [PatchSampling().position((20, 20, 20), NONE, (16, 16, 16), rng)[0] for _ in range(200)]
    assert set(first) == {0, 1, 2, 3, 4}


def test_epochs_continue_where_the_last_one_ended():
    sampler = EpochSampler(3)
    first = list(sampler)
    sampler.set_epoch(2)
    assert first == [0, 1, 2]
    assert list(sampler) == [6, 7, 8]


class _Place:
    """A volume of 10 × 10 × 10 with a brain and one lesion."""

    def __init__(self, shape=(10, 10, 10)):
        self.shape = shape
        self.instances = np.zeros(shape, int)
        self.brain = np.zeros(shape, bool)
        self.brain[2:8, 2:8, 2:8] = True
        self.instances[5, 5, 5] = 1
        self.centers_vox = np.array([[5.0, 5.0, 5.0]])


def test_a_middle_is_drawn_by_its_weight():
    rng = np.random.default_rng(0)
    place = _Place()
    middles = [
        tuple(np.add(WeightedSampling(0, 1, 100).start(place, (3, 3, 3), rng), 1))
        for _ in range(2000)
    ]
    assert all(place.brain[m] for m in middles)
    share = np.mean([m == (5, 5, 5) for m in middles])
    assert share == pytest.approx(100 / (100 + 6**3 - 1), abs=0.04)


def test_a_weighted_patch_never_leaves_the_volume():
    rng = np.random.default_rng(1)
    place = _Place()
    place.brain[:] = True
    for size in [(4, 5, 6), (10, 9, 1)]:
        starts = np.array([WeightedSampling().start(place, size, rng) for _ in range(300)])
        assert (starts >= 0).all()
        assert (starts + size <= 10).all()
        assert (starts.min(axis=0) == 0).all()


def test_a_weighted_patch_larger_than_the_volume_is_centered():
    start = WeightedSampling().start(_Place(), (14, 10, 4), np.random.default_rng(2))
    assert start[:2] == (-2, 0)


def test_without_any_weight_a_weighted_patch_lies_anywhere():
    place = _Place()
    place.brain[:] = False
    place.instances[:] = 0
    rng = np.random.default_rng(3)
    starts = {WeightedSampling().start(place, (3, 3, 3), rng) for _ in range(50)}
    assert len(starts) > 20


@dataclass
class Slices:
    shape: tuple
    lesion_voxels: np.ndarray


def test_the_middle_slice_of_a_stack_holds_a_lesion():
    volume = Slices((40, 30, 12), np.array([[5, 6, 0], [20, 20, 7], [20, 21, 7], [30, 20, 11]]))
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        i, j, k = SlicesWithLesion(tries=500).start(volume, (10, 10, 3), rng)
        assert 0 <= i <= 30
        assert 0 <= j <= 20
        middle = volume.lesion_voxels[volume.lesion_voxels[:, 2] == k + 1]
        low, high = np.array([i, j]), np.array([i + 10, j + 10])
        assert ((middle[:, :2] >= low) & (middle[:, :2] < high)).all(axis=1).any()
        seen.add(k + 1)
    assert seen == {0, 7, 11}


def test_stacks_of_a_volume_without_lesions_lie_anywhere():
    volume = Slices((6, 30, 4), np.empty((0, 3), dtype=int))
    starts = [
        SlicesWithLesion().start(volume, (10, 10, 3), np.random.default_rng(seed))
        for seed in range(60)
    ]
    assert {start[0] for start in starts} == {-2}
    assert {start[2] + 1 for start in starts} == {0, 1, 2, 3}


class Volume:
    """A place with a brain and lesion centers."""

    def __init__(self, brain, centers=NONE):
        self.shape = brain.shape
        self.brain = brain
        self.centers_vox = np.asarray(centers, dtype=float).reshape(-1, 3)


def ball(side=30, radius=6):
    where = np.indices((side,) * 3) - side // 2
    return (where**2).sum(axis=0) < radius**2


def test_the_middle_of_a_patch_lies_in_the_brain():
    place = Volume(ball())
    rng = np.random.default_rng(0)
    for _ in range(50):
        start = BrainSampling(0.8).start(place, (8, 8, 8), rng)
        assert place.brain[tuple(s + 4 for s in start)]


def test_so_many_patches_hold_a_lesion_even_outside_the_brain():
    place = Volume(ball(), [[2.0, 2.0, 2.0]])
    rng = np.random.default_rng(0)
    starts = np.array([BrainSampling(0.8).start(place, (8, 8, 8), rng) for _ in range(400)])
    held = (starts <= 2).all(axis=1).mean()
    assert 0.74 < held < 0.86


def test_without_a_brain_or_with_one_that_no_middle_reaches_patches_lie_anywhere():
    rng = np.random.default_rng(0)
    unknown = Volume(ball())
    unknown.brain = None
    corner = np.zeros((30,) * 3, dtype=bool)
    corner[0, 0, 0] = True
    for place in (unknown, Volume(corner)):
        start = BrainSampling(0.8).start(place, (8, 8, 8), rng)
        assert all(0 <= s <= 22 for s in start)


@given(
    center=st.tuples(*[st.floats(0, 29)] * 3),
    seed=st.integers(0, 99),
    sizes=st.sampled_from([(97, 19), (49, 13), (9, 3)]),
)
@settings(max_examples=60, deadline=None)
def test_the_inner_part_holds_the_lesions_center_wherever_it_lies(center, seed, sizes):
    size, inner = sizes
    rng = np.random.default_rng(seed)
    start = CenterSampling((inner,) * 3).start(Volume(ball(), [center]), (size,) * 3, rng)
    margin = (size - inner) // 2
    for first, at in zip(start, center, strict=True):
        assert first + margin <= np.round(at) < first + margin + inner


def test_centers_lie_everywhere_in_the_inner_part():
    rng = np.random.default_rng(0)
    place = Volume(ball(), [[15.0, 15.0, 15.0]])
    first = {CenterSampling((3, 3, 3)).start(place, (9, 9, 9), rng)[0] for _ in range(60)}
    assert first == {10, 11, 12}


def test_without_lesions_the_middle_of_a_patch_lies_anywhere_in_the_volume():
    rng = np.random.default_rng(0)
    place = Volume(ball())
    middles = [CenterSampling((3,) * 3).start(place, (9,) * 3, rng)[1] + 4 for _ in range(300)]
    assert (min(middles), max(middles)) == (0, 29)


def test_so_many_centers_lie_in_the_inner_part_and_the_others_anywhere_in_the_patch():
    rng = np.random.default_rng(0)
    place, rule = Volume(ball(), [[15.0, 15.0, 15.0]]), CenterSampling((3,) * 3, 0.5)
    starts = np.array([rule.start(place, (27,) * 3, rng) for _ in range(400)])
    assert ((starts <= 15) & (starts + 27 > 15)).all()
    inner = ((starts + 12 <= 15) & (starts + 15 > 15)).all(axis=1).mean()
    assert 0.42 < inner < 0.58
    assert starts.min() == 15 - 26
    assert starts.max() == 15
