"""Pairs of masks with their agreement."""

import numpy as np
import pytest
from engine import visit_of
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.learning.losses import CrossEntropy
from lesionwise.learning.mask_pairs import (
    MaskPairs,
    any_overlap_f1,
    nearest_in_score,
    softened,
    worse_mask,
)
from lesionwise.learning.objective import Supervised
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


def test_two_of_three_found_and_one_false_is_two_thirds():
    reference = boxes((1, 1, 1), (10, 10, 10), (18, 2, 2))
    predicted = boxes((1, 1, 1), (12, 12, 12), (2, 18, 18))
    assert any_overlap_f1(reference, predicted) == pytest.approx(2 / 3)


def test_empty_masks_have_a_stated_score():
    nothing = np.zeros((4, 4, 4), dtype=bool)
    assert any_overlap_f1(nothing, nothing) == 1
    assert any_overlap_f1(nothing, ~nothing) == any_overlap_f1(~nothing, nothing) == 0


def test_without_severity_every_component_is_touched():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert any_overlap_f1(FOUR, worse_mask(FOUR, 0.0, rng)) == 1


@given(wanted=st.floats(0, 1), seed=st.integers(0, 50))
def test_the_stated_score_is_that_of_the_mask(wanted, seed):
    made, score = nearest_in_score(FOUR, wanted, np.random.default_rng(seed))
    assert score == any_overlap_f1(FOUR, made)


def test_scores_spread_over_the_whole_range():
    samples = MaskPairs((16, 16, 16), per_epoch=60)
    source = samples.open(
        TrainingData([visit_of()]), SampleRequest(Reading(("flair",)), OBJECTIVE, 0)
    )
    scores = np.array([float(source[n]["score"]) for n in range(60)])
    counts, _ = np.histogram(scores, bins=3, range=(0, 1))
    assert counts.min() >= 8


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
