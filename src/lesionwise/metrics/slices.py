"""Classification of slices: does a slice show a lesion? (Arian Darestani et al. 2025)

A slice is positive where the reference has a lesion in it. It counts as found where at
least one of its lesions is covered by the prediction to a given share; with less, or
nothing, it is missed. A slice without lesions is a true negative only where the
prediction has no voxel in it, whatever the threshold.

The paper says neither what the overlap is a share of nor whether it is meant lesion
by lesion. Here it is the share of the reference that the prediction covers; "at least one
lesion" is read lesion by lesion, and the share of all lesions of the slice is the option
``overlap="slice"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from lesionwise.instances.limits import check_limits
from lesionwise.metrics.statistics import Floats, Interval, bootstrap_ci, defined, wilson
from lesionwise.types import BoolArray, Grid, Instances

Plane: TypeAlias = Literal["axial", "coronal", "sagittal"]
Overlap: TypeAlias = Literal["lesion", "slice"]
Hd95: TypeAlias = Literal["larger_directed", "pooled"]

WORLD_AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}
THRESHOLD = 0.1
"""Share of a lesion that must be covered (Arian Darestani et al. 2025)."""


@dataclass(frozen=True, eq=False)
class SliceTable:
    """One row per slice of one or more cases.

    Attributes:
        case: (n,) name of the case.
        index: (n,) slice along the chosen axis, from 0.
        reference_vox, predicted_vox, common_vox: (n,) voxels in the slice.
        overlap: (n,) covered share in [0, 1]; 0 where the reference has no lesion.
        hd95_mm: (n,) in the plane, mm; NaN where either side is empty.
    """

    case: NDArray[np.str_]
    index: NDArray[np.int64]
    reference_vox: NDArray[np.int64]
    predicted_vox: NDArray[np.int64]
    common_vox: NDArray[np.int64]
    overlap: Floats
    hd95_mm: Floats

    @property
    def positive(self) -> BoolArray:
        """(n,) True where the reference has a lesion in the slice."""
        return self.reference_vox > 0

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Rate:
    """A proportion with Wilson's interval; value and interval are None where total is 0."""

    successes: int
    total: int
    value: float | None
    ci: Interval | None


@dataclass(frozen=True)
class SliceScores:
    """Slice classification at one threshold.

    The names mean what they usually do. Darestani et al., 2025, print them swapped: their own
    counts of slices give a sensitivity where their table says NPV, and so on.
    """

    threshold: float
    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int
    accuracy: Rate
    sensitivity: Rate
    specificity: Rate
    ppv: Rate
    npv: Rate


def plane_axis(grid: Grid, plane: Plane = "axial") -> int:
    """The voxel axis that runs most nearly across the plane: superior for axial slices.

    Example:
        >>> plane_axis(Grid((8, 8, 8), np.eye(4)), "coronal")
        1
    """
    along = np.abs(grid.affine[:3, :3]) / np.asarray(grid.spacing_mm)
    best = max(
        permutations(range(3)), key=lambda order: sum(along[w, a] for w, a in enumerate(order))
    )
    return best[WORLD_AXIS[plane]]


def slice_table(
    reference: Instances,
    prediction: Instances,
    *,
    case: str = "",
    plane: Plane = "axial",
    overlap: Overlap = "lesion",
    hd95: Hd95 = "larger_directed",
) -> SliceTable:
    """What every slice of a case holds on both sides, and how far they agree.

    Args:
        reference, prediction: on the same grid. A lesion in a slice is the cross-section
            of one reference label.
        overlap: ``lesion`` for the best covered lesion of the slice, ``slice`` for the
            covered share of all its lesion voxels.
        hd95: 95th percentile of border-to-border distances within the slice, the larger of
            the two directed ones or that of both directions pooled. Borders are mask pixels
            with one of 4 neighbors outside the mask; beyond the image is outside.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[2:5, 2:5, 3:5] = 1
        >>> found = Instances(labels, Grid((8, 8, 8), np.eye(4)))
        >>> table = slice_table(found, found)
        >>> table.reference_vox.tolist()
        [0, 0, 0, 9, 9, 0, 0, 0]
    """
    if reference.labels.shape != prediction.labels.shape:
        raise ValueError(f"shapes differ: {reference.labels.shape} and {prediction.labels.shape}")
    axis = plane_axis(reference.grid, plane)
    truth = np.moveaxis(reference.labels, axis, 0)
    found = np.moveaxis(prediction.labels, axis, 0) > 0
    axes_mm = np.delete(reference.grid.axes_mm, axis, axis=1)
    count = truth.shape[0]
    at = np.nonzero(truth)
    labels, covered = truth[at], found[at]
    reference_vox = np.bincount(at[0], minlength=count)
    common_vox = np.bincount(at[0], weights=covered, minlength=count).astype(np.int64)
    predicted_vox = found.reshape(count, -1).sum(axis=1, dtype=np.int64)
    share = np.zeros(count)
    if overlap == "slice":
        np.divide(common_vox, reference_vox, out=share, where=reference_vox > 0)
    elif len(labels):
        key = at[0].astype(np.int64) * (int(labels.max()) + 1) + labels
        sections, inverse = np.unique(key, return_inverse=True)
        per_section = np.bincount(inverse, weights=covered) / np.bincount(inverse)
        np.maximum.at(share, sections // (int(labels.max()) + 1), per_section)
    distances = np.full(count, np.nan)
    for number in np.flatnonzero((reference_vox > 0) & (predicted_vox > 0)):
        distances[number] = hd95_in_plane(truth[number] > 0, found[number], axes_mm, hd95)
    return SliceTable(
        case=np.full(count, case),
        index=np.arange(count),
        reference_vox=reference_vox.astype(np.int64),
        predicted_vox=predicted_vox,
        common_vox=common_vox,
        overlap=share,
        hd95_mm=distances,
    )


def join(tables: Sequence[SliceTable]) -> SliceTable:
    """The rows of several cases below each other.

    Raises:
        ValueError: If there is no table.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[2:5, 2:5, 3:5] = 1
        >>> lesions = Instances(labels, Grid((8, 8, 8), np.eye(4)))
        >>> tables = [slice_table(lesions, lesions, case=name) for name in ("a", "b")]
        >>> len(join(tables).index)
        16
    """
    if not tables:
        raise ValueError("no slices to join")
    columns = SliceTable.__dataclass_fields__
    return SliceTable(
        **{name: np.concatenate([getattr(t, name) for t in tables]) for name in columns}
    )


def balance(table: SliceTable, seed: int = 0) -> SliceTable:
    """All positive slices and as many normal ones, drawn at random without replacement.

    Where there are fewer normal slices than positive ones, all of them stay. Rows keep
    their order.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[2:5, 2:5, 3:5] = 1
        >>> lesions = Instances(labels, Grid((8, 8, 8), np.eye(4)))
        >>> len(balance(slice_table(lesions, lesions)).index)
        4
    """
    normal = np.flatnonzero(~table.positive)
    wanted = min(len(normal), int(table.positive.sum()))
    drawn = np.random.default_rng(seed).choice(normal, size=wanted, replace=False)
    rows = np.sort(np.concatenate([np.flatnonzero(table.positive), drawn]))
    return SliceTable(
        **{name: getattr(table, name)[rows] for name in SliceTable.__dataclass_fields__}
    )


def classify(table: SliceTable, threshold: float = THRESHOLD, level: float = 0.95) -> SliceScores:
    """Slices classified by a threshold on the overlap.

    A positive slice is found where overlap >= threshold and the prediction shares a voxel
    with the reference, so that a threshold of 0 still asks for contact.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[2:5, 2:5, 3:5] = 1
        >>> lesions = Instances(labels, Grid((8, 8, 8), np.eye(4)))
        >>> scores = classify(slice_table(lesions, lesions))
        >>> scores.true_positive, scores.true_negative
        (2, 6)
    """
    check_limits(most=1, threshold=threshold)
    hit = table.positive & (table.common_vox > 0) & (table.overlap >= threshold)
    alarm = ~table.positive & (table.predicted_vox > 0)
    tp, fp = int(hit.sum()), int(alarm.sum())
    positives = int(table.positive.sum())
    return scores_from_counts(
        tp, positives - tp, len(table) - positives - fp, fp, threshold=threshold, level=level
    )


def scores_from_counts(
    true_positive: int,
    false_negative: int,
    true_negative: int,
    false_positive: int,
    *,
    threshold: float = THRESHOLD,
    level: float = 0.95,
) -> SliceScores:
    """Accuracy, sensitivity, specificity, PPV and NPV with Wilson intervals from four counts.

    Each interval rests on the slices its own denominator counts.

    Example:
        >>> scores_from_counts(8, 2, 85, 5).sensitivity.value
        0.8
    """
    tp, fn, tn, fp = true_positive, false_negative, true_negative, false_positive
    return SliceScores(
        threshold=threshold,
        true_positive=tp,
        false_negative=fn,
        true_negative=tn,
        false_positive=fp,
        accuracy=_rate(tp + tn, tp + fn + tn + fp, level),
        sensitivity=_rate(tp, tp + fn, level),
        specificity=_rate(tn, tn + fp, level),
        ppv=_rate(tp, tp + fp, level),
        npv=_rate(tn, tn + fn, level),
    )


def threshold_curves(
    table: SliceTable, thresholds: Sequence[float] | Floats | None = None
) -> list[SliceScores]:
    """Scores at each threshold, by default 0, 0.05 … 1.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[2:5, 2:5, 3:5] = 1
        >>> lesions = Instances(labels, Grid((8, 8, 8), np.eye(4)))
        >>> curve = threshold_curves(slice_table(lesions, lesions), [0.0, 0.5])
        >>> [scores.sensitivity.value for scores in curve]
        [1.0, 1.0]
    """
    steps = np.linspace(0, 1, 21) if thresholds is None else np.asarray(thresholds)
    return [classify(table, float(threshold)) for threshold in steps]


def pixel_scores(table: SliceTable, seed: int = 0) -> dict[str, dict[str, Any]]:
    """DSC, PPV, IoU, sensitivity and HD95 averaged over positive slices.

    Source: Arian Darestani et al. 2025.

    Returns, for each, mean, bootstrap 95 % interval (None below two slices), n and the
    number of slices on which it is undefined: PPV and HD95 where nothing was predicted.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[2:5, 2:5, 3:5] = 1
        >>> lesions = Instances(labels, Grid((8, 8, 8), np.eye(4)))
        >>> sorted(pixel_scores(slice_table(lesions, lesions)))
        ['dsc', 'hd95_mm', 'iou', 'ppv', 'sensitivity']
    """
    rows = table.positive
    reference, predicted = table.reference_vox[rows], table.predicted_vox[rows]
    common = table.common_vox[rows]
    columns = {
        "dsc": 2 * common / (reference + predicted),
        "ppv": np.divide(common, predicted, out=np.full(len(common), np.nan), where=predicted > 0),
        "iou": common / (reference + predicted - common),
        "sensitivity": common / reference,
        "hd95_mm": table.hd95_mm[rows],
    }
    scores = {}
    for name, column in columns.items():
        values = defined(column)
        scores[name] = {
            "mean": float(values.mean()) if len(values) else None,
            "ci": bootstrap_ci(values, seed=seed),
            "n": len(values),
            "undefined": len(column) - len(values),
        }
    return scores


def hd95_in_plane(
    reference: BoolArray,
    prediction: BoolArray,
    axes_mm: Floats,
    definition: Hd95 = "larger_directed",
) -> float:
    """95th percentile of the distances between two borders in a plane, mm.

    Args:
        reference, prediction: (I, J) bool, neither empty.
        axes_mm: (d, 2), the steps of one pixel along i and j as columns.

    Raises:
        ValueError: If one side is empty.

    Example:
        >>> reference = np.zeros((9, 9), dtype=bool)
        >>> reference[2:5, 2:5] = True
        >>> hd95_in_plane(reference, np.roll(reference, 2, axis=0), np.eye(2))
        2.0
    """
    if not reference.any() or not prediction.any():
        raise ValueError("hd95 needs pixels on both sides")
    a = _border(reference) @ axes_mm.T
    b = _border(prediction) @ axes_mm.T
    to_a, to_b = cKDTree(a).query(b)[0], cKDTree(b).query(a)[0]
    if definition == "pooled":
        return float(np.percentile(np.concatenate([to_a, to_b]), 95))
    return float(max(np.percentile(to_a, 95), np.percentile(to_b, 95)))


def _border(mask: BoolArray) -> NDArray[np.int64]:
    """(n, 2) indices of the mask's pixels that have one of 4 neighbors outside it."""
    return np.argwhere(mask & ~ndimage.binary_erosion(mask))


def _rate(successes: int, total: int, level: float) -> Rate:
    value = successes / total if total else None
    return Rate(successes, total, value, wilson(successes, total, level))
