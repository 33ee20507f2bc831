"""The brain within a scan of the head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.registration import Matrix, register, turned
from lesionwise.types import BoolArray, Grid, InputError, Study, Visit, Volume

WORKING_MM = 2.0
TISSUE_SHARE = 0.55
"""Tissue is brighter than this share of the inner brain's median; fluid and bone are not."""
LEAST_OVERLAP = 0.85
"""Dice of the mask before and after its border moved; below it the border was lost."""
WEAKEST_AGREEMENT = -0.15
"""Negative mutual information with the template; heads reach -0.45 and below, noise -0.05."""


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

    The MNI152 brain mask is laid onto the scan by an affine registration with mutual
    information, so the contrast does not matter. Then the border follows the scan: what is as
    bright as tissue and lies no more than 6 mm outside the laid mask is brain if it hangs
    together with the inner brain by more than thin bridges; narrow sulci are closed.
    Where that changes the laid mask beyond what a border can move, the laid mask is returned.

    A scan whose skull was removed before is recognized, and its non-zero region with holes
    filled is returned.

    Raises:
        NoBrainFound: the scan is constant, nothing in it resembles a head, or what was found is
            smaller than 0.1 l.
    """
    if not np.isfinite(scan.array).all():
        raise InputError(f"{name}: some voxels are not finite")
    if not np.ptp(scan.array) > 0:
        raise NoBrainFound(f"{name}: no brain found (every voxel has the same value)")
    region = stripped_region(scan)
    if region is not None:
        return Volume(region, scan.grid)
    grid = respaced(scan.grid, WORKING_MM)
    small = resample_to(scan, grid, order=1)
    laid = template_brain(small, name)
    liters = laid.sum() * grid.voxel_volume_mm3 * 1e-6
    if liters < 0.1:
        raise NoBrainFound(f"{name}: no brain found ({liters:.2f} l lie in the scan)")
    refined = follow_border(small, laid)
    # a distance map crosses the border smoothly between voxels, a mask only in steps
    depth = _distance(refined, grid) - _distance(~refined, grid)
    back = resample_to(Volume(depth, grid), scan.grid, order=1, fill=-1.0, antialias=False)
    return Volume(largest_filled(back.array > 0), scan.grid)


def stripped_region(scan: Volume) -> BoolArray | None:
    """The non-zero region, filled, where the skull was removed before; None for a whole head.

    Stripped means that at least a fifth of the voxels hold one same value (the background),
    and that what is left has a brain's size: a whole head is at least half as large again.
    """
    background = scan.array[0, 0, 0]
    if (scan.array == background).mean() < 0.2:
        return None
    region = largest_filled(scan.array != background)
    liters = region.sum() * scan.grid.voxel_volume_mm3 * 1e-6
    return region if 0.5 <= liters <= 2.1 else None


def largest_filled(mask: BoolArray) -> BoolArray:
    """The largest face-connected region of a mask, with its holes filled.

    A hole is background that no path through faces joins to the outermost voxels. Of regions
    of one size the first stays; an empty mask stays empty.
    """
    if not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    outside = ~_largest(mask)
    labels = cc3d.connected_components(outside, connectivity=6)
    faces = [labels.take(end, axis=axis).ravel() for axis in range(3) for end in (0, -1)]
    open_ = np.zeros(int(labels.max()) + 1, dtype=bool)
    open_[np.concatenate(faces)] = True
    open_[0] = False
    return np.asarray(~open_[labels])


def _largest(mask: BoolArray) -> BoolArray:
    labels = cc3d.connected_components(mask, connectivity=6)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    return np.asarray(labels == int(np.argmax(counts)))


def template_brain(scan: Volume, name: str) -> BoolArray:
    """The MNI152 brain mask laid onto the scan by an affine registration, on the scan's grid.

    Raises:
        NoBrainFound: If the scan and the template agree nowhere.
    """
    template, brain = _template()
    # the template shows no skull: two voxels around its brain hold what the border looks like
    ring = Volume(ndimage.binary_dilation(brain.array, iterations=2), brain.grid)
    try:
        matrix, score = register(
            template, scan, ring, None, _starts(scan, name), (8.0, 4.0), "affine"
        )
    except InputError as error:
        raise NoBrainFound(f"{name}: no brain found ({error})") from error
    if score > WEAKEST_AGREEMENT:
        raise NoBrainFound(f"{name}: no brain found (nothing in the scan resembles one)")
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    laid = resample_to(brain, scan.grid, order=1, world=inverse, antialias=False)
    return np.asarray(laid.array > 0.5)


def _starts(scan: Volume, name: str) -> list[Matrix]:
    """Places a head may have: its crown or its middle found by brightness, nodding or not."""
    low, high = np.percentile(scan.array, [1, 99])
    head = scan.array > low + 0.2 * (high - low)
    if not head.any():
        raise NoBrainFound(f"{name}: no brain found (no head in the scan)")
    _, brain = _template()
    middle = brain.grid.world_mm(np.argwhere(brain.array).mean(axis=0)[None])[0]
    points = scan.grid.world_mm(np.argwhere(head))
    below_crown = points.mean(axis=0)
    # necks differ in length, so height is measured from the crown
    below_crown[2] = np.percentile(points[:, 2], 99.5) - 70
    starts = []
    for center in (below_crown, points.mean(axis=0)):
        for nod in (0.0, -20.0, 20.0):
            shift = np.eye(4)
            shift[:3, 3] = center - middle
            starts.append(turned(shift, 0, nod, middle))
    return starts


def follow_border(scan: Volume, laid: BoolArray) -> BoolArray:
    """The laid mask with its border moved to where the scan's tissue ends; both on one grid."""
    core = _eroded(laid, 12.0, scan.grid)
    if not core.any():
        return laid
    tissue = scan.array > TISSUE_SHARE * float(np.median(scan.array[core]))
    tissue = (tissue & _dilated(laid, 6.0, scan.grid)) | core
    # opening cuts the bridges to eyes and scalp; what hangs together with the inner brain stays
    opened = _eroded(tissue, 4.0, scan.grid) | core
    inner = cc3d.connected_components(opened, connectivity=6)
    counts = np.bincount(inner[core])
    inner_brain = inner == int(np.argmax(counts))
    brain = _dilated(inner_brain, 4.0, scan.grid) & tissue
    closed = _eroded(_dilated(brain, 6.0, scan.grid), 6.0, scan.grid) | brain
    refined = largest_filled(closed)
    overlap = 2 * (refined & laid).sum() / (refined.sum() + laid.sum())
    return refined if overlap >= LEAST_OVERLAP else laid


def _distance(mask: BoolArray, grid: Grid) -> NDArray[np.float32]:
    """Depth of each mask voxel in mm; the end of the volume is no border."""
    return np.asarray(edt.edt(mask, anisotropy=grid.spacing_mm, black_border=False))


def _eroded(mask: BoolArray, by_mm: float, grid: Grid) -> BoolArray:
    return np.asarray(_distance(mask, grid) > by_mm)


def _dilated(mask: BoolArray, by_mm: float, grid: Grid) -> BoolArray:
    return np.asarray(_distance(~mask, grid) <= by_mm)


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
