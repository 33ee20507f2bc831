"""Voxel-wise agreement of two masks, from four counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lesionwise.metrics.score import Score, Undefined, ratio
from lesionwise.types import BoolArray

NO_REFERENCE = "the reference has no lesion voxel"
NO_PREDICTION = "the prediction has no lesion voxel"
BOTH_EMPTY = "neither mask has a lesion voxel"
NO_BACKGROUND = "the reference fills the whole volume"


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels in both masks, in one of them, in neither.

    Attributes:
        tp: in both masks.
        fp: in the prediction alone.
        fn: in the reference alone.
        tn: in neither; depends on the field of view.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def reference(self) -> int:
        return self.tp + self.fn

    @property
    def prediction(self) -> int:
        return self.tp + self.fp

    @property
    def total(self) -> int:
        return self.tp + self.fp + self.fn + self.tn


def count_voxels(
    reference: BoolArray, prediction: BoolArray, total: int | None = None
) -> VoxelCounts:
    """Count the voxels two masks share and do not share.

    Args:
        reference: (I, J, K) bool, or any part of it that holds all its foreground.
        prediction: the same shape.
        total: voxels of the whole volume, where the masks are a part; None takes their size.

    Example:
        >>> reference = np.array([1, 1, 0, 0], dtype=bool)
        >>> prediction = np.array([1, 0, 1, 0], dtype=bool)
        >>> count_voxels(reference, prediction)
        VoxelCounts(tp=1, fp=1, fn=1, tn=1)
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ")
    tp = int(np.count_nonzero(reference & prediction))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return VoxelCounts(tp, fp, fn, (reference.size if total is None else total) - tp - fp - fn)


def dice(counts: VoxelCounts) -> Score:
    """2 |P and R| / (|P| + |R|); undefined when both are empty.

    Example:
        >>> dice(VoxelCounts(tp=2, fp=1, fn=1, tn=6))
        0.6666666666666666
    """
    return ratio(2 * counts.tp, counts.reference + counts.prediction, BOTH_EMPTY)


def smoothed_dice(counts: VoxelCounts, smoothing: float = 1e-6) -> float:
    """(2 |P and R| + s) / (|P| + |R| + s): 1 when both are empty.

    Source: equation 1 of the chapter of recipe ``bsi-lightgbm``, with its s = 1e-6.

    Example:
        >>> smoothed_dice(VoxelCounts(tp=0, fp=0, fn=0, tn=9))
        1.0
    """
    if smoothing <= 0:
        raise ValueError(f"smoothing must be above 0, got {smoothing}")
    return (2 * counts.tp + smoothing) / (counts.reference + counts.prediction + smoothing)


def normalized_dice(counts: VoxelCounts, r: float = 0.001) -> Score:
    """Dice with the false positives weighted as if lesions filled the share ``r`` of the volume.

    2 TP / (k FP + 2 TP + FN) with k = (1 - r) |R| / (r (N - |R|)), N the voxels of the volume:
    the value changes with the field of view. k = 1 for an empty reference; undefined when
    both are empty. Source: the ConfLUNet authors' code (which sums in float32, this does not).

    Example:
        >>> round(normalized_dice(VoxelCounts(tp=2, fp=1, fn=1, tn=996)), 3)
        0.5
    """
    if not 0 < r < 1:
        raise ValueError(f"r must lie between 0 and 1, got {r}")
    background = counts.total - counts.reference
    k = 1.0
    if counts.reference and background:
        k = (1 - r) * counts.reference / (r * background)
    return ratio(2 * counts.tp, k * counts.fp + 2 * counts.tp + counts.fn, BOTH_EMPTY)


def iou(counts: VoxelCounts) -> Score:
    """|P and R| / |P or R|; undefined when both are empty.

    Example:
        >>> iou(VoxelCounts(tp=2, fp=1, fn=1, tn=6))
        0.5
    """
    return ratio(counts.tp, counts.tp + counts.fp + counts.fn, BOTH_EMPTY)


def ppv(counts: VoxelCounts) -> Score:
    """Share of the predicted voxels that are right.

    Example:
        >>> ppv(VoxelCounts(tp=3, fp=1, fn=2, tn=4))
        0.75
    """
    return ratio(counts.tp, counts.prediction, NO_PREDICTION)


def sensitivity(counts: VoxelCounts) -> Score:
    """Share of the reference's voxels that were found.

    Example:
        >>> sensitivity(VoxelCounts(tp=3, fp=1, fn=2, tn=4))
        0.6
    """
    return ratio(counts.tp, counts.reference, NO_REFERENCE)


def specificity(counts: VoxelCounts) -> Score:
    """Share of the background that was not predicted as lesion, over the whole volume.

    Example:
        >>> specificity(VoxelCounts(tp=3, fp=1, fn=2, tn=4))
        0.8
    """
    return ratio(counts.tn, counts.tn + counts.fp, NO_BACKGROUND)


def accuracy(counts: VoxelCounts) -> Score:
    """Share of all voxels of the volume that are right.

    Example:
        >>> accuracy(VoxelCounts(tp=3, fp=1, fn=2, tn=4))
        0.7
    """
    return ratio(counts.tp + counts.tn, counts.total, "the volume has no voxels")


def volume_difference_mm3(counts: VoxelCounts, voxel_volume_mm3: float) -> float:
    """Predicted minus reference volume, signed.

    Example:
        >>> volume_difference_mm3(VoxelCounts(tp=3, fp=1, fn=2, tn=4), voxel_volume_mm3=2.0)
        -2.0
    """
    return (counts.prediction - counts.reference) * voxel_volume_mm3


def relative_volume_difference(counts: VoxelCounts) -> Score:
    """(predicted - reference) / reference volume, a signed fraction.

    Example:
        >>> relative_volume_difference(VoxelCounts(tp=3, fp=1, fn=2, tn=4))
        -0.2
    """
    return ratio(counts.prediction - counts.reference, counts.reference, NO_REFERENCE)


def voxel_scores(counts: VoxelCounts, voxel_volume_mm3: float) -> dict[str, Score]:
    """All of the above under the names that ``metrics.json`` uses.

    Example:
        >>> voxel_scores(VoxelCounts(tp=2, fp=1, fn=1, tn=6), voxel_volume_mm3=1.0)["dsc"]
        0.6666666666666666
    """
    scores: dict[str, Score] = {
        "dsc": dice(counts),
        "dsc_smoothed": smoothed_dice(counts),
        "ndsc": normalized_dice(counts),
        "iou": iou(counts),
        "ppv": ppv(counts),
        "sensitivity": sensitivity(counts),
        "specificity": specificity(counts),
        "accuracy": accuracy(counts),
        "volume_difference_mm3": volume_difference_mm3(counts, voxel_volume_mm3),
        "relative_volume_difference": relative_volume_difference(counts),
    }
    if counts.prediction == counts.reference == 0:
        scores = {
            key: Undefined(BOTH_EMPTY) if isinstance(value, Undefined) else value
            for key, value in scores.items()
        }
    return scores
