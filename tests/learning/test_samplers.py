"""Where patches lie and in which order they come."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.learning.samplers import EpochSampler, PatchSampling

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
