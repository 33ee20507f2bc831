"""DICOM series as volumes and as NIfTI files. Needs the extra ``dicom``."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lesionwise.io.dicom_series import (
    ImageHeader,
    Series,
    check_same_person,
    choose_series,
    common_folder,
    find_series,
    image_header,
    module,
)
from lesionwise.io.nifti import read_grid, read_volume, write_volume
from lesionwise.io.space import on_grid, same_space
from lesionwise.types import Grid, InputError, Volume

__all__ = [
    "Series",
    "check_same_person",
    "choose_series",
    "convert_series",
    "find_series",
    "on_series",
    "read_series",
    "series_grid",
    "slice_files",
]

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

EVEN_SLICES = 0.05
"""Gaps between slices may differ from their median by this share."""

PLACE_TOLERANCE_MM = 0.05
"""How far a converted voxel may lie from where the series says, for rounding of headers."""


def read_series(
    folder: str | Path, scan: str = "flair", description: str | None = None
) -> tuple[Volume, Series]:
    """The scan in a folder of DICOM files, (I, J, K) float32 in canonical axes, and its series.

    Raises:
        InputError: As for ``find_series``, ``choose_series``, ``series_grid`` and ``read_volume``.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> image = module("pydicom").dcmread(get_testdata_file("MR_small.dcm"))
        >>> for k in range(3):
        ...     image.InstanceNumber, image.ImagePositionPatient = k, [0, 0, 5 * k]
        ...     image.save_as(f"{k}.dcm")
        ...
        >>> volume, series = read_series(".")
        >>> volume.array.shape, series.modality
        ((64, 64, 3), 'MR')
    """
    series = choose_series(find_series(folder), scan, description)
    with tempfile.TemporaryDirectory() as place:
        made = _converted(series, Path(place))
        with _named_as_typed(made, series):
            return read_volume(made), series


def convert_series(series: Series, path: str | Path) -> None:
    """Write a series as one NIfTI file by dcm2niix, atomically and with an empty header text.

    Whole numbers stay whole. Equal series give equal bytes.

    Raises:
        InputError: As for ``series_grid`` and ``read_volume``; if dcm2niix fails, or makes
            several volumes or another geometry of the series.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> folder = Path(get_testdata_file("dicomdirtests/98892001/CT5N/2062")).parent
        >>> (series,) = find_series(folder)
        >>> convert_series(series, "scan.nii.gz")
        >>> read_grid("scan.nii.gz").shape
        (16, 16, 5)
    """
    with tempfile.TemporaryDirectory() as place:
        made = _converted(series, Path(place))
        with _named_as_typed(made, series):
            volume, grid = read_volume(made), read_grid(made)
    array = volume.array
    if (np.rint(array) == array).all():
        array = array.astype(np.int32)
    write_volume(path, Volume(array, volume.grid), grid=grid)


def series_grid(series: Series) -> Grid:
    """The grid of a series from its headers: i along columns, j along rows, k along slices.

    Slices are ordered along i x j, so the grid is right-handed in LPS.

    Raises:
        InputError: If slices are missing, doubled, unevenly spaced, tilted against each other or
            of different sizes; for color images and for single images.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> folder = Path(get_testdata_file("dicomdirtests/98892001/CT5N/2062")).parent
        >>> (series,) = find_series(folder)
        >>> series_grid(series).shape
        (16, 16, 5)
    """
    return _geometry(series)[0]


def slice_files(series: Series) -> tuple[Path, ...]:
    """The files in the order of k of ``series_grid``; for a multi-frame series its only file.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> image = module("pydicom").dcmread(get_testdata_file("MR_small.dcm"))
        >>> for k in range(3):
        ...     image.InstanceNumber, image.ImagePositionPatient = k, [0, 0, -5 * k]
        ...     image.save_as(f"{k}.dcm")
        ...
        >>> (series,) = find_series(".")
        >>> [path.name for path in slice_files(series)]
        ['2.dcm', '1.dcm', '0.dcm']
    """
    return _geometry(series)[1]


def _geometry(series: Series) -> tuple[Grid, tuple[Path, ...]]:
    place = f"{common_folder([series])}: series {series.title}"
    headers = [(path, _header(path)) for path in series.files]
    first = headers[0][1]
    if first.samples != 1:
        raise InputError(f"{place}: holds color images")
    if first.frames > 1:
        if len(headers) > 1:
            raise InputError(f"{place}: holds several multi-frame images")
        return _multiframe_grid(place, series.files[0]), series.files
    for path, header in headers:
        for name, tag in _NEEDED.items():
            if not getattr(header, name):
                raise InputError(f"{path}: no {tag} in the header")
        if (header.rows, header.columns) != (first.rows, first.columns):
            raise InputError(f"{place}: holds images of different sizes")
        if not np.allclose(header.orientation, first.orientation, atol=1e-3, rtol=0):
            raise InputError(f"{place}: holds images of different orientation")
        if not np.allclose(header.spacing_mm, first.spacing_mm, atol=1e-4, rtol=0):
            raise InputError(f"{place}: holds images of different pixel size")
    if len(headers) < 2:
        raise InputError(f"{place}: holds a single image, not a volume")
    along_i, along_j = np.array(first.orientation).reshape(2, 3)
    normal = np.cross(along_i, along_j)
    positions = np.array([header.position_mm for _, header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if gaps.min() < 0.01:
        raise InputError(
            f"{place}: {int((gaps < 0.01).sum())} slices have the position of another "
            "(several echoes or time points, or files given twice)"
        )
    if np.abs(gaps - usual).max() > EVEN_SLICES * usual:
        missing = int(np.rint(gaps / usual).sum()) - len(gaps)
        error = f"{missing} slices are missing" if missing > 0 else "slices are unevenly spaced"
        raise InputError(f"{place}: {error} (gaps of {gaps.min():.3g} to {gaps.max():.3g} mm)")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    if np.linalg.norm(np.cross(step, normal)) > EVEN_SLICES * np.linalg.norm(step):
        raise InputError(f"{place}: slices are shifted against each other (gantry tilt)")
    rows_mm, columns_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_i * columns_mm, along_j * rows_mm, step], axis=1)
    affine[:3, 3] = positions[0]
    shape = (first.columns, first.rows, len(headers))
    return Grid(shape, RAS_FROM_LPS @ affine), tuple(series.files[n] for n in order)


_NEEDED = {
    "orientation": "ImageOrientationPatient",
    "position_mm": "ImagePositionPatient",
    "spacing_mm": "PixelSpacing",
}


def _header(path: Path) -> ImageHeader:
    header = image_header(path)
    if header is None:
        raise InputError(f"{path}: no longer a DICOM image")
    return header


def _multiframe_grid(place: str, path: Path) -> Grid:
    highdicom = module("highdicom")
    try:
        geometry = highdicom.imread(path).get_volume_geometry()
    except Exception as error:
        raise InputError(f"{place}: damaged multi-frame image ({error})") from error
    if geometry is None or not np.isfinite(geometry.affine).all():
        raise InputError(f"{place}: its frames do not form one regular volume")
    slices, rows, columns = geometry.spatial_shape
    affine = RAS_FROM_LPS @ np.asarray(geometry.affine) @ np.eye(4)[:, [2, 1, 0, 3]]
    return Grid((columns, rows, slices), affine)


def _converted(series: Series, place: Path) -> Path:
    """The series as dcm2niix makes it, checked against the geometry of the headers."""
    title = f"{common_folder([series])}: series {series.title}"
    grid = series_grid(series)
    program = Path(module("dcm2niix").bin)
    inputs, made = place / "in", place / "out"
    inputs.mkdir()
    made.mkdir()
    for number, path in enumerate(series.files):
        _give(path, inputs / f"{number:06d}.dcm", series)
    command = [str(program), "-b", "n", "-z", "n", "-x", "n", "-l", "o", "-g", "i", "-f", "scan"]
    done = subprocess.run(
        [*command, "-o", str(made), str(inputs)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    volumes = sorted(made.glob("*.nii"))
    if done.returncode != 0 or not volumes:
        raise InputError(f"{title}: dcm2niix could not convert it (status {done.returncode})")
    if len(volumes) > 1:
        raise InputError(f"{title}: dcm2niix made {len(volumes)} volumes of it")
    with _named_as_typed(volumes[0], series):
        verdict = same_space(read_grid(volumes[0]), grid, PLACE_TOLERANCE_MM)
    if not verdict.same:
        raise InputError(f"{title}: not where its headers say after conversion: {verdict.reason}")
    return volumes[0]


def _give(path: Path, copy: Path, series: Series) -> None:
    """Put a file where dcm2niix finds it, as part of one series where it states its own."""
    if not series.split:
        copy.symlink_to(path.resolve())
        return
    try:
        content = module("pydicom").dcmread(path)
        content.SeriesInstanceUID = series.uid
        content.save_as(copy)
    except Exception as error:  # pydicom raises a dozen kinds
        raise InputError(f"{path}: damaged DICOM file ({type(error).__name__})") from error


@contextmanager
def _named_as_typed(made: Path, series: Series) -> Iterator[None]:
    """Errors about a temporary file name the series it was made of."""
    try:
        yield
    except InputError as error:
        title = f"{common_folder([series])}: series {series.title}"
        raise InputError(str(error).replace(str(made), title)) from error


def on_series(volume: Volume, series: Series, name: str) -> Volume:
    """A volume made from a series, on ``series_grid``; not one voxel is interpolated.

    Raises:
        InputError: If the volume lies on another grid.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> folder = Path(get_testdata_file("dicomdirtests/98892001/CT5N/2062")).parent
        >>> (series,) = find_series(folder)
        >>> grid = series_grid(series)
        >>> mask = on_series(Volume(np.ones(grid.shape, bool), grid), series, "mask")
        >>> int(mask.array.sum())
        1280
    """
    return on_grid(volume, series_grid(series), name, PLACE_TOLERANCE_MM)
