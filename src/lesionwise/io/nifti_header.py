"""The header of a NIfTI file: is it one, how large, of what type, and where it lies."""

from __future__ import annotations

import gzip
import math
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lesionwise.io.checked import reading
from lesionwise.types import InputError

SPACING_LIMITS_MM = (0.05, 50.0)
"""A scan whose voxels are smaller or larger than this has a wrong header."""

FORMS_AGREE_MM = 0.5
"""Up to this distance at the corners the two affines of a header count as one.

The qform keeps three of four quaternion components in single precision. Where the fourth is
near 0, as in every scan with axes near LPS, an angle of 0.001 radians is lost, which is 0.4 mm
at the far corner of a head.
"""

FARTHEST = 1e7
"""In the unit of the header; larger numbers in an affine are garbage."""

MAX_VOXEL_BYTES = 4 * 2**30
"""A header that states more than this much of voxels is wrong: 0.25 mm over a head in float32."""

MAX_EXTENSION_BYTES = 64 * 2**20
"""Room for what may stand between header and voxels."""

MAX_TRAILING_BYTES = 16 * 2**20
"""What may follow the voxels in a packed file; a gzip that unpacks to more is refused."""

GZIP = b"\x1f\x8b"

nib: Any = nibabel  # nibabel states no types for what is used here

_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "meters", 3: "microns"}
_FORM_NAMES = {1: "scanner", 2: "aligned", 3: "Talairach", 4: "MNI"}


def _file(path: Path) -> Path:
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, not a NIfTI file")
        if not path.exists():
            raise InputError(f"{path}: no such file")
        if not path.is_file():
            raise InputError(f"{path}: a pipe or a device, not a file")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return path


def file_content(path: Path, most: int) -> bytes:
    """The bytes of a file, unpacked where they are gzip, whatever its name says.

    Of a file that is not packed no more than ``most`` bytes are read; what follows them is left.

    Args:
        most: bytes that the header accounts for.

    Raises:
        InputError: If the file cannot be read, is a damaged or truncated gzip, or unpacks to more
            than ``most`` bytes and ``MAX_TRAILING_BYTES`` behind them.

    Example:
        >>> _ = Path("a.gz").write_bytes(gzip.compress(b"voxels"))
        >>> file_content(Path("a.gz"), most=6)
        b'voxels'
    """
    with reading(path), _file(path).open("rb") as file:
        raw = file.read(2)
        raw += file.read() if raw == GZIP else file.read(max(most - 2, 0))
    return _unpacked(path, raw, most + MAX_TRAILING_BYTES) if raw[:2] == GZIP else raw


def _unpacked(path: Path, raw: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    room = most
    while raw:
        stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        try:
            parts.append(stream.decompress(raw, room + 1))
        except zlib.error as error:
            raise InputError(f"{path}: truncated or damaged gzip ({error})") from error
        room -= len(parts[-1])
        if room < 0:
            raise InputError(
                f"{path}: unpacks to more than {most / 2**20:.0f} MiB, but its header states less"
            )
        if not stream.eof:
            raise InputError(f"{path}: truncated or damaged gzip (it ends too early)")
        raw = stream.unused_data.lstrip(b"\0")  # several streams may follow each other
    return parts[0] if len(parts) == 1 else b"".join(parts)


def file_start(path: Path) -> bytes:
    """The first bytes, as many as the longer of the two kinds of header has, unpacked.

    Example:
        >>> _ = Path("a.nii").write_bytes(gzip.compress(bytes(1000)))
        >>> len(file_start(Path("a.nii")))
        544
    """
    try:
        with _file(path).open("rb") as file:
            start = file.read(2)
            file.seek(0)
            if start != GZIP:
                return file.read(544)
            with gzip.open(file) as unpacked:
                return unpacked.read(544)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: truncated or damaged gzip ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def parse_header(path: Path, raw: bytes) -> Any:
    """The header of a single-file NIfTI of version 1 or 2, in either byte order, unchecked.

    Example:
        >>> image = nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.int16), np.eye(4))
        >>> header = parse_header(Path("a.nii"), image.to_bytes())
        >>> header["dim"][:4].tolist()
        [3, 3, 4, 5]
    """
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


def stated_shape(path: Path, header: Any) -> tuple[int, int, int]:
    """Voxels along the three axes; trailing axes of length one are dropped.

    Example:
        >>> image = nib.Nifti1Image(np.zeros((3, 4, 5, 1), dtype=np.int16), np.eye(4))
        >>> stated_shape(Path("a.nii"), image.header)
        (3, 4, 5)
    """
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


def stored_type(path: Path, header: Any) -> np.dtype[Any]:
    """The type of one voxel in the file, which must be one real number.

    Example:
        >>> image = nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.int16), np.eye(4))
        >>> stored_type(Path("a.nii"), image.header).name
        'int16'
    """
    try:
        stored: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise InputError(f"{path}: unknown voxel type {int(header['datatype'])}") from error
    if stored.names or stored.kind not in "iuf":
        raise InputError(
            f"{path}: voxels are colors or complex numbers, but one real value each is needed"
        )
    return stored


def voxel_place(path: Path, header: Any) -> tuple[int, int]:
    """The first byte of the voxels in the unpacked file, and how many bytes they take.

    Example:
        >>> image = nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.int16), np.eye(4))
        >>> voxel_place(Path("a.nii"), image.header)
        (352, 120)
    """
    stated = float(header["vox_offset"])
    first = int(header.single_vox_offset)
    if stated != 0 and not (first <= stated <= MAX_EXTENSION_BYTES and stated == int(stated)):
        raise InputError(f"{path}: voxels cannot begin at byte {stated:g} (vox_offset)")
    count = math.prod(stated_shape(path, header)) * stored_type(path, header).itemsize
    if count > MAX_VOXEL_BYTES:
        shape = " x ".join(map(str, stated_shape(path, header)))
        raise InputError(f"{path}: {shape} voxels ({count / 2**30:.3g} GiB) are too many")
    return max(int(stated), first), count


def states_orientation(header: Any) -> bool:
    """Whether one of the two affines is said to hold.

    Example:
        >>> states_orientation(nib.Nifti1Header())
        False
        >>> states_orientation(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)).header)
        True
    """
    return int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0


def stated_affine(path: Path, header: Any) -> NDArray[np.float64]:
    """Voxel to world in mm, by the rule that ``nifti.read_volume`` states.

    Example:
        >>> affine = np.diag([1.0, 1.0, 3.0, 1.0])
        >>> image = nib.Nifti1Image(np.zeros((3, 4, 5), dtype=np.int16), affine)
        >>> np.diag(stated_affine(Path("a.nii"), image.header)).tolist()
        [1.0, 1.0, 3.0, 1.0]
    """
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
    if np.abs(affine).max() > FARTHEST:
        raise InputError(
            f"{path}: the affine holds {np.abs(affine).max():.3g}, too far away for a scan"
        )
    affine = np.diag([*[_MM_PER_UNIT[unit]] * 3, 1.0]) @ affine
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if abs(np.linalg.det(affine[:3, :3])) <= 1e-3 * spacing_mm.prod():
        raise InputError(f"{path}: the affine is singular, its axes do not span three dimensions")
    if spacing_mm.min() < SPACING_LIMITS_MM[0] or spacing_mm.max() > SPACING_LIMITS_MM[1]:
        says = f" (the header says {_UNIT_NAMES[unit]})" if unit in _UNIT_NAMES else ""
        raise InputError(f"{path}: voxels of {_sizes(spacing_mm)} mm are not possible{says}")
    return affine


def _one_of_two(
    path: Path, header: Any, sform: NDArray[np.float64], qform: NDArray[np.float64]
) -> NDArray[np.float64]:
    if not (np.isfinite(sform).all() and np.isfinite(qform).all()):
        raise InputError(f"{path}: the affine holds NaN or infinity")
    if max(np.abs(sform).max(), np.abs(qform).max()) > FARTHEST:
        raise InputError(f"{path}: the affine holds numbers above {FARTHEST:g}")
    shape = stated_shape(path, header)
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
