"""Which predicted lesion belongs to which reference lesion.

Everything here works on a sparse table of common voxels, made in one pass over the
foreground; no mask of a single lesion is ever built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as graph_components

from lesionwise.instances.limits import check_limits
from lesionwise.instances.table import Overlaps, Rows, Score
from lesionwise.instances.voxels import in_order_of_first

Comparison: TypeAlias = Literal[">", ">="]
Rule: TypeAlias = Literal["greedy", "greedy_pairs", "optimal"]


@dataclass(frozen=True, eq=False)
class Matching:
    """The matched pairs, as rows of the table they were found in.

    Attributes:
        reference_rows: (k,) position in ``Overlaps.reference_ids`` of each pair, each at most
            once.
        prediction_rows: (k,) the same for predictions, ascending.
        common: (k,) voxels each pair shares.
        displaced: (d, 2) prediction row and row of its best reference, for the predictions that
            hit that reference but were left without any, because others took what they hit.
    """

    reference_rows: Rows
    prediction_rows: Rows
    common: Rows
    displaced: Rows

    def iou(self, overlaps: Overlaps) -> NDArray[np.float64]:
        """(k,) IoU of each pair."""
        return np.asarray(self.common / (self._sizes(overlaps) - self.common))

    def dice(self, overlaps: Overlaps) -> NDArray[np.float64]:
        """(k,) Dice of each pair."""
        return np.asarray(2.0 * self.common / self._sizes(overlaps))

    def _sizes(self, overlaps: Overlaps) -> Rows:
        """(k,) voxels of both lesions of each pair, common ones twice."""
        of_reference = overlaps.reference_voxels[self.reference_rows]
        return np.asarray(of_reference + overlaps.prediction_voxels[self.prediction_rows])


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
              hit. Source: ConfLUNet, section 3.1, completed as in its authors' code.
            - ``greedy_pairs``: all pairs, best first (ties: lowest prediction label, then
              lowest reference label), each taken while both lesions are free. Source: panoptica.
            - ``optimal``: the one-to-one assignment with the largest sum of scores; more
              pairs win where sums are equal within 1e-6 a pair.
        threshold: the score from which a pair is a hit.
        comparison: whether a score equal to the threshold is a hit (">=") or not (">").
        score: IoU or Dice.

    Returns:
        The matching; empty where one side has no lesion.

    Raises:
        ValueError: If the rule is unknown or the threshold does not lie between 0 and 1.

    Example:
        >>> from lesionwise.instances.table import overlap_table
        >>> overlaps = overlap_table(np.array([[[1, 1, 0, 2]]]), np.array([[[5, 5, 5, 0]]]))
        >>> matching = match(overlaps)
        >>> matching.reference_rows.tolist(), matching.prediction_rows.tolist()
        ([0], [0])
    """
    check_limits(most=1, threshold=threshold)
    values = overlaps.score(score)
    hit = values > threshold if comparison == ">" else values >= threshold
    if rule == "greedy":
        pairs = _match_greedy(overlaps, values, hit)
    elif rule == "optimal":
        pairs = _match_optimal(overlaps, values, hit)
    elif rule == "greedy_pairs":
        pairs = _match_pairs(overlaps, values, hit)
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


def _match_pairs(overlaps: Overlaps, values: NDArray[np.float64], hit: NDArray[np.bool_]) -> Rows:
    taken_r: set[int] = set()
    taken_p: set[int] = set()
    pairs: list[int] = []
    best_first = np.lexsort((overlaps.reference_rows, overlaps.prediction_rows, -values))
    for pair in best_first[hit[best_first]].tolist():
        row_r = int(overlaps.reference_rows[pair])
        row_p = int(overlaps.prediction_rows[pair])
        if row_p not in taken_p and row_r not in taken_r:
            taken_r.add(row_r)
            taken_p.add(row_p)
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


def relate(overlaps: Overlaps, min_overlap_fraction: float = 0.25) -> tuple[Relation, ...]:
    """Group overlapping lesions of both sides, independently of the matching.

    Two lesions are linked when they share at least ``min_overlap_fraction`` of the voxels of the
    smaller one, so a part is linked to the whole it belongs to, and neighbors that merely touch
    across a slightly different border are not. Linked lesions form one group.

    Returns:
        Every lesion in exactly one group; groups go by their lowest reference label, then
        the false ones by label.

    Example:
        >>> from lesionwise.instances.table import overlap_table
        >>> overlaps = overlap_table(np.array([[[1, 1, 2, 2]]]), np.array([[[5, 5, 5, 5]]]))
        >>> relate(overlaps)
        (Relation(kind='merged', references=(1, 2), predictions=(5,)),)
    """
    check_limits(most=1, min_overlap_fraction=min_overlap_fraction)
    size_r = overlaps.reference_voxels[overlaps.reference_rows]
    size_p = overlaps.prediction_voxels[overlaps.prediction_rows]
    linked = overlaps.common >= min_overlap_fraction * np.minimum(size_r, size_p)
    n, m = len(overlaps.reference_ids), len(overlaps.prediction_ids)
    links = (overlaps.reference_rows[linked], n + overlaps.prediction_rows[linked])
    graph = coo_array((np.ones(len(links[0]), dtype=np.bool_), links), shape=(n + m, n + m))
    group = in_order_of_first(graph_components(graph, directed=False)[1])
    ids = np.concatenate([overlaps.reference_ids, overlaps.prediction_ids])
    nodes = np.argsort(group, kind="stable")
    relations = []
    for members in np.split(nodes, np.cumsum(np.bincount(group))[:-1]) if n + m else []:
        r, p = (tuple(ids[side].tolist()) for side in (members[members < n], members[members >= n]))
        relations.append(Relation(_kind(len(r), len(p)), r, p))
    return tuple(relations)


def _kind(references: int, predictions: int) -> Kind:
    if references == 0:
        return "false"
    if predictions == 0:
        return "missed"
    if references == 1:
        return "one_to_one" if predictions == 1 else "split"
    return "merged" if predictions == 1 else "mixed"
