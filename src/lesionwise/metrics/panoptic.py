"""Panoptic quality: how well lesions are recognized times how well they are outlined."""

from __future__ import annotations

from lesionwise.instances.matching import Matching
from lesionwise.instances.table import Overlaps
from lesionwise.metrics.detection import BOTH_EMPTY, NO_PAIR, count_lesions
from lesionwise.metrics.score import Score, Undefined


def panoptic_scores(overlaps: Overlaps, matching: Matching) -> dict[str, Score]:
    """Panoptic, segmentation and recognition quality, with IoU.

    sq is the mean IoU of matched pairs; rq is TP / (TP + FP / 2 + FN / 2); pq is their product
    and 0 where lesions are there but no pair. sq is undefined without a pair, all three
    when neither side has a lesion. Source: Wynen et al. (ConfLUNet), section 3.1.

    Example:
        >>> import numpy as np
        >>> from lesionwise.instances.matching import match
        >>> from lesionwise.instances.table import overlap_table
        >>> overlaps = overlap_table(np.array([[[1, 1, 0]]]), np.array([[[4, 4, 0]]]))
        >>> panoptic_scores(overlaps, match(overlaps))
        {'pq': 1.0, 'sq': 1.0, 'rq': 1.0}
    """
    counts = count_lesions(overlaps, matching)
    if counts.tp + counts.fp + counts.fn == 0:
        return {key: Undefined(BOTH_EMPTY) for key in ("pq", "sq", "rq")}
    if counts.tp == 0:
        return {"pq": 0.0, "sq": Undefined(NO_PAIR), "rq": 0.0}
    sq = float(matching.iou(overlaps).mean())
    rq = counts.tp / (counts.tp + (counts.fp + counts.fn) / 2)
    return {"pq": sq * rq, "sq": sq, "rq": rq}
