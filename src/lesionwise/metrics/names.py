"""What papers call each metric, by its key in files."""

from __future__ import annotations

NAMES = {
    "dsc": "Dice similarity coefficient",
    "dsc_smoothed": "smoothed Dice",
    "ndsc": "normalized Dice",
    "iou": "intersection over union of the masks",
    "ppv": "positive predictive value (voxels)",
    "sensitivity": "sensitivity (voxels)",
    "specificity": "specificity (voxels)",
    "accuracy": "accuracy (voxels)",
    "hd95_mm": "95th percentile Hausdorff distance (mm)",
    "assd_mm": "average symmetric surface distance (mm)",
    "surface_dice": "normalized surface Dice",
    "volume_difference_mm3": "volume difference (mm³)",
    "relative_volume_difference": "relative volume difference",
    "lesion_tp": "lesions found",
    "lesion_fp": "false lesions",
    "lesion_fn": "missed lesions",
    "lesion_precision": "lesion-wise precision",
    "lesion_recall": "lesion-wise sensitivity",
    "lesion_f1": "lesion-wise F1",
    "lesion_f1_any_overlap": "lesion-wise F1 (any overlap)",
    "lesion_fpr": "lesion-wise false positive rate",
    "dic": "absolute difference in lesion count",
    "dsc_tp": "Dice of the lesions found",
    "pq": "panoptic quality",
    "sq": "segmentation quality",
    "rq": "recognition quality",
    "clu_count": "confluent lesion units",
    "clu_recall": "sensitivity for confluent units",
    "clu_precision": "precision for confluent units",
    "clu_f1": "F1 of confluent units",
    "dsc_tp_clu": "Dice of the confluent units found",
    "pq_clu": "panoptic quality of confluent units",
    "challenge_sensl": "lesion sensitivity (MSSEG evaluator)",
    "challenge_ppvl": "lesion PPV (MSSEG evaluator)",
    "challenge_f1": "lesion F1 (MSSEG evaluator)",
    "false_lesion_count": "lesions where there are none",
    "false_lesion_volume_mm3": "lesion volume where there is none (mm³)",
}
"""Readable name of every key of ``CaseResult.values``."""


def mean_and_sd(mean: float | None, sd: float | None) -> str:
    """``0.712 ± 0.081``: as many decimals as give the SD two significant digits, at most three.

    Without an SD the mean alone; empty without a mean.

    Example:
        >>> mean_and_sd(0.71234, 0.0812), mean_and_sd(12.345, 3.21), mean_and_sd(1234.5, 321.0)
        ('0.712 ± 0.081', '12.3 ± 3.2', '1234 ± 321')
    """
    if mean is None:
        return ""
    if sd is None:
        return f"{mean:.3g}"
    size = abs(sd) or abs(mean)
    decimals = 3 if size < 0.1 else 2 if size < 1 else 1 if size < 10 else 0
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f}"
