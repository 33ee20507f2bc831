import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionwise.metrics.challenge import ChallengeResult, ChallengeRules, evaluate_challenge
from lesionwise.metrics.score import Undefined

ANY_SIZE = ChallengeRules(min_volume_mm3=0.0)
masks = arrays(np.bool_, (4, 4, 4))


def row(*voxels: int) -> np.ndarray:
    return np.array(voxels, dtype=bool).reshape(-1, 1, 1)


def run(reference, prediction, voxel_mm3=1.0, rules=ANY_SIZE) -> ChallengeResult:
    return evaluate_challenge(reference, prediction, voxel_mm3, rules)


def test_lesions_that_touch_by_an_edge_are_two():
    mask = np.zeros((2, 2, 1), dtype=bool)
    mask[0, 0] = mask[1, 1] = True
    assert run(mask, mask).reference_lesions == 2


def test_a_lesion_must_be_larger_than_the_minimum():
    mask = row(1, 1, 1, 0, 1, 1, 1, 1)
    assert run(mask, mask, rules=ChallengeRules()).reference_lesions == 1
    assert run(mask, mask, 0.5, ChallengeRules(min_volume_mm3=1.5)).reference_lesions == 1
    assert run(mask, mask, 0.5, ChallengeRules(min_volume_mm3=1.4)).reference_lesions == 2


def test_small_lesions_become_background_on_their_own_side_only():
    # The tested lesion lies on a reference lesion that is too small, and on background.
    result = run(row(1, 1, 1, 0, 0, 0), row(1, 1, 1, 1, 0, 0), rules=ChallengeRules())
    assert (result.reference_lesions, result.tested_lesions, result.confirmed) == (0, 1, 0)


def test_coverage_must_exceed_alpha():
    reference = row(*[1] * 10, 0)
    prediction = row(1, *[0] * 10)
    assert run(reference, prediction).detected == 0  # exactly 0.1
    assert run(reference, row(1, 1, *[0] * 9)).detected == 1


def test_a_covering_lesion_may_lie_outside_up_to_beta():
    reference = row(1, 1, 1, *[0] * 10)
    assert run(reference, row(*[1] * 10, 0, 0, 0)).detected == 1  # 7 of 10 outside
    assert run(reference, row(*[1] * 11, 0, 0)).detected == 0  # 8 of 11 outside


def test_what_lies_in_other_reference_lesions_is_not_outside():
    reference = row(1, 0, 1, 1, 1, 1)
    assert run(reference, row(1, 1, 1, 1, 1, 1)).detected == 2


def test_the_walk_ends_at_the_first_lesion_that_reaches_too_far():
    # A thin reference along i; two tested lesions cross it. The larger overlap (3) belongs to
    # one that lies outside by 9 of 12, so the walk fails; with beta at 0.75 it goes on.
    reference = np.zeros((5, 5, 1), dtype=bool)
    reference[:, 2] = True
    prediction = np.zeros_like(reference)
    prediction[0:3, 1:5] = True
    prediction[4, 2] = True
    assert run(reference, prediction).reference_lesions == 1
    assert run(reference, prediction).detected == 0
    assert run(reference, prediction, rules=ChallengeRules(0.0, beta=0.75)).detected == 1


def test_the_walk_stops_in_time_when_gamma_is_reached():
    # 7 of 9 covered voxels are held by an exact lesion, so the far-reaching one is never met.
    reference = row(*[1] * 10, *[0] * 10)
    prediction = row(*[1] * 7, 0, *[1] * 12)
    assert run(reference, prediction).detected == 1
    assert run(reference, prediction, rules=ChallengeRules(0.0, gamma=0.8)).detected == 0


def test_one_prediction_may_detect_several_lesions():
    result = run(row(1, 1, 0, 1, 1), row(1, 1, 1, 1, 1))
    assert (result.detected, result.confirmed) == (2, 1)
    assert (result.sensl, result.ppvl, result.f1) == (1.0, 1.0, 1.0)


def test_an_empty_reference_gives_counts_at_3_mm3_whatever_was_asked():
    result = run(row(*[0] * 6), row(1, 1, 1, 1, 0, 1), rules=ChallengeRules(min_volume_mm3=0))
    assert (result.tested_lesions, result.tested_volume_mm3) == (1, 4.0)
    for score in (result.sensl, result.ppvl, result.f1):
        assert isinstance(score, Undefined)


def test_an_empty_prediction_scores_zero():
    result = run(row(1, 1), row(0, 0))
    assert (result.sensl, result.ppvl, result.f1) == (0.0, 0.0, 0.0)


def test_no_reference_lesion_above_the_minimum():
    result = run(row(1, 1, 0), row(1, 1, 0), rules=ChallengeRules())
    assert isinstance(result.sensl, Undefined)
    assert (result.ppvl, result.f1) == (0.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_swapping_sides_swaps_both_shares(reference, prediction):
    one, other = run(reference, prediction), run(prediction, reference)
    assert (one.detected, one.confirmed) == (other.confirmed, other.detected)


@settings(max_examples=60, deadline=None)
@given(masks, masks, st.sampled_from([0.0, 0.2, 0.5]))
def test_a_stricter_alpha_never_detects_more(reference, prediction, alpha):
    loose = run(reference, prediction, rules=ChallengeRules(0.0, alpha=alpha))
    strict = run(reference, prediction, rules=ChallengeRules(0.0, alpha=alpha + 0.3))
    assert strict.detected <= loose.detected


def test_identical_masks_are_found_completely():
    mask = np.random.default_rng(3).random((6, 6, 6)) > 0.7
    assert (run(mask, mask).sensl, run(mask, mask).ppvl) == (1.0, 1.0)


def test_detection_of_the_official_evaluator_in_every_run(peer_case, agree):
    voxel_mm3 = float(np.prod(peer_case.spacing_mm))
    for run_ in peer_case.peer("anima")["runs"].values():
        limits = run_["parameters"]
        ours = evaluate_challenge(
            *peer_case.masks,
            voxel_mm3,
            ChallengeRules(
                min_volume_mm3=limits["min_lesion_volume_mm3"],
                alpha=limits["alpha_min_overlap"],
                beta=limits["beta_max_false_positive_ratio"],
                gamma=limits["gamma_moderator"],
            ),
        )
        theirs, counts = run_["results"], run_["counts"]
        if ours.reference_empty:
            assert ours.tested_lesions == theirs.get("NbTestedLesions", 0)
            assert ours.tested_volume_mm3 == pytest.approx(theirs.get("VolTestedLesions", 0))
            continue
        assert ours.reference_lesions == counts["n_reference_lesions"]
        assert ours.tested_lesions == counts["n_tested_lesions"]
        assert ours.detected == counts["detected_reference_lesions"]
        assert ours.confirmed == counts["confirmed_tested_lesions"]
        assert agree(ours.sensl, theirs["SensL"], 1e-9)
        assert agree(ours.ppvl, theirs["PPVL"], 1e-9)
        assert agree(ours.f1, theirs["F1_score"], 1e-9)
