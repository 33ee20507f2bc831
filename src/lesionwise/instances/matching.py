"""Which predicted lesion belongs to which reference lesion.

Everything here works on a sparse table of common voxels, made in one pass over the
foreground; no mask of a single lesion is ever built.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lesionwise.types import LabelArray

Rows: TypeAlias = NDArray[np.int64]
Score: TypeAlias = Literal["iou", "dice"]
Comparison: TypeAlias = Literal[">", ">="]
Rule: TypeAlias = Literal["greedy", "greedy_pairs", "optimal", "many_to_one", "maximize_merge"]


@dataclass(frozen=True, eq=False)
class Overlaps:
    """How many voxels n reference and m predicted lesions share: a sparse table.

    Attributes:
        reference_ids: (n,) labels, ascending.
        reference_voxels: (n,) size of each.
        prediction_ids: (m,) labels, ascending.
        prediction_voxels: (m,) size of each.
        reference_rows: (p,) for each overlapping pair, the position in ``reference_ids``.
        prediction_rows: (p,) the same for ``prediction_ids``.
        common: (p,) voxels the pair shares, at least 1. Pairs go by prediction, then reference.
    """

    reference_ids: Rows
    reference_voxels: Rows
    prediction_ids: Rows
    prediction_voxels: Rows
    reference_rows: Rows
    prediction_rows: Rows
    common: Rows

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """(p,) common voxels over the voxels of either lesion."""
        either = self.reference_voxels[self.reference_rows]
        either = either + self.prediction_voxels[self.prediction_rows] - self.common
        return np.asarray(self.common / either, dtype=np.float64)

    @cached_property
    def dice(self) -> NDArray[np.float64]:
        """(p,) twice the common voxels over the sum of both sizes."""
        both = self.reference_voxels[self.reference_rows]
        both = both + self.prediction_voxels[self.prediction_rows]
        return np.asarray(2.0 * self.common / both, dtype=np.float64)

    def score(self, name: Score) -> NDArray[np.float64]:
        return self.iou if name == "iou" else self.dice

    def keep(
        self,
        reference: NDArray[np.bool_] | None = None,
        prediction: NDArray[np.bool_] | None = None,
    ) -> Overlaps:
        """The table without some lesions, as if their voxels had been background.

        Args:
            reference: (n,) True for the lesions that stay; None keeps all.
            prediction: (m,) the same for the other side.
        """
        keep_r = np.ones(len(self.reference_ids), bool) if reference is None else reference
        keep_p = np.ones(len(self.prediction_ids), bool) if prediction is None else prediction
        pairs = keep_r[self.reference_rows] & keep_p[self.prediction_rows]
        return Overlaps(
            reference_ids=self.reference_ids[keep_r],
            reference_voxels=self.reference_voxels[keep_r],
            prediction_ids=self.prediction_ids[keep_p],
            prediction_voxels=self.prediction_voxels[keep_p],
            reference_rows=(np.cumsum(keep_r) - 1)[self.reference_rows[pairs]],
            prediction_rows=(np.cumsum(keep_p) - 1)[self.prediction_rows[pairs]],
            common=self.common[pairs],
        )


def count_overlaps(reference: LabelArray, prediction: LabelArray) -> Overlaps:
    """Count the voxels of every lesion and of every overlapping pair, in one pass.

    Args:
        reference: (I, J, K) labels, 0 = background, gaps allowed.
        prediction: the same shape.

    Raises:
        ValueError: If the shapes differ or a label is negative.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference {reference.shape} and prediction {prediction.shape} differ")
    if reference.flags.f_contiguous and prediction.flags.f_contiguous:
        reference, prediction = reference.T, prediction.T  # flat views, not copies
    flat_r, flat_p = reference.reshape(-1), prediction.reshape(-1)
    foreground = np.flatnonzero((flat_r != 0) | (flat_p != 0))
    ids_r, row_r, size_r = _ranks(flat_r[foreground])
    ids_p, row_p, size_p = _ranks(flat_p[foreground])
    key = row_p * len(ids_r) + row_r
    pairs, common = np.unique(key[(row_r >= 0) & (row_p >= 0)], return_counts=True)
    pair_p, pair_r = np.divmod(pairs, max(len(ids_r), 1))
    return Overlaps(ids_r, size_r, ids_p, size_p, pair_r, pair_p, common.astype(np.int64))


def _ranks(labels: NDArray[Any]) -> tuple[Rows, Rows, Rows]:
    """The labels above 0, ascending; the rank of each voxel's label (-1 for 0); sizes."""
    if labels.size and labels.min() < 0:
        raise ValueError(f"labels must not be negative, found {labels.min()}")
    highest = int(labels.max(initial=0))
    if highest <= 8 * labels.size + 1024:
        sizes = np.bincount(labels, minlength=1).astype(np.int64)
        sizes[0] = 0
        ids = np.flatnonzero(sizes)
        rank = np.full(len(sizes), -1, dtype=np.int64)
        rank[ids] = np.arange(len(ids))
        return ids.astype(np.int64), rank[labels], sizes[ids]
    found, rows, counts = np.unique(labels, return_inverse=True, return_counts=True)
    zero = int(found[0] == 0)
    return (
        found[zero:].astype(np.int64),
        rows.reshape(-1).astype(np.int64) - zero,
        counts[zero:].astype(np.int64),
    )


@dataclass(frozen=True, eq=False)
class Matching:
    """The matched pairs, as rows of the table they were found in.

    Attributes:
        reference_rows: (k,) position in ``Overlaps.reference_ids`` of each pair; a reference
            occurs several times only under the rules "many_to_one" and "maximize_merge".
        prediction_rows: (k,) the same for predictions, ascending, each at most once.
        common: (k,) voxels each pair shares.
        displaced: (d, 2) prediction row and row of its best reference, for the predictions that
            hit that reference but were left without any, because others took what they hit.
    """

    reference_rows: Rows
    prediction_rows: Rows
    common: Rows
    displaced: Rows

    def joined(self, overlaps: Overlaps) -> tuple[Rows, Rows, Rows]:
        """Matched references (g,), the voxels all their predictions hold, and those in common."""
        rows, group = np.unique(self.reference_rows, return_inverse=True)
        voxels = np.zeros(len(rows), np.int64)
        common = np.zeros(len(rows), np.int64)
        np.add.at(voxels, group, overlaps.prediction_voxels[self.prediction_rows])
        np.add.at(common, group, self.common)
        return rows, voxels, common


def match(
    overlaps: Overlaps,
    rule: Rule = "greedy",
    threshold: float = 0.1,
    comparison: Comparison = ">",
    score: Score = "iou",
) -> Matching:
    """Decide which prediction belongs to which reference.

    Args:
        overlaps: the table of common voxels.
        rule: what decides.

            - ``greedy``: every prediction chooses the reference it scores best with (ties: the
              lowest label), and a reference chosen by several keeps the best of them (ties: the
              lowest label). The others stay unmatched even where another reference was
              hit. Source: 001, section 3.1, completed as in its authors' code.
            - ``greedy_pairs``: all pairs, best first (ties: lowest prediction label, then
              lowest reference label), each taken while both lesions are free. Source: panoptica.
            - ``optimal``: the one-to-one assignment with the largest sum of scores; more
              pairs win where sums are equal within 1e-6 a pair.
            - ``many_to_one``: as ``greedy_pairs``, but a reference may take several predictions.
            - ``maximize_merge``: as ``greedy_pairs``, and a prediction that meets a taken reference
              joins it if the score of the union rises, whether or not it is a hit by itself.
        threshold: the score from which a pair is a hit.
        comparison: whether a score equal to the threshold is a hit (">=") or not (">").
        score: IoU or Dice.

    Returns:
        The matching; empty where one side has no lesion.
    """
    values = overlaps.score(score)
    hit = values > threshold if comparison == ">" else values >= threshold
    if rule == "greedy":
        pairs = _match_greedy(overlaps, values, hit)
    elif rule == "optimal":
        pairs = _match_optimal(overlaps, values, hit)
    elif rule == "maximize_merge":
        pairs = _match_merging(overlaps, values, hit, score)
    elif rule in ("greedy_pairs", "many_to_one"):
        pairs = _match_pairs(overlaps, values, hit, shared=rule == "many_to_one")
    else:
        raise ValueError(f"unknown matching rule {rule!r}")
    pairs = np.sort(pairs)
    matched = np.zeros(len(overlaps.prediction_ids), dtype=bool)
    matched[overlaps.prediction_rows[pairs]] = True
    best = _best_of_each_prediction(overlaps, values, hit)
    left = best[~matched[overlaps.prediction_rows[best]]]
    return Matching(
        reference_rows=overlaps.reference_rows[pairs],
        prediction_rows=overlaps.prediction_rows[pairs],
        common=overlaps.common[pairs],
        displaced=np.stack([overlaps.prediction_rows[left], overlaps.reference_rows[left]], axis=1),
    )


def _best_of_each_prediction(
    overlaps: Overlaps, values: NDArray[np.float64], hit: NDArray[np.bool_]
) -> Rows:
    """The pair each prediction scores best in, among hits; ties go to the lowest reference."""
    candidates = np.flatnonzero(hit)
    rows_r, rows_p = overlaps.reference_rows[candidates], overlaps.prediction_rows[candidates]
    order = candidates[np.lexsort((rows_r, -values[candidates], rows_p))]
    _, first = np.unique(overlaps.prediction_rows[order], return_index=True)
    return np.asarray(order[first], dtype=np.int64)


def _match_greedy(overlaps: Overlaps, values: NDArray[np.float64], hit: NDArray[np.bool_]) -> Rows:
    best = _best_of_each_prediction(overlaps, values, hit)
    rows_r, rows_p = overlaps.reference_rows[best], overlaps.prediction_rows[best]
    order = best[np.lexsort((rows_p, -values[best], rows_r))]
    _, first = np.unique(overlaps.reference_rows[order], return_index=True)
    return np.asarray(order[first], dtype=np.int64)


def _best_first(overlaps: Overlaps, values: NDArray[np.float64]) -> Rows:
    order = np.lexsort((overlaps.reference_rows, overlaps.prediction_rows, -values))
    return np.asarray(order, dtype=np.int64)


def _match_pairs(
    overlaps: Overlaps, values: NDArray[np.float64], hit: NDArray[np.bool_], shared: bool
) -> Rows:
    taken_r: set[int] = set()
    taken_p: set[int] = set()
    pairs: list[int] = []
    for pair in _best_first(overlaps, values).tolist():
        row_r = int(overlaps.reference_rows[pair])
        row_p = int(overlaps.prediction_rows[pair])
        if not hit[pair] or row_p in taken_p or (row_r in taken_r and not shared):
            continue
        taken_r.add(row_r)
        taken_p.add(row_p)
        pairs.append(pair)
    return np.array(pairs, dtype=np.int64)


def _match_merging(
    overlaps: Overlaps, values: NDArray[np.float64], hit: NDArray[np.bool_], score: Score
) -> Rows:
    joined: dict[int, tuple[float, int, int]] = {}  # reference: score, common, predicted voxels
    taken: set[int] = set()
    pairs: list[int] = []
    for pair in _best_first(overlaps, values).tolist():
        row_r = int(overlaps.reference_rows[pair])
        row_p = int(overlaps.prediction_rows[pair])
        common, voxels = int(overlaps.common[pair]), int(overlaps.prediction_voxels[row_p])
        size = int(overlaps.reference_voxels[row_r])
        if row_p in taken:
            continue
        value = float(values[pair])
        if row_r in joined:
            before, common_before, voxels_before = joined[row_r]
            common, voxels = common + common_before, voxels + voxels_before
            value = common / (size + voxels - common)
            value = value if score == "iou" else 2.0 * common / (size + voxels)
            if value <= before:
                continue
        elif not hit[pair]:
            continue
        joined[row_r] = (value, common, voxels)
        taken.add(row_p)
        pairs.append(pair)
    return np.array(pairs, dtype=np.int64)


def _match_optimal(overlaps: Overlaps, values: NDArray[np.float64], hit: NDArray[np.bool_]) -> Rows:
    # One dense problem, as panoptica poses it: among equally good assignments the
    # same solver then returns the same one.
    shape = (len(overlaps.reference_ids), len(overlaps.prediction_ids))
    cost = np.full(shape, 1.0 + 1e-6)
    where = (overlaps.reference_rows[hit], overlaps.prediction_rows[hit])
    cost[where] = 1.0 - values[hit]
    rows_r, rows_p = linear_sum_assignment(cost)
    chosen = np.zeros(shape, dtype=bool)
    chosen[rows_r, rows_p] = True
    return np.flatnonzero(hit & chosen[overlaps.reference_rows, overlaps.prediction_rows])


Kind: TypeAlias = Literal["one_to_one", "missed", "false", "split", "merged", "mixed"]


@dataclass(frozen=True)
class Relation:
    """Lesions of both sides that belong together, by label, and how.

    Attributes:
        kind: ``one_to_one``; ``missed`` (no prediction); ``false`` (no reference); ``split``
            (one reference found as several); ``merged`` (several references found as one);
            ``mixed`` (several and several, linked by chains).
        references: labels, ascending.
        predictions: labels, ascending.
    """

    kind: Kind
    references: tuple[int, ...]
    predictions: tuple[int, ...]


def relate(overlaps: Overlaps, min_share: float = 0.25) -> tuple[Relation, ...]:
    """Group the lesions of both sides that lie on each other, whatever the matching says.

    Two lesions are linked when they share at least ``min_share`` of the voxels of the smaller
    one, so a part is linked to the whole it belongs to, and neighbors that merely touch across
    a slightly different border are not. Linked lesions form one group.

    Returns:
        Every lesion in exactly one group; groups go by their lowest reference label, then
        the false ones by label.
    """
    size_r = overlaps.reference_voxels[overlaps.reference_rows]
    size_p = overlaps.prediction_voxels[overlaps.prediction_rows]
    linked = overlaps.common >= min_share * np.minimum(size_r, size_p)
    n = len(overlaps.reference_ids)
    parent = list(range(n + len(overlaps.prediction_ids)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    links = zip(overlaps.reference_rows[linked], overlaps.prediction_rows[linked], strict=True)
    for row_r, row_p in links:
        one, other = sorted((root(int(row_r)), root(n + int(row_p))))
        parent[other] = one  # the lowest node leads, so groups keep the order of labels
    members: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for node in range(len(parent)):
        if node < n:
            members[root(node)][0].append(int(overlaps.reference_ids[node]))
        else:
            members[root(node)][1].append(int(overlaps.prediction_ids[node - n]))
    return tuple(
        Relation(_kind(len(r), len(p)), tuple(r), tuple(p)) for _, (r, p) in sorted(members.items())
    )


def _kind(references: int, predictions: int) -> Kind:
    if references == 0:
        return "false"
    if predictions == 0:
        return "missed"
    if references == 1:
        return "one_to_one" if predictions == 1 else "split"
    return "merged" if predictions == 1 else "mixed"
