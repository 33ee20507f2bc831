"""The scans that a user names on the command line, each with a subject and session of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lesionwise.io.files import read_json
from lesionwise.io.names import BidsFile, Entities, label_text, natural, parse_name, walk
from lesionwise.io.nifti import is_nifti_name
from lesionwise.types import InputError

_RESULTS = ("mask", "probseg", "dseg")


@dataclass(frozen=True)
class FoundScan:
    """One scan to work on.

    Attributes:
        path: a NIfTI file, or a folder of DICOM files.
        entities: what its results are named after; unique in one call.
        kind: nifti or dicom.
    """

    path: Path
    entities: Entities
    kind: str = "nifti"

    @property
    def subject(self) -> str:
        return self.entities.sub

    @property
    def session(self) -> str:
        return self.entities.ses


def find_scans(paths: Iterable[str | Path], suffix: str = "FLAIR") -> list[FoundScan]:
    """Every scan in the given files and folders, in the order given, each file once.

    - A file is taken as it is, whatever it is called and even if it is missing, so that in a
      batch reading it fails by itself and the others go on.
    - In a BIDS data set the scans with the suffix are taken, results of other tools are not; of the
      folder of one of its subjects, that subject's.
    - In an nnU-Net raw data set the test cases are taken (``imagesTs``, or else ``imagesTr``),
      and in one of its folders of images every case: the channel called after the suffix in
      ``dataset.json``, or else the first.
    - In any other folder every NIfTI file is taken, except those named as masks and label maps;
      where some are named in BIDS style with the suffix, only those.
    - A folder without NIfTI files that holds DICOM files, at any depth, is one scan; which of
      its series is decided when it is read.

    Files named in BIDS style keep their entities. Others get their name, reduced to letters and
    digits, as the subject, and ``x2``, ``x3`` … behind it where two would be named alike.

    Raises:
        InputError: If a folder holds no scan, or if no path was given.
    """
    found: list[FoundScan] = []
    for path in map(Path, paths):
        found += _in_folder(path, suffix) if path.is_dir() else [FoundScan(path, _named(path))]
    if not found:
        raise InputError("no scan was named")
    return _told_apart(found)


def subject_scans(dataset: Path, subject: str, suffix: str = "FLAIR") -> list[FoundScan]:
    """The scans of one subject of a BIDS data set as ``find_scans`` takes them, maybe none.

    Only the subject's folder is read. Two scans may differ in nothing but their extension.

    Raises:
        InputError: If a file's name and its folder name different subjects or sessions.
    """
    scans = [file for file in walk(dataset, subject=subject) if file.entities.suffix == suffix]
    return [FoundScan(file.path, file.entities) for file in _raw_first(scans)]


def _in_folder(folder: Path, suffix: str) -> list[FoundScan]:
    if any(p.is_dir() and p.name.startswith("sub-") for p in folder.iterdir()):
        scans = [file for file in walk(folder) if file.entities.suffix == suffix]
        if not scans:
            raise InputError(f"{folder}: a BIDS data set without any {suffix} scan")
        return [FoundScan(file.path, file.entities) for file in _raw_first(scans)]
    whole = folder.resolve()
    if whole.name.startswith("sub-") and any(
        p.is_dir() and (p.name == "anat" or p.name.startswith("ses-")) for p in whole.iterdir()
    ):
        root = folder.parent if folder.name == whole.name else whole.parent
        own = subject_scans(root, whole.name.removeprefix("sub-"), suffix)
        if not own:
            raise InputError(f"{folder}: a BIDS subject without any {suffix} scan")
        return own
    cases = _nnunet_cases(folder, suffix)
    if cases:
        return cases
    names = sorted((p.name for p in folder.iterdir() if not p.name.startswith(".")), key=natural)
    nifti = [folder / name for name in names if is_nifti_name(name)]
    nifti = [path for path in nifti if not _stem(path).endswith(_RESULTS)]
    entities = {path: parse_name(path) for path in nifti}
    chosen = [path for path, e in entities.items() if e is not None and e.suffix == suffix]
    if nifti:
        return [FoundScan(path, _named(path)) for path in chosen or nifti]
    if _holds_dicom(folder):
        return [FoundScan(folder, Entities(sub=label_text(folder.resolve().name)), "dicom")]
    raise InputError(f"{folder}: holds no NIfTI file, no DICOM series and no BIDS data set")


def _nnunet_cases(folder: Path, suffix: str) -> list[FoundScan]:
    """The wanted channel of each case of an nnU-Net raw data set; none where it is no such."""
    if (folder / "dataset.json").is_file():
        root = folder
        parts = [p for p in (folder / "imagesTs", folder / "imagesTr") if p.is_dir()]
        folder = next((p for p in parts if any(p.glob("*.nii*"))), folder)
    elif folder.name in ("imagesTr", "imagesTs"):
        root = folder.parent
    else:
        return []
    number = 0
    if (root / "dataset.json").is_file():
        about = read_json(root / "dataset.json")
        channels = about.get("channel_names") if isinstance(about, dict) else None
        wanted = label_text(suffix).lower()
        for key, name in (channels if isinstance(channels, dict) else {}).items():
            if str(key).isdigit() and label_text(str(name)).lower() == wanted:
                number = int(key)
    found = []
    for path in sorted(folder.iterdir(), key=lambda p: natural(p.name)):
        if is_nifti_name(path) and not path.name.startswith("."):
            stem = _stem(path)
            if stem.endswith(f"_{number:04d}"):
                subject = label_text(stem[: -len("_0000")])
                found.append(FoundScan(path, Entities(sub=subject, extension=".nii.gz")))
    return found


def _raw_first(scans: list[BidsFile]) -> list[BidsFile]:
    """Without copies in another space where the same scan is there as acquired."""
    acquired = {replace(file.entities, extension="") for file in scans if not file.entities.space}
    return [
        file
        for file in scans
        if not file.entities.space or replace(file.entities, space="", extension="") not in acquired
    ]


def _holds_dicom(folder: Path) -> bool:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if not path.is_file():
                continue  # a pipe would be waited for, a link may lead nowhere
            try:
                with path.open("rb") as file:
                    if file.read(132)[128:] == b"DICM":
                        return True
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return False


def _stem(path: Path) -> str:
    name = path.name
    for extension in (".nii.gz", ".nii", ".gz"):
        if name.lower().endswith(extension):
            return name[: -len(extension)]
    return path.stem


def _named(path: Path) -> Entities:
    return parse_name(path) or Entities(sub=label_text(_stem(path)), extension=".nii.gz")


def _told_apart(scans: list[FoundScan]) -> list[FoundScan]:
    unique: dict[str, FoundScan] = {}
    for scan in scans:
        unique.setdefault(os.path.realpath(scan.path), scan)  # a loop of links has a name too
    taken: set[tuple[tuple[str, str], ...]] = set()
    result = []
    for scan in unique.values():
        entities, number = scan.entities, 1
        while tuple(entities.pairs().items()) in taken:
            number += 1
            entities = replace(entities, sub=f"{scan.entities.sub}x{number}")
        taken.add(tuple(entities.pairs().items()))
        result.append(replace(scan, entities=entities))
    return result
