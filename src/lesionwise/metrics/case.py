"""Every metric of one case: a reference and a prediction on the same grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lesionwise import defaults
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, confluent_units
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.limits import check_limits
from lesionwise.instances.matching import Comparison, Matching, Relation, Rule, match, relate
from lesionwise.instances.table import Overlaps, bounding_box, overlap_table
from lesionwise.metrics import detection, overlap, surface
from lesionwise.metrics.challenge import ChallengeResult, ChallengeRules, evaluate_challenge
from lesionwise.metrics.panoptic import panoptic_scores
from lesionwise.metrics.score import Score, Undefined
from lesionwise.types import BoolArray, Grid, InputError, Instances

Value: TypeAlias = float | int | None
EmptyPolicy: TypeAlias = Literal["agreement", "undefined"]

EMPTY_POLICIES: dict[EmptyPolicy, str] = {
    "agreement": "where neither side has anything, ratios score as perfect; else 0 / 0 is null",
    "undefined": "0 / 0 is null, always",
}

KEYS = (
    *("dsc", "dsc_smoothed", "ndsc", "iou", "ppv", "sensitivity", "specificity", "accuracy"),
    *("hd95_mm", "assd_mm", "surface_dice", "volume_difference_mm3", "relative_volume_difference"),
    *("lesion_tp", "lesion_fp", "lesion_fn", "lesion_precision", "lesion_recall", "lesion_f1"),
    *("lesion_f1_any_overlap", "lesion_fpr", "dic", "dsc_tp", "pq", "sq", "rq"),
    *("clu_count", "clu_recall", "clu_precision", "clu_f1", "dsc_tp_clu", "pq_clu"),
    *("challenge_sensl", "challenge_ppvl", "challenge_f1"),
    *("false_lesion_count", "false_lesion_volume_mm3"),
)
"""Every key of ``CaseResult.values``, in the order in which they are written."""


@dataclass(frozen=True)
class Options:
    """What the definitions leave open. Every value is written into the result.

    Attributes:
        matching: which prediction belongs to which reference: see ``instances.matching.match``.
        iou_threshold: the IoU at which a pair is a hit.
        comparison: whether an IoU equal to the threshold is a hit (">=") or not (">").
        connectivity: with which masks were separated into instances earlier; only recorded here.
        min_volume_mm3: lesions below it do not count; applied to both sides. 0 is off.
        min_extent_mm: lesions shorter than this along any voxel axis do not count, on both
            sides. 0 is off. The limits act on lesions: voxel metrics, distances and the
            challenge's rules see the masks as they are.
        hd95: definition of ``hd95_mm``: see ``surface.HAUSDORFF_DEFINITIONS``.
        assd: definition of ``assd_mm``: see ``surface.AVERAGE_DEFINITIONS``.
        surface_tolerance_mm: how far apart the surfaces may lie in ``surface_dice``, which takes
            the surface points of ``assd_mm``.
        empty: what an empty side means: see ``EMPTY_POLICIES``.
        clu_connectivity: of the regions that confluent units share; 6 in the authors' code.
        challenge: thresholds of the official evaluator.
    """

    matching: Rule = defaults.MATCHING
    iou_threshold: float = defaults.IOU_THRESHOLD
    comparison: Comparison = ">"
    connectivity: int = DEFAULT_CONNECTIVITY
    min_volume_mm3: float = 0.0
    min_extent_mm: float = 0.0
    hd95: surface.HausdorffDefinition = defaults.HD95
    assd: surface.AverageDefinition = defaults.ASSD
    surface_tolerance_mm: float = defaults.SURFACE_TOLERANCE_MM
    empty: EmptyPolicy = defaults.EMPTY_SIDES
    clu_connectivity: int = 6
    challenge: ChallengeRules = field(default_factory=ChallengeRules)

    def __post_init__(self) -> None:
        choices = {
            "matching": (self.matching, get_args(Rule)),
            "comparison": (self.comparison, get_args(Comparison)),
            "hd95": (self.hd95, tuple(surface.HAUSDORFF_DEFINITIONS)),
            "assd": (self.assd, tuple(surface.AVERAGE_DEFINITIONS)),
            "empty": (self.empty, tuple(EMPTY_POLICIES)),
            "connectivity": (self.connectivity, (6, 18, 26)),
            "clu_connectivity": (self.clu_connectivity, (6, 18, 26)),
        }
        for name, (value, known) in choices.items():
            if value not in known:
                raise InputError(f"{name}: {value!r} is none of {', '.join(map(str, known))}")
        check_limits(most=1, iou_threshold=self.iou_threshold)
        check_limits(min_volume_mm3=self.min_volume_mm3, min_extent_mm=self.min_extent_mm)
        check_limits(surface_tolerance_mm=self.surface_tolerance_mm)

    @property
    def size_filter(self) -> Literal["both sides", "neither side"]:
        on = self.min_volume_mm3 > 0 or self.min_extent_mm > 0
        return "both sides" if on else "neither side"

    def written(self) -> dict[str, Any]:
        """Every option by name, with definitions in words, as it goes into ``metrics.json``."""
        return asdict(self) | {
            "size_filter": self.size_filter,
            "hd95_definition": surface.HAUSDORFF_DEFINITIONS[self.hd95],
            "assd_definition": surface.AVERAGE_DEFINITIONS[self.assd],
            "empty_definition": EMPTY_POLICIES[self.empty],
            "challenge_connectivity": 6,
        }


@dataclass(frozen=True)
class LesionRow:
    """One lesion of either side.

    Attributes:
        side: "reference" or "prediction".
        id: its label.
        volume_mm3: its volume.
        state: "TP", "FN" (reference) or "FP" (prediction).
        matched_id: label of its partner; None without one.
        iou: with its partner.
        dice: with its partner.
        confluent_unit: whether a reference lesion is one; None on the other side.
        relation: its role in the split and merge report.
    """

    side: Literal["reference", "prediction"]
    id: int
    volume_mm3: float
    state: Literal["TP", "FN", "FP"]
    matched_id: int | None
    iou: float | None
    dice: float | None
    confluent_unit: bool | None
    relation: str


@dataclass(frozen=True, eq=False)
class CaseResult:
    """The scores of one case.

    Attributes:
        values: by key, all of ``KEYS``; None where a metric is undefined.
        undefined: for each None, the reason.
        lesions: one row a lesion, the reference's first, each side ascending by label.
        relations: the split and merge report: every lesion in exactly one group.
        challenge: the official evaluator's counts.
        options: every option by name, as written into files.
    """

    values: Mapping[str, Value]
    undefined: Mapping[str, str]
    lesions: tuple[LesionRow, ...]
    relations: tuple[Relation, ...]
    challenge: ChallengeResult
    options: Mapping[str, Any]


def evaluate_case(
    reference: Instances, prediction: Instances, options: Options | None = None
) -> CaseResult:
    """Compute every metric of a case.

    Args:
        reference: lesions as they should be; may hold none.
        prediction: lesions to judge, on the same grid; may hold none.
        options: None takes the defaults.

    Returns:
        All keys, each with a value or a reason why it has none.

    Raises:
        InputError: If the grids differ or a label is negative.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[1:4, 1:4, 1:4] = 1
        >>> lesions = Instances(labels, Grid((8, 8, 8), np.eye(4)))
        >>> result = evaluate_case(lesions, lesions)
        >>> result.values["dsc"], result.values["lesion_f1"]
        (1.0, 1.0)
    """
    options = options or Options()
    if not reference.grid.matches(prediction.grid):
        raise InputError("prediction: is not on the grid of the reference")
    for name, side in (("reference", reference), ("prediction", prediction)):
        if side.labels.min(initial=0) < 0:
            raise InputError(f"{name}: has negative labels, the lowest is {side.labels.min()}")
    total = reference.labels.size
    reference, prediction = _cropped(reference, prediction)
    mask_r, mask_p = reference.labels != 0, prediction.labels != 0
    voxel_mm3 = reference.grid.voxel_volume_mm3
    challenge = evaluate_challenge(mask_r, mask_p, voxel_mm3, options.challenge)
    scores: dict[str, Score | int] = {}
    scores |= overlap.voxel_scores(overlap.count_voxels(mask_r, mask_p, total), voxel_mm3)
    scores |= _distance_scores(mask_r, mask_p, reference.grid.axes_mm, options)
    if options.size_filter == "both sides":
        drop = DropSmall(options.min_volume_mm3, options.min_extent_mm, relabel=False)
        reference, prediction = drop(reference), drop(prediction)
    table = overlap_table(reference.labels, prediction.labels)
    rule = (options.matching, options.iou_threshold, options.comparison)
    matching = match(table, *rule)
    scores |= detection.detection_scores(table, matching)
    scores |= panoptic_scores(table, matching)
    units = confluent_units(reference.labels, options.clu_connectivity)
    is_unit = np.isin(table.reference_ids, np.array(units, dtype=np.int64))
    of_units = table.keep(reference=is_unit)
    scores |= detection.confluent_scores(of_units, match(of_units, *rule), len(matching.displaced))
    scores |= {
        "challenge_sensl": challenge.sensl,
        "challenge_ppvl": challenge.ppvl,
        "challenge_f1": challenge.f1,
    }
    scores |= _false_lesions(bool(mask_r.any()), table, voxel_mm3)
    if options.empty == "agreement":
        scores = _with_agreement(scores, not (mask_r.any() or mask_p.any()), table)
    relations = relate(table)
    return CaseResult(
        values={key: _value(scores[key]) for key in KEYS},
        undefined={
            key: score.reason for key in KEYS if isinstance(score := scores[key], Undefined)
        },
        lesions=_lesion_rows(table, matching, is_unit, relations, voxel_mm3),
        relations=relations,
        challenge=challenge,
        options=options.written(),
    )


def _value(score: Score | int) -> Value:
    return None if isinstance(score, Undefined) else score


def _cropped(reference: Instances, prediction: Instances) -> tuple[Instances, Instances]:
    """Both sides, cut to the box around the foreground of either."""
    box = bounding_box((reference.labels != 0) | (prediction.labels != 0))
    part = box or (slice(0, 1), slice(0, 1), slice(0, 1))
    affine = reference.grid.affine.copy()
    affine[:3, 3] = reference.grid.world_mm(np.array([[s.start for s in part]]))[0]
    one, other = (np.ascontiguousarray(side.labels[part]) for side in (reference, prediction))
    grid = Grid(one.shape, affine)
    return Instances(one, grid), Instances(other, grid)


def _distance_scores(
    reference: BoolArray,
    prediction: BoolArray,
    axes_mm: NDArray[np.float64],
    options: Options,
) -> dict[str, Score]:
    made: dict[bool, surface.SurfaceDistances] = {}
    for by_area in {options.hd95 == "area_weighted", options.assd == "area_weighted"}:
        between = surface.distances_between_elements if by_area else surface.distances_between_edges
        made[by_area] = between(reference, prediction, axes_mm)
    averaged = made[options.assd == "area_weighted"]
    return {
        "hd95_mm": surface.hausdorff_mm(made[options.hd95 == "area_weighted"], 95.0, options.hd95),
        "assd_mm": surface.average_surface_distance_mm(averaged, options.assd),
        "surface_dice": surface.surface_dice(averaged, options.surface_tolerance_mm),
    }


def _false_lesions(
    reference_has_lesions: bool, table: Overlaps, voxel_mm3: float
) -> dict[str, Score | int]:
    """Number and volume of lesions where there should be none.

    Source: the MSSEG-2 chapter on NCR-Net, section 3.
    """
    if reference_has_lesions:
        none = Undefined("the reference has lesions; see lesion_fp")
        return {"false_lesion_count": none, "false_lesion_volume_mm3": none}
    return {
        "false_lesion_count": len(table.prediction_ids),
        "false_lesion_volume_mm3": float(table.prediction_voxels.sum() * voxel_mm3),
    }


PERFECT_MASKS = {
    **dict.fromkeys(("dsc", "ndsc", "iou", "ppv", "sensitivity", "surface_dice"), 1.0),
    "relative_volume_difference": 0.0,
}
PERFECT_LESIONS = {
    **dict.fromkeys(("lesion_precision", "lesion_recall", "lesion_f1"), 1.0),
    **dict.fromkeys(("lesion_f1_any_overlap", "pq", "sq", "rq"), 1.0),
    "lesion_fpr": 0.0,
}


def _with_agreement(
    scores: dict[str, Score | int], masks_empty: bool, table: Overlaps
) -> dict[str, Score | int]:
    """The scores, perfect where neither side has anything; masks and lesions are judged apart."""
    lesions_empty = len(table.reference_ids) + len(table.prediction_ids) == 0
    perfect = (PERFECT_MASKS if masks_empty else {}) | (PERFECT_LESIONS if lesions_empty else {})
    return scores | {key: v for key, v in perfect.items() if isinstance(scores[key], Undefined)}


def _lesion_rows(
    table: Overlaps,
    matching: Matching,
    is_unit: NDArray[np.bool_],
    relations: tuple[Relation, ...],
    voxel_mm3: float,
) -> tuple[LesionRow, ...]:
    kind: dict[tuple[str, int], str] = {}
    for relation in relations:
        kind |= {("reference", label): relation.kind for label in relation.references}
        kind |= {("prediction", label): relation.kind for label in relation.predictions}
    rows_r, rows_p = matching.reference_rows.tolist(), matching.prediction_rows.tolist()
    partner_of_r = dict(zip(rows_r, rows_p, strict=True))
    partner_of_p = dict(zip(rows_p, rows_r, strict=True))
    iou = dict(zip(rows_r, matching.iou(table).tolist(), strict=True))
    dice = dict(zip(rows_r, matching.dice(table).tolist(), strict=True))
    found: list[LesionRow] = []
    for row, label in enumerate(table.reference_ids.tolist()):
        partner = partner_of_r.get(row)
        found.append(
            LesionRow(
                side="reference",
                id=label,
                volume_mm3=float(table.reference_voxels[row] * voxel_mm3),
                state="FN" if partner is None else "TP",
                matched_id=None if partner is None else int(table.prediction_ids[partner]),
                iou=iou.get(row),
                dice=dice.get(row),
                confluent_unit=bool(is_unit[row]),
                relation=kind["reference", label],
            )
        )
    for row, label in enumerate(table.prediction_ids.tolist()):
        partner = partner_of_p.get(row)
        found.append(
            LesionRow(
                side="prediction",
                id=label,
                volume_mm3=float(table.prediction_voxels[row] * voxel_mm3),
                state="FP" if partner is None else "TP",
                matched_id=None if partner is None else int(table.reference_ids[partner]),
                iou=None if partner is None else iou[partner],
                dice=None if partner is None else dice[partner],
                confluent_unit=None,
                relation=kind["prediction", label],
            )
        )
    return tuple(found)
