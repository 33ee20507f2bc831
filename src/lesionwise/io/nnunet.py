"""nnU-Net raw data sets as studies, and studies as an nnU-Net raw data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from lesionwise.io.files import read_json, write_json
from lesionwise.io.names import label_text, natural
from lesionwise.io.nifti import read_labels, read_volume, write_volume
from lesionwise.io.space import on_grid
from lesionwise.types import InputError, Study, Visit, Volume

CHANNEL_NAMES = {"flair": "FLAIR", "t1w": "T1w", "t2w": "T2w", "pd": "PD", "t1ce": "T1ce"}
"""The name of each scan in ``dataset.json``."""

_READ_AS = {
    "flair": "flair", "t2flair": "flair", "t1": "t1w", "t1w": "t1w", "mprage": "t1w",
    "t2": "t2w", "t2w": "t2w", "pd": "pd", "pdw": "pd", "t1ce": "t1ce", "t1gd": "t1ce",
    "t1c": "t1ce",
}  # fmt: skip


@dataclass(frozen=True)
class _Case:
    name: str
    subject: str
    channels: tuple[Path, ...]
    labels: Path | None


class NnunetStudies(Sequence[Study]):
    """The cases of an nnU-Net raw data set, each read from its files when it is asked for.

    Attributes:
        root: the data set's folder.
        scans: the name of each channel, in order.
        cases: the names as they stand in the files, in order.
    """

    def __init__(
        self, root: Path, scans: tuple[str, ...], cases: Sequence[_Case], lesions: tuple[int, ...]
    ) -> None:
        self.root = root
        self.scans = scans
        self.cases = tuple(case.name for case in cases)
        self._cases = tuple(cases)
        self._lesions = lesions

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(case.subject for case in self._cases)

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> NnunetStudies: ...
    def __getitem__(self, index: int | slice) -> Study | NnunetStudies:
        if isinstance(index, slice):
            return NnunetStudies(self.root, self.scans, self._cases[index], self._lesions)
        case = self._cases[index]
        first = read_volume(case.channels[0])
        scans = {self.scans[0]: first}
        for name, path in zip(self.scans[1:], case.channels[1:], strict=True):
            scans[name] = on_grid(read_volume(path), first.grid, name=str(path))
        labels = {}
        if case.labels is not None:
            read = on_grid(read_labels(case.labels), first.grid, name=str(case.labels))
            labels["lesions"] = Volume(np.isin(read.array, self._lesions), first.grid)
        return Study(case.subject, (Visit(scans, labels),))


def read_nnunet(
    root: str | Path,
    part: Literal["Tr", "Ts"] = "Tr",
    scans: Sequence[str] | None = None,
    lesion_labels: Sequence[str] | None = None,
) -> NnunetStudies:
    """The cases of an nnU-Net raw data set (``dataset.json``, ``imagesTr``, ``labelsTr``).

    Every case becomes a study of one visit, in the order of names, with ``labels["lesions"]``
    where a label file exists. Channels are put on the grid of the first, never interpolated.

    Args:
        root: the folder that holds ``dataset.json``.
        part: training or test cases; test cases need no labels.
        scans: a name for each channel in order; None takes them from ``dataset.json``.
        lesion_labels: the labels that are lesions, as ``dataset.json`` calls them. None takes
            those whose name holds ``lesion``, or else the only one besides the background.

    Raises:
        InputError: If ``dataset.json`` is missing or lacks a part, a channel or a label file is
            missing, names collide, or it cannot be told which label is the lesion. Faults of an
            image appear when its study is read.
    """
    root = Path(root)
    description = _description(root)
    names = _channel_names(root, description, scans)
    lesions = _lesion_values(root, description, lesion_labels)
    ending = description["file_ending"]
    if ending not in (".nii.gz", ".nii"):
        raise InputError(f"{root / 'dataset.json'}: files of type {ending!r} are not read")
    cases = []
    for name in _case_names(root / f"images{part}", ending):
        channels = tuple(
            root / f"images{part}" / f"{name}_{number:04d}{ending}" for number in range(len(names))
        )
        labels = root / f"labels{part}" / f"{name}{ending}"
        for path in channels if part == "Ts" else (*channels, labels):
            if not path.is_file():
                raise InputError(f"{path}: no such file, but the case {name} needs it")
        subject = label_text(name)
        cases.append(_Case(name, subject, channels, labels if labels.is_file() else None))
    if not cases:
        raise InputError(f"{root / f'images{part}'}: no case named …_0000{ending}")
    if len({case.subject for case in cases}) < len(cases):
        raise InputError(f"{root}: two cases have the same name but for punctuation")
    return NnunetStudies(root, names, cases, lesions)


def write_nnunet(
    studies: Iterable[Study],
    folder: str | Path,
    scans: Sequence[str] = ("flair",),
    *,
    part: Literal["Tr", "Ts"] = "Tr",
    file_ending: Literal[".nii.gz", ".nii"] = ".nii.gz",
    told: Callable[[str], None] = lambda case: None,
) -> tuple[str, ...]:
    """Write every visit as one case of an nnU-Net raw data set; ``dataset.json`` comes last.

    A case is called after its subject and session (``01_M12``). Lesions go to ``labelsTr`` as 0
    and 1. Instance maps, whose many labels nnU-Net's check of integrity refuses, go to a folder
    ``instancesTr`` beside it, which nnU-Net ignores.

    Args:
        folder: such as ``nnUNet_raw/Dataset001_Lesions``.
        scans: channels in order; they must lie on one grid, in any axis order.
        told: called with the name of each case as it is begun.

    Returns:
        The names of the cases.

    Raises:
        InputError: If a visit lacks a scan or, for training, its lesions; if its scans lie on
            different grids; if two visits are named alike; if nothing was given.
    """
    folder = Path(folder)
    names: list[str] = []
    for study in studies:
        for visit in study.visits:
            name = f"{study.subject}_{visit.session}" if visit.session else study.subject
            if name in names:
                raise InputError(f"{name}: two visits have this name")
            told(name)
            _write_case(folder, name, visit, scans, part, file_ending)
            names.append(name)
    if not names:
        raise InputError(f"{folder}: no visit to write")
    if part == "Tr":
        write_json(
            folder / "dataset.json",
            {
                "channel_names": {str(n): CHANNEL_NAMES.get(s, s) for n, s in enumerate(scans)},
                "labels": {"background": 0, "lesion": 1},
                "numTraining": len(names),
                "file_ending": file_ending,
            },
        )
    return tuple(names)


def _write_case(
    folder: Path, name: str, visit: Visit, scans: Sequence[str], part: str, ending: str
) -> None:
    missing = [scan for scan in scans if scan not in visit.scans]
    if missing:
        raise InputError(f"{name}: no {', '.join(missing)} scan")
    if part == "Tr" and "lesions" not in visit.labels:
        raise InputError(f"{name}: no lesion mask, but training cases need one")
    grid = visit.scans[scans[0]].grid
    for number, scan in enumerate(scans):
        path = folder / f"images{part}" / f"{name}_{number:04d}{ending}"
        write_volume(path, on_grid(visit.scans[scan], grid, name=f"{name} {scan}"))
    for label, place in (("lesions", "labels"), ("instances", "instances")):
        if label in visit.labels:
            volume = on_grid(visit.labels[label], grid, name=f"{name} {label}")
            if label == "lesions":
                volume = Volume(volume.array > 0, grid)
            write_volume(folder / f"{place}{part}" / f"{name}{ending}", volume)


def _description(root: Path) -> Mapping[str, Any]:
    path = root / "dataset.json"
    if not path.is_file():
        raise InputError(f"{root}: not an nnU-Net data set, it has no dataset.json")
    description = read_json(path)
    for key, kind in (("channel_names", dict), ("labels", dict), ("file_ending", str)):
        if not isinstance(description, dict) or not isinstance(description.get(key), kind):
            raise InputError(f"{path}: no {key}, or not of the form that nnU-Net version 2 has")
    return dict(description)


def _channel_names(
    root: Path, description: Mapping[str, Any], scans: Sequence[str] | None
) -> tuple[str, ...]:
    channels = description["channel_names"]
    if sorted(channels) != sorted(str(n) for n in range(len(channels))) or not channels:
        raise InputError(f"{root / 'dataset.json'}: channels are not numbered 0, 1 …")
    stated = [str(channels[str(n)]) for n in range(len(channels))]
    if scans is None:
        scans = [_READ_AS.get(label_text(name).lower(), name) for name in stated]
    if len(scans) != len(stated) or len(set(scans)) < len(scans):
        raise InputError(
            f"{root / 'dataset.json'}: {len(stated)} channels ({', '.join(stated)}), "
            f"but as scans {', '.join(scans)}"
        )
    return tuple(scans)


def _lesion_values(
    root: Path, description: Mapping[str, Any], wanted: Sequence[str] | None
) -> tuple[int, ...]:
    path = root / "dataset.json"
    labels = {k: v for k, v in description["labels"].items() if k not in ("background", "ignore")}
    if wanted is None:
        wanted = [name for name in labels if "lesion" in name.lower()] or list(labels)
        if len(wanted) != 1 and not all("lesion" in name.lower() for name in wanted):
            raise InputError(f"{path}: which of the labels {', '.join(labels)} is the lesion?")
    missing = [name for name in wanted if name not in labels]
    if missing or not wanted:
        raise InputError(f"{path}: no label {', '.join(missing) or 'besides the background'}")
    values: list[int] = []
    for name in wanted:
        value = labels[name]
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int) or number < 1:
                raise InputError(f"{path}: label {name} has the value {number!r}")
            values.append(number)
    return tuple(sorted(set(values)))


def _case_names(folder: Path, ending: str) -> Iterator[str]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    last = f"_0000{ending}"
    found = [path.name for path in folder.iterdir() if path.name.endswith(last)]
    for name in sorted(found, key=natural):
        if not name.startswith("."):
            yield name[: -len(last)]
