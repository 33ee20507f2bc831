"""Where in the brain each lesion lies, in the words of the McDonald criteria.

The criteria of 2017 (Thompson et al., Lancet Neurology 2018, panel of definitions) call a lesion
of the cerebral white matter periventricular or juxtacortical where it abuts a lateral ventricle
or the cortex with no white matter between, and infratentorial where it lies in brainstem or
cerebellum. They give no distances. The limits here, in mm, are this project's own: they allow
for what a coarse registration leaves, and were chosen on simulated patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.instances.table import bounding_box
from lesionwise.preprocess.each_scan import from_zero
from lesionwise.preprocess.template import template_maps, template_matrix
from lesionwise.preprocess.visits import own_threads
from lesionwise.types import BoolArray, Grid, InputError, Instances, Matrix, Volume

Location = Literal["periventricular", "juxtacortical", "infratentorial", "deep white matter"]
Floats = NDArray[np.float32]

FLUID_FRACTION = 0.6
"""Fluid is darker than this share of the brain's median in FLAIR."""
VENTRICLE_REACH_MM = 8.0
"""Fluid no further than this from the template's lateral ventricles belongs to the patient's."""
SULCUS_FROM_MM = 12.0
"""Fluid further than this from them lies in sulci and cisterns."""

ZONE_MARGIN_MM = 15.0
"""Around the template's brain; more than any of the distances that are compared."""


@dataclass(frozen=True)
class LocationRule:
    """Limits, in mm between centers of voxels; the first that holds decides, in this order.

    Attributes:
        infratentorial_fraction: more of the lesion's voxels than this lie below the tentorium.
        ventricle_mm: it comes nearer than this to fluid of the lateral ventricles in the scan,
        template_ventricle_mm: or to the lateral ventricles of the template: periventricular.
        sulcus_mm: it comes nearer than this to fluid of the sulci in the scan,
        template_cortex_mm: or to the cortex of the template: juxtacortical (or cortical).

    Any other lesion counts as deep white matter, also one of the deep gray matter.
    """

    infratentorial_fraction: float = 0.5
    ventricle_mm: float = 3.0
    template_ventricle_mm: float = 5.0
    sulcus_mm: float = 3.0
    template_cortex_mm: float = 2.0


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What lesions of one scan are located by.

    Attributes:
        grid: of the scan.
        to_template: world mm of the scan to MNI mm.
        ventricle_mm, sulcus_mm: (I, J, K) distance of each voxel to the scan's own fluid of
            the lateral ventricles and of the sulci, or to the brain's outside; 0 within.
    """

    grid: Grid
    to_template: Matrix
    ventricle_mm: Floats
    sulcus_mm: Floats


def find_landmarks(
    scan: Volume, brain: Volume, *, to_scan: Matrix | None = None, name: str = "scan"
) -> Landmarks:
    """Register the scan to the template and find its fluid.

    Args:
        scan: FLAIR; of one whose intensities were shifted, as a z-score does, ``from_zero`` finds
            the zero again.
        brain: mask on the scan's grid.
        to_scan: world matrix, template mm to scan mm, where it is known; else ``template_matrix``.
        name: of the scan, for messages.

    Raises:
        InputError: If the mask is empty or the scan cannot be registered to the template.
        ValueError: If the grids do not match.

    Example:
        >>> affine = np.eye(4)
        >>> affine[:3, 3] = (-10, -25, 5)  # MNI mm, around the left lateral ventricle
        >>> grid = Grid((10, 40, 20), affine)
        >>> scan = np.full(grid.shape, 100.0)
        >>> scan[4:7, 18:22, 8:12] = 10  # fluid
        >>> brain = Volume(np.ones(grid.shape, dtype=np.bool_), grid)
        >>> found = find_landmarks(Volume(scan, grid), brain, to_scan=np.eye(4))
        >>> found.ventricle_mm[0:8, 20, 10].tolist()
        [4.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    """
    if not brain.grid.matches(scan.grid):
        raise ValueError("the brain mask does not lie on the grid of the scan")
    inside = brain.array != 0
    if not inside.any():
        raise InputError(f"{name}: the brain mask is empty")
    if to_scan is None:
        to_scan = template_matrix(scan, brain, name=name)
    to_template: Matrix = np.asarray(np.linalg.inv(to_scan), dtype=np.float64)
    values = from_zero(scan.array, inside)
    fluid = inside & (values < FLUID_FRACTION * float(np.median(values[inside])))
    index = np.argwhere(fluid)
    apart = _read(_zones().ventricle_mm, scan.grid, to_template, index)
    ventricles, outside = np.zeros(fluid.shape, dtype=bool), ~inside
    ventricles[tuple(index[apart < VENTRICLE_REACH_MM].T)] = True
    outside[tuple(index[apart > SULCUS_FROM_MM].T)] = True
    return Landmarks(
        scan.grid,
        to_template,
        _distance(ventricles, scan.grid),
        _distance(outside, scan.grid),
    )


def locate_lesions(
    instances: Instances,
    landmarks: Landmarks,
    rule: LocationRule = LocationRule(),
) -> dict[int, Location]:
    """The location of each lesion by label, ascending; empty without lesions.

    Raises:
        ValueError: If the lesions lie on another grid than the landmarks.

    Example:
        >>> affine = np.diag([1.0, 1.0, 55.0, 1.0])
        >>> affine[:3, 3] = (25, -60, -30)  # MNI mm
        >>> grid = Grid((1, 1, 2), affine)
        >>> far = np.full(grid.shape, 99, dtype=np.float32)
        >>> landmarks = Landmarks(grid, np.eye(4), ventricle_mm=far, sulcus_mm=far)
        >>> locate_lesions(Instances(np.array([[[1, 2]]]), grid), landmarks)
        {1: 'infratentorial', 2: 'deep white matter'}
    """
    if not instances.grid.matches(landmarks.grid):
        raise ValueError("the lesions do not lie on the grid of the landmarks")
    zones = _zones()
    index = np.argwhere(instances.labels)
    at = tuple(index.T)
    found, row = np.unique(instances.labels[at], return_inverse=True)

    def nearest(values: Floats) -> Floats:
        least = np.full(len(found), np.inf, dtype=np.float32)
        np.minimum.at(least, row, values)
        return least

    def in_template(zone: NDArray[Any]) -> NDArray[Any]:
        return _read(zone, landmarks.grid, landmarks.to_template, index)

    count = np.maximum(np.bincount(row, minlength=len(found)), 1)
    below = np.bincount(row, in_template(zones.infratentorial), len(found)) / count
    at_ventricle = (nearest(landmarks.ventricle_mm[at]) < rule.ventricle_mm) | (
        nearest(in_template(zones.ventricle_mm)) < rule.template_ventricle_mm
    )
    at_cortex = (nearest(landmarks.sulcus_mm[at]) < rule.sulcus_mm) | (
        nearest(in_template(zones.cortex_mm)) < rule.template_cortex_mm
    )
    located: dict[int, Location] = {}
    for place, label in enumerate(found.tolist()):
        located[label] = (
            "infratentorial"
            if below[place] > rule.infratentorial_fraction
            else "periventricular"
            if at_ventricle[place]
            else "juxtacortical"
            if at_cortex[place]
            else "deep white matter"
        )
    return located


def below_tentorium(x: Floats, y: Floats, z: Floats) -> BoolArray:
    """Cerebellum and brainstem, by planes in MNI mm (the tentorium and the midbrain).

    Example:
        >>> x, y, z = np.array([[0.0, -60.0, -30.0], [0.0, 30.0, 30.0]]).T
        >>> below_tentorium(x, y, z).tolist()
        [True, False]
    """
    roof = 2 - 0.5 * np.abs(x) - 0.52 * np.clip(-49 - y, 0, None)
    cerebellum = (y < -36) & (z < roof)
    stem = (np.abs(x) < 18) & (y >= -36) & (y < -8) & (z < -8)
    return np.asarray(cerebellum | stem)


@dataclass(frozen=True, eq=False)
class _Zones:
    """The template's landmarks, around its brain.

    Beyond ``ZONE_MARGIN_MM`` from the brain a place counts as the nearest one within.
    """

    grid: Grid
    ventricle_mm: Floats
    cortex_mm: Floats
    infratentorial: BoolArray


@lru_cache(maxsize=1)
def _zones() -> _Zones:
    maps = template_maps()
    box = bounding_box(maps.brain.array, int(ZONE_MARGIN_MM))
    assert box is not None
    origin = maps.brain.grid.affine[:3, 3] + [axis.start for axis in box]
    shape = [axis.stop - axis.start for axis in box]
    grid = Grid((shape[0], shape[1], shape[2]), _moved(maps.brain.grid.affine, origin))
    x, y, z = (
        axis + start
        for axis, start in zip(np.ogrid[tuple(map(slice, grid.shape))], origin, strict=True)
    )
    ventricle_mm = _distance(maps.ventricles.array[box], grid)
    gray = maps.gray.array[box]
    # the lining of the ventricles looks gray where fluid and white matter share a voxel
    cortex = (gray > 0.5) & (ventricle_mm > 4.5)
    middle = (np.abs(x) < 33) & (y > -42) & (y < 24) & (z > -22) & (z < 26)
    near = bounding_box(middle, 21)  # what decides about a depth of 20 mm is at most so far away
    assert near is not None
    depth_mm = edt.edt(maps.brain.array[box][near])
    x_near, y_near, z_near = x[near[0]], y[:, near[1]], z[:, :, near[2]]
    deep = (gray[near] > 0.35) & (depth_mm > 20) & (np.abs(x_near) < np.where(z_near > 0, 33, 29))
    deep &= (y_near > -36) & (y_near < 24) & (z_near > -11) & (z_near < 21)
    midbrain = (depth_mm > 14) & (np.abs(x_near) < 26) & (y_near > -42) & (y_near < 22)
    midbrain &= (z_near > -22) & (z_near < 26)
    cortex[near] &= ~ndimage.binary_dilation(deep, iterations=2) & ~midbrain
    below = np.broadcast_to(below_tentorium(x, y, z), grid.shape)
    return _Zones(grid, ventricle_mm, _distance(cortex, grid), below)


def _moved(affine: Matrix, origin: NDArray[Any]) -> Matrix:
    """The affine with another place of the first voxel."""
    moved = affine.copy()
    moved[:3, 3] = origin
    return moved


def _read(
    zone: NDArray[Any], grid: Grid, to_template: Matrix, index: NDArray[np.intp]
) -> NDArray[Any]:
    """Values of a template map at voxels of a scan, (n, 3), from the nearest template voxel."""
    to_voxel = np.linalg.inv(_zones().grid.affine) @ to_template @ grid.affine
    place = np.rint(index @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(np.intp)
    i, j, k = np.clip(place, 0, np.array(zone.shape) - 1).T
    return np.asarray(zone[i, j, k])


def _distance(mask: BoolArray, grid: Grid) -> Floats:
    """Distance of each voxel to the mask, 0 within it; infinite where the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, dtype=np.float32)
    distance = edt.edt(~mask, anisotropy=grid.spacing_mm, parallel=own_threads())
    return np.asarray(distance, dtype=np.float32)
