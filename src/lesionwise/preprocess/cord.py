"""The spinal cord below the brain: found slice by slice, aligned, and joined to the brain mask.

On FLAIR the cord is a bright disk in the dark fluid of its canal. Where the scan ends above it
there is none, the log says so, and everything goes on with the brain alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import minimize

from lesionwise.preprocess.brain import dilated
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.registration import shared_scan
from lesionwise.preprocess.visits import each_visit
from lesionwise.types import BoolArray, FloatArray, InputError, Study, Visit, Volume

CORD = "cord"
"""The label of the cord."""
AREA_MM2 = (25.0, 260.0)
"""Of the cord's section: a little less and more than what is seen from the medulla to C3."""
ROUND = 0.55
"""Least share of its bounding box that a section fills; a disk fills 0.79."""
FIRST_SHIFT_MM, SHIFT_MM = 14.0, 3.0
"""How far the first section may lie beside the brain mask's lowest part, and each next one beside
the one above."""
GAP_MM = 5.0
"""So much of the cord may be missed before it has ended."""
MIN_LENGTH_MM = 12.0
"""Less than that is no cord."""
WINDOW_MM = 22.0
"""Half of the square in which a section is looked for."""


@dataclass(frozen=True)
class FindCord:
    """Every visit with a mask of the spinal cord, its label ``cord``, where one is in view.

    From the lowest part of the brain mask downward (k falls) each axial slice is searched for a
    round bright patch near the one above. A visit without a cord gets no label, and the log says
    so. Slices are taken across k, which runs upward in canonical axes.

    Raises InputError for a visit without a brain mask.

    Departure from the source: its tool, the Spinal Cord Toolbox, finds the cord by a trained
    model; here it is found by brightness and shape.
    """

    def __call__(self, study: Study) -> Study:
        name = shared_scan(study)

        def found(visit: Visit) -> Visit:
            scan, said = visit.scans[name], f"{study.subject} {visit.session}".strip()
            if visit.brain is None:
                raise InputError(
                    f"{said}: no brain mask, so the spinal cord below it cannot be found"
                )
            brain = resample_to(visit.brain, scan.grid, order=0).array.astype(bool)
            cord = cord_mask(scan.array, brain, scan.grid.spacing_mm)
            if not cord.any():
                logging.getLogger("lesionwise").warning("%s: no spinal cord in view", said)
                return visit
            return replace(visit, labels={**visit.labels, CORD: Volume(cord, scan.grid)})

        return each_visit(study, found)


@dataclass(frozen=True)
class AlignCord:
    """The cord of earlier visits moved slice by slice onto that of the last one.

    Shifts within each slice minimize the mean squared difference of the two scans around the
    last visit's cord; they are smoothed along it. The shift fades out around the cord and towards
    the brain, which stays where it is. Scans and the cord's own label move, linearly interpolated;
    other labels stay. All visits lie on one grid. A study where not both visits have a cord
    passes unchanged.

    Attributes:
        smooth_mm: sigma of the Gaussian on both scans before they are compared.
        along_mm: sigma of the Gaussian on the shifts along the cord.
        largest_mm: shift along each axis.

    Source: Cohen-Adad and others, slice-by-slice regularized registration, Spinal Cord Toolbox,
    doi:10.1016/j.neuroimage.2016.10.009. Departures: shifts alone, regularized by smoothing.
    """

    smooth_mm: float = 1.3  # 3 mm at half of the maximum
    along_mm: float = 5.0
    largest_mm: float = 6.0

    def __call__(self, study: Study) -> Study:
        if len(study.visits) < 2 or CORD not in study.followup.labels:
            return study
        name = shared_scan(study)
        last = study.followup

        def aligned(visit: Visit) -> Visit:
            if visit is last or CORD not in visit.labels:
                return visit
            if not visit.scans[name].grid.matches(last.scans[name].grid):
                raise InputError(
                    f"sub-{study.subject}: visits must be on one grid before cords are aligned"
                )
            shifts = self.shifts_vox(
                last.scans[name], visit.scans[name], last.labels[CORD].array.astype(bool)
            )

            def moved(volume: Volume) -> Volume:
                array = _shifted_in_slices(np.asarray(volume.array, dtype=np.float32), shifts)
                return Volume(array, volume.grid)

            cord = moved(visit.labels[CORD])
            labels = {**visit.labels, CORD: Volume(cord.array > 0.5, cord.grid)}
            scans = {key: moved(volume) for key, volume in visit.scans.items()}
            return replace(visit, scans=scans, labels=labels)

        return each_visit(study, aligned)

    def shifts_vox(self, fixed: Volume, moving: Volume, cord: BoolArray) -> NDArray[np.float32]:
        """(2, I, J, K): each voxel of the fixed scan is read so far away in the moving one."""
        spacing = np.array(fixed.grid.spacing_mm)
        slices = np.flatnonzero(cord.any(axis=(0, 1)))
        first = max(0, int(slices[0] - np.ceil(4 * self.smooth_mm / spacing[2])))
        last = int(slices[-1] + np.ceil(4 * self.smooth_mm / spacing[2])) + 1
        still, placed = (
            ndimage.gaussian_filter(
                np.asarray(v.array[..., first:last], dtype=np.float32), self.smooth_mm / spacing
            )
            for v in (fixed, moving)
        )
        around = dilated(cord, 4.0, fixed.grid)
        found = np.zeros((len(slices), 2))
        for row, k in enumerate(slices):
            at = np.s_[..., k - first]
            found[row] = self._shift(
                still[at].astype(np.float64), placed[at].astype(np.float64), around[..., k], spacing
            )
        step = spacing[2]
        smooth = ndimage.gaussian_filter1d(found, self.along_mm / step, axis=0, mode="nearest")
        out = np.zeros((2, *cord.shape), dtype=np.float32)
        for row, k in enumerate(slices):
            fade = min(1.0, (slices[-1] - k) * step / 10.0)  # to nothing where the brain begins
            out[..., k] = fade * smooth[row][:, None, None]
        slab = np.s_[..., slices[0] : slices[-1] + 1]
        distance = ndimage.distance_transform_edt(~around[slab], sampling=spacing)
        out[slab] *= np.clip(1 - distance / 8.0, 0, 1).astype(np.float32)
        return out

    def _shift(
        self,
        fixed: NDArray[np.float64],
        moving: NDArray[np.float64],
        where: BoolArray,
        spacing: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """In voxels: the best whole one in reach, then between voxels."""
        at = np.argwhere(where).astype(np.float64).T
        wanted = fixed[where]

        def error(shift: NDArray[np.float64]) -> float:
            read = ndimage.map_coordinates(moving, at + shift[:, None], order=1, mode="nearest")
            level = wanted.mean() / max(read.mean(), 1e-6)
            return float(np.mean((read * level - wanted) ** 2))

        reach = [int(self.largest_mm / s) for s in spacing[:2]]
        whole = [
            (error(np.array([i, j], dtype=float)), i * i + j * j, i, j)
            for i in range(-reach[0], reach[0] + 1)
            for j in range(-reach[1], reach[1] + 1)
        ]
        _, _, i, j = min(whole)
        best = minimize(
            error, np.array([i, j], float), method="Nelder-Mead", options={"xatol": 0.02}
        )
        limit = np.array(reach, dtype=float)
        return np.clip(np.asarray(best.x, dtype=np.float64), -limit, limit)


@dataclass(frozen=True)
class BrainAndCord:
    """Every brain mask grown by ``by_mm`` and joined with the visit's cord, grown as much.

    A visit without a cord has the grown brain alone. Raises InputError for a visit without a brain
    mask.
    """

    by_mm: float = 2.0

    def __call__(self, study: Study) -> Study:
        def joined(visit: Visit) -> Visit:
            if visit.brain is None:
                name = f"{study.subject} {visit.session}".strip()
                raise InputError(f"{name}: no brain mask to join with the cord")
            grid = visit.brain.grid
            mask = visit.brain.array.astype(bool)
            if CORD in visit.labels:
                mask = mask | resample_to(visit.labels[CORD], grid, order=0).array.astype(bool)
            return replace(visit, brain=Volume(dilated(mask, self.by_mm, grid), grid))

        return each_visit(study, joined)


@dataclass(frozen=True)
class CordOfLast:
    """Every visit with the cord of the last one, or with none where that has none.

    Visits lie on one grid.
    """

    def __call__(self, study: Study) -> Study:
        cord = study.followup.labels.get(CORD)

        def given(visit: Visit) -> Visit:
            labels = {name: v for name, v in visit.labels.items() if name != CORD}
            return replace(visit, labels=labels if cord is None else {**labels, CORD: cord})

        return each_visit(study, given)


def cord_mask(
    scan: FloatArray, brain: BoolArray, spacing_mm: tuple[float, float, float]
) -> BoolArray:
    """The cord below a brain, slice by slice; empty where none is seen.

    Args:
        scan: (I, J, K), k upward.
        brain: of the same shape, not empty.
        spacing_mm: along i, j, k.

    Returns:
        (I, J, K) bool.

    Example:
        >>> scan, brain = np.zeros((32, 32, 30)), np.zeros((32, 32, 30), dtype=np.bool_)
        >>> brain[4:28, 4:28, 20:] = True
        >>> i, j = np.indices((32, 32)) - 15.5
        >>> scan[np.hypot(i, j) < 5], scan[brain] = 100, 100
        >>> cord = cord_mask(scan, brain, (1.0, 1.0, 1.0))
        >>> np.flatnonzero(cord.any(axis=(0, 1))).tolist() == list(range(20))
        True
    """
    found = np.zeros(scan.shape, dtype=bool)
    filled = np.flatnonzero(brain.any(axis=(0, 1)))
    if not filled.size:
        return found
    di, dj, dk = spacing_mm
    bottom = int(filled[0])
    levels = slice(bottom, bottom + max(1, round(5.0 / dk)))
    lowest = np.argwhere(brain[..., levels].any(axis=2)).mean(axis=0)
    bright = 0.5 * float(np.median(scan[brain]))
    at, reach, missed = lowest, FIRST_SHIFT_MM, 0.0
    for k in range(bottom, -1, -1):
        section = _section(np.asarray(scan[..., k]), at, reach, bright, (di, dj))
        if section is None:
            missed += dk
            if found.any() and missed > GAP_MM:
                break
            continue
        found[..., k] = section
        at, reach, missed = np.argwhere(section).mean(axis=0), SHIFT_MM, 0.0
    length = found.any(axis=(0, 1)).sum() * dk
    return found if length >= MIN_LENGTH_MM else np.zeros_like(found)


def _section(
    image: FloatArray,
    at: NDArray[np.float64],
    reach_mm: float,
    bright: float,
    spacing: tuple[float, float],
) -> BoolArray | None:
    """The round bright patch nearest to a place in one slice."""
    low = [max(0, int(at[axis] - WINDOW_MM / spacing[axis])) for axis in range(2)]
    high = [int(at[axis] + WINDOW_MM / spacing[axis]) + 1 for axis in range(2)]
    box = (slice(low[0], high[0]), slice(low[1], high[1]))
    part = np.asarray(image[box], dtype=np.float32)
    if part.size == 0:
        return None
    labels, _ = ndimage.label(part > bright)
    best: tuple[float, int] | None = None
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[where] == number
        area = inside.sum() * spacing[0] * spacing[1]
        if not AREA_MM2[0] <= area <= AREA_MM2[1] or inside.mean() < ROUND:
            continue
        sides = [n * s for n, s in zip(inside.shape, spacing, strict=True)]
        if max(sides) > 2.2 * min(sides):
            continue
        middle = np.argwhere(labels == number).mean(axis=0) + low
        away = float(np.linalg.norm((middle - at) * np.array(spacing)))
        if away <= reach_mm and (best is None or away < best[0]):
            best = (away, number)
    if best is None:
        return None
    section = np.zeros(image.shape, dtype=bool)
    section[box] = ndimage.binary_fill_holes(labels == best[1])
    return section


def _shifted_in_slices(
    array: NDArray[np.float32], shifts: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The array read ``shifts`` (2, I, J, K) voxels away within each slice; untouched where 0."""
    out = array.copy()
    i, j = np.indices(array.shape[:2], dtype=np.float32)
    for k in np.flatnonzero((shifts != 0).any(axis=(0, 1, 2))):
        at = np.stack([i + shifts[0, ..., k], j + shifts[1, ..., k]])
        out[..., k] = ndimage.map_coordinates(array[..., k], at, order=1, mode="nearest")
    return out
