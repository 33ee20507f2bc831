"""Features of candidates: shape, contrast, place, or the surrounding voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import marching_cubes

from lesionwise.change.candidates import scan_pair
from lesionwise.instances.table import lesion_table
from lesionwise.types import BoolArray, FloatArray, Grid, InputError, LabelArray, Study

Floats = NDArray[np.float64]
ELLIPSOID = 2 * np.sqrt(5)
"""Axis length over standard deviation in a filled ellipsoid."""
ELLIPSE = 4.0
"""Axis length over standard deviation in a filled ellipse, which radiomics uses for solids too."""

FLUID, GRAY, WHITE = 1, 2, 3
"""Values of the label ``tissue``; 0 is outside the brain."""


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
    - ``in_white``: fraction that lies in the white matter of the first visit's label ``tissue``
    - ``touches_gray``, ``touches_fluid``, ``touches_other``: 1 where a voxel of the candidate lies
      in, or shares a face with, gray matter, fluid, or a voxel of no tissue (outside the brain)
      of the first visit's label ``tissue``; else 0
    - ``touches_bright``: the same for voxels that were bright before: the first visit, averaged
      over 3 x 3 x 3 voxels, exceeds its mean in the brain by more than ``bright_sd`` standard
      deviations, as lesions do and single noisy voxels do not

    The features of tissue raise InputError where the first visit has no label ``tissue``.

    Attributes:
        wanted: which of them, in order.
        bright_sd: of ``touches_bright``.
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
            InputError: If a visit lacks the scan, the two do not lie on one grid, or a feature
                needs the label ``tissue`` and the first visit has none.
        """
        before, after, brain, grid = scan_pair(study, self.scan)
        voxels = np.flatnonzero(candidates)
        labels, row = np.unique(candidates.ravel()[voxels], return_inverse=True)
        index = np.stack(np.unravel_index(voxels, candidates.shape), axis=1)
        tissue = study.baseline.labels.get("tissue")
        missing = [name for name in self.wanted if name in OF_TISSUE and tissue is None]
        if missing:
            raise InputError(f"sub-{study.subject}: {missing[0]} needs the label tissue")
        candidates_of = _Candidates(
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
            np.zeros(0, np.uint8) if tissue is None else np.asarray(tissue.array),
            self.bright_sd,
        )
        columns = [FEATURES[name](candidates_of) for name in self.wanted]
        values = np.stack(columns, axis=1) if columns else np.empty((len(labels), 0))
        return FeatureTable(self.wanted, values.astype(np.float32), voxels, row)


@dataclass(frozen=True, eq=False)
class _Candidates:
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
    tissue: LabelArray
    bright_sd: float

    def mean(self, array: FloatArray | BoolArray) -> Floats:
        return _mean_by(self.row, array.ravel()[self.voxels].astype(np.float64), self.count)

    def size(self) -> Floats:
        return np.bincount(self.row, minlength=self.count).astype(np.float64)

    def in_white(self) -> Floats:
        return self.mean(np.isin(self.tissue, WHITE))

    def touches_tissue(self, *values: int) -> Floats:
        return self.touches(np.isin(self.tissue, values))

    def touches_other(self) -> Floats:
        return self.touches(~np.isin(self.tissue, (FLUID, GRAY, WHITE)))

    def touches_bright(self) -> Floats:
        values = self.before[self.brain].astype(np.float64)
        if not len(values):
            return np.zeros(self.count)
        limit = values.mean() + self.bright_sd * values.std()
        return self.touches(ndimage.uniform_filter(self.before, 3) > limit)

    def touches(self, structure: BoolArray) -> Floats:
        """1 where a voxel of the candidate is in the structure or shares a face with it."""
        return (self.mean(ndimage.binary_dilation(structure)) > 0).astype(np.float64)

    def least_axis(self, spacing: tuple[float, float, float], scale: float) -> Floats:
        return axis_lengths(self.index * np.array(spacing), self.row, self.count, scale)[:, 0]


FEATURES: Mapping[str, Callable[[_Candidates], Floats]] = MappingProxyType(
    {
        "voxels": _Candidates.size,
        "volume_mm3": lambda of: of.size() * of.voxel_mm3,
        "least_axis_mm": lambda of: of.least_axis(of.spacing_mm, ELLIPSE),
        "minor_axis_vox": lambda of: of.least_axis((1.0, 1.0, 1.0), ELLIPSOID),
        "sphericity": lambda of: sphericity(of.candidates, of.spacing_mm),
        "difference": lambda of: of.mean(of.after - of.before),
        "contrast": lambda of: contrast(of.candidates, of.after, of.brain),
        "in_white": _Candidates.in_white,
        "touches_gray": lambda of: of.touches_tissue(GRAY),
        "touches_fluid": lambda of: of.touches_tissue(FLUID),
        "touches_other": _Candidates.touches_other,
        "touches_bright": _Candidates.touches_bright,
    }
)
OF_TISSUE = ("in_white", "touches_gray", "touches_fluid", "touches_other")
"""The features that need the label ``tissue``."""


@dataclass(frozen=True)
class VoxelNeighborhood:
    """21 features of every brain voxel: baseline, follow-up and candidates at it and around it.

    Both scans are z-scored over the brain (where both visits' masks agree), so trees see
    intensities of one scale. Each of the three maps is read at the voxel and at its six neighbors
    through faces, in the order center, i - 1, i + 1, j - 1, j + 1, k - 1, k + 1. Beyond the volume
    the nearest voxel counts.

    Source: the chapter of recipe ``bsi-lightgbm``, which does not say what the mean is taken over.
    """

    scan: str = "flair"

    def __call__(self, study: Study, candidates: LabelArray) -> FeatureTable:
        """One row per voxel of the brain, in C order.

        Raises:
            InputError: If a visit lacks the scan, the two do not lie on one grid, or a scan is
                constant in the brain.
        """
        before, after, brain, _ = scan_pair(study, self.scan)
        voxels = np.flatnonzero(brain)
        index = np.unravel_index(voxels, brain.shape)
        name = f"sub-{study.subject}"
        maps = {
            "baseline": _z_score(before, brain, f"{name}: baseline"),
            "followup": _z_score(after, brain, f"{name}: follow-up"),
            "candidate": candidates > 0,
        }
        steps = [("", 0, 0)]
        steps += [(f" {'ijk'[a]}{'-+'[s > 0]}1", a, s) for a in range(3) for s in (-1, 1)]
        values = np.empty((len(voxels), len(maps) * len(steps)), dtype=np.float32)
        names: list[str] = []
        for name, array in maps.items():
            for neighbor, axis, step in steps:
                at = list(index)
                at[axis] = np.clip(at[axis] + step, 0, brain.shape[axis] - 1)
                values[:, len(names)] = array[tuple(at)]
                names.append(name + neighbor)
        return FeatureTable(tuple(names), values, voxels, np.arange(len(voxels)))


def _z_score(scan: FloatArray, brain: BoolArray, name: str) -> FloatArray:
    """Mean 0 and standard deviation 1 over the brain; an empty brain changes nothing."""
    values = scan[brain].astype(np.float64)
    if not len(values):
        return scan
    mean, std = values.mean(), values.std()
    if not std > 1e-7 * max(1e-30, abs(mean)):
        raise InputError(f"{name}: every voxel of the brain has the same value")
    return np.asarray((scan - mean) / std, dtype=np.float32)


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

    Example:
        >>> points = np.argwhere(np.ones((3, 3, 9))).astype(float)
        >>> lengths = axis_lengths(points, np.zeros(len(points), dtype=np.int64), 1)
        >>> lengths.round(1).tolist()
        [[3.7, 3.7, 11.5]]
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

    Example:
        >>> labels = np.zeros((13, 13, 13), dtype=np.int32)
        >>> labels[((np.indices(labels.shape) - 6) ** 2).sum(axis=0) <= 16] = 1
        >>> bool(sphericity(labels, (1.0, 1.0, 1.0))[0] > 0.85)
        True
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

    Example:
        >>> labels = np.zeros((7, 7, 7), dtype=np.int32)
        >>> labels[3, 3, 3] = 1
        >>> image = np.where(labels == 1, 5.0, 2.0)
        >>> contrast(labels, image, np.ones(labels.shape, dtype=bool)).tolist()
        [3.0]
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
