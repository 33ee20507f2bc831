"""The detection rules of the challenge's official evaluator, Anima's ``animaSegPerfAnalyzer``.

It works on masks, makes its own 6-connected lesions and drops small ones on both sides.
A reference lesion counts as found by how much of it is covered and by how far the lesions
that cover it reach outside; there is no matching, so one large prediction can find several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lesionwise.instances.components import connected_components
from lesionwise.instances.limits import check_limits
from lesionwise.instances.table import Overlaps, overlap_table
from lesionwise.metrics.score import Score, Undefined
from lesionwise.types import BoolArray

CONNECTIVITY = 6
MIN_VOLUME_MM3 = 3.0


@dataclass(frozen=True)
class ChallengeRules:
    """The evaluator's thresholds, at its command line's defaults.

    Attributes:
        min_volume_mm3: a lesion counts if it is strictly larger.
        alpha: a lesion must be covered by more than this share.
        beta: a lesion that covers it may lie in the background by at most this share.
        gamma: covering lesions are examined, largest overlap first, until they hold this share
            of all that is covered.
    """

    min_volume_mm3: float = MIN_VOLUME_MM3
    alpha: float = 0.1
    beta: float = 0.7
    gamma: float = 0.65

    def __post_init__(self) -> None:
        check_limits(min_volume_mm3=self.min_volume_mm3)
        check_limits(most=1, alpha=self.alpha, beta=self.beta, gamma=self.gamma)


@dataclass(frozen=True)
class ChallengeResult:
    """Lesions and hits as the evaluator counts them.

    Attributes:
        reference_lesions: reference lesions above the minimum volume.
        tested_lesions: predicted lesions above it.
        detected: reference lesions found.
        confirmed: predicted lesions that find something; differs from ``detected`` in general.
        tested_volume_mm3: volume of the tested lesions.
        reference_empty: the reference mask has no voxel; the evaluator then gives the
            number and volume of the tested lesions alone, at 3 mm³ whatever was asked for.
    """

    reference_lesions: int
    tested_lesions: int
    detected: int
    confirmed: int
    tested_volume_mm3: float
    reference_empty: bool

    @property
    def sensl(self) -> Score:
        """Detected over reference lesions."""
        if self.reference_empty:
            return Undefined("the reference has no lesion voxel: the evaluator gives counts alone")
        if self.reference_lesions == 0:
            return Undefined("no reference lesion is larger than the evaluator's minimum volume")
        return self.detected / self.reference_lesions

    @property
    def ppvl(self) -> Score:
        """Confirmed over tested lesions; 0 without a tested lesion."""
        if self.reference_empty:
            return Undefined("the reference has no lesion voxel: the evaluator gives counts alone")
        return self.confirmed / self.tested_lesions if self.tested_lesions else 0.0

    @property
    def f1(self) -> Score:
        """Harmonic mean of both; 0 where one is 0 or no reference lesion is left."""
        sensl, ppvl = self.sensl, self.ppvl
        if isinstance(ppvl, Undefined):
            return ppvl
        if isinstance(sensl, Undefined) or sensl + ppvl <= 0:
            return 0.0
        return 2 * sensl * ppvl / (sensl + ppvl)


def evaluate_challenge(
    reference: BoolArray,
    prediction: BoolArray,
    voxel_volume_mm3: float,
    rules: ChallengeRules | None = None,
) -> ChallengeResult:
    """Count lesions and hits by the official evaluator's rules.

    Args:
        reference: (I, J, K) bool, or any part of it that holds all its foreground.
        prediction: the same shape.
        voxel_volume_mm3: the product of the header's spacing.
        rules: thresholds; None takes the command line's defaults.

    Source: animaSegPerfAnalyzer of Anima-Public, commit d9fb323d.
    Equal overlaps go by the lower component label; the evaluator's order is unspecified.

    Example:
        >>> mask = np.zeros((8, 8, 8), dtype=bool)
        >>> mask[2:5, 2:5, 2:5] = True
        >>> result = evaluate_challenge(mask, mask, voxel_volume_mm3=1.0)
        >>> result.reference_lesions, result.detected
        (1, 1)
    """
    rules = rules or ChallengeRules()
    empty = not reference.any()
    limit = MIN_VOLUME_MM3 if empty else rules.min_volume_mm3
    # The tiny factor keeps a limit that is a whole number of voxels on the strict side.
    min_voxels = math.floor(limit / voxel_volume_mm3 * (1 + 1e-9)) + 1
    table = overlap_table(
        connected_components(reference, CONNECTIVITY),
        connected_components(prediction, CONNECTIVITY),
    )
    table = table.keep(table.reference_voxels >= min_voxels, table.prediction_voxels >= min_voxels)
    return ChallengeResult(
        reference_lesions=len(table.reference_ids),
        tested_lesions=len(table.prediction_ids),
        detected=_count_found(table, rules),
        confirmed=_count_found(table.transposed(), rules),
        tested_volume_mm3=float(table.prediction_voxels.sum() * voxel_volume_mm3),
        reference_empty=empty,
    )


def _count_found(table: Overlaps, rules: ChallengeRules) -> int:
    """Reference lesions of the table that are found."""
    m = len(table.prediction_ids)
    inside = np.bincount(table.prediction_rows, table.common, m)
    outside_fraction = (table.prediction_voxels - inside) / np.maximum(table.prediction_voxels, 1)
    order = np.lexsort((table.prediction_rows, -table.common, table.reference_rows))
    starts = np.searchsorted(table.reference_rows[order], np.arange(len(table.reference_ids) + 1))
    found = 0
    for row, size in enumerate(table.reference_voxels):
        pairs = order[starts[row] : starts[row + 1]]
        covered = int(table.common[pairs].sum())
        if covered == 0 or not covered / size > rules.alpha:
            continue
        share = 0.0
        for pair in pairs:
            if outside_fraction[table.prediction_rows[pair]] > rules.beta:
                break
            share += table.common[pair] / covered
            if share >= rules.gamma:
                found += 1
                break
    return found
