"""The scans that a user names on the command line, each with a subject and session of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lesionwise.io.checked import reading
from lesionwise.io.files import read_json
from lesionwise.io.labels import (
    distinguishing_labels,
    label_text,
    letters,
    stem,
    unique_labels,
    words_of,
)
from lesionwise.io.names import Entities, natural, parse_name
from lesionwise.io.nifti import is_nifti_name
from lesionwise.io.tree import BidsFile, adopted, files_below, files_matching, survey, walk
from lesionwise.types import EMPTY, InputError

_RESULTS = ("mask", "probseg", "dseg")
_OF_LESIONS = frozenset(
    {
        "annotation", "consensus", "dseg", "groundtruth", "gt", "label", "labels", "lesion",
        "lesions", "manual", "mask", "masks", "prob", "probseg", "roi", "seg", "segmentation",
        "wmh",
    }
)  # fmt: skip
_SAYS_FLAIR = re.compile(r"flair|tirm|dark.?fluid", re.IGNORECASE)
_OTHER_CONTRASTS = frozenset(
    {
        "adc", "angio", "asl", "bold", "dti", "dwi", "epi", "fieldmap", "fmap", "gre", "mp2rage",
        "mprage", "mtr", "pd", "pdw", "phase", "qsm", "stir", "swi", "t1", "t1ce", "t1gd", "t1w",
        "t2", "t2star", "t2w", "tof",
    }
)  # fmt: skip
_MAY_BE_FLAIR = frozenset({"t2", "t2w"})
_OF_RESULTS = "a data set of results"


@dataclass(frozen=True)
class FoundScan:
    """One scan to work on.

    Attributes:
        path: a NIfTI file, or a folder of DICOM files.
        entities: what its results are named after; unique in one call.
        kind: nifti or dicom.
        error: why it cannot be worked on, one line; empty where it can.
    """

    path: Path
    entities: Entities
    kind: str = "nifti"
    error: str = ""

    @property
    def subject(self) -> str:
        return self.entities.sub

    @property
    def session(self) -> str:
        return self.entities.ses


@dataclass(frozen=True)
class ScanSelection:
    """What was found in the files and folders that a user named.

    Attributes:
        scans: to be worked on, in the order given, among them those that cannot be read.
        left_out: files that are no such scan (other contrasts, copies in another space, subjects
            without one), and why, one phrase each.
    """

    scans: tuple[FoundScan, ...]
    left_out: Mapping[str, str] = field(default_factory=lambda: EMPTY)

    def lines(self, most: int = 20) -> list[str]:
        """What a terminal shows: the count of scans, and what was left out with its reason."""
        good = sum(not scan.error for scan in self.scans)
        counted = f"{good} scan" + ("" if good == 1 else "s")
        unreadable = len(self.scans) - good
        also = [f"{unreadable} with errors"] if unreadable else []
        also += [f"{len(self.left_out)} left out"] if self.left_out else []
        shown = [f"left out: {path}: {why}" for path, why in list(self.left_out.items())[:most]]
        if len(self.left_out) > most:
            shown.append(f"… and {len(self.left_out) - most} more left out")
        return ["found: " + ", ".join([counted, *also]), *shown]


def left_out_rows(left_out: Mapping[str, str]) -> dict[str, str]:
    """What was left out, as ``failures.tsv`` has it.

    Example:
        >>> left_out_rows({"a/T1.nii.gz": "its name says t1, not FLAIR"})
        {'a/T1.nii.gz': 'left out: its name says t1, not FLAIR'}
    """
    return {path: f"left out: {why}" for path, why in left_out.items()}


def find_scans(
    paths: Iterable[str | Path], suffix: str = "FLAIR", pattern: str = ""
) -> list[FoundScan]:
    """The scans of ``select_scans``, without what was left out.

    Raises:
        InputError: As for ``select_scans``.

    Example:
        >>> Path("data").mkdir()
        >>> Path("data/flair.nii.gz").touch()
        >>> [scan.path.name for scan in find_scans(["data"])]
        ['flair.nii.gz']
    """
    return list(select_scans(paths, suffix, pattern).scans)


def select_scans(
    paths: Iterable[str | Path], suffix: str = "FLAIR", pattern: str = ""
) -> ScanSelection:
    """Every scan in the given files and folders, in the order given, each file once.

    - A file is taken as it is, whatever it is called and even if it is missing, so that in a
      batch reading it fails by itself and the others continue.
    - With a pattern, every file below a folder that fits it is taken, and none of what follows
      holds.
    - In a BIDS data set the scans with the suffix are taken, results of other tools are not; of the
      folder of one of its subjects, that subject's. A scan whose name does not fit its folder has
      an error. Labels with signs that BIDS does not allow are read where file and folder agree.
    - In an nnU-Net raw data set the test cases are taken (``imagesTs``, or else ``imagesTr``),
      and in one of its folders of images every case: the channel called after the suffix in
      ``dataset.json``, or else the first.
    - In any other folder and the folders in it the NIfTI files are taken, except those named as
      masks and label maps. Where some in one folder are named in BIDS style with the suffix, only
      those are; where some say in their names that they are FLAIR, only those; elsewhere those
      that do not say that they are something else. Data sets of derivatives are left out.
    - A folder without NIfTI files that holds DICOM files, at any depth, is one scan; which of
      its series is decided when it is read. Data sets of derivatives in it do not count.

    Links to files and folders are followed. A file that is reached by two ways, save by links to
    the file itself, is taken once. Files named in BIDS style keep their entities; others get a
    subject by ``unique_labels``. Where two would still be named alike, what tells their folders
    apart stands behind the subject of both.

    Raises:
        InputError: If a folder holds no scan, or if no path was given.

    Example:
        >>> Path("data").mkdir()
        >>> Path("data/t1.nii.gz").touch()
        >>> Path("data/flair.nii.gz").touch()
        >>> print("; ".join(select_scans(["data"]).lines()))
        found: 1 scan, 1 left out; left out: data/t1.nii.gz: its name says t1, not FLAIR
    """
    scans: list[FoundScan] = []
    left_out: dict[str, str] = {}
    for path in map(Path, paths):
        with reading(path):
            is_folder = path.is_dir()
        if is_folder:
            found = _matching(path, pattern) if pattern else _in_folder(path, suffix)
            scans += found.scans
            left_out |= found.left_out
        else:
            scans.append(FoundScan(path, _named(path)))
    if not scans:
        raise InputError("no scan was given")
    return ScanSelection(tuple(_with_unique_entities(scans)), left_out)


def subject_scans(dataset: Path, subject: str, suffix: str = "FLAIR") -> list[FoundScan]:
    """The scans of one subject of a BIDS data set as ``find_scans`` takes them, maybe none.

    Only the subject's folder is read. Two scans may differ in nothing but their extension.

    Raises:
        InputError: If a file's name and its folder name different subjects or sessions, or if the
            subject's label holds signs that BIDS does not allow.

    Example:
        >>> folder = Path("data/sub-01/anat")
        >>> folder.mkdir(parents=True)
        >>> for name in ("sub-01_FLAIR.nii.gz", "sub-01_T1w.nii.gz"):
        ...     (folder / name).touch()
        ...
        >>> [scan.path.name for scan in subject_scans(Path("data"), "01")]
        ['sub-01_FLAIR.nii.gz']
    """
    scans = [file for file in walk(dataset, subject=subject) if file.entities.suffix == suffix]
    if not scans and letters(subject) != subject.replace("+", ""):
        raise InputError(
            f"{dataset / f'sub-{subject}'}: a BIDS label has only letters and digits; rename it"
        )
    return [FoundScan(file.path, file.entities) for file in _raw_first(scans)]


def _in_folder(folder: Path, suffix: str) -> ScanSelection:
    with reading(folder):
        inside = [(p.name, p.is_dir()) for p in folder.iterdir()]
    if any(is_folder and name.startswith("sub-") for name, is_folder in inside):
        return _in_dataset(folder, suffix, f"{folder}: a BIDS data set without any {suffix} scan")
    whole = folder.resolve()
    if whole.name.startswith("sub-") and any(
        is_folder and (name == "anat" or name.startswith("ses-")) for name, is_folder in inside
    ):
        root = folder.parent if folder.name == whole.name else whole.parent
        return _in_dataset(
            root,
            suffix,
            f"{folder}: a BIDS subject without any {suffix} scan",
            whole.name.removeprefix("sub-"),
        )
    cases = _nnunet_cases(folder, suffix)
    if cases:
        return ScanSelection(tuple(cases))
    found = _in_tree(folder, suffix)
    if found.scans:
        return found
    results = {path for path, why in found.left_out.items() if why == _OF_RESULTS}
    if len(results) == len(found.left_out) and _holds_dicom(folder, results):
        return ScanSelection((FoundScan(folder, Entities(), "dicom"),), found.left_out)
    if found.left_out:
        first, why = next(iter(found.left_out.items()))
        raise InputError(f"{folder}: holds no {suffix} scan ({first}: {why})")
    raise InputError(f"{folder}: holds no NIfTI file, no DICOM series and no BIDS data set")


def _in_dataset(root: Path, suffix: str, error: str, subject: str = "") -> ScanSelection:
    files, misfits = survey(root, subject=subject)
    scans = [file for file in files if file.entities.suffix == suffix]
    left_out: dict[str, str] = {}
    errors = []
    for misfit in misfits:
        file = adopted(misfit)
        if file is not None and file.entities.suffix == suffix:
            scans.append(file)
        elif file is None and suffix.lower() in stem(misfit.path).lower():
            if not stem(misfit.path).lower().endswith(_RESULTS):
                entities = Entities(sub=unique_labels([misfit.path])[0], extension=".nii.gz")
                errors.append(FoundScan(misfit.path, entities, error=misfit.reason))
        elif file is None:
            left_out[str(misfit.path)] = misfit.reason.removeprefix(f"{misfit.path}: ")
    if not scans and not errors:
        raise InputError(error)
    kept = _raw_first(scans)
    for file in scans:
        if file not in kept:
            left_out[str(file.path)] = "the same scan in another space"
    having = {file.path.relative_to(root).parts[0] for file in scans}
    having |= {scan.path.relative_to(root).parts[0] for scan in errors}
    for name in [f"sub-{subject}"] if subject else sorted(p.name for p in root.iterdir()):
        if name.startswith("sub-") and name not in having and (root / name).is_dir():
            left_out[str(root / name)] = f"no {suffix} scan in it"
    good = [FoundScan(file.path, file.entities) for file in kept]
    ordered = sorted([*good, *errors], key=lambda scan: natural(str(scan.path.relative_to(root))))
    return ScanSelection(tuple(ordered), left_out)


def _matching(folder: Path, pattern: str) -> ScanSelection:
    found = [path for path in files_matching(folder, pattern) if is_nifti_name(path)]
    if not found:
        raise InputError(f"{folder}: no NIfTI file in it matches {pattern}")
    return ScanSelection(tuple(FoundScan(path, _named(path)) for path in found))


def _in_tree(folder: Path, suffix: str) -> ScanSelection:
    """What is taken of a folder that is no data set, and of the folders in it."""
    by_folder: dict[Path, list[Path]] = {}
    for path in files_below(folder):
        if is_nifti_name(path) and not stem(path).lower().endswith(_RESULTS):
            by_folder.setdefault(path.parent, []).append(path)
    scans: list[FoundScan] = []
    left_out: dict[str, str] = {}
    derived: dict[Path, bool] = {}
    for place, files in by_folder.items():
        above = [place, *[p for p in place.parents if p.is_relative_to(folder)]]
        made = next((p for p in above if derived.setdefault(p, _is_derivative(p))), None)
        if made is not None and made != folder:
            left_out[str(made)] = _OF_RESULTS
            continue
        named = {path: parse_name(path) for path in files}
        wanted = [path for path, e in named.items() if e is not None and e.suffix == suffix]
        wanted = wanted or [path for path in files if suffix == "FLAIR" and _says_flair(path)]
        for path in files:
            words = words_of(stem(path)) & (_OTHER_CONTRASTS | _OF_LESIONS)
            if path in wanted or not (wanted or words):
                scans.append(FoundScan(path, _named(path)))
            elif words:
                left_out[str(path)] = f"its name says {min(words)}, not {suffix}"
            else:
                left_out[str(path)] = f"{wanted[0].name} beside it is the {suffix}"
    return ScanSelection(tuple(scans), left_out)


def _says_flair(path: Path) -> bool:
    others = (_OTHER_CONTRASTS - _MAY_BE_FLAIR) | _OF_LESIONS
    return _SAYS_FLAIR.search(stem(path)) is not None and not words_of(stem(path)) & others


def _is_derivative(folder: Path) -> bool:
    path = folder / "dataset_description.json"
    if not path.is_file():
        return False
    try:
        about = read_json(path)
    except InputError:
        return False  # unreadable, so unknown
    return isinstance(about, dict) and about.get("DatasetType") == "derivative"


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
        for key, name in (channels if isinstance(channels, dict) else {}).items():
            if re.fullmatch("[0-9]{1,4}", key) and letters(str(name)).lower() == suffix.lower():
                number = int(key)
    found = []
    for path in sorted(folder.iterdir(), key=lambda p: natural(p.name)):
        if is_nifti_name(path) and not path.name.startswith("."):
            case = stem(path)
            if case.endswith(f"_{number:04d}"):
                subject = label_text(case[: -len("_0000")])
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


def _holds_dicom(folder: Path, besides: Set[str]) -> bool:
    """Whether a DICOM file lies below a folder, but not in these folders."""
    for path in files_below(folder):
        if not path.is_file() or not besides.isdisjoint(map(str, path.parents)):
            continue  # a pipe would be waited for, a link may lead nowhere
        with reading(path), path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":
                return True
    return False


def _named(path: Path) -> Entities:
    """As the name states them, or none."""
    return parse_name(path) or Entities()


def _with_unique_entities(scans: Sequence[FoundScan]) -> list[FoundScan]:
    """Each scan once, with entities that are its own."""
    unique: dict[str, FoundScan] = {}
    for scan in scans:
        place = os.path.join(os.path.realpath(scan.path.parent), scan.path.name)
        unique.setdefault(place, scan)
    plain = [scan.path for scan in unique.values() if not scan.entities.sub]
    labels = dict(zip(plain, unique_labels(plain), strict=True))
    named = [
        scan
        if scan.entities.sub
        else replace(scan, entities=Entities(sub=labels[scan.path], extension=".nii.gz"))
        for scan in unique.values()
    ]
    alike: dict[Any, list[FoundScan]] = {}
    for scan in named:
        alike.setdefault(tuple(scan.entities.pairs().items()), []).append(scan)
    subjects = {}
    for group in alike.values():
        if len(group) > 1:
            distinctions = distinguishing_labels(
                [Path(os.path.abspath(scan.path)) for scan in group]
            )
            for scan, label in zip(group, distinctions, strict=True):
                subjects[scan.path] = f"{scan.subject}+{label}"
    return [
        replace(scan, entities=replace(scan.entities, sub=subjects[scan.path]))
        if scan.path in subjects
        else scan
        for scan in named
    ]
