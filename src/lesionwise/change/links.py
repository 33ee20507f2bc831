"""Which lesions of two visits are the same place: overlaps first, then nearness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lesionwise.instances.filters import SIZE_ROUNDING
from lesionwise.instances.table import lesion_table, overlap_table
from lesionwise.instances.voxels import Indices, list_voxels
from lesionwise.types import FloatArray, Grid, Instances, LabelArray

Kind = Literal["overlap", "weak", "near"]
_LABELS = ["label_before", "label_after"]
LINK_COLUMNS = (
    "label_before",
    "label_after",
    "overlap_mm3",
    "fraction_before",
    "fraction_after",
    "fraction_of_smaller",
    "distance_mm",
    "kind",
)


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions of one visit as a list of voxels.

    Attributes:
        index: (n, 3) lesion voxels in C order.
        row: (n,) the lesion of each voxel, as a row of ``label``.
        label: (m,) int64, ascending.
        volume_mm3: (m,) float64, on the scan's own grid where that is known.
        drawn_mm3: (m,) float64, of the voxels listed here; 0 for a lesion that has none.
        across_mm: (m,) float64, greatest extent of the bounding box along a voxel axis; 0 without
            voxels.
        first: (m,) int64, position of each lesion's first voxel in C order; -1 without voxels.
        grid: where they lie.
    """

    index: Indices
    row: Indices
    label: NDArray[np.int64]
    volume_mm3: NDArray[np.float64]
    drawn_mm3: NDArray[np.float64]
    across_mm: NDArray[np.float64]
    first: Indices
    grid: Grid

    @classmethod
    def of(cls, instances: Instances, volumes_mm3: Mapping[int, float] | None = None) -> Lesions:
        """List the lesions of a visit; there may be none.

        Args:
            volumes_mm3: by label, where lesions were resampled and their scan knows better. A label
                that has a volume there and no voxel here gets a row too.

        Example:
            >>> one = Instances(np.array([[[0, 2, 2]]]), Grid((1, 1, 3), np.eye(4)))
            >>> lesions = Lesions.of(one, {2: 1.9, 5: 0.1})
            >>> lesions.label.tolist(), lesions.drawn_mm3.tolist()
            ([2, 5], [2.0, 0.0])
        """
        grid = instances.grid
        index = list_voxels(instances.labels)
        table = lesion_table(instances.labels, grid)
        label = table.label
        if volumes_mm3 is not None:
            label = np.union1d(label, np.array(list(volumes_mm3), dtype=np.int64))
        drawn = np.searchsorted(label, table.label)
        row = np.searchsorted(label, instances.labels[tuple(index.T)]).astype(np.int64)
        _, begin = np.unique(row, return_index=True)
        drawn_mm3, across_mm = np.zeros(len(label)), np.zeros(len(label))
        first = np.full(len(label), -1, dtype=np.int64)
        drawn_mm3[drawn] = table.volume_mm3
        across_mm[drawn] = table.extent_mm.max(axis=1, initial=0.0)
        first[drawn] = np.ravel_multi_index(tuple(index[begin].T), grid.shape)
        volume_mm3 = drawn_mm3
        if volumes_mm3 is not None:
            volume_mm3 = np.array([volumes_mm3[each] for each in label.tolist()], np.float64)
        return cls(index, row, label, volume_mm3, drawn_mm3, across_mm, first, grid)

    def voxels_of(self, row: int) -> Indices:
        """(n, 3) voxels of one lesion, in C order; none where it reaches none.

        Example:
            >>> one = Instances(np.array([[[0, 2, 2]]]), Grid((1, 1, 3), np.eye(4)))
            >>> Lesions.of(one).voxels_of(0).tolist()
            [[0, 0, 1], [0, 0, 2]]
        """
        voxels: Indices = self.index[self.row == row]
        return voxels

    def mean_of(self, image: FloatArray) -> NDArray[np.float64]:
        """(m,) the mean of an (I, J, K) image over each lesion."""
        count = np.bincount(self.row, minlength=len(self.label))
        values = image[tuple(self.index.T)].astype(np.float64)
        total = np.bincount(self.row, values, len(self.label))
        mean: NDArray[np.float64] = total / np.maximum(count, 1)
        return mean

    def large_enough(self, min_across_mm: float) -> NDArray[np.bool_]:
        """(m,) True where a lesion measures at least that much across, up to rounding."""
        return self.across_mm >= min_across_mm * (1 - SIZE_ROUNDING)


def overlapping_labels(before: LabelArray, after: LabelArray) -> pd.DataFrame:
    """Voxels that each pair of overlapping labels has in common.

    Args:
        before, after: (I, J, K) integer on one grid, 0 background, none negative.

    Returns:
        label_before, label_after, voxels: one row a pair with at least one common voxel, sorted
        by both labels; no row where nothing overlaps.

    Raises:
        ValueError: If the shapes disagree.

    Example:
        >>> overlapping_labels(np.array([[[1, 1, 0]]]), np.array([[[4, 4, 4]]])).to_dict("records")
        [{'label_before': 1, 'label_after': 4, 'voxels': 2}]
    """
    table = overlap_table(before, after)
    pairs = pd.DataFrame(
        {
            "label_before": table.reference_ids[table.reference_rows],
            "label_after": table.prediction_ids[table.prediction_rows],
            "voxels": table.common,
        }
    )
    return pairs.sort_values(_LABELS, ignore_index=True)


def link_lesions(
    before: Lesions,
    after: Lesions,
    overlaps: pd.DataFrame,
    tolerance_mm: float,
    min_overlap_fraction: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs of lesions that are the same place, and the pairs that nearly were.

    Lesions are linked (kind ``overlap``) where they share at least ``min_overlap_fraction`` of
    the smaller one's voxels. Lesions of both visits that are left without a link are then
    linked one to one where they overlap less (``weak``) or lie, voxel center to voxel center,
    within ``tolerance_mm`` of one another (``near``): larger fractions first, then smaller
    distances, then the lesions whose first voxels come first in C order. Exchanging the two
    visits exchanges the columns and changes nothing else.

    Returns:
        The links and the remaining pairs that overlap or lie within the tolerance and of which
        at least one lesion has no link: each a table with the columns LINK_COLUMNS, sorted by
        both labels.

    Example:
        >>> grid = Grid((1, 1, 4), np.eye(4))
        >>> maps = np.array([[[1, 1, 0, 0]]]), np.array([[[0, 4, 4, 0]]])
        >>> before, after = (Lesions.of(Instances(labels, grid)) for labels in maps)
        >>> links, loose = link_lesions(before, after, overlapping_labels(*maps), 2.0, 0.25)
        >>> links[["label_before", "label_after", "kind"]].values.tolist()
        [[1, 4, 'overlap']]
    """
    table = _with_fractions(before, after, overlaps)
    strong = table["fraction_of_smaller"] >= min_overlap_fraction * (1 - SIZE_ROUNDING)
    linked_before = set(table.loc[strong, "label_before"])
    linked_after = set(table.loc[strong, "label_after"])
    close = _close_pairs(before, after, linked_before, linked_after, tolerance_mm)
    table = _with_fractions(before, after, overlaps.merge(close, on=_LABELS, how="outer"))
    strong = table["fraction_of_smaller"] >= min_overlap_fraction * (1 - SIZE_ROUNDING)
    kind = np.where(strong, "overlap", np.where(table["overlap_mm3"] > 0, "weak", "near"))
    table["kind"] = kind.astype(object)
    first_before = before.first[np.searchsorted(before.label, table["label_before"])]
    first_after = after.first[np.searchsorted(after.label, table["label_after"])]
    order = np.lexsort(
        (
            np.maximum(first_before, first_after),
            np.minimum(first_before, first_after),
            table["distance_mm"],
            -table["fraction_of_smaller"],
        )
    )
    linked = strong.to_numpy().copy()
    pairs = table[_LABELS].to_numpy()
    for at in order:
        a, b = pairs[at].tolist()
        if a not in linked_before and b not in linked_after:
            linked_before.add(a)
            linked_after.add(b)
            linked[at] = True
    loose = ~table["label_before"].isin(linked_before) | ~table["label_after"].isin(linked_after)
    links = table[linked].reset_index(drop=True)
    return links, table[~linked & loose].reset_index(drop=True)


def nearest_distance_mm(lesions: Lesions, others: Lesions) -> NDArray[np.float64]:
    """(m,) distance from each lesion to the nearest voxel of any of the others; inf if none.

    Example:
        >>> labels = np.zeros((8, 8, 8), dtype=np.int32)
        >>> labels[1, 1, 1], labels[4, 1, 1] = 1, 2
        >>> grid = Grid((8, 8, 8), np.eye(4))
        >>> maps = [Instances(np.where(labels == n, n, 0), grid) for n in (1, 2)]
        >>> nearest_distance_mm(*map(Lesions.of, maps)).tolist()
        [3.0]
    """
    distance = np.full(len(lesions.label), np.inf)
    if len(others.index) and len(lesions.index):
        tree = cKDTree(others.grid.world_mm(others.index))
        apart, _ = tree.query(lesions.grid.world_mm(lesions.index))
        np.minimum.at(distance, lesions.row, apart)
    return distance


def _close_pairs(
    before: Lesions,
    after: Lesions,
    linked_before: set[int],
    linked_after: set[int],
    tolerance_mm: float,
) -> pd.DataFrame:
    """Least distance of the pairs within the tolerance of which one lesion has no link."""
    found = [
        _close_to(before, after, linked_before, tolerance_mm),
        _close_to(after, before, linked_after, tolerance_mm)[:, [1, 0, 2]],
    ]
    pairs = pd.DataFrame(np.concatenate(found), columns=[*_LABELS, "distance_mm"])
    pairs = pairs.astype({"label_before": np.int64, "label_after": np.int64})
    return pairs.groupby(_LABELS, as_index=False).min()


def _close_to(
    lesions: Lesions, others: Lesions, linked: set[int], tolerance_mm: float
) -> NDArray[np.float64]:
    """(n, 3) label, label of the other, least distance; lesions with a link are left out."""
    rows = [np.empty((0, 3))]
    if len(others.index) and len(lesions.index):
        tree = cKDTree(others.grid.world_mm(others.index))
        order = np.argsort(lesions.row, kind="stable")
        parts = np.split(
            order, np.searchsorted(lesions.row[order], np.arange(1, len(lesions.label)))
        )
        for label, part in zip(lesions.label.tolist(), parts, strict=True):
            if label in linked or not len(part):
                continue
            points = cKDTree(lesions.grid.world_mm(lesions.index[part]))
            reach = tolerance_mm * (1 + SIZE_ROUNDING)
            near = points.sparse_distance_matrix(tree, reach, output_type="ndarray")
            other, row = np.unique(others.row[near["j"]], return_inverse=True)
            least = np.full(len(other), np.inf)
            np.minimum.at(least, row, near["v"])
            own = np.full(len(other), float(label))
            rows.append(np.stack([own, others.label[other].astype(np.float64), least], axis=1))
    return np.concatenate(rows)


def _with_fractions(before: Lesions, after: Lesions, pairs: pd.DataFrame) -> pd.DataFrame:
    """Overlaps in mm³ and as fractions, one row a pair, sorted by both labels."""
    table = pairs.sort_values(_LABELS, ignore_index=True)
    voxels = table["voxels"].fillna(0).to_numpy(np.float64)
    overlap_mm3 = voxels * before.grid.voxel_volume_mm3
    volume_before = before.drawn_mm3[np.searchsorted(before.label, table["label_before"])]
    volume_after = after.drawn_mm3[np.searchsorted(after.label, table["label_after"])]
    distance_mm = table["distance_mm"] if "distance_mm" in table else np.zeros(len(table))
    return pd.DataFrame(
        {
            "label_before": table["label_before"].astype(np.int64),
            "label_after": table["label_after"].astype(np.int64),
            "overlap_mm3": overlap_mm3,
            "fraction_before": overlap_mm3 / volume_before,
            "fraction_after": overlap_mm3 / volume_after,
            "fraction_of_smaller": overlap_mm3 / np.minimum(volume_before, volume_after),
            "distance_mm": np.where(voxels > 0, 0.0, distance_mm).astype(np.float64),
        }
    )
