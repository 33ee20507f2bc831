"""The MNI152 template: its maps, where it lies in a scan, and visits moved onto it.

The template is the symmetric MNI152 of 2009 at 1 mm that nilearn ships: T1 without skull, gray and
white matter, brain. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cc3d
import edt
import numpy as np

from lesionwise.instances.table import bounding_box
from lesionwise.preprocess.brain import brain_mask
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.registration import Model, move_visits, register, register_visits, turned
from lesionwise.preprocess.visits import cached_loader
from lesionwise.types import BoolArray, Grid, InputError, Matrix, Study, Volume

LEVELS_MM = (8.0, 4.0, 2.0)
BRAIN_ABOVE = 0.2
"""Of the T1's brightness; nilearn's own limit for its brain mask."""
BORDER_MM = 6.0
"""Agreement is measured in the template's brain and so far beyond it: its border counts."""


@dataclass(frozen=True, eq=False)
class TemplateMaps:
    """The MNI152 template on its own 1 mm grid; world mm are MNI mm.

    Attributes:
        t1: T1-weighted brain without skull, float32 in [0, 1].
        gray, white: probability of each tissue, float32 in [0, 1].
        fluid: what is left of 1 in the brain, float32.
        brain: bool.
        ventricles: the two lateral ventricles, bool.
    """

    t1: Volume
    gray: Volume
    white: Volume
    fluid: Volume
    brain: Volume
    ventricles: Volume


@cached_loader
def template_maps() -> TemplateMaps:
    """The maps, read once; do not write into their arrays.

    Example:
        >>> maps = template_maps()
        >>> maps.t1.grid.spacing_mm, maps.t1.grid.matches(maps.ventricles.grid)
        ((1.0, 1.0, 1.0), True)
    """
    t1, gray, white = (_shipped(kind) for kind in ("t1", "gm", "wm"))
    brain = Volume(t1.array > BRAIN_ABOVE, t1.grid)
    fluid = np.where(brain.array, np.clip(1 - gray.array - white.array, 0, 1), 0)
    return TemplateMaps(
        t1,
        gray,
        white,
        Volume(fluid.astype(np.float32), t1.grid),
        brain,
        Volume(_lateral_ventricles(t1, brain.array), t1.grid),
    )


def _shipped(kind: str) -> Volume:
    """One of nilearn's maps, its largest value 1: "t1", "gm" or "wm".

    What ``nilearn.datasets.load_mni152_template(resolution=1)`` and its like give, without the
    two seconds that importing nilearn takes.
    """
    from nibabel.nifti1 import Nifti1Image

    found = find_spec("nilearn")  # looked up, not imported
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data"
    image = Nifti1Image.from_filename(
        folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    )
    array = np.asarray(image.dataobj).astype(np.float32)
    array /= array.max()
    return Volume(array, Grid(array.shape, image.affine))


def _lateral_ventricles(t1: Volume, brain: BoolArray) -> BoolArray:
    """What is dark and joined to the body of one of the two lateral ventricles."""
    origin = t1.grid.affine[:3, 3]
    x, y, z = np.ogrid[tuple(slice(n) for n in t1.grid.shape)]
    x, y, z = x + origin[0], y + origin[1], z + origin[2]
    middle = (np.abs(x) < 40) & (y > -62) & (y < 42) & (z > -5) & (z < 36)
    # what decides whether a voxel lies deeper than 20 mm is at most so far away
    box = bounding_box(middle, 21)
    assert box is not None
    inner = middle[box] & (edt.edt(brain[box].astype(np.uint8)) > 20)
    dark = cc3d.connected_components(inner & (t1.array[box] < 0.5), connectivity=6)
    corner = origin + [axis.start for axis in box]
    seeds = np.rint(np.array([(-16, -20, 22), (16, -20, 22)]) - corner).astype(int)
    ventricles = np.zeros(t1.grid.shape, dtype=np.bool_)
    ventricles[box] = np.isin(dark, [dark[tuple(seed)] for seed in seeds])
    return ventricles


def template_matrix(
    scan: Volume, brain: Volume | None = None, *, model: Model = "affine", name: str = "scan"
) -> Matrix:
    """World matrix, template (MNI) mm to scan mm, that lays the MNI152 brain onto the scan's.

    Mattes mutual information between the template's T1 and the scan, both without skull, so any
    contrast will do; at 8, 4 and 2 mm, from the places and sizes that the brain masks suggest.

    To read a template map on the scan: ``resample_to(map, scan.grid, world=inverse)`` with the
    inverse of this matrix. To read the scan in the template: this matrix itself.

    Args:
        scan: any contrast and spacing, with or without skull.
        brain: bool, on any grid in the scan's world; found by ``brain_mask`` where None.
        model: affine (12 parameters), or rigid: the turn nearest to the affine one, about the
            template's center, so that a brain keeps its size. (A rigid search by itself would
            fit a smaller brain into one corner of the template.)
        name: of the scan, for messages.

    Raises:
        InputError: where no brain is found, or the mask is empty.

    Deterministic.

    Example:
        >>> scan = read_volume("flair.nii.gz")  # doctest: +SKIP
        >>> to_template = np.linalg.inv(template_matrix(scan))  # doctest: +SKIP
        >>> white = resample_to(
        ...     template_maps().white, scan.grid, order=1, world=to_template
        ... )  # doctest: +SKIP
        >>> white.grid is scan.grid  # doctest: +SKIP
        True
    """
    if brain is None:
        brain = brain_mask(scan, name=name)
    if not brain.array.any():
        raise InputError(f"{name}: the brain mask is empty")
    maps = template_maps()
    small = resample_to(scan, respaced(scan.grid, LEVELS_MM[-1]), order=1)
    inside = resample_to(brain, small.grid, order=0).array.astype(bool)
    stripped = Volume(np.where(inside, small.array, 0).astype(np.float32), small.grid)
    compared = Volume(_widened(maps.brain.array), maps.brain.grid)
    starts = _starts(maps.brain, brain)
    try:
        matrix, _ = register(maps.t1, stripped, compared, None, starts, LEVELS_MM, "affine")
    except InputError as error:
        raise InputError(f"{name}: it cannot be registered to the template ({error})") from error
    return matrix if model == "affine" else nearest_rigid(matrix, _middle(maps.brain))


def _widened(brain: BoolArray) -> BoolArray:
    """The brain of the template and ``BORDER_MM`` around it."""
    box = bounding_box(brain, int(BORDER_MM) + 1)
    assert box is not None
    wide = np.zeros(brain.shape, dtype=np.bool_)
    wide[box] = edt.edt((~brain[box]).astype(np.uint8)) <= BORDER_MM
    return wide


def _starts(template: Volume, brain: Volume) -> list[Matrix]:
    """The template's brain scaled to the scan's volume and moved onto its center, turned or not."""
    middle = _middle(template)
    volumes = [mask.array.sum() * mask.grid.voxel_volume_mm3 for mask in (brain, template)]
    scale = float(np.cbrt(volumes[0] / volumes[1]))
    shift = np.diag([scale] * 3 + [1.0])
    shift[:3, 3] = _middle(brain) - scale * middle
    tilts = [turned(shift, axis, degrees, middle) for axis in range(3) for degrees in (-20.0, 20.0)]
    return [shift, *tilts]


def _middle(mask: Volume) -> Matrix:
    center: Matrix = mask.grid.world_mm(np.argwhere(mask.array).mean(axis=0)[None])[0]
    return center


def nearest_rigid(matrix: Matrix, center: Matrix) -> Matrix:
    """The rigid world matrix nearest to an affine one that takes ``center`` (3,) to the same place.

    Its turn is the orthogonal factor of the polar decomposition.

    Example:
        >>> twice = np.diag([2.0, 2.0, 2.0, 1.0])
        >>> nearest_rigid(twice, np.array([1.0, 0.0, 0.0])).round(6).tolist()[0]
        [1.0, 0.0, 0.0, 1.0]
    """
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rigid = np.eye(4)
    rigid[:3, :3] = left @ right
    rigid[:3, 3] = matrix[:3, :3] @ center + matrix[:3, 3] - rigid[:3, :3] @ center
    return rigid


@dataclass(frozen=True)
class RegisterToTemplate:
    """Every visit in the space of the MNI152 template, on its grid of 1 mm.

    The first visit is registered to the template (``template_matrix``), the others onto the first
    visit (``register_visits``), and each is interpolated once, through both: so visits stay
    aligned with each other better than each with the template. The scan that all visits share
    is used, FLAIR first. Scans are linear, labels, brains and changes go by nearest neighbor.

    Attributes:
        model: rigid (6 parameters) keeps sizes; affine (12) takes the template's.

    Raises InputError where a scan shows no brain or the visits do not fit.
    """

    model: Model = "rigid"

    def __call__(self, study: Study) -> Study:
        return move_to_template(study, _template_matrices(study, self.model))


def _template_matrices(study: Study, model: Model) -> tuple[Matrix, ...]:
    """One world matrix for each visit: template (MNI) mm to mm of that visit."""
    among = register_visits(study)
    first = study.visits[0]
    scan = "flair" if "flair" in first.scans else next(iter(first.scans))
    name = " ".join(part for part in (study.subject, first.session, scan) if part)
    to_first = template_matrix(first.scans[scan], first.brain, model=model, name=name)
    return tuple(each @ to_first for each in among)


def move_to_template(study: Study, matrices: tuple[Matrix, ...]) -> Study:
    """The study on the template's grid.

    Args:
        matrices: one for each visit, template mm to mm of the visit.

    Example:
        >>> from lesionwise.types import Visit
        >>> scan = Volume(np.ones((4, 4, 4)), Grid((4, 4, 4), np.eye(4)))
        >>> moved = move_to_template(Study("01", (Visit({"flair": scan}),)), (np.eye(4),))
        >>> moved.visits[0].scans["flair"].grid.matches(template_maps().t1.grid)
        True
    """
    grid = template_maps().t1.grid

    return move_visits(study, matrices, lambda name: grid, grid)
