"""What series a folder of DICOM files holds, and which of them is the scan.

Needs the extra ``dicom``; nothing of it is imported before it is used. Names, dates and numbers
that tell who a patient is are read to compare series and are never written, printed or put
into an error.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from lesionwise.io.checked import printable, reading
from lesionwise.io.tree import files_below
from lesionwise.types import InputError

_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID",
    "PatientName", "PatientBirthDate", "Modality", "SeriesDescription", "ProtocolName",
    "SeriesNumber", "InstanceNumber", "ImageType", "NumberOfFrames", "SamplesPerPixel", "Rows",
    "Columns", "BitsAllocated", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient",
    "EchoTime", "InversionTime", "AcquisitionDate", "AcquisitionTime", "StudyDate", "StudyTime",
    "ContrastBolusAgent",
)  # fmt: skip
_LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """What the header of one DICOM image says, every value checked.

    Attributes:
        series, study: SeriesInstanceUID and StudyInstanceUID.
        number, instance: SeriesNumber and InstanceNumber; 0 where they are no numbers.
        rows, columns, frames, samples: of the image; samples of each pixel.
        orientation: six cosines, along rows and along columns; empty where it is missing.
        position_mm: of the first pixel, in LPS; empty where it is missing.
        spacing_mm: between rows and between columns; empty where it is missing.
        echo_ms, inversion_ms: None where they are not one number.
        patient: identifier, name and date of birth, as compared.
        acquired: day and time as written, with a ``T`` between them.
    """

    series: str
    study: str
    number: int
    instance: int
    description: str
    modality: str
    rows: int
    columns: int
    frames: int
    samples: int
    orientation: tuple[float, ...]
    position_mm: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    echo_ms: float | None
    inversion_ms: float | None
    derived: bool
    enhanced: bool
    patient: tuple[str, str, str] = field(repr=False)
    acquired: str = field(repr=False)


@dataclass(frozen=True, eq=False)
class Series:
    """One DICOM series, from its headers.

    Attributes:
        uid: SeriesInstanceUID; the first one where every image has its own.
        description: SeriesDescription, or else ProtocolName.
        number: SeriesNumber; 0 where it is missing.
        modality: MR, CT …
        files: in the order of instance numbers.
        original: whether the images are as acquired, not derived from others.
        enhanced: whether a contrast agent is stated.
        echo_ms, inversion_ms: times of the sequence; None where they are missing.
        patient: a digest that is the same for all series of one person; it reveals no name.
        acquired: sorts the visits of one person by time.
        split: whether every image states a series of its own.
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
    split: bool = False

    @property
    def title(self) -> str:
        """The series for a person: number and description."""
        return f"{self.number} {printable(repr(self.description))}"


def find_series(folder: str | Path) -> list[Series]:
    """Every image series in a folder and the folders in it, by series number.

    Files that are no DICOM images are passed over, and so are DICOM segmentations, such as those
    of an earlier call. Single images that state a series of their own
    each, and agree in all else, are one series. Links to folders are followed.

    Raises:
        InputError: If a DICOM file is damaged, there is none, or the extra is not installed.

    Example:
        >>> import shutil
        >>> from pydicom.data import get_testdata_file
        >>> _ = shutil.copy(get_testdata_file("MR_small.dcm"), "1.dcm")
        >>> [(series.modality, len(series.files)) for series in find_series(".")]
        [('MR', 1)]
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    grouped: dict[str, list[tuple[Path, ImageHeader]]] = {}
    others: list[Path] = []
    for path in _files(folder):
        header = image_header(path)
        if header is None:
            others.append(path)
        elif header.modality != "SEG":
            grouped.setdefault(header.series, []).append((path, header))
    if not grouped:
        raise InputError(f"{folder}: no DICOM images in it")
    _refuse_torn(others, [path for images in grouped.values() for path, _ in images])
    found = [_series(uid, images) for uid, images in _rejoined(grouped).items()]
    return sorted(found, key=lambda series: (series.number, series.uid))


def _refuse_torn(others: Sequence[Path], images: Sequence[Path]) -> None:
    """Raise for a file that is named like the images beside it and is none."""
    alike = {(path.parent, re.sub(r"[0-9]+", "0", path.name)) for path in images}
    for path in others:
        if (path.parent, re.sub(r"[0-9]+", "0", path.name)) in alike and not _is_dicom(path):
            raise InputError(f"{path}: truncated or damaged DICOM file")


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _rejoined(
    grouped: dict[str, list[tuple[Path, ImageHeader]]],
) -> dict[str, list[tuple[Path, ImageHeader]]]:
    """By series, with single images put together that differ in nothing but place and series."""
    alike: dict[Any, list[str]] = {}
    for uid, images in grouped.items():
        header = images[0][1]
        if len(images) == 1 and header.frames == 1 and header.position_mm:
            blank = replace(header, series="", instance=0, position_mm=(), acquired="")
            orientation = tuple(round(value, 3) for value in header.orientation)
            key = tuple(vars(replace(blank, orientation=orientation)).items())
            alike.setdefault(key, []).append(uid)
    joined = dict(grouped)
    for uids in alike.values():
        if len(uids) > 2:
            first = min(uids, key=lambda uid: grouped[uid][0][1].instance)
            joined[first] = [grouped[uid][0] for uid in uids]
            for uid in uids:
                if uid != first:
                    del joined[uid]
    return joined


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

    Example:
        >>> from functools import partial
        >>> series = partial(Series, modality="MR", files=(Path("1.dcm"),), original=True,
        ...     enhanced=False, echo_ms=None, inversion_ms=None, patient="", acquired="")
        >>> found = [series("1.2", "t1 mprage", 1), series("1.3", "t2 dark-fluid", 2)]
        >>> choose_series(found).description
        't2 dark-fluid'
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

    Example:
        >>> from functools import partial
        >>> series = partial(Series, "1.2", "FLAIR", 1, "MR", original=True, enhanced=False,
        ...     echo_ms=None, inversion_ms=None, acquired="")
        >>> one = series(files=(Path("M00/1.dcm"),), patient="a")
        >>> other = series(files=(Path("M12/1.dcm"),), patient="b")
        >>> check_same_person([one, other])
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: M12: its headers name another patient than M00
    """
    for series in found[1:]:
        if series.patient != found[0].patient:
            here, there = common_folder([series]), common_folder(found[:1])
            raise InputError(f"{here}: its headers name another patient than {there}")


def module(name: str) -> Any:
    """An optional package, or an error that says how to get it.

    Example:
        >>> module("math").sqrt(4)
        2.0
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{name}: not installed, but DICOM needs it (pip install 'lesionwise[dicom]')"
        ) from error


def _files(folder: Path) -> Iterator[Path]:
    for path in files_below(folder):
        if path.name.upper() != "DICOMDIR" and path.is_file():
            yield path


def image_header(path: Path) -> ImageHeader | None:
    """The header of a DICOM image; None for a file that is none.

    Raises:
        InputError: If the file is truncated or damaged, or a number in it is none.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> header = image_header(Path(get_testdata_file("MR_small.dcm")))
        >>> header.modality, header.rows, header.columns
        ('MR', 64, 64)
        >>> _ = Path("notes.txt").write_text("no image")
        >>> image_header(Path("notes.txt")) is None
        True
    """
    pydicom = module("pydicom")
    with reading(path):
        size = path.stat().st_size
        opened = path.open("rb")
    with opened as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are checked here
        try:
            marked = file.read(132)[128:] == b"DICM"
            file.seek(0)
            if marked and _is_deflated(pydicom, path):
                raise InputError(
                    f"{path}: its transfer syntax (deflated) cannot be read; save it uncompressed"
                )
            read = pydicom.dcmread(
                file, stop_before_pixels=True, force=True, specific_tags=list(_TAGS)
            )
            found = {tag: _value(read, tag) for tag in _TAGS}
            end = file.tell()
            meta = getattr(read, "file_meta", None)
            kinds = [found["SOPClassUID"], _value(meta, "MediaStorageSOPClassUID")]
            names = [str(pydicom.uid.UID(str(kind)).name) for kind in kinds if kind]
            syntax = _value(meta, "TransferSyntaxUID")
            compressed = syntax is not None and bool(syntax.is_compressed)
            tag_bytes = 8 if syntax is None or syntax.is_implicit_VR else 12
            whole = not compressed or _ends(file, end, size)
            is_image = not names or any("Image Storage" in name for name in names)
        except InputError:
            raise
        except Exception as error:
            if marked:
                raise InputError(f"{path}: damaged DICOM file ({type(error).__name__})") from error
            return None
    if any(found[tag] in (None, "") for tag in ("SeriesInstanceUID", "Rows", "Columns")):
        if marked and is_image:
            raise InputError(f"{path}: truncated DICOM file")
        return None
    header = _checked(path, found)
    pixels = header.rows * header.columns * header.frames * header.samples
    needed = pixels * _count(path, found, "BitsAllocated", 16) // 8
    if not whole or (not compressed and size - end < tag_bytes + needed):
        raise InputError(f"{path}: truncated DICOM file")
    return header


def _ends(file: BinaryIO, start: int, size: int) -> bool:
    """Whether compressed pixels that begin at ``start`` come to their end within the file.

    They are items, each with its length, and a mark behind the last one (DICOM PS3.5 A.4).
    """
    file.seek(start)
    if file.read(4) != b"\xe0\x7f\x10\x00":
        return False
    place = start + 12
    while place + 8 <= size:
        file.seek(place)
        mark, length = file.read(4), int.from_bytes(file.read(4), "little")
        if mark != b"\xfe\xff\x00\xe0":
            return mark == b"\xfe\xff\xdd\xe0"
        place += 8 + length
    return False


def _is_deflated(pydicom: Any, path: Path) -> bool:
    """Asked before anything is unpacked, which may be far more than the file holds."""
    meta = pydicom.filereader.read_file_meta_info(path)
    return str(_value(meta, "TransferSyntaxUID")) == "1.2.840.10008.1.2.1.99"


def _value(header: Any, tag: str) -> Any:
    """A value as pydicom gives it, its text where that is no value of its kind; None if missing."""
    try:
        return None if header is None else header.get(tag)
    except Exception:  # pydicom raises a dozen kinds
        return _UNREADABLE


_UNREADABLE = "unreadable"


def _checked(path: Path, found: dict[str, Any]) -> ImageHeader:
    def numbers(tag: str, count: int) -> tuple[float, ...]:
        value = found[tag]
        if value is None or value == "":
            return ()
        try:
            stated = tuple(float(item) for item in _listed(value))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: {tag} in its header is not {count} numbers") from error
        if len(stated) != count or not all(map(math.isfinite, stated)):
            raise InputError(f"{path}: {tag} in its header is not {count} numbers")
        return stated

    orientation = numbers("ImageOrientationPatient", 6)
    if orientation and not _are_directions(orientation[:3], orientation[3:]):
        raise InputError(f"{path}: ImageOrientationPatient in its header is not two directions")
    spacing_mm = numbers("PixelSpacing", 2)
    if spacing_mm and min(spacing_mm) <= 0:
        raise InputError(f"{path}: PixelSpacing in its header must be above 0")
    date = found["AcquisitionDate"] or found["StudyDate"] or ""
    time = found["AcquisitionTime"] or found["StudyTime"] or ""
    return ImageHeader(
        series=str(found["SeriesInstanceUID"]),
        study=str(found["StudyInstanceUID"] or ""),
        number=_whole(found["SeriesNumber"]),
        instance=_whole(found["InstanceNumber"]),
        description=str(found["SeriesDescription"] or found["ProtocolName"] or ""),
        modality=str(found["Modality"] or ""),
        rows=_count(path, found, "Rows"),
        columns=_count(path, found, "Columns"),
        frames=_count(path, found, "NumberOfFrames"),
        samples=_count(path, found, "SamplesPerPixel"),
        orientation=orientation,
        position_mm=numbers("ImagePositionPatient", 3),
        spacing_mm=spacing_mm,
        echo_ms=_one_number(found["EchoTime"]),
        inversion_ms=_one_number(found["InversionTime"]),
        derived="DERIVED" in [str(word) for word in _listed(found["ImageType"])],
        enhanced=bool(found["ContrastBolusAgent"]),
        patient=(
            str(found["PatientID"] or "").strip(),
            _same_name(str(found["PatientName"] or "")),
            str(found["PatientBirthDate"] or "").strip(),
        ),
        acquired=f"{date}T{time}",
    )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _same_name(name: str) -> str:
    """A person's name without what means nothing in DICOM: case, and empty parts at the end."""
    groups = [
        "^".join(part.strip() for part in group.split("^")).rstrip("^") for group in name.split("=")
    ]
    return "=".join(groups).rstrip("=").casefold()


def _count(path: Path, found: dict[str, Any], tag: str, default: int = 1) -> int:
    value = found[tag]
    if value is None or value == "":
        return default
    count = _whole(value)
    if count < 1:
        raise InputError(f"{path}: {tag} in its header is not a count")
    return count


def _whole(value: Any) -> int:
    """A whole number from 0 to 2147483647; 0 where it is none."""
    number = _one_number(value)
    if number is None or not 0 <= number <= _LARGEST or number != int(number):
        return 0
    return int(number)


def _one_number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _are_directions(one: Sequence[float], other: Sequence[float]) -> bool:
    lengths = [math.fsum(value * value for value in each) for each in (one, other)]
    across = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return all(abs(length - 1) < 0.02 for length in lengths) and abs(across) < 0.02


def _series(uid: str, images: list[tuple[Path, ImageHeader]]) -> Series:
    images = sorted(images, key=lambda pair: pair[1].instance)
    first = images[0][1]
    place = common_folder([path for path, _ in images])
    if len({header.patient[:2] for _, header in images}) > 1:
        raise InputError(f"{place}: one series holds images of different patients")
    return Series(
        uid=uid,
        description=first.description,
        number=first.number,
        modality=first.modality,
        files=tuple(path for path, _ in images),
        original=not first.derived,
        enhanced=first.enhanced,
        echo_ms=first.echo_ms,
        inversion_ms=first.inversion_ms,
        patient=hashlib.sha256("|".join(first.patient).encode("utf-8", "replace")).hexdigest(),
        acquired=first.acquired,
        split=len({header.series for _, header in images}) > 1,
    )


def common_folder(things: Sequence[Series] | Sequence[Path]) -> str:
    """The folder that holds all of the files, for errors.

    Example:
        >>> common_folder([Path("study/flair/1.dcm"), Path("study/t1/1.dcm")])
        'study'
    """
    files = [f for thing in things for f in (thing.files if isinstance(thing, Series) else [thing])]
    return os.path.commonpath([str(path.parent) for path in files])


def _looks_like_flair(series: Series) -> bool:
    if re.search(r"flair|dark.?fluid|tirm", series.description, re.IGNORECASE):
        return True
    if series.inversion_ms is None or series.echo_ms is None:
        return False
    return 1500 <= series.inversion_ms <= 3200 and series.echo_ms >= 60
