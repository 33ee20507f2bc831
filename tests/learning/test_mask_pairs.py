"""Pairs of masks with their agreement."""

import cc3d
import numpy as np
import pytest
from engine import visit_of
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.mask_pairs import (
    FALSE_AT_MOST,
    MaskPairs,
    any_overlap_f1,
    nearest_in_score,
    softened,
    with_false_components,
    worse_mask,
)
from lesionwise.learning.objective import Supervised
from lesionwise.learning.samplers import PatchSampling
from lesionwise.learning.samples import Reading, SampleRequest
from lesionwise.learning.targets import LesionMask
from lesionwise.types import InputError, TrainingData

OBJECTIVE = Supervised(LesionMask(), CrossEntropy())


def boxes(*firsts, side=24):
    mask = np.zeros((side,) * 3, dtype=bool)
    for i, j, k in firsts:
        mask[i : i + 3, j : j + 3, k : k + 3] = True
    return mask


FOUR = boxes((1, 1, 1), (1, 15, 2), (15, 1, 8), (14, 14, 18))
NOTHING, ONE, TWO = boxes(), boxes((9, 3, 12)), boxes((1, 1, 1), (15, 1, 8))


def components(mask):
    return cc3d.connected_components(mask, connectivity=26, return_N=True)


def histogram(reference, number=200):
    """Pairs whose score lies in each fifth, over evenly spaced wanted scores."""
    scores = [
        nearest_in_score(reference, (n + 0.5) / number, np.random.default_rng(n))[1]
        for n in range(number)
    ]
    return np.histogram(scores, bins=5, range=(0, 1))[0]


def test_two_of_three_found_and_one_false_is_two_thirds():
    reference = boxes((1, 1, 1), (10, 10, 10), (18, 2, 2))
    predicted = boxes((1, 1, 1), (12, 12, 12), (2, 18, 18))
    assert any_overlap_f1(reference, predicted) == pytest.approx(2 / 3)


def test_empty_masks_have_a_stated_score():
    nothing = np.zeros((4, 4, 4), dtype=bool)
    assert any_overlap_f1(nothing, nothing) == 1
    assert any_overlap_f1(nothing, ~nothing) == any_overlap_f1(~nothing, nothing) == 0


@pytest.mark.parametrize("reference", [ONE, TWO, FOUR], ids=["1", "2", "4"])
def test_the_scores_of_few_lesions_fill_every_fifth(reference):
    assert histogram(reference).min() >= 20  # of 200; even would be 40


def test_without_a_lesion_half_of_the_scores_are_0_and_half_1():
    assert histogram(NOTHING).tolist() == [100, 0, 0, 0, 100]


@given(wanted=st.floats(0, 1), seed=st.integers(0, 50))
def test_without_a_lesion_a_low_score_is_wanted_of_a_false_one(wanted, seed):
    made, score = nearest_in_score(NOTHING, wanted, np.random.default_rng(seed))
    assert made.any() == (wanted < 0.5)
    assert score == (wanted >= 0.5)


@given(
    reference=st.sampled_from([NOTHING, ONE, TWO, FOUR]),
    wanted=st.floats(0, 1),
    seed=st.integers(0, 50),
)
def test_the_stated_score_is_that_of_the_mask_and_always_the_same(reference, wanted, seed):
    made, score = nearest_in_score(reference, wanted, np.random.default_rng(seed))
    assert score == any_overlap_f1(reference, made)
    again, _ = nearest_in_score(reference, wanted, np.random.default_rng(seed))
    np.testing.assert_array_equal(made, again)


@given(false=st.integers(0, FALSE_AT_MOST), seed=st.integers(0, 50))
def test_one_found_lesion_with_n_false_ones_scores_2_by_n_plus_2(false, seed):
    made = worse_mask(ONE, 1, false, np.random.default_rng(seed))
    assert any_overlap_f1(ONE, made) == pytest.approx(2 / (false + 2))


@given(found=st.integers(0, 4), seed=st.integers(0, 50))
def test_as_many_components_are_found_as_wanted(found, seed):
    made = worse_mask(FOUR, found, 0, np.random.default_rng(seed))
    labels, _ = components(FOUR)
    assert len(np.unique(labels[made & FOUR])) == components(made)[1] == found


def test_shrinking_removes_no_component():
    thin = np.zeros((12, 12, 12), dtype=bool)
    thin[2, 2, 2:5] = thin[8, 6:8, 6:8] = True
    for seed in range(10):
        assert components(worse_mask(thin, 2, 0, np.random.default_rng(seed)))[1] == 2


@given(
    reference=st.sampled_from([NOTHING, ONE, TWO, FOUR]),
    number=st.integers(0, FALSE_AT_MOST),
    seed=st.integers(0, 50),
)
def test_false_components_touch_nothing_and_are_as_many_as_wanted(reference, number, seed):
    mask = reference & (np.arange(24) > 10)
    made = with_false_components(mask, reference, number, np.random.default_rng(seed))
    false = made & ~mask
    near = ndimage.binary_dilation(mask | reference, np.ones((3, 3, 3)))
    assert bool((made[mask]).all())
    assert not (false & near).any()
    assert components(false)[1] == number


def test_without_room_there_are_fewer_false_components():
    reference = np.ones((6, 6, 6), dtype=bool)
    rng = np.random.default_rng(0)
    assert not with_false_components(~reference, reference, 3, rng).any()
    thin = np.zeros((9, 9, 1), dtype=bool)
    assert 1 <= components(with_false_components(thin, thin, 5, rng))[1] <= 5


def test_scores_spread_over_the_whole_range():
    samples = MaskPairs((16, 16, 16), per_epoch=60)
    source = samples.open(
        TrainingData([visit_of()]), SampleRequest(Reading(("flair",)), OBJECTIVE, 0)
    )
    scores = np.array([float(source[n]["score"]) for n in range(60)])
    counts, _ = np.histogram(scores, bins=3, range=(0, 1))
    assert counts.min() >= 8


def test_patches_without_a_lesion_come_with_and_without_a_false_one():
    samples = MaskPairs((8, 8, 8), per_epoch=60, sampling=PatchSampling(0.0))
    source = samples.open(
        TrainingData([visit_of(side=32)]), SampleRequest(Reading(("flair",)), OBJECTIVE, 0)
    )
    empty = [pair for pair in map(source.__getitem__, range(60)) if not pair["image"][0].any()]
    for pair in empty:
        assert float(pair["score"]) == (not pair["image"][1].any())
    assert {float(pair["score"]) for pair in empty} == {0.0, 1.0}


def test_a_pair_is_a_mask_and_a_soft_one_and_always_the_same():
    samples = MaskPairs((8, 8, 8))
    source = samples.open(
        TrainingData([visit_of()]), SampleRequest(Reading(("flair",)), OBJECTIVE, 3)
    )
    pair = source[7]
    assert pair["image"].shape == (2, 8, 8, 8)
    assert set(pair["image"][0].unique().tolist()) <= {0.0, 1.0}
    assert float(pair["image"][1].min()) >= 0
    assert float(pair["image"][1].max()) <= 1
    assert bool((source[7]["image"] == pair["image"]).all())


def test_a_softened_mask_keeps_its_place():
    soft = softened(FOUR, (0.5, 0.5), (1.0, 1.0), np.random.default_rng(0))
    assert soft.dtype == np.float32
    assert soft[FOUR].min() > soft[~FOUR].max() * 0.3
    assert soft[2, 2, 2] > 0.9


def test_without_a_lesion_there_is_nothing_to_learn():
    study = visit_of()
    study.followup.labels["instances"].array[:] = 0
    with pytest.raises(InputError, match="have no lesion"):
        MaskPairs((8, 8, 8)).open(
            TrainingData([study]), SampleRequest(Reading(("flair",)), OBJECTIVE, 0)
        )
