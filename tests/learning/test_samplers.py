"""Where patches lie and in which order they come."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.learning.samplers import (
    EpochSampler,
    PatchSampling,
    SlicesWithLesion,
    WeightedSampling,
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
    start = PatchSampling(share).place(shape, center, (16, 16, 16), rng)
    for first, n in zip(start, shape, strict=True):
        assert 0 <= first <= n - 16 if n >= 16 else first <= 0 and first + 16 >= n


def test_a_lesion_patch_holds_a_lesion_center():
    center = np.array([[50.0, 60.0, 5.0]])
    for seed in range(20):
        rng = np.random.default_rng(seed)
        start = PatchSampling(1.0).place((100, 100, 100), center, (16, 16, 16), rng)
        assert all(s <= c < s + 16 for s, c in zip(start, center[0], strict=True))


def test_every_lesion_is_as_likely_whatever_the_share_of_random_patches():
    rng = np.random.default_rng(0)
    centers = np.array([[10.0, 10, 10], [90.0, 90, 90]])
    first = [PatchSampling(1.0).place((100,) * 3, centers, (8,) * 3, rng)[0] for _ in range(400)]
    assert 150 < np.sum(np.array(first) < 50) < 250


def test_random_patches_reach_both_ends():
    rng = np.random.default_rng(0)
    first = [PatchSampling().place((20, 20, 20), NONE, (16, 16, 16), rng)[0] for _ in range(200)]
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
class Volume:
    shape: tuple
    lesion_voxels: np.ndarray


def test_the_middle_slice_of_a_stack_holds_a_lesion():
    volume = Volume((40, 30, 12), np.array([[5, 6, 0], [20, 20, 7], [20, 21, 7], [30, 20, 11]]))
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
    volume = Volume((6, 30, 4), np.empty((0, 3), dtype=int))
    starts = [
        SlicesWithLesion().start(volume, (10, 10, 3), np.random.default_rng(seed))
        for seed in range(60)
    ]
    assert {start[0] for start in starts} == {-2}
    assert {start[2] + 1 for start in starts} == {0, 1, 2, 3}
