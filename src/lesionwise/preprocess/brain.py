"""The brain within a scan of the head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.registration import Matrix, affine
from lesionwise.types import BoolArray, FloatArray, Grid, InputError, Study, Visit, Volume


class NoBrainFound(InputError):  # noqa: N818 (it says what happened, as InputError does)
    """Nothing that could be a brain was found; the message names the scan."""


@dataclass(frozen=True)
class ExtractBrain:
    """Every visit with a brain mask; one that has a mask keeps it.

    The mask is found on the visit's FLAIR, or on its first scan, and lies on that scan's
    grid. A scan whose skull was removed before is recognized, and its non-zero region with
    holes filled is the brain. Raises NoBrainFound.
    """

    def __call__(self, study: Study) -> Study:
        def with_brain(visit: Visit) -> Visit:
            if visit.brain is not None:
                return visit
            key = "flair" if "flair" in visit.scans else next(iter(visit.scans))
            name = " ".join(part for part in (study.subject, visit.session, key) if part)
            return replace(visit, brain=brain_mask(visit.scans[key], name=name))

        return replace(study, visits=tuple(with_brain(visit) for visit in study.visits))


def brain_mask(scan: Volume, *, name: str = "scan") -> Volume:
    """The brain in a scan, with or without skull: bool, one connected region without holes.

    Raises:
        NoBrainFound: the scan is constant, or no region of a brain's size was found.
    """
    if not np.ptp(scan.array) > 0:
        raise NoBrainFound(f"{name}: no brain found (every voxel has the same value)")
    region = stripped_region(scan)
    if region is not None:
        return Volume(region, scan.grid)
    mask = largest_filled(template_brain(scan, name))
    liters = mask.sum() * scan.grid.voxel_volume_mm3 * 1e-6
    if liters < 0.1:
        raise NoBrainFound(
            f"{name}: no brain found ({liters:.2f} l in the scan, at least 0.1 l wanted)"
        )
    return Volume(mask, scan.grid)


def stripped_region(scan: Volume) -> BoolArray | None:
    """The non-zero region, filled, where the skull was removed before; None for a whole head.

    Stripped means that at least a fifth of the voxels hold one same value (the background),
    and that what is left has a brain's size: a whole head is at least half as large again.
    """
    background = _background(scan.array)
    if background is None:
        return None
    region = largest_filled(scan.array != background)
    liters = region.sum() * scan.grid.voxel_volume_mm3 * 1e-6
    return region if 0.5 <= liters <= 2.1 else None


def _background(array: FloatArray) -> float | None:
    corner = float(array[0, 0, 0])
    share = float((array == corner).mean())
    return corner if share >= 0.2 else None


def largest_filled(mask: BoolArray) -> BoolArray:
    """The largest face-connected region of a mask, with its holes filled."""
    labels, count = ndimage.label(mask)
    if not count:
        return np.zeros(mask.shape, dtype=bool)
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    filled: BoolArray = ndimage.binary_fill_holes(largest)
    return filled


def template_brain(scan: Volume, name: str) -> BoolArray:
    """The MNI152 brain mask laid onto the scan by an affine registration, on the scan's grid."""
    matrix = _template_to_scan(scan, name)
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    _, brain = _template()
    laid = resample_to(brain, scan.grid, order=1, world=inverse, antialias=False)
    mask: BoolArray = laid.array > 0.5
    return mask


def _template_to_scan(scan: Volume, name: str) -> Matrix:
    template, brain = _template()
    grid = respaced(scan.grid, [max(4.0, s) for s in scan.grid.spacing_mm])
    small = resample_to(scan, grid, order=1)
    low, high = np.percentile(small.array, [1, 99])
    head = small.array > low + 0.2 * (high - low)
    if not head.any():
        raise NoBrainFound(f"{name}: no brain found (no head in the scan)")
    points = grid.world_mm(np.argwhere(head))
    center = points.mean(axis=0)
    # necks differ in length, so height is measured from the crown
    center[2] = np.percentile(points[:, 2], 99.5) - 70
    start = np.eye(4)
    start[:3, 3] = center - template.grid.world_mm(np.argwhere(brain.array).mean(axis=0)[None])[0]
    # the template shows no skull: two voxels around its brain hold what the border looks like
    ring = Volume(ndimage.binary_dilation(brain.array, iterations=2), brain.grid)
    return affine(template, small, fixed_mask=ring, start=start, levels_mm=(8.0, 4.0))


@lru_cache(maxsize=1)
def _template() -> tuple[Volume, Volume]:
    """T1 template and brain mask at 4 mm, from nilearn's package data."""
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image, mask = load_mni152_template(resolution=4), load_mni152_brain_mask(resolution=4)
    grid = Grid(image.shape, image.affine)
    return (
        Volume(np.asarray(image.dataobj, dtype=np.float32), grid),
        Volume(np.asarray(mask.dataobj) > 0, grid),
    )
