import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lesionwise.metrics import overlap
from lesionwise.metrics.overlap import VoxelCounts, count_voxels
from lesionwise.metrics.score import Undefined

COUNTS = VoxelCounts(tp=3, fp=1, fn=2, tn=94)
few = st.integers(0, 30)


def test_voxels_are_counted_over_the_whole_volume():
    reference = np.zeros((2, 2, 2), dtype=bool)
    prediction = reference.copy()
    reference[0, 0, :] = True
    prediction[0, :, 0] = True
    assert count_voxels(reference, prediction) == VoxelCounts(1, 1, 1, 5)
    assert count_voxels(reference, prediction, total=100) == VoxelCounts(1, 1, 1, 97)


def test_scores_by_hand():
    scores = overlap.voxel_scores(COUNTS, voxel_volume_mm3=2.5)
    assert scores["dsc"] == 6 / 9
    assert scores["iou"] == 3 / 6
    assert scores["ppv"] == 3 / 4
    assert scores["sensitivity"] == 3 / 5
    assert scores["specificity"] == 94 / 95
    assert scores["accuracy"] == 97 / 100
    assert scores["volume_difference_mm3"] == -2.5
    assert scores["relative_volume_difference"] == -0.2
    assert scores["dsc_smoothed"] == (6 + 1e-6) / (9 + 1e-6)
    k = 0.999 * 5 / (0.001 * 95)
    assert scores["ndsc"] == pytest.approx(6 / (k * 1 + 6 + 2), rel=1e-12)


def test_both_empty_is_perfect_only_when_smoothed():
    scores = overlap.voxel_scores(VoxelCounts(0, 0, 0, 100), 1.0)
    assert scores["dsc_smoothed"] == 1.0
    assert scores["specificity"] == scores["accuracy"] == 1.0
    for key in ("dsc", "ndsc", "iou", "ppv", "sensitivity", "relative_volume_difference"):
        assert scores[key] == Undefined("neither mask has a lesion voxel")


def test_an_empty_reference_scores_zero_where_it_is_defined():
    scores = overlap.voxel_scores(VoxelCounts(0, 4, 0, 96), 1.0)
    assert scores["dsc"] == scores["iou"] == scores["ndsc"] == scores["ppv"] == 0.0
    assert scores["sensitivity"] == Undefined("the reference has no lesion voxel")
    assert 0 < scores["dsc_smoothed"] < 1e-6


def test_an_empty_prediction_has_no_ppv():
    scores = overlap.voxel_scores(VoxelCounts(0, 0, 4, 96), 1.0)
    assert scores["ppv"] == Undefined("the prediction has no lesion voxel")
    assert scores["sensitivity"] == 0.0


def test_a_reference_that_fills_the_volume_has_no_specificity():
    scores = overlap.voxel_scores(VoxelCounts(60, 0, 40, 0), 1.0)
    assert isinstance(scores["specificity"], Undefined)
    assert scores["ndsc"] == scores["dsc"]


def test_normalized_dice_falls_with_the_field_of_view():
    # More background means a rarer lesion, so each false voxel weighs less.
    small = overlap.normalized_dice(VoxelCounts(10, 5, 5, 1_000))
    large = overlap.normalized_dice(VoxelCounts(10, 5, 5, 100_000))
    assert small < large


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="smoothing"):
        overlap.smoothed_dice(COUNTS, 0.0)
    with pytest.raises(ValueError, match="r must"):
        overlap.normalized_dice(COUNTS, 1.0)
    with pytest.raises(ValueError, match="differ"):
        count_voxels(np.zeros((1, 1, 1), bool), np.zeros((1, 1, 2), bool))


@settings(deadline=None)
@given(few, few, few, few)
def test_dice_and_iou_determine_each_other(tp, fp, fn, tn):
    assume(tp + fp + fn)
    counts = VoxelCounts(tp, fp, fn, tn)
    iou = overlap.iou(counts)
    assert math.isclose(overlap.dice(counts), 2 * iou / (1 + iou))


@settings(deadline=None)
@given(few, few, few, few)
def test_every_ratio_lies_between_0_and_1(tp, fp, fn, tn):
    scores = overlap.voxel_scores(VoxelCounts(tp, fp, fn, tn), 1.0)
    for key, score in scores.items():
        if not key.endswith("difference") and "volume" not in key:
            assert isinstance(score, Undefined) or 0 <= score <= 1


@settings(deadline=None)
@given(few, few, few, few)
def test_swapping_sides_swaps_ppv_and_sensitivity_and_keeps_dice(tp, fp, fn, tn):
    one = overlap.voxel_scores(VoxelCounts(tp, fp, fn, tn), 1.0)
    other = overlap.voxel_scores(VoxelCounts(tp, fn, fp, tn), 1.0)
    for key in ("dsc", "iou", "accuracy", "dsc_smoothed"):
        assert one[key] == other[key]
    if isinstance(one["ppv"], float):
        assert one["ppv"] == other["sensitivity"]


def test_voxel_overlap_of_the_official_evaluator(peer_case, agree):
    counts = count_voxels(*peer_case.masks)
    theirs = peer_case.peer("anima")["runs"]["default"]["results"]
    if "Dice" not in theirs:  # empty reference: it prints counts alone
        assert counts.reference == 0
        return
    assert agree(overlap.iou(counts), theirs["Jaccard"], 1e-9)
    assert agree(overlap.dice(counts), theirs["Dice"], 1e-9)
    assert agree(overlap.sensitivity(counts), theirs["Sensitivity"], 1e-9)
    assert agree(overlap.specificity(counts), theirs["Specificity"], 1e-9)
    assert agree(overlap.ppv(counts), theirs["PPV"], 1e-9)
    percent = 100 * overlap.relative_volume_difference(counts)
    assert agree(percent, theirs["RelativeVolumeError"], 1e-9)


def test_voxel_overlap_of_medpy(peer_case, agree):
    counts = count_voxels(*peer_case.masks)
    theirs = peer_case.peer("surface")["medpy"]["results"]
    if counts.reference and counts.prediction:
        assert agree(overlap.ppv(counts), theirs["precision"], 1e-9)
        assert agree(overlap.sensitivity(counts), theirs["recall"], 1e-9)
    assert agree(overlap.specificity(counts), theirs["specificity"], 1e-9)
    assert agree(overlap.relative_volume_difference(counts), theirs["ravd"], 1e-9)
    if counts.reference or counts.prediction:  # of two empty masks MedPy says 1
        assert agree(overlap.dice(counts), theirs["dc"], 1e-9)
        assert agree(overlap.iou(counts), theirs["jc"], 1e-9)
