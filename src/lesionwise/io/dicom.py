"""DICOM series as volumes. Needs the extra ``dicom``; nothing of it is imported before it is used.

Names, dates and numbers that tell who a patient is are read to compare series and are never
written, printed or put into an error.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise.io.names import natural
from lesionwise.io.nifti import read_grid, read_volume, write_volume
from lesionwise.io.space import on_grid, same_space
from lesionwise.types import Grid, InputError, Volume

RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

EVEN_SLICES = 0.05
"""Gaps between slices may differ from their median by this share."""

PLACE_TOLERANCE_MM = 0.05
"""How far a converted voxel may lie from where the series says, for rounding of headers."""

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID",
    "PatientName", "PatientBirthDate", "Modality", "SeriesDescription", "ProtocolName",
    "SeriesNumber", "InstanceNumber", "ImageType", "NumberOfFrames", "SamplesPerPixel", "Rows",
    "Columns", "BitsAllocated", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient",
    "EchoTime", "InversionTime", "AcquisitionDate", "AcquisitionTime", "StudyDate", "StudyTime",
    "ContrastBolusAgent",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Series:
    """One DICOM series, from its headers.

    Attributes:
        uid: SeriesInstanceUID.
        description: SeriesDescription, or else ProtocolName.
        number: SeriesNumber; 0 where it is missing.
        modality: MR, CT …
        files: in the order of instance numbers.
        original: whether the images are as acquired, not derived from others.
        enhanced: whether a contrast agent is stated.
        echo_ms, inversion_ms: times of the sequence; None where they are missing.
        patient: a digest by which series of one person are told; no name can be had from it.
        acquired: sorts the visits of one person by time.
    """

    uid: str
    description: str
    number: int
    modality: str
    files: tuple[Path, ...]
    original: bool
    enhanced: bool
    echo_ms: float | None
    inversion_ms: float | None
    patient: str = field(repr=False)
    acquired: str = field(repr=False)

    @property
    def title(self) -> str:
        """The series for a person: number and description."""
        return f"{self.number} {self.description!r}"


def find_series(folder: str | Path) -> list[Series]:
    """Every image series in a folder and the folders in it, by series number.

    Files that are no DICOM images are passed over.

    Raises:
        InputError: If a DICOM file is damaged, there is none, or the extra is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    grouped: dict[str, list[tuple[Path, Any]]] = {}
    for path in _files(folder):
        header = _header(path)
        if header is not None:
            grouped.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
    if not grouped:
        raise InputError(f"{folder}: no DICOM images in it")
    found = [_series(uid, images) for uid, images in grouped.items()]
    return sorted(found, key=lambda series: (series.number, series.uid))


def choose_series(
    found: Sequence[Series], scan: str = "flair", description: str | None = None
) -> Series:
    """The series that holds the wanted scan.

    The only MR series of more than one image is taken whatever it is called. Among several the
    ones that look like the scan are kept, by description (``FLAIR``, ``dark fluid`` …) or by
    the times of the sequence; then those as acquired before those derived; then those without
    contrast agent. If several are left the caller has to say which.

    Args:
        scan: flair is the one that is known by its looks.
        description: a part of the description, in any case; then nothing is guessed.

    Raises:
        InputError: If the series belong to several patients, if none or several fit.
    """
    place = _common(found)
    if len({series.patient for series in found}) > 1:
        raise InputError(f"{place}: series of different patients")
    usable = [series for series in found if series.modality == "MR"]
    if not usable:
        kinds = ", ".join(sorted({series.modality or "none" for series in found}))
        raise InputError(f"{place}: modality {kinds}, but MR is needed")
    if description is not None:
        usable = [s for s in usable if description.lower() in s.description.lower()]
        if len(usable) == 1:
            return usable[0]
    else:
        if len(usable) == 1:
            return usable[0]
        usable = [series for series in usable if scan == "flair" and _looks_like_flair(series)]
        for better in (lambda s: s.original, lambda s: not s.enhanced):
            usable = [series for series in usable if better(series)] or usable
        if len(usable) == 1:
            return usable[0]
    listed = "; ".join(series.title for series in (usable or found)[:8])
    what = "several series fit" if usable else f"no series looks like {description or scan}"
    raise InputError(f"{place}: {what} ({listed}); name one by its description or folder")


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


def check_same_person(found: Sequence[Series]) -> None:
    """Pass if all series state the same patient.

    Raises:
        InputError: If not; the error names folders, never people.
    """
    for series in found[1:]:
        if series.patient != found[0].patient:
            raise InputError(
                f"{_common([series])}: by its headers another patient than in {_common(found[:1])}"
            )


def module(name: str) -> Any:
    """An optional package, or an error that says how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name}: not installed, but DICOM needs it (pip install 'lesionwise[dicom]')"
        ) from error


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural)
        for name in sorted(names, key=natural):
            if not name.startswith(".") and name.upper() != "DICOMDIR":
                yield Path(place) / name


def _header(path: Path) -> Any | None:
    """What ``_TAGS`` names of a DICOM image; None for a file that is none."""
    pydicom = module("pydicom")
    with path.open("rb") as file:
        marked = file.read(132)[128:] == b"DICM"
        file.seek(0)
        try:
            header = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS)
            )
            if not all(tag in header for tag in ("SeriesInstanceUID", "Rows", "Columns")):
                return None
            pixels = int(header.Rows) * int(header.Columns)
            pixels *= int(header.get("NumberOfFrames") or 1)
            needed = pixels * int(header.get("BitsAllocated") or 16) // 8
            syntax = header.file_meta.get("TransferSyntaxUID") if header.file_meta else None
        except Exception as error:
            if marked:
                raise InputError(f"{path}: damaged DICOM file ({type(error).__name__})") from error
            return None
        if syntax is not None and syntax.is_compressed:
            return header
        tag_bytes = 8 if syntax is None or syntax.is_implicit_VR else 12
        if path.stat().st_size - file.tell() < tag_bytes + needed:
            raise InputError(f"{path}: truncated DICOM file")
    return header


def _series(uid: str, images: list[tuple[Path, Any]]) -> Series:
    images = sorted(images, key=lambda pair: int(pair[1].get("InstanceNumber") or 0))
    first = images[0][1]
    who = "|".join(
        str(first.get(tag, "")) for tag in ("PatientID", "PatientName", "PatientBirthDate")
    )
    place = _common([path for path, _ in images])
    for tag in ("PatientID", "PatientName"):
        if len({str(header.get(tag, "")) for _, header in images}) > 1:
            raise InputError(f"{place}: one series holds images of different patients")
    date = first.get("AcquisitionDate") or first.get("StudyDate") or ""
    time = first.get("AcquisitionTime") or first.get("StudyTime") or ""
    return Series(
        uid=uid,
        description=str(first.get("SeriesDescription") or first.get("ProtocolName") or ""),
        number=int(first.get("SeriesNumber") or 0),
        modality=str(first.get("Modality", "")),
        files=tuple(path for path, _ in images),
        original="DERIVED" not in [str(word) for word in first.get("ImageType") or []],
        enhanced=bool(first.get("ContrastBolusAgent")),
        echo_ms=_number(first.get("EchoTime")),
        inversion_ms=_number(first.get("InversionTime")),
        patient=hashlib.sha256(who.encode()).hexdigest(),
        acquired=f"{date}T{time}",
    )


def _number(value: Any) -> float | None:
    return None if value in (None, "") else float(value)


def _common(things: Sequence[Series] | Sequence[Path]) -> str:
    files = [f for thing in things for f in (thing.files if isinstance(thing, Series) else [thing])]
    return os.path.commonpath([str(path.parent) for path in files])


def _looks_like_flair(series: Series) -> bool:
    if re.search(r"flair|dark.?fluid|tirm", series.description, re.IGNORECASE):
        return True
    if series.inversion_ms is None or series.echo_ms is None:
        return False
    return 1500 <= series.inversion_ms <= 3200 and series.echo_ms >= 60


def _geometry(series: Series) -> tuple[Grid, tuple[Path, ...]]:
    place = f"{_common([series])}: series {series.title}"
    headers: list[tuple[Path, Any]] = [(path, _header(path)) for path in series.files]
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
    title = f"{_common([series])}: series {series.title}"
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
