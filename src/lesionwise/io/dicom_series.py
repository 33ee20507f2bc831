"""What series a folder of DICOM files holds, and which of them is the scan.

Needs the extra ``dicom``; nothing of it is imported before it is used. Names, dates and numbers
that tell who a patient is are read to compare series and are never written, printed or put
into an error.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesionwise.io.names import natural
from lesionwise.types import InputError

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
        header = image_header(path)
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
    place = common_folder(found)
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


def check_same_person(found: Sequence[Series]) -> None:
    """Pass if all series state the same patient.

    Raises:
        InputError: If not; the error names folders, never people.
    """
    for series in found[1:]:
        if series.patient != found[0].patient:
            here, there = common_folder([series]), common_folder(found[:1])
            raise InputError(f"{here}: by its headers another patient than in {there}")


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
            path = Path(place) / name
            if not name.startswith(".") and name.upper() != "DICOMDIR" and path.is_file():
                yield path


def image_header(path: Path) -> Any | None:
    """What ``_TAGS`` names of a DICOM image; None for a file that is none."""
    pydicom = module("pydicom")
    try:
        opened = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    with opened as file:
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
    place = common_folder([path for path, _ in images])
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


def common_folder(things: Sequence[Series] | Sequence[Path]) -> str:
    """The folder that holds all of the files, for errors."""
    files = [f for thing in things for f in (thing.files if isinstance(thing, Series) else [thing])]
    return os.path.commonpath([str(path.parent) for path in files])


def _looks_like_flair(series: Series) -> bool:
    if re.search(r"flair|dark.?fluid|tirm", series.description, re.IGNORECASE):
        return True
    if series.inversion_ms is None or series.echo_ms is None:
        return False
    return 1500 <= series.inversion_ms <= 3200 and series.echo_ms >= 60
