"""The brain within a scan of the head."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from lesionwise.preprocess.brain_network import (
    Network,
    brain_probability,
    has_shipped_network,
    shipped_network,
)
from lesionwise.preprocess.each_scan import has_background
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.kept import Arrays, kept
from lesionwise.preprocess.registration import register, turned
from lesionwise.preprocess.visits import cached_loader, each_visit
from lesionwise.types import BoolArray, Grid, InputError, Matrix, Study, Visit, Volume

WORKING_MM = 2.0
START_SCALE = 0.9
TISSUE_FRACTION = 0.55
"""Tissue is brighter than this share of the inner brain's median; fluid and bone are not."""
MIN_OVERLAP = 0.85
"""Dice of the mask before and after its border moved; below it the border was lost."""
WEAKEST_AGREEMENT = -0.15
"""Negative mutual information with the template; heads reach -0.28 and below, noise -0.09."""
CLEAR_AGREEMENT = -0.25
"""At which the template is believed where the network finds hardly any brain."""
LARGEST_STRIPPED = 1.35
"""Volume of a scan without skull over that of the brain found in it."""
BRAIN_PROBABILITY = 0.4
"""Above it a voxel is brain. On source masks 0.25 has the highest Dice, on silver masks, which
are tighter, 0.5 (docs/measurements/brain.md)."""
SMALLEST_LITERS, DOUBTED_LITERS = 0.1, 0.5
"""Less is no brain; less than the second is looked at again, by the template."""


class NoBrainFound(InputError):  # noqa: N818 (it says what happened, as InputError does)
    """Nothing that could be a brain was found; the message names the scan."""


Way = Literal["network", "stripped", "template"]


@dataclass(frozen=True, eq=False)
class FoundBrain:
    """A brain and how it was found.

    Attributes:
        mask: bool on the scan's grid, one face-connected region without holes.
        way: by the network; as the non-zero region of a scan that came without skull; or by the
            template, where the network cannot be used or finds hardly anything.
        reason: why not by the network, for the user; else empty.
    """

    mask: Volume
    way: Way
    reason: str = ""


@dataclass(frozen=True)
class ExtractBrain:
    """Every visit with a brain mask; one that has a mask keeps it.

    The mask is found on the visit's FLAIR, or on its first scan, and lies on that scan's
    grid (``find_brain``). Where the network cannot be used, a line in the log ``lesionwise`` says
    why. Raises NoBrainFound.
    """

    def __call__(self, study: Study) -> Study:
        return mask_where_missing(study, lambda scan, name: brain_mask(scan, name=name))


def mask_where_missing(
    study: Study, find: Callable[[Volume, str], Volume], *, threads: int | None = None
) -> Study:
    """The study with ``find(scan, name)`` as the brain of every visit that has none.

    It is asked for the visit's FLAIR, or its first scan; the name is for messages.

    Args:
        threads: as for ``each_visit``.

    Example:
        >>> volume = Volume(np.ones((2, 2, 2)), Grid((2, 2, 2), np.eye(4)))
        >>> study = Study("01", (Visit({"flair": volume}),))
        >>> found = mask_where_missing(study, lambda scan, name: Volume(scan.array > 0, scan.grid))
        >>> int(found.visits[0].brain.array.sum())
        8
    """

    def with_brain(visit: Visit) -> Visit:
        if visit.brain is not None:
            return visit
        key = "flair" if "flair" in visit.scans else next(iter(visit.scans))
        name = " ".join(part for part in (study.subject, visit.session, key) if part)
        return replace(visit, brain=find(visit.scans[key], name))

    return each_visit(study, with_brain, threads=threads)


def brain_mask(scan: Volume, *, name: str = "scan") -> Volume:
    """The brain in a scan: the mask of ``find_brain``. Its messages go to the log.

    Raises:
        NoBrainFound, InputError: As ``find_brain``.

    Example:
        >>> brain_mask(read_volume("flair.nii.gz")).array.dtype  # doctest: +SKIP
        dtype('bool')
        >>> empty = Volume(np.zeros((4, 4, 4)), Grid((4, 4, 4), np.eye(4)))
        >>> brain_mask(empty, name="sub-01 flair")
        Traceback (most recent call last):
        ...
        lesionwise.preprocess.brain.NoBrainFound: sub-01 flair: no brain found (every voxel has \
the same value)
    """

    def compute() -> Arrays:
        found = find_brain(scan, name=name)
        if found.reason:
            logging.getLogger("lesionwise").warning("%s: %s", name, found.reason)
        return (found.mask.array,)

    (mask,) = kept("brain", (scan,), compute)
    return Volume(mask, scan.grid)


def find_brain(scan: Volume, *, name: str = "scan", network: Network | None = None) -> FoundBrain:
    """The brain in a scan of any contrast, with or without skull, of any slices.

    A network sees the whole field of view at 2.5 mm (``brain_network``); what it holds for brain
    with a probability above 0.4, interpolated to the scan's voxels, is brain: the largest
    face-connected region, filled.

    A scan whose skull was removed before is recognized (``stripped_region``); its non-zero
    region, filled, is the brain. Where no weights come with the package or they cannot be read, or
    the network finds less than 0.5 l while the template agrees clearly with the scan, the brain
    is that of ``template_mask``.

    Args:
        name: of the scan, for messages.
        network: None takes the one that comes with the package.

    Raises:
        NoBrainFound: If the scan is constant, nothing in it resembles a head, or what was found
            is smaller than 0.1 l.
        InputError: If a voxel is not finite.

    Example:
        >>> array = np.zeros((40, 40, 40), dtype=np.float32)
        >>> array[8:32, 8:32, 8:32] = 100
        >>> scan = Volume(array, Grid(array.shape, np.diag([3.0, 3.0, 3.0, 1.0])))
        >>> found = find_brain(scan, network=lambda head: np.where(head > 0.25, 9.0, -9.0))
        >>> found.way, int(found.mask.array.sum()) == 24**3
        ('stripped', True)
    """
    if not np.isfinite(scan.array).all():
        raise InputError(f"{name}: some voxels are not finite")
    if not np.ptp(scan.array) > 0:
        raise NoBrainFound(f"{name}: no brain found (every voxel has the same value)")
    if network is None:
        if not has_shipped_network():
            return _by_template(scan, name, "")
        try:
            network = shipped_network()
        except InputError as error:
            return _by_template(scan, name, f"the brain is the template's: {error}")
    probability = brain_probability(scan, network)
    found = Volume(largest_filled(probability.array > BRAIN_PROBABILITY), scan.grid)
    region = stripped_region(scan, _liters(found))
    if region is not None:
        return FoundBrain(Volume(region, scan.grid), "stripped")
    if _liters(found) < DOUBTED_LITERS:
        laid = _clear_template_mask(scan, name)
        if laid is not None and _liters(laid) > 2 * _liters(found):
            said = f"the network finds {_liters(found):.2f} l of brain; the template's is used"
            return FoundBrain(laid, "template", said)
    if _liters(found) < SMALLEST_LITERS:
        raise NoBrainFound(f"{name}: no brain found ({_liters(found):.2f} l look like one)")
    return FoundBrain(found, "network")


def _by_template(scan: Volume, name: str, reason: str) -> FoundBrain:
    mask, _ = template_mask(scan, name)
    region = stripped_region(scan, _liters(mask))
    if region is not None:
        return FoundBrain(Volume(region, scan.grid), "stripped")
    return FoundBrain(mask, "template", reason)


def _liters(mask: Volume) -> float:
    return float(np.count_nonzero(mask.array)) * mask.grid.voxel_volume_mm3 * 1e-6


def _clear_template_mask(scan: Volume, name: str) -> Volume | None:
    try:
        mask, score = template_mask(scan, name)
    except NoBrainFound:
        return None
    return mask if score < CLEAR_AGREEMENT else None


def template_mask(scan: Volume, name: str = "scan") -> tuple[Volume, float]:
    """The brain by the MNI152 template alone, and the agreement it reached.

    The template's mask is brought to the scan by an affine registration with mutual information, so
    the contrast does not matter. Then the border follows the scan: what is as bright as tissue
    and lies no more than 6 mm outside the laid mask is brain if it hangs together with the
    inner brain by more than thin bridges; narrow sulci are closed. Where that changes the laid
    mask beyond what a border can move, the laid mask is returned. Bright fat is taken for brain.

    Returns:
        The mask, bool on the scan's grid, and negative mutual information: lower is better.

    Raises:
        NoBrainFound: If nothing in the scan resembles a head, or less than 0.1 l of one lies in it.

    Example:
        >>> mask, agreement = template_mask(read_volume("flair.nii.gz"))  # doctest: +SKIP
        >>> agreement < WEAKEST_AGREEMENT  # doctest: +SKIP
        True
    """
    grid = respaced(scan.grid, WORKING_MM)
    small = resample_to(scan, grid, order=1)
    matrix, score = _lay_head_scored(small, name)
    laid = _laid_brain(small, matrix)
    liters = laid.sum() * grid.voxel_volume_mm3 * 1e-6
    if liters < SMALLEST_LITERS:
        raise NoBrainFound(f"{name}: no brain found ({liters:.2f} l lie in the scan)")
    refined = follow_border(small, laid)
    # a distance map crosses the border smoothly between voxels, a mask only in steps
    depth = _distance(refined, grid) - _distance(~refined, grid)
    back = resample_to(Volume(depth, grid), scan.grid, order=1, fill=-1.0, antialias=False)
    return Volume(largest_filled(back.array > 0), scan.grid), score


def stripped_region(scan: Volume, brain_liters: float) -> BoolArray | None:
    """The non-zero region, filled, where the skull was removed before; None for a whole head.

    Stripped means that at least a fifth of the voxels hold the value of the first one (the
    background), and that what is left is about as large as ``brain_liters``, the brain that
    was found in it: scalp and skull make a head half as large again, a slab of one too.

    Example:
        >>> array = np.zeros((40, 40, 40))
        >>> array[8:32, 8:32, 8:32] = 100
        >>> scan = Volume(array, Grid(array.shape, np.diag([3.0, 3.0, 3.0, 1.0])))  # 0.37 l
        >>> int(stripped_region(scan, brain_liters=0.35).sum()) == 24**3
        True
        >>> stripped_region(scan, brain_liters=0.2) is None  # a whole head
        True
    """
    if not has_background(scan.array):
        return None
    region = largest_filled(not_background(scan.array))
    liters = region.sum() * scan.grid.voxel_volume_mm3 * 1e-6
    return region if liters <= LARGEST_STRIPPED * brain_liters else None


def not_background(array: NDArray[Any]) -> BoolArray:
    """Where a scan without skull shows something, bool.

    The background is the value of the first voxel where at least a fifth of the voxels hold it, as
    in a scan that was z-scored with its background; else it is 0.

    Example:
        >>> not_background(np.array([[[-2.0, -2.0, 0.0, 1.0]]])).tolist()
        [[[False, False, True, True]]]
    """
    background = array[0, 0, 0] if has_background(array) else 0
    return np.asarray(array != background)


def largest_filled(mask: BoolArray) -> BoolArray:
    """The largest face-connected region of a mask, with its holes filled.

    A hole is background that no path through faces joins to the outermost voxels. Of regions
    of one size the first stays; an empty mask stays empty.

    Example:
        >>> mask = np.zeros((5, 5, 5), dtype=np.bool_)
        >>> mask[1:4, 1:4, 1:4] = True
        >>> mask[2, 2, 2], mask[0, 0, 0] = False, True  # a hole, and another region
        >>> int(largest_filled(mask).sum())
        27
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


def _laid_brain(scan: Volume, matrix: Matrix) -> BoolArray:
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    laid = resample_to(head_template()[1], scan.grid, order=1, world=inverse, antialias=False)
    return np.asarray(laid.array > 0.5)


def lay_head(scan: Volume, name: str) -> Matrix:
    """World matrix, template mm to scan mm, of an affine registration of whole heads, to 4 mm.

    Args:
        scan: with or without skull; a copy of about 2 mm is enough.

    Raises:
        NoBrainFound: If the scan and the template agree nowhere.

    Example:
        >>> lay_head(read_volume("flair.nii.gz"), "flair.nii.gz").shape  # doctest: +SKIP
        (4, 4)
    """
    return _lay_head_scored(scan, name)[0]


def _lay_head_scored(scan: Volume, name: str) -> tuple[Matrix, float]:
    """As ``lay_head``, with the agreement it reached: negative mutual information."""
    template, _, compared = head_template()
    try:
        matrix, score = register(
            template, scan, compared, None, _starts(scan, name), (8.0, 4.0), "affine"
        )
    except InputError as error:
        raise NoBrainFound(f"{name}: no brain found ({error})") from error
    if score > WEAKEST_AGREEMENT:
        raise NoBrainFound(f"{name}: no brain found (nothing in the scan resembles one)")
    return matrix, score


def _starts(scan: Volume, name: str) -> list[Matrix]:
    """Places a head may have: its crown or its middle found by brightness, turned or not."""
    low, high = np.percentile(scan.array, [1, 99])
    head = scan.array > low + 0.2 * (high - low)
    if not head.any():
        raise NoBrainFound(f"{name}: no brain found (no head in the scan)")
    _, brain, _ = head_template()
    middle = brain.grid.world_mm(np.argwhere(brain.array > 0.5).mean(axis=0)[None])[0]
    points = scan.grid.world_mm(np.argwhere(head))
    below_crown = points.mean(axis=0)
    # necks differ in length, so height is measured from the crown
    below_crown[2] = np.percentile(points[:, 2], 99.5) - 70
    starts = []
    for center in (below_crown, points.mean(axis=0)):
        # heads are smaller than MNI152; from its full size its border finds the scalp
        shift = np.diag([START_SCALE] * 3 + [1.0])
        shift[:3, 3] = center - START_SCALE * middle
        starts.append(shift)
        for axis in range(3):
            for degrees in (-20.0, 20.0):
                starts.append(turned(shift, axis, degrees, middle))
    return starts


def follow_border(scan: Volume, laid: BoolArray) -> BoolArray:
    """The laid mask with its border moved to where the scan's tissue ends; both on one grid.

    Example:
        >>> tissue, laid = np.zeros((2, 24, 24, 24), dtype=np.bool_)
        >>> tissue[4:20, 4:20, 4:20] = laid[5:20, 4:20, 4:20] = True
        >>> scan = Volume(100.0 * tissue, Grid(tissue.shape, np.diag([4.0, 4.0, 4.0, 1.0])))
        >>> bool(laid[4].any()), bool(follow_border(scan, laid)[4].any())
        (False, True)
    """
    core = eroded(laid, 12.0, scan.grid)
    if not core.any():
        return laid
    tissue = scan.array > TISSUE_FRACTION * float(np.median(scan.array[core]))
    tissue = (tissue & dilated(laid, 6.0, scan.grid)) | core
    # opening cuts the bridges to eyes and scalp; what hangs together with the inner brain stays
    opened = eroded(tissue, 4.0, scan.grid) | core
    inner = cc3d.connected_components(opened, connectivity=6)
    counts = np.bincount(inner[core])
    inner_brain = inner == int(np.argmax(counts))
    brain = dilated(inner_brain, 4.0, scan.grid) & tissue
    closed = eroded(dilated(brain, 6.0, scan.grid), 6.0, scan.grid) | brain
    refined = largest_filled(closed)
    overlap = 2 * (refined & laid).sum() / (refined.sum() + laid.sum())
    return refined if overlap >= MIN_OVERLAP else laid


def _distance(mask: BoolArray, grid: Grid) -> NDArray[np.float32]:
    """Depth of each mask voxel in mm; the end of the volume is no border."""
    return np.asarray(edt.edt(mask, anisotropy=grid.spacing_mm, black_border=False))


def eroded(mask: BoolArray, by_mm: float, grid: Grid) -> BoolArray:
    """The voxels deeper in the mask than ``by_mm``; the end of the volume is no border.

    Example:
        >>> mask = np.array([[[0, 1, 1, 1, 1, 1]]], dtype=np.bool_)
        >>> eroded(mask, 1.0, Grid(mask.shape, np.eye(4))).astype(int).tolist()
        [[[0, 0, 1, 1, 1, 1]]]
    """
    return np.asarray(_distance(mask, grid) > by_mm)


def dilated(mask: BoolArray, by_mm: float, grid: Grid) -> BoolArray:
    """The mask and the voxels no farther from it than ``by_mm``.

    Example:
        >>> mask = np.array([[[0, 0, 0, 1, 0, 0]]], dtype=np.bool_)
        >>> dilated(mask, 1.0, Grid(mask.shape, np.eye(4))).astype(int).tolist()
        [[[0, 0, 1, 1, 1, 0]]]
    """
    return np.asarray(_distance(~mask, grid) <= by_mm)


@cached_loader
def head_template() -> tuple[Volume, Volume, Volume]:
    """Head, brain and where heads are compared, at 4 mm around nilearn's MNI152 brain.

    The template has no skull, and without one its border is drawn to the scalp. So it
    wears a cap of fluid, bone and scalp of common thickness. They count for the vault alone:
    below it heads differ too much. Mutual information asks that the layers differ, not
    how bright they are.

    Example:
        >>> head, brain, compared = head_template()  # doctest: +SKIP
        >>> head.grid.matches(brain.grid)  # doctest: +SKIP
        True
    """
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_template

    image, mask = load_mni152_template(resolution=2), load_mni152_brain_mask(resolution=2)
    around = 12  # voxels: room for the cap
    brain = np.pad(np.asarray(mask.dataobj) > 0, around)
    shift = np.eye(4)
    shift[:3, 3] = -around
    grid = Grid(brain.shape, image.affine @ shift)
    outside = np.asarray(edt.edt(~brain, anisotropy=grid.spacing_mm))
    head = np.pad(np.asarray(image.dataobj, dtype=np.float32), around)
    for inner_mm, outer_mm, brightness in ((0, 2, 0.15), (2, 8, 0.05), (8, 15, 0.9)):
        head[~brain & (outside > inner_mm) & (outside <= outer_mm)] = brightness
    head[outside > 15] = 0
    height = grid.affine[2, 2] * np.arange(grid.shape[2]) + grid.affine[2, 3]
    compared = (outside <= 6) | ((outside <= 22) & (height > 10))
    coarse = respaced(grid, 4.0)
    return (
        resample_to(Volume(head, grid), coarse, order=1),
        resample_to(Volume(brain, grid), coarse, order=1),
        resample_to(Volume(compared, grid), coarse, order=0),
    )
