"""What candidates look like, as numbers: shape, contrast, place, or the voxels around."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from lesionwise.change.candidates import scan_pair
from lesionwise.instances.table import lesion_table
from lesionwise.types import BoolArray, FloatArray, Grid, LabelArray, Study

Floats = NDArray[np.float64]
ELLIPSOID = 2 * np.sqrt(5)
"""Axis length over standard deviation in a filled ellipsoid."""
ELLIPSE = 4.0
"""Axis length over standard deviation in a filled ellipse, which radiomics uses for solids too."""

FLUID, GRAY, WHITE = 1, 2, 3
"""Values of the label ``tissue``; 0 is outside, 4 lesion."""


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Numbers for each candidate, or for each voxel, and where they belong.

    Attributes:
        names: of the columns.
        values: (n, columns) float32, one row per candidate or voxel; n may be 0.
        voxels: (m,) int64, the voxels that rows describe, as indices in C order.
        row: (m,) int64, the row that describes each of them.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    voxels: NDArray[np.int64]
    row: NDArray[np.int64]

    def column(self, name: str) -> NDArray[np.float32]:
        """(n,) one feature of every row.

        Raises:
            ValueError: If there is none of that name.
        """
        if name not in self.names:
            raise ValueError(f"no feature {name}; there are {', '.join(self.names)}")
        return np.asarray(self.values[:, self.names.index(name)])

    def painted(self, scores: FloatArray, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """(I, J, K) float32: each row's score on its voxels, 0 elsewhere."""
        painted = np.zeros(shape, dtype=np.float32)
        painted.ravel()[self.voxels] = scores[self.row]
        return painted

    def share_of(self, mask: BoolArray) -> Floats:
        """(n,) share of each row's voxels that lie in a mask."""
        inside = mask.ravel()[self.voxels]
        return _mean_by(self.row, inside.astype(np.float64), len(self.values))


@dataclass(frozen=True)
class CandidateFeatures:
    """Features of each candidate.

    - ``voxels``, ``volume_mm3``
    - ``least_axis_mm``: 4 standard deviations of its voxel centers along the direction in which
      they spread least, as radiomics has it; ``minor_axis_vox``: the same in voxels, as the
      ellipsoid with equal second moments has it (times √5/2)
    - ``sphericity``: see ``sphericity``
    - ``difference``: mean of last visit minus first
    - ``contrast``: mean of the last visit in it minus that in the voxels around (through faces,
      in the brain and in no candidate); NaN where there are none
    - ``in_white``, ``in_gray``, ``in_fluid``: shares that lie in a tissue of the first visit's
      label ``tissue``; without that label 1, 0, 0
    - ``in_bright``: share in which the first visit, averaged over 3 x 3 x 3 voxels, exceeds its
      mean in the brain by more than ``bright_sd`` standard deviations, as lesions do and single
      noisy voxels do not

    Attributes:
        wanted: which of them, in order.
        bright_sd: of ``in_bright``.
        scan: which scan.
    """

    wanted: tuple[str, ...]
    bright_sd: float = 2.0
    scan: str = "flair"

    def __post_init__(self) -> None:
        unknown = [name for name in self.wanted if name not in FEATURES]
        if unknown:
            raise ValueError(f"no feature {unknown[0]}; there are {', '.join(FEATURES)}")

    def __call__(self, study: Study, candidates: LabelArray) -> FeatureTable:
        """One row per label, ascending.

        Raises:
            InputError: If a visit lacks the scan, or the two do not lie on one grid.
        """
        before, after, brain, grid = scan_pair(study, self.scan)
        voxels = np.flatnonzero(candidates)
        labels, row = np.unique(candidates.ravel()[voxels], return_inverse=True)
        index = np.stack(np.unravel_index(voxels, candidates.shape), axis=1)
        tissue = study.baseline.labels.get("tissue")
        seen = _Seen(
            before,
            after,
            brain,
            candidates,
            grid.spacing_mm,
            grid.voxel_volume_mm3,
            len(labels),
            voxels,
            row,
            index,
            None if tissue is None else np.asarray(tissue.array),
            self.bright_sd,
        )
        columns = [FEATURES[name](seen) for name in self.wanted]
        values = np.stack(columns, axis=1) if columns else np.empty((len(labels), 0))
        return FeatureTable(self.wanted, values.astype(np.float32), voxels, row)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What features of candidates are made from."""

    before: FloatArray
    after: FloatArray
    brain: BoolArray
    candidates: LabelArray
    spacing_mm: tuple[float, float, float]
    voxel_mm3: float
    count: int
    voxels: NDArray[np.int64]
    row: NDArray[np.int64]
    index: NDArray[np.int64]
    tissue: LabelArray | None
    bright_sd: float

    def mean(self, array: FloatArray | BoolArray) -> Floats:
        return _mean_by(self.row, array.ravel()[self.voxels].astype(np.float64), self.count)

    def size(self) -> Floats:
        return np.bincount(self.row, minlength=self.count).astype(np.float64)

    def in_tissue(self, value: int) -> Floats:
        if self.tissue is None:
            return np.full(self.count, float(value == WHITE))
        return self.mean(self.tissue == value)

    def in_bright(self) -> Floats:
        values = self.before[self.brain].astype(np.float64)
        if not len(values):
            return np.zeros(self.count)
        limit = values.mean() + self.bright_sd * values.std()
        return self.mean(ndimage.uniform_filter(self.before, 3) > limit)

    def least_axis(self, spacing: tuple[float, float, float], scale: float) -> Floats:
        return axis_lengths(self.index * np.array(spacing), self.row, self.count, scale)[:, 0]


FEATURES: Mapping[str, Callable[[_Seen], Floats]] = MappingProxyType(
    {
        "voxels": _Seen.size,
        "volume_mm3": lambda seen: seen.size() * seen.voxel_mm3,
        "least_axis_mm": lambda seen: seen.least_axis(seen.spacing_mm, ELLIPSE),
        "minor_axis_vox": lambda seen: seen.least_axis((1.0, 1.0, 1.0), ELLIPSOID),
        "sphericity": lambda seen: sphericity(seen.candidates, seen.spacing_mm),
        "difference": lambda seen: seen.mean(seen.after - seen.before),
        "contrast": lambda seen: contrast(seen.candidates, seen.after, seen.brain),
        "in_white": partial(_Seen.in_tissue, value=WHITE),
        "in_gray": partial(_Seen.in_tissue, value=GRAY),
        "in_fluid": partial(_Seen.in_tissue, value=FLUID),
        "in_bright": _Seen.in_bright,
    }
)


@dataclass(frozen=True)
class VoxelNeighborhood:
    """21 features of every brain voxel: baseline, follow-up and candidates at it and around it.

    Each of the three maps is read at the voxel and at its six neighbors through faces, in the
    order center, i - 1, i + 1, j - 1, j + 1, k - 1, k + 1. Beyond the volume the nearest voxel
    counts.

    Source: document 002, line 108 ff. (B1).
    """

    scan: str = "flair"

    def __call__(self, study: Study, candidates: LabelArray) -> FeatureTable:
        """One row per voxel of the brain, in C order.

        Raises:
            InputError: If a visit lacks the scan, or the two do not lie on one grid.
        """
        before, after, brain, _ = scan_pair(study, self.scan)
        voxels = np.flatnonzero(brain)
        index = np.unravel_index(voxels, brain.shape)
        maps = {"baseline": before, "followup": after, "candidate": candidates > 0}
        places = [("", 0, 0)]
        places += [(f" {'ijk'[a]}{'-+'[s > 0]}1", a, s) for a in range(3) for s in (-1, 1)]
        values = np.empty((len(voxels), len(maps) * len(places)), dtype=np.float32)
        names: list[str] = []
        for name, array in maps.items():
            for place, axis, step in places:
                at = list(index)
                at[axis] = np.clip(at[axis] + step, 0, brain.shape[axis] - 1)
                values[:, len(names)] = array[tuple(at)]
                names.append(name + place)
        return FeatureTable(tuple(names), values, voxels, np.arange(len(voxels)))


def axis_lengths(
    points: Floats, row: NDArray[np.int64], count: int, scale: float = ELLIPSOID
) -> Floats:
    """Lengths of the axes of point clouds, shortest first.

    The standard deviation of the points along each principal direction, times ``scale``: 2√5
    gives the axes of the ellipsoid with the same second moments. Points have no extent of
    their own, so a flat cloud has a shortest axis of 0.

    Args:
        points: (m, 3), in the unit of the result.
        row: (m,) which cloud each point belongs to, from 0.
        count: number of clouds.

    Returns:
        (count, 3) float64, ascending; a cloud without points has zeros.
    """
    center = np.stack([_mean_by(row, points[:, a].astype(float), count) for a in range(3)], axis=1)
    away = points - center[row]
    covariance = np.empty((count, 3, 3))
    for a in range(3):
        for b in range(a, 3):
            covariance[:, a, b] = covariance[:, b, a] = _mean_by(
                row, away[:, a] * away[:, b], count
            )
    spread = np.clip(np.linalg.eigvalsh(covariance), 0, None) if count else np.empty((0, 3))
    return np.asarray(scale * np.sqrt(spread))


def sphericity(labels: LabelArray, spacing_mm: tuple[float, float, float]) -> Floats:
    """Surface of the ball of equal volume over the surface, of each label's mesh.

    1 for a ball, less for anything else. The mesh runs half way between voxel centers
    (marching cubes), as in radiomics; its own volume is taken, not that of the voxels.

    Args:
        labels: (I, J, K) integer, 0 background.

    Returns:
        (n,) float64 in (0, 1], in ascending order of labels; n may be 0.
    """
    found = lesion_table(labels, Grid(labels.shape, np.eye(4)))
    result = np.empty(len(found))
    for n, (label, box) in enumerate(zip(found.label, found.boxes(), strict=True)):
        solid = np.pad((labels[box] == label).astype(np.float32), 1)
        points, faces, _, _ = marching_cubes(solid, 0.5, spacing=spacing_mm)
        corners = (points - points.mean(axis=0))[faces].astype(np.float64)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(normal, axis=1).sum() / 2
        volume = abs((corners[:, 0] * normal).sum()) / 6
        result[n] = np.cbrt(36 * np.pi * volume**2) / area
    return result


def contrast(labels: LabelArray, image: FloatArray, within: BoolArray) -> Floats:
    """Mean of an image in each label minus its mean in the voxels around it.

    Around are voxels that share a face with the label, lie ``within`` and carry no label.

    Returns:
        (n,) float64, in ascending order of labels; NaN where nothing lies around.
    """
    found = lesion_table(labels, Grid(labels.shape, np.eye(4)))
    result = np.full(len(found), np.nan)
    for n, (label, box) in enumerate(zip(found.label, found.boxes(1), strict=True)):
        inside = labels[box] == label
        around = ndimage.binary_dilation(inside) & within[box] & (labels[box] == 0)
        if around.any():
            values = image[box]
            result[n] = values[inside].mean(dtype=float) - values[around].mean(dtype=float)
    return result


def _mean_by(row: NDArray[np.int64], values: Floats, count: int) -> Floats:
    """(count,) mean of the values of each row; 0 for a row without values."""
    total = np.bincount(row, values, minlength=count)
    return np.asarray(total / np.maximum(np.bincount(row, minlength=count), 1))
