"""NIfTI files as volumes in canonical axes, and volumes back on the grid of a file."""

from __future__ import annotations

import gzip
import math
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from lesionwise.io.files import atomic_path
from lesionwise.io.space import canonical, on_grid
from lesionwise.types import Grid, InputError, Volume

SPACING_LIMITS_MM = (0.05, 50.0)
"""A scan whose voxels are smaller or larger than this has a wrong header."""

FORMS_AGREE_MM = 0.5
"""Up to this distance at the corners the two affines of a header count as one.

The qform keeps three of four quaternion components in single precision. Where the fourth is
near 0, as in every scan with axes near LPS, an angle of 0.001 radians is lost, which is 0.4 mm
at the far corner of a head.
"""

QFORM_WRITTEN_WITHIN_MM = 0.1

MAX_LABEL = int(np.iinfo(np.int32).max)

nib: Any = nibabel  # nibabel states no types for what is used here

_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "meters", 3: "microns"}
_FORM_NAMES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI"}
_INTEGRAL_TOLERANCE = 1e-3
_PROBABILITY_TOLERANCE = 1e-3


def is_nifti_name(path: str | Path) -> bool:
    """True for names that end in .nii or .nii.gz, in any case."""
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
    """
    array, grid = _read(path)
    _refuse_negative(path, array, "labels")
    rounded = _whole(array)
    if rounded is None:
        raise InputError(
            f"{path}: holds fractions (such as {_a_fraction(array):.4g}), so it is no label map; "
            "a probability map has to be thresholded first"
        )
    if rounded.max() > MAX_LABEL:
        raise InputError(f"{path}: label {rounded.max():.0f} is above {MAX_LABEL}")
    return Volume(np.ascontiguousarray(rounded, dtype=np.int32), grid)


def read_mask(path: str | Path) -> Volume:
    """A mask in canonical axes: (I, J, K) bool, true where the file is not 0; may be empty.

    Raises:
        InputError: As for ``read_volume`` save for constant images; for negative values and for
            fractions, which hint at a probability map.
    """
    array, grid = _read(path)
    _refuse_negative(path, array, "values")
    rounded = _whole(array)
    if rounded is None:
        raise InputError(
            f"{path}: holds fractions (such as {_a_fraction(array):.4g}), so it is no mask; "
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
    """
    array, grid = _read(path)
    low, high = float(array.min()), float(array.max())
    rounded = _whole(array)
    if rounded is not None and low >= -_PROBABILITY_TOLERANCE:
        nonzero = rounded[rounded != 0]
        if nonzero.size == 0 or nonzero.min() == nonzero.max():
            return Volume(np.ascontiguousarray(rounded != 0), grid), "mask"
    if low < -_PROBABILITY_TOLERANCE or high > 1 + _PROBABILITY_TOLERANCE:
        raise InputError(
            f"{path}: values from {low:.4g} to {high:.4g}, but a probability lies in [0, 1] and a "
            f"mask has one value besides 0; {_rescaling_hint(low, high)}"
        )
    probability = np.clip(array, 0, 1).astype(np.float32)
    return Volume(np.ascontiguousarray(probability), grid), "probability"


def read_grid(path: str | Path) -> Grid:
    """The grid of a file in its own axis order, in mm; only the header is read.

    Raises:
        InputError: As for ``read_volume`` where the header alone shows the fault.
    """
    path = Path(path)
    header = _header(path, _head(path))
    return Grid(_shape(path, header), _affine(path, header))


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


def _read(path: str | Path) -> tuple[NDArray[Any], Grid]:
    """All values in canonical axes, scaled, checked to be real and finite, with their grid."""
    path = Path(path)
    raw = _content(path)
    header = _header(path, raw)
    shape = _shape(path, header)
    affine = _affine(path, header)
    stored = _stored_type(path, header)
    offset = max(int(header.get_data_offset()), header.single_vox_offset)
    needed = math.prod(shape) * stored.itemsize
    if len(raw) - offset < needed:
        raise InputError(
            f"{path}: truncated, {max(len(raw) - offset, 0)} of {needed} bytes of voxels are there"
        )
    array: NDArray[Any] = np.frombuffer(raw, stored, math.prod(shape), offset)
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
        array = array.astype(np.float64) * slope + intercept
    return canonical(array, Grid(shape, affine))


def _file(path: Path) -> Path:
    if path.is_dir():
        raise InputError(f"{path}: is a folder, not a NIfTI file")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    return path


def _content(path: Path) -> bytes:
    try:
        raw = _file(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged gzip ({error})") from error


def _head(path: Path) -> bytes:
    try:
        with _file(path).open("rb") as file:
            start = file.read(2)
            file.seek(0)
            if start != b"\x1f\x8b":
                return file.read(544)
            with gzip.open(file) as unpacked:
                return unpacked.read(544)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged gzip ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _header(path: Path, raw: bytes) -> Any:
    if not raw:
        raise InputError(f"{path}: the file is empty")
    if len(raw) >= 348 and raw[344:348] == b"ni1\0":
        raise InputError(f"{path}: half of a .hdr/.img pair; convert it to a single .nii file")
    kind: Any
    if len(raw) >= 352 and raw[344:348] == b"n+1\0":
        kind = nib.Nifti1Header
    elif len(raw) >= 544 and raw[4:8] == b"n+2\0":
        kind = nib.Nifti2Header
    else:
        raise InputError(f"{path}: not a NIfTI file")
    try:
        return kind.from_fileobj(BytesIO(raw), check=False)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: not a NIfTI file ({error})") from error


def _shape(path: Path, header: Any) -> tuple[int, int, int]:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise InputError(f"{path}: not a NIfTI file (it states {axes} axes)")
    shape = tuple(int(n) for n in header["dim"][1 : axes + 1])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if min(shape) < 1:
        raise InputError(f"{path}: no voxels (shape {' x '.join(map(str, shape))})")
    if len(shape) != 3:
        raise InputError(
            f"{path}: {len(shape)} axes (shape {' x '.join(map(str, shape))}), "
            "but one 3D volume is needed"
        )
    return shape[0], shape[1], shape[2]


def _stored_type(path: Path, header: Any) -> np.dtype[Any]:
    try:
        stored: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise InputError(f"{path}: unknown voxel type {int(header['datatype'])}") from error
    if stored.names or stored.kind not in "iuf":
        raise InputError(
            f"{path}: voxels are colors or complex numbers, but one real value each is needed"
        )
    return stored


def _affine(path: Path, header: Any) -> NDArray[np.float64]:
    """Voxel to world in mm, by the rule that ``read_volume`` states."""
    pixdim = np.array(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        raise InputError(f"{path}: voxel size {_sizes(pixdim)} in the header must be above 0")
    header = header.copy()
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1  # 0 stands for 1, and nibabel would refuse it
    unit = int(header["xyzt_units"]) & 7
    if unit not in _MM_PER_UNIT:
        raise InputError(f"{path}: unknown unit of length (code {unit})")
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    try:
        sform = np.asarray(header.get_sform(), dtype=np.float64) if sform_code > 0 else None
        qform = np.asarray(header.get_qform(), dtype=np.float64) if qform_code > 0 else None
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: malformed orientation ({error})") from error
    if sform is not None and qform is not None:
        affine = _one_of_two(path, header, sform, qform)
    elif sform is not None:
        affine = sform
    elif qform is not None:
        affine = qform
    else:
        affine = np.diag([*pixdim, 1.0])
    if not np.isfinite(affine).all():
        raise InputError(f"{path}: the affine holds NaN or infinity")
    affine = np.diag([*[_MM_PER_UNIT[unit]] * 3, 1.0]) @ affine
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if abs(np.linalg.det(affine[:3, :3])) <= 1e-3 * spacing_mm.prod():
        raise InputError(f"{path}: the affine is singular, its axes do not span three dimensions")
    if spacing_mm.min() < SPACING_LIMITS_MM[0] or spacing_mm.max() > SPACING_LIMITS_MM[1]:
        says = f" (the header says {_UNIT_NAMES[unit]})" if unit in _UNIT_NAMES else ""
        raise InputError(f"{path}: no scan has voxels of {_sizes(spacing_mm)} mm{says}")
    return affine


def _one_of_two(
    path: Path, header: Any, sform: NDArray[np.float64], qform: NDArray[np.float64]
) -> NDArray[np.float64]:
    if not (np.isfinite(sform).all() and np.isfinite(qform).all()):
        raise InputError(f"{path}: the affine holds NaN or infinity")
    shape = _shape(path, header)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], (1,))).reshape(4, -1)
    apart_mm = float(np.linalg.norm((sform - qform) @ corners, axis=0).max())
    if apart_mm <= FORMS_AGREE_MM:
        return sform
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    same_hand = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) > 0
    if sform_code >= 2 and sform_code != qform_code and same_hand:
        return sform
    about = "" if same_hand else " and about left and right"
    raise InputError(
        f"{path}: its two affines disagree by up to {apart_mm:.4g} mm{about} "
        f"(sform: {_FORM_NAMES.get(sform_code, sform_code)}, "
        f"qform: {_FORM_NAMES.get(qform_code, qform_code)}); "
        "set the code of the wrong one to 0"
    )


def _sizes(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


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
