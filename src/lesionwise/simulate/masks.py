"""Lesions taken from real masks on the MNI152 grid, put into simulated heads."""

from __future__ import annotations

from pathlib import Path

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from lesionwise.instances.table import lesion_table
from lesionwise.io.bids import subject_files
from lesionwise.io.nifti import read_mask
from lesionwise.simulate.anatomy import Anatomy, Zones, place_of
from lesionwise.simulate.fields import Float
from lesionwise.simulate.lesions import LesionSettings, Unit, draw_fates
from lesionwise.types import BoolArray, Grid, InputError, Volume

MIN_VOXELS = 3
CONFLUENT_MIN_VOXELS = 14


def find_masks(folder: Path, exclude: tuple[str, ...] = ()) -> list[Path]:
    """Lesion masks below a folder, in the order of names.

    Args:
        folder: of a BIDS derivative with ``label-L`` or ``label-lesion`` masks; or one file.
        exclude: subjects (without ``sub-``) to leave out.

    Raises:
        InputError: If there is none.

    Example:
        >>> for subject in ("01", "02"):
        ...     Path(f"sub-{subject}_space-orig_label-L_mask.nii.gz").touch()
        ...
        >>> [path.name for path in find_masks(Path("."), exclude=("02",))]
        ['sub-01_space-orig_label-L_mask.nii.gz']
    """
    found = [
        path
        for path in subject_files(folder, "sub-*_mask.nii.gz", exclude)
        if path == folder or "_label-L_" in path.name or "_label-lesion_" in path.name
    ]
    if not found:
        raise InputError(f"{folder}: no lesion masks (sub-*_label-L_mask.nii.gz) in it")
    return found


def split_at_maxima(mask: BoolArray, height_mm: float = 1.0) -> NDArray[np.int32]:
    """Lesions of a 1 mm mask, separated where their distance transform narrows.

    Each 26-connected component of at least 14 voxels is split by watershed at the maxima of
    its distance transform that stand ``height_mm`` above the saddle to a higher one. That is
    a rule, not an expert's reading: the instances are derived. Components under 3 voxels are
    dropped.

    Returns:
        (I, J, K) int32, 1 … n in the order of components and of markers in them.

    Example:
        >>> mask = np.zeros((9, 9, 17), dtype=np.bool_)
        >>> mask[1:8, 1:8, 1:8] = mask[1:8, 1:8, 9:16] = True
        >>> mask[4, 4, 8] = True  # a bridge between two lesions
        >>> np.unique(split_at_maxima(mask)).tolist()
        [0, 1, 2]
    """
    out = np.zeros(mask.shape, dtype=np.int32)
    parts = cc3d.connected_components(mask, connectivity=26)
    count = 0
    boxes = lesion_table(parts, Grid(parts.shape, np.eye(4))).boxes()
    for part, box in enumerate(boxes, start=1):
        own = np.pad(parts[box] == part, 1)
        size = int(own.sum())
        if size < MIN_VOXELS:
            continue
        inner = (slice(1, -1),) * 3
        if size < CONFLUENT_MIN_VOXELS:
            count += 1
            out[box][own[inner]] = count
            continue
        depth: Float = edt.edt(own.astype(np.uint8))
        peaks = own & (h_maxima(depth, height_mm) > 0)
        markers = cc3d.connected_components(peaks, connectivity=26)
        if markers.max() < 2:
            pieces = own.astype(np.int32)
        else:
            pieces = watershed(-depth, markers, mask=own, connectivity=np.ones((3, 3, 3)))
        inside = own[inner]
        out[box][inside] = pieces[inner][inside] + count
        count += int(pieces.max())
    return out


def place_mask(
    rng: np.random.Generator,
    anatomy: Anatomy,
    mask: Volume,
    visits: int = 1,
    settings: LesionSettings | None = None,
) -> list[Unit]:
    """Lesions with the shapes and places of a real mask, and a drawn fate over the visits.

    The mask goes through the head's deformation like the template's own maps. What falls on
    fluid is cut off. Units come from `split_at_maxima`; at a visit where a unit is larger or
    smaller than in the mask, its surface moves along the distance to the mask's surface.

    Example:
        >>> shape = (16, 16, 16)
        >>> none, all_ = np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
        >>> anatomy = Anatomy(
        ...     white=all_, gray=none, fluid=none, ventricles=none, deep_gray=none, brain=all_ > 0,
        ...     infratentorial=none > 0, ventricle_mm=20 * all_, cortex_mm=20 * all_,
        ...     shells=none.astype(np.uint8), template_mm=np.indices(shape).astype(np.float32),
        ... )
        >>> mask = none > 0
        >>> mask[6:10, 6:10, 6:10] = True
        >>> rng = np.random.default_rng(0)
        >>> (unit,) = place_mask(rng, anatomy, Volume(mask, Grid(shape, np.eye(4))))
        >>> unit.place, unit.volumes_mm3
        ('deep white matter', (64.0,))
    """
    settings = settings or LesionSettings()
    to_mask = np.linalg.inv(mask.grid.affine)
    x, y, z = anatomy.template_mm
    index = [
        to_mask[a, 0] * x + to_mask[a, 1] * y + to_mask[a, 2] * z + to_mask[a, 3] for a in range(3)
    ]
    soft = ndimage.gaussian_filter(mask.array.astype(np.float32), 0.4)
    warped = ndimage.map_coordinates(soft, np.stack(index).astype(np.float32), order=1)
    allowed = (anatomy.white + anatomy.gray > 0.5) & anatomy.brain
    labels = split_at_maxima((warped > 0.5) & allowed)
    zones = Zones(anatomy.ventricle_mm, anatomy.cortex_mm, anatomy.infratentorial)
    groups = cc3d.connected_components(labels > 0, connectivity=26)
    brightness = rng.normal(1.0, 0.22, int(groups.max()) + 1)
    units = []
    boxes = lesion_table(labels, Grid(labels.shape, np.eye(4))).boxes(margin_vox=4)
    for label, box in enumerate(boxes, start=1):
        own = labels[box] == label
        voxels = np.argwhere(own) + [s.start for s in box]
        group = int(groups[tuple(voxels[0])])
        others = (labels[box] > 0) & ~own
        whole = own | others
        score = np.where(whole, edt.edt(whole.astype(np.uint8)), 0.0)
        score = score - edt.edt((~whole).astype(np.uint8)) + np.where(whole, -0.5, 0.5)
        nearest = edt.edt((~own).astype(np.uint8)) <= edt.edt((~others).astype(np.uint8))
        if not others.any():
            nearest[...] = True
        score = np.where(nearest & allowed[box], score, -np.inf).astype(np.float32)
        own_brightness = float(np.clip(brightness[group] + rng.normal(0, 0.08), 0.4, 1.7))
        factors = draw_fates(rng, 1, visits, settings)[0]
        units.append(
            Unit(
                label=label,
                group=group,
                place=place_of(zones, voxels),
                box=box,
                score=score,
                volumes_mm3=tuple(float(len(voxels) * f) for f in factors),
                brightness=own_brightness,
            )
        )
    return units


def read_lesion_mask(path: Path) -> Volume:
    """A lesion mask to place in a head.

    Raises:
        InputError: If it cannot be read, or holds no lesion.

    Example:
        >>> from lesionwise.io.nifti import write_volume
        >>> empty = Volume(np.zeros((4, 4, 4), dtype=np.bool_), Grid((4, 4, 4), np.eye(4)))
        >>> write_volume("mask.nii.gz", empty)
        >>> read_lesion_mask(Path("mask.nii.gz"))
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: mask.nii.gz: the mask is empty, so it has no lesions to place
    """
    mask = read_mask(path)
    if not mask.array.any():
        raise InputError(f"{path}: the mask is empty, so it has no lesions to place")
    return mask
