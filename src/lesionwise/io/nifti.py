"""NIfTI files as volumes in canonical axes, and volumes back on the grid of a file."""

from __future__ import annotations

import gzip
import logging
from functools import cache
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from lesionwise.io.checked import printable
from lesionwise.io.files import atomic_path
from lesionwise.io.nifti_header import (
    file_content,
    file_start,
    parse_header,
    stated_affine,
    stated_shape,
    states_orientation,
    stored_type,
    voxel_place,
)
from lesionwise.io.space import canonical, on_grid
from lesionwise.types import Grid, InputError, Volume

QFORM_WRITTEN_WITHIN_MM = 0.1

NO_ORIENTATION = (
    "its header states no orientation, so the axes are taken to run to the right, to the front "
    "and up; left and right may be swapped"
)

MAX_LABEL = int(np.iinfo(np.int32).max)

nib: Any = nibabel  # nibabel states no types for what is used here

_INTEGRAL_TOLERANCE = 1e-3
_PROBABILITY_TOLERANCE = 1e-3


def is_nifti_name(path: str | Path) -> bool:
    """True for names that end in .nii or .nii.gz, in any case.

    Example:
        >>> is_nifti_name("scan.NII.gz"), is_nifti_name("scan.dcm")
        (True, False)
    """
    return Path(path).name.lower().endswith((".nii", ".nii.gz"))


def read_volume(path: str | Path, dtype: DTypeLike = np.float32) -> Volume:
    """A scan in canonical axes: flipped and permuted to the nearest to RAS, never interpolated.

    The header's scaling is applied. A trailing axis of length one is dropped.

    Where the header holds two affines, the rule is:

    1. With one code set, that affine holds. With none, the axes are taken to run to the right,
       to the front and up with the stated spacing (method 1 of the NIfTI standard).
    2. Both set and no corner of the volume further apart than 0.5 mm: the sform holds.
    3. Both set and apart: the sform holds where its code names another space than the qform's
       code (aligned, Talairach, MNI) and both agree on which side is left. That is how
       registration tools write their results.
    4. Otherwise the file is refused, since two programs would show it in two places.

    Lengths in meters and microns become millimeters. Left-handed and oblique affines are fine.

    Returns:
        (I, J, K) of ``dtype``, C-contiguous, finite, not constant.

    Raises:
        InputError: If the file is missing, not a single-file NIfTI, truncated, not 3D, empty,
            constant, or holds colors, complex numbers, NaN or infinity; or if its geometry is
            contradictory, singular or outside 0.05 to 50 mm per voxel.

    Example:
        >>> image = np.eye(4, dtype=np.float32)[None]
        >>> write_volume("a.nii.gz", Volume(image, Grid((1, 4, 4), np.eye(4))))
        >>> read_volume("a.nii.gz").grid.spacing_mm
        (1.0, 1.0, 1.0)
    """
    array, grid = _read(path)
    if array.min() == array.max():
        raise InputError(f"{path}: every voxel is {array.flat[0]:g}, so there is nothing to see")
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=dtype)
    if converted.dtype.kind == "f" and not np.isfinite(converted).all():
        raise InputError(f"{path}: values up to {np.abs(array).max():g} exceed {converted.dtype}")
    return Volume(converted, grid)


def read_labels(path: str | Path) -> Volume:
    """A label map in canonical axes: (I, J, K) int32, labels as they stand in the file.

    Labels need not be consecutive and may be as large as 2147483647, so above 65535 too. Floats
    are accepted where they are whole numbers. An image of zeros only is a valid, empty map.

    Raises:
        InputError: As for ``read_volume`` save for constant images; for fractions, negative
            labels and labels that int32 cannot hold.

    Example:
        >>> labels = np.full((4, 4, 4), 7, dtype=np.int32)
        >>> write_volume("a.nii.gz", Volume(labels, Grid((4, 4, 4), np.eye(4))))
        >>> int(read_labels("a.nii.gz").array.max())
        7
    """
    array, grid = _read(path, whole=True)
    _refuse_negative(path, array, "labels")
    rounded = _whole(array)
    if rounded is None:
        raise InputError(
            f"{path}: holds fractions (such as {_a_fraction(array):.4g}), so it is not a label "
            "map; threshold a probability map first"
        )
    if rounded.max() > MAX_LABEL:
        raise InputError(f"{path}: label {rounded.max():.0f} is above {MAX_LABEL}")
    return Volume(np.ascontiguousarray(rounded, dtype=np.int32), grid)


def read_mask(path: str | Path) -> Volume:
    """A mask in canonical axes: (I, J, K) bool, true where the file is not 0; may be empty.

    Raises:
        InputError: As for ``read_volume`` save for constant images; for negative values and for
            fractions, which hint at a probability map.

    Example:
        >>> write_volume("a.nii.gz", Volume(np.ones((4, 4, 4), bool), Grid((4, 4, 4), np.eye(4))))
        >>> int(read_mask("a.nii.gz").array.sum())
        64
    """
    array, grid = _read(path, whole=True)
    _refuse_negative(path, array, "values")
    rounded = _whole(array)
    if rounded is None:
        raise InputError(
            f"{path}: holds fractions (such as {_a_fraction(array):.4g}), so it is not a mask; "
            "threshold this probability map first"
        )
    return Volume(np.ascontiguousarray(rounded != 0), grid)


def read_map(path: str | Path) -> tuple[Volume, Literal["mask", "probability"]]:
    """A lesion map of another tool, and what it is.

    Returns:
        Either a mask, (I, J, K) bool, where the file holds 0 and at most one other value and
        that is 1 or a whole number; or a probability, (I, J, K) float32 in [0, 1]. Values that
        overshoot [0, 1] by at most 0.001, as interpolation leaves them, are clipped.

    Raises:
        InputError: As for ``read_volume`` save for constant images; for values outside [0, 1],
            such as percentages, 0 to 255, logits or a label map.

    Example:
        >>> probability = np.full((4, 4, 4), 0.3, dtype=np.float32)
        >>> write_volume("a.nii.gz", Volume(probability, Grid((4, 4, 4), np.eye(4))))
        >>> read_map("a.nii.gz")[1]
        'probability'
    """
    array, grid = _read(path, whole=True)
    low, high = float(array.min()), float(array.max())
    rounded = _whole(array)
    if rounded is not None and low >= -_PROBABILITY_TOLERANCE:
        nonzero = rounded[rounded != 0]
        if nonzero.size == 0 or nonzero.min() == nonzero.max():
            return Volume(np.ascontiguousarray(rounded != 0), grid), "mask"
    if low < -_PROBABILITY_TOLERANCE or high > 1 + _PROBABILITY_TOLERANCE:
        raise InputError(
            f"{path}: values from {low:.4g} to {high:.4g}, but a probability is from 0 to 1, and "
            f"a mask has one value besides 0; {_rescaling_hint(low, high)}"
        )
    probability = np.clip(array, 0, 1).astype(np.float32)
    return Volume(np.ascontiguousarray(probability), grid), "probability"


def read_grid(path: str | Path) -> Grid:
    """The grid of a file in its own axis order, in mm; only the header is read.

    Raises:
        InputError: As for ``read_volume`` where the header alone shows the error.

    Example:
        >>> write_volume("a.nii.gz", Volume(np.ones((4, 4, 4), bool), Grid((4, 4, 4), np.eye(4))))
        >>> read_grid("a.nii.gz").shape
        (4, 4, 4)
    """
    path = Path(path)
    header = parse_header(path, file_start(path))
    return Grid(stated_shape(path, header), stated_affine(path, header))


def stores_floats(path: str | Path) -> bool:
    """Whether the voxels of a file are stored as floating point; only the header is read.

    Raises:
        InputError: As for ``read_grid``.

    Example:
        >>> mask = Volume(np.ones((4, 4, 4), dtype=np.bool_), Grid((4, 4, 4), np.eye(4)))
        >>> write_volume("mask.nii.gz", mask)
        >>> stores_floats("mask.nii.gz")
        False
    """
    path = Path(path)
    return stored_type(path, parse_header(path, file_start(path))).kind == "f"


def header_notes(path: str | Path) -> tuple[str, ...]:
    """What a reader of results should know of a header that was read all the same, one phrase each.

    Today that is an orientation that the header does not state; empty where it is stated.

    Raises:
        InputError: If the file is missing or no NIfTI.

    Example:
        >>> write_volume("a.nii.gz", Volume(np.ones((4, 4, 4), bool), Grid((4, 4, 4), np.eye(4))))
        >>> header_notes("a.nii.gz")
        ()
    """
    path = Path(path)
    stated = states_orientation(parse_header(path, file_start(path)))
    return () if stated else (NO_ORIENTATION,)


def write_volume(
    path: str | Path,
    volume: Volume,
    *,
    grid: Grid | None = None,
    dtype: DTypeLike | None = None,
    description: str = "",
) -> None:
    """Write a volume atomically as .nii or .nii.gz; equal volumes give equal bytes.

    Both affines are set with code 2 (aligned to another image) and the unit is mm; the qform
    is left out where it cannot say the same to within 0.1 mm, as for sheared grids.

    Args:
        grid: the file's grid, such as ``read_grid`` gives it for the scan the result belongs
            to; it must describe the same voxels in any axis order. None writes the volume's own.
        dtype: type in the file. By default truth values become uint8, integers the first of
            uint8, int16, uint16, int32 … that holds them, floats float32.
        description: up to 79 characters for the header.

    Raises:
        InputError: If the values do not fit the type, if they are not finite, if the grid is
            another one, or if the file cannot be written.
        ValueError: If the name does not end in .nii or .nii.gz.

    Example:
        >>> mask = Volume(np.ones((4, 4, 4), bool), Grid((4, 4, 4), np.diag([1.0, 1.0, 3.0, 1.0])))
        >>> write_volume("mask.nii.gz", mask)
        >>> read_mask("mask.nii.gz").grid.spacing_mm
        (1.0, 1.0, 3.0)
    """
    path = Path(path)
    if not is_nifti_name(path):
        raise ValueError(f"{path}: the name of a NIfTI file ends in .nii or .nii.gz")
    if grid is not None:
        volume = on_grid(volume, grid, name=str(path))
    array = _storable(path, volume.array, dtype)
    affine = volume.grid.affine
    image: Any = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_sform(affine, code=2)
    image.header.set_qform(affine, code=2, strip_shears=True)
    qform = Grid(volume.grid.shape, image.header.get_qform())
    if not qform.matches(volume.grid, QFORM_WRITTEN_WITHIN_MM):
        image.header.set_qform(None, code=0)
        image.header["pixdim"][1:4] = volume.grid.spacing_mm
    image.header["descrip"] = description.encode("ascii", "replace")[:79]
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=4, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _read(path: str | Path, *, whole: bool = False) -> tuple[NDArray[Any], Grid]:
    """All values in canonical axes, scaled, checked to be real and finite, with their grid.

    Args:
        whole: the values are labels, so a scaling that leaves nothing of them is an error.
    """
    path = Path(path)
    header = parse_header(path, file_start(path))
    if not states_orientation(header):
        _tell_once(printable(path))
    shape = stated_shape(path, header)
    affine = stated_affine(path, header)
    stored = stored_type(path, header)
    offset, needed = voxel_place(path, header)
    raw = file_content(path, offset + needed)
    if len(raw) - offset < needed:
        raise InputError(
            f"{path}: truncated, only {max(len(raw) - offset, 0)} of {needed} bytes of voxels exist"
        )
    array: NDArray[Any] = np.frombuffer(raw, stored, needed // stored.itemsize, offset)
    array = array.reshape(shape, order="F")
    if array.dtype.kind == "f":
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise InputError(f"{path}: {bad} of {array.size} voxels are NaN or infinite")
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise InputError(f"{path}: bad intensity scaling ({error})") from error
    if slope is not None and (slope, intercept) != (1, 0):
        there = bool(array.any())
        one_value = whole and array.dtype.kind in "iu" and _one_value(array)
        with np.errstate(over="ignore"):
            array = array.astype(np.float64) * slope + intercept
        if not np.isfinite(array).all():
            raise InputError(f"{path}: the scaling in its header ({slope:g}) makes values infinite")
        if whole and there and np.abs(array).max() <= _INTEGRAL_TOLERANCE:
            raise InputError(
                f"{path}: the scaling in its header ({slope:g}) sets all its labels to 0; "
                "set scl_slope to 1"
            )
        if one_value and intercept == 0 and _whole(array) is None:
            raise InputError(
                f"{path}: the scaling in its header ({slope:g}) turns the one value of its mask "
                f"into {array.max():.4g}; set scl_slope to 1"
            )
    return canonical(array, Grid(shape, affine))


@cache
def _tell_once(path: str) -> None:
    """Say on standard error, once a process, that a file that is read states no orientation."""
    logging.getLogger("lesionwise").warning("%s: %s", path, NO_ORIENTATION)


def _one_value(array: NDArray[Any]) -> bool:
    """Whether all values that are not 0 are the same, and there are some."""
    nonzero = array[array != 0]
    return bool(nonzero.size) and bool(nonzero.min() == nonzero.max())


def _whole(array: NDArray[Any]) -> NDArray[Any] | None:
    """The array with whole numbers only; None where any value is further off than rounding."""
    if array.dtype.kind in "iub":
        return array
    rounded = np.rint(array)
    return rounded if np.abs(array - rounded).max() <= _INTEGRAL_TOLERANCE else None


def _a_fraction(array: NDArray[Any]) -> float:
    off = np.abs(array - np.rint(array))
    return float(array.flat[int(np.argmax(off))])


def _refuse_negative(path: str | Path, array: NDArray[Any], what: str) -> None:
    if array.min() < -_INTEGRAL_TOLERANCE:
        count = int(np.count_nonzero(array < -_INTEGRAL_TOLERANCE))
        raise InputError(f"{path}: negative {what} ({count} voxels, down to {array.min():g})")


def _rescaling_hint(low: float, high: float) -> str:
    if low < 0:
        return "turn logits into probabilities first"
    if high <= 100:
        return "divide percentages by 100, and make a mask of a label map"
    if high <= 255:
        return "divide a map of 0 to 255 by 255, and make a mask of a label map"
    return "rescale it first"


def _storable(path: Path, array: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    """The array in the type it has in the file, with not one value changed by overflow."""
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path}: {array.dtype} cannot be stored")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{path}: the result holds NaN or infinity and is not written")
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if dtype is not None:
        wanted = np.dtype(dtype)
    elif array.dtype.kind == "f":
        wanted = np.dtype(np.float32)
    else:
        candidates = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
        wanted = next(np.dtype(t) for t in candidates if _holds(np.dtype(t), low, high))
    if wanted.kind in "iu":
        if not _holds(wanted, low, high):
            raise InputError(f"{path}: values from {low:g} to {high:g} do not fit {wanted}")
        if array.dtype.kind == "f" and (np.rint(array) != array).any():
            raise InputError(f"{path}: fractions do not fit {wanted}")
    elif max(abs(float(low)), abs(float(high))) > float(np.finfo(str(wanted)).max):
        raise InputError(f"{path}: values from {low:g} to {high:g} do not fit {wanted}")
    return array.astype(wanted)


def _holds(kind: np.dtype[Any], low: Any, high: Any) -> bool:
    limits = np.iinfo(kind)
    return bool(limits.min <= low and high <= limits.max)
