"""DICOM series as volumes and as NIfTI files. Needs the extra ``dicom``."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise.io.dicom_series import (
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
    """
    series = choose_series(find_series(folder), scan, description)
    with tempfile.TemporaryDirectory() as place:
        return read_volume(_converted(series, Path(place))), series


def convert_series(series: Series, path: str | Path) -> None:
    """Write a series as one NIfTI file by dcm2niix, atomically and with an empty header text.

    Whole numbers stay whole. Equal series give equal bytes.

    Raises:
        InputError: As for ``series_grid`` and ``read_volume``; if dcm2niix fails, or makes
            several volumes or another geometry of the series.
    """
    with tempfile.TemporaryDirectory() as place:
        made = _converted(series, Path(place))
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
    """
    return _geometry(series)[0]


def slice_files(series: Series) -> tuple[Path, ...]:
    """The files in the order of k of ``series_grid``; for a multi-frame series its only file."""
    return _geometry(series)[1]


def _geometry(series: Series) -> tuple[Grid, tuple[Path, ...]]:
    place = f"{common_folder([series])}: series {series.title}"
    headers: list[tuple[Path, Any]] = [(path, image_header(path)) for path in series.files]
    first = headers[0][1]
    if int(first.get("SamplesPerPixel", 1) or 1) != 1:
        raise InputError(f"{place}: holds color images")
    if int(first.get("NumberOfFrames", 1) or 1) > 1:
        if len(headers) > 1:
            raise InputError(f"{place}: holds several multi-frame images")
        return _multiframe_grid(place, series.files[0]), series.files
    for path, header in headers:
        for tag in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing"):
            if not header.get(tag):
                raise InputError(f"{path}: no {tag} in the header")
        if (header.Rows, header.Columns) != (first.Rows, first.Columns):
            raise InputError(f"{place}: holds images of different sizes")
        for tag, tolerance in (("ImageOrientationPatient", 1e-3), ("PixelSpacing", 1e-4)):
            if not np.allclose(_floats(header, tag), _floats(first, tag), atol=tolerance, rtol=0):
                raise InputError(f"{place}: holds images of different {_PLAIN[tag]}")
    if len(headers) < 2:
        raise InputError(f"{place}: holds a single image, not a volume")
    along_i, along_j = _floats(first, "ImageOrientationPatient").reshape(2, 3)
    normal = np.cross(along_i, along_j)
    positions = np.array([_floats(header, "ImagePositionPatient") for _, header in headers])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if gaps.min() < 0.01:
        raise InputError(
            f"{place}: {int((gaps < 0.01).sum())} slices lie where another lies "
            "(several echoes, time points, or files given twice)"
        )
    if np.abs(gaps - usual).max() > EVEN_SLICES * usual:
        missing = int(np.rint(gaps / usual).sum()) - len(gaps)
        fault = f"{missing} slices are missing" if missing > 0 else "slices are unevenly spaced"
        raise InputError(f"{place}: {fault} (gaps of {gaps.min():.3g} to {gaps.max():.3g} mm)")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    if np.linalg.norm(np.cross(step, normal)) > EVEN_SLICES * np.linalg.norm(step):
        raise InputError(f"{place}: slices are shifted against each other (gantry tilt)")
    rows_mm, columns_mm = _floats(first, "PixelSpacing")
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along_i * columns_mm, along_j * rows_mm, step], axis=1)
    affine[:3, 3] = positions[0]
    shape = (int(first.Columns), int(first.Rows), len(headers))
    return Grid(shape, RAS_FROM_LPS @ affine), tuple(series.files[n] for n in order)


_PLAIN = {"ImageOrientationPatient": "orientation", "PixelSpacing": "pixel size"}


def _multiframe_grid(place: str, path: Path) -> Grid:
    highdicom = module("highdicom")
    try:
        geometry = highdicom.imread(path).get_volume_geometry()
    except Exception as error:
        raise InputError(f"{place}: damaged multi-frame image ({error})") from error
    if geometry is None:
        raise InputError(f"{place}: its frames do not make one regular volume")
    slices, rows, columns = geometry.spatial_shape
    affine = RAS_FROM_LPS @ np.asarray(geometry.affine) @ np.eye(4)[:, [2, 1, 0, 3]]
    return Grid((columns, rows, slices), affine)


def _floats(header: Any, tag: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float(value) for value in header.get(tag)], dtype=np.float64)


def _converted(series: Series, place: Path) -> Path:
    """The series as dcm2niix makes it, checked against the geometry of the headers."""
    title = f"{common_folder([series])}: series {series.title}"
    grid = series_grid(series)
    program = Path(module("dcm2niix").bin)
    inputs, made = place / "in", place / "out"
    inputs.mkdir()
    made.mkdir()
    for number, path in enumerate(series.files):
        (inputs / f"{number:06d}.dcm").symlink_to(path.resolve())
    command = [str(program), "-b", "n", "-z", "n", "-x", "n", "-l", "o", "-g", "i", "-f", "scan"]
    done = subprocess.run(
        [*command, "-o", str(made), str(inputs)], capture_output=True, text=True, errors="replace"
    )
    volumes = sorted(made.glob("*.nii"))
    if done.returncode != 0 or not volumes:
        raise InputError(f"{title}: dcm2niix could not convert it (status {done.returncode})")
    if len(volumes) > 1:
        raise InputError(f"{title}: dcm2niix made {len(volumes)} volumes of it")
    verdict = same_space(read_grid(volumes[0]), grid, PLACE_TOLERANCE_MM)
    if not verdict.same:
        raise InputError(f"{title}: not where its headers say after conversion: {verdict.reason}")
    return volumes[0]


def on_series(volume: Volume, series: Series, name: str) -> Volume:
    """A volume made from a series, on ``series_grid``; not one voxel is interpolated.

    Raises:
        InputError: If the volume lies on another grid.
    """
    return on_grid(volume, series_grid(series), name, PLACE_TOLERANCE_MM)
