"""nnU-Net raw data sets as studies, and studies as an nnU-Net raw data set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from lesionwise.io.files import read_json, write_json
from lesionwise.io.labels import label_text, letters
from lesionwise.io.names import natural
from lesionwise.io.nifti import read_labels, read_volume, write_volume
from lesionwise.io.space import on_grid
from lesionwise.io.tree import files_below
from lesionwise.types import EMPTY, InputError, Study, Task, Visit, Volume

CHANNEL_NAMES = {"flair": "FLAIR", "t1w": "T1w", "t2w": "T2w", "pd": "PD", "t1ce": "T1ce"}
"""The name of each scan in ``dataset.json``."""

VISIT_NAMES = ("baseline", "followup")
"""What follows the name of a channel, behind an underscore, where cases hold two visits."""

DATASET_NAME = re.compile(r"Dataset\d{3}_\w+")
"""What nnU-Net wants a raw data set's folder to be called."""

_READ_AS = {
    "flair": "flair", "t2flair": "flair", "t1": "t1w", "t1w": "t1w", "mprage": "t1w",
    "t2": "t2w", "t2w": "t2w", "pd": "pd", "pdw": "pd", "t1ce": "t1ce", "t1gd": "t1ce",
    "t1c": "t1ce",
}  # fmt: skip


@dataclass(frozen=True)
class _Case:
    name: str
    label: str
    subject: str
    sessions: tuple[str, ...]
    channels: tuple[Path, ...]
    labels: Path | None
    instances: Path | None


class NnunetStudies(Sequence[Study]):
    """The cases of an nnU-Net raw data set, each read from its files on demand.

    Attributes:
        root: the data set's folder.
        scans: the name of each channel, in order; with two visits, of each channel of one.
        visits: of each case, one or two.
        task: what the labels are of.
        cases: the names as they stand in the files, in order.
        skipped: always empty; a data set is complete or refused.
    """

    def __init__(
        self,
        root: Path,
        scans: tuple[str, ...],
        cases: Sequence[_Case],
        lesions: tuple[int, ...],
        visits: int = 1,
        task: Task = "lesions",
    ) -> None:
        self.root = root
        self.scans = scans
        self.visits = visits
        self.task = task
        self.cases = tuple(case.name for case in cases)
        self.skipped: tuple[str, ...] = ()
        self.errors: dict[str, str] = {}
        self._cases = tuple(cases)
        self._lesions = lesions

    def select(self, subjects: Iterable[str]) -> NnunetStudies:
        """The cases of these subjects, in the data set's order.

        Raises:
            InputError: If a subject is not there.
        """
        wanted = set(subjects)
        missing = sorted(wanted - set(self.subjects))
        if missing:
            raise InputError(f"{self.root}: no case {', '.join(missing)}")
        return self._of([case for case in self._cases if case.label in wanted])

    def _of(self, cases: Sequence[_Case]) -> NnunetStudies:
        return NnunetStudies(self.root, self.scans, cases, self._lesions, self.visits, self.task)

    @property
    def subjects(self) -> tuple[str, ...]:
        """A label for each case; who the patient is, where known, its study says."""
        return tuple(case.label for case in self._cases)

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> NnunetStudies: ...
    def __getitem__(self, index: int | slice) -> Study | NnunetStudies:
        if isinstance(index, slice):
            return self._of(self._cases[index])
        case = self._cases[index]
        grid = read_volume(case.channels[0]).grid
        volumes = [on_grid(read_volume(path), grid, name=str(path)) for path in case.channels]
        labels = {}
        if case.labels is not None:
            read = on_grid(read_labels(case.labels), grid, name=str(case.labels))
            labels["lesions"] = Volume(np.isin(read.array, self._lesions), grid)
        if case.instances is not None:
            labels["instances"] = on_grid(
                read_labels(case.instances), grid, name=str(case.instances)
            )
        per_visit = len(self.scans)
        scans = [
            dict(zip(self.scans, volumes[n * per_visit :], strict=False))
            for n in range(self.visits)
        ]
        if self.visits == 1:
            session = case.sessions[0] if case.sessions else ""
            return Study(case.subject, (Visit(scans[0], labels, session=session),))
        before, after = case.sessions or VISIT_NAMES
        if self.task == "lesions":
            visits = (Visit(scans[0], session=before), Visit(scans[1], labels, session=after))
            return Study(case.subject, visits)
        visits = (Visit(scans[0], session=before), Visit(scans[1], session=after))
        new = labels.get("instances", labels.get("lesions"))
        return Study(case.subject, visits, {} if new is None else {"new": new})


def read_nnunet(
    root: str | Path,
    part: Literal["Tr", "Ts"] = "Tr",
    scans: Sequence[str] | None = None,
    lesion_labels: Sequence[str] | None = None,
) -> NnunetStudies:
    """The cases of an nnU-Net raw data set (``dataset.json``, ``imagesTr``, ``labelsTr``).

    Every case becomes a study of one visit, in the order of names, with ``labels["lesions"]``
    where a label file exists, and ``labels["instances"]`` where ``write_nnunet`` left instances
    beside it. Where the channels' names end in ``_baseline`` and ``_followup``, a case is a study
    of two visits; labels whose name holds ``new`` are then ``changes["new"]``. Channels are put
    on the grid of the first, never interpolated. nnU-Net itself knows no patients: every case
    is a subject of its own, save where ``dataset.json`` holds ``patients``, the patient of each
    case, as ``write_nnunet`` leaves it.

    Args:
        root: the folder that holds ``dataset.json``.
        part: training or test cases; test cases need no labels.
        scans: a name for each channel in order; None takes them from ``dataset.json``.
        lesion_labels: the labels that are lesions, as ``dataset.json`` calls them. None takes
            those whose name holds ``lesion``, or else the only one besides the background.

    Raises:
        InputError: If ``dataset.json`` is missing or lacks a part, a channel or a label file is
            missing, or it is unknown which label is the lesion. Errors of an
            image appear when its study is read.

    Example:
        >>> from lesionwise.types import Grid
        >>> volume = Volume(np.eye(4)[None] > 0, Grid((1, 4, 4), np.eye(4)))
        >>> visit = Visit({"flair": volume}, {"lesions": volume}, session="M12")
        >>> _ = write_nnunet([Study("01", (visit,))], "Dataset001_Lesions")
        >>> read_nnunet("Dataset001_Lesions")[0].subject
        '01'
    """
    root = Path(root)
    description = _description(root)
    names, visits = _channel_names(root, description, scans)
    patients = _patients(root, description)
    lesions = _lesion_values(root, description, lesion_labels)
    ending = description["file_ending"]
    if ending not in (".nii.gz", ".nii"):
        raise InputError(f"{root / 'dataset.json'}: files of type {ending!r} are not read")
    cases = []
    found = list(_case_names(root / f"images{part}", ending))
    labels = _plain_labels(found)
    people = _plain_labels(dict.fromkeys(patients.get(name, name) for name in found))
    for name in found:
        channels = tuple(
            root / f"images{part}" / f"{name}_{number:04d}{ending}"
            for number in range(visits * len(names))
        )
        truth = root / f"labels{part}" / f"{name}{ending}"
        for path in channels if part == "Ts" else (*channels, truth):
            if not path.is_file():
                raise InputError(f"{path}: no such file, but the case {name} needs it")
        sessions = _sessions_of(name, patients, visits)
        subject = people[patients.get(name, name)]
        instances = root / f"instances{part}" / f"{name}{ending}"
        cases.append(
            _Case(
                name,
                labels[name],
                subject,
                sessions,
                channels,
                truth if truth.is_file() else None,
                instances if instances.is_file() else None,
            )
        )
    if not cases:
        raise InputError(f"{root / f'images{part}'}: no case named …_0000{ending}")
    lesion_names = [name for name in description["labels"] if name != "background"]
    is_new = visits == 2 and any("new" in name.lower() for name in lesion_names)
    return NnunetStudies(root, names, cases, lesions, visits, "new" if is_new else "lesions")


def nnunet_images(root: Path) -> list[Path]:
    """The images of the training cases of an nnU-Net raw data set, in the order of names.

    Raises:
        InputError: If a folder cannot be read.

    Example:
        >>> Path("imagesTr").mkdir()
        >>> Path("imagesTr/a_0000.nii.gz").touch()
        >>> [path.name for path in nnunet_images(Path("."))]
        ['a_0000.nii.gz']
    """
    folders = [root / f"{part}Tr" for part in ("images", "labels", "instances")]
    files = [path for folder in folders if folder.is_dir() for path in files_below(folder)]
    return [path for path in files if path.name.lower().endswith((".nii", ".nii.gz"))]


def write_nnunet(
    studies: Iterable[Study],
    folder: str | Path,
    scans: Sequence[str] = ("flair",),
    *,
    part: Literal["Tr", "Ts"] = "Tr",
    visits: int = 1,
    task: Task = "lesions",
    file_ending: Literal[".nii.gz", ".nii"] = ".nii.gz",
    on_case: Callable[[str], None] = lambda case: None,
) -> tuple[str, ...]:
    """Write studies as cases of an nnU-Net raw data set; ``dataset.json`` comes last.

    With one visit a case, every visit becomes one, called after its subject and session
    (``01_M12``). With two, every study has to hold two visits and becomes one case
    (``01_M00_M12``): the scans of the baseline are the first channels, those of the follow-up the
    next. Lesions go to ``labelsTr`` as 0 and 1. Instance maps, whose many labels nnU-Net's check
    of integrity refuses, go to a folder ``instancesTr`` beside it, which nnU-Net ignores.

    Args:
        folder: such as ``nnUNet_raw/Dataset001_Lesions``.
        scans: channels of a visit in order; all channels of a case must lie on one grid, in any
            axis order.
        part: training or test cases; the latter need no labels and no ``dataset.json``.
        visits: of a case, 1 or 2.
        task: what the labels are of: the lesions of the last visit, or ``changes["new"]``.
        on_case: called with the name of each case as it is begun.

    Returns:
        The names of the cases.

    Raises:
        InputError: If a visit lacks a scan or, for training, what is to be found; if scans lie on
            different grids; if two cases are named alike; if nothing was given.

    Example:
        >>> from lesionwise.types import Grid
        >>> volume = Volume(np.eye(4)[None] > 0, Grid((1, 4, 4), np.eye(4)))
        >>> visit = Visit({"flair": volume}, {"lesions": volume}, session="M12")
        >>> write_nnunet([Study("01", (visit,))], "Dataset001_Lesions")
        ('01_M12',)
        >>> sorted(path.name for path in Path("Dataset001_Lesions").rglob("*.nii.gz"))
        ['01_M12.nii.gz', '01_M12_0000.nii.gz']
    """
    folder = Path(folder)
    names: list[str] = []
    patients: dict[str, str] = {}
    for study in studies:
        if visits == 2 and len(study.visits) != 2:
            raise InputError(f"{study.subject}: {len(study.visits)} visits, but a case holds two")
        parts = [study.visits] if visits == 2 else [(visit,) for visit in study.visits]
        for taken in parts:
            name = "_".join([study.subject, *(v.session for v in taken if v.session)])
            if name in names:
                raise InputError(f"{name}: two visits have this name")
            on_case(name)
            _write_case(folder, name, replace(study, visits=taken), scans, part, task, file_ending)
            names.append(name)
            patients[name] = study.subject
    if not names:
        raise InputError(f"{folder}: no visit to write")
    if part == "Tr":
        describe_nnunet(folder, len(names), scans, visits, task, file_ending, patients)
    return tuple(names)


def describe_nnunet(
    folder: Path,
    cases: int,
    scans: Sequence[str] = ("flair",),
    visits: int = 1,
    task: Task = "lesions",
    file_ending: Literal[".nii.gz", ".nii"] = ".nii.gz",
    patients: Mapping[str, str] = EMPTY,
) -> None:
    """Write ``dataset.json`` for a number of training cases.

    Args:
        scans, visits, task, file_ending: as for ``write_nnunet``.
        patients: the patient of each case, which nnU-Net ignores and ``read_nnunet`` heeds.

    Example:
        >>> describe_nnunet(Path("Dataset001_Lesions"), 20, scans=("flair", "t1w"))
        >>> read_json("Dataset001_Lesions/dataset.json")["channel_names"]
        {'0': 'FLAIR', '1': 'T1w'}
    """
    channels = [CHANNEL_NAMES.get(scan, scan) for scan in scans]
    if visits == 2:
        channels = [f"{channel}_{visit}" for visit in VISIT_NAMES for channel in channels]
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {str(number): channel for number, channel in enumerate(channels)},
            "labels": {"background": 0, "new_lesion" if task == "new" else "lesion": 1},
            "numTraining": cases,
            "file_ending": file_ending,
            **({"patients": dict(patients)} if patients else {}),
        },
    )


def _write_case(
    folder: Path,
    name: str,
    study: Study,
    scans: Sequence[str],
    part: str,
    task: Task,
    ending: str,
) -> None:
    wanted = {"lesions": study.followup.labels.get("lesions")}
    wanted["instances"] = study.followup.labels.get("instances")
    if task == "new":
        new = study.changes.get("new")
        wanted = {"lesions": new, "instances": None}
        if new is not None and new.array.max(initial=0) > 1:
            wanted["instances"] = new
    elif wanted["lesions"] is None:
        wanted["lesions"] = wanted["instances"]
    missing = [scan for visit in study.visits for scan in scans if scan not in visit.scans]
    if missing:
        raise InputError(f"{name}: no {', '.join(missing)} scan")
    if part == "Tr" and wanted["lesions"] is None:
        what = "map of new lesions" if task == "new" else "lesion mask"
        raise InputError(f"{name}: no {what}, but training cases need one")
    grid = study.followup.scans[scans[0]].grid
    channels = [visit.scans[scan] for visit in study.visits for scan in scans]
    ready = [on_grid(volume, grid, name=f"{name} channel {n}") for n, volume in enumerate(channels)]
    for number, volume in enumerate(ready):
        write_volume(folder / f"images{part}" / f"{name}_{number:04d}{ending}", volume)
    for label, place in (("lesions", "labels"), ("instances", "instances")):
        found = wanted[label]
        if found is not None:
            volume = on_grid(found, grid, name=f"{name} {label}")
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


def _patients(root: Path, description: Mapping[str, Any]) -> dict[str, str]:
    known = description.get("patients", {})
    if not isinstance(known, dict) or not all(
        isinstance(who, str) and re.search("[A-Za-z0-9]", who) for who in known.values()
    ):
        raise InputError(f"{root / 'dataset.json'}: patients does not give a patient for each case")
    return known


def _plain_labels(names: Iterable[str]) -> dict[str, str]:
    """A label for each name: its letters and digits, or where others share them ``label_text``."""
    names = list(names)
    plain = [letters(name) for name in names]
    return {
        name: label if label and plain.count(label) == 1 else label_text(name)
        for name, label in zip(names, plain, strict=True)
    }


def _sessions_of(case: str, patients: Mapping[str, str], visits: int) -> tuple[str, ...]:
    """The sessions in the name of a case, where its patient is known; else none."""
    if case not in patients:
        return ()
    own = f"{patients[case]}_"
    sessions = tuple(case.removeprefix(own).split("_")) if case.startswith(own) else ()
    return sessions if len(sessions) == visits and all(sessions) else ()


def _channel_names(
    root: Path, description: Mapping[str, Any], scans: Sequence[str] | None
) -> tuple[tuple[str, ...], int]:
    """The scan of each channel of a visit, and the number of visits."""
    channels = description["channel_names"]
    if sorted(channels) != sorted(str(n) for n in range(len(channels))) or not channels:
        raise InputError(f"{root / 'dataset.json'}: channels are not numbered 0, 1 …")
    stated = [str(channels[str(n)]) for n in range(len(channels))]
    visits, half = 1, len(stated) // 2
    if all(name.lower().endswith(tuple(f"_{v}" for v in VISIT_NAMES)) for name in stated):
        firsts = [name.rpartition("_")[0] for name in stated]
        order = [name.rpartition("_")[2].lower() for name in stated]
        if order != [*[VISIT_NAMES[0]] * half, *[VISIT_NAMES[1]] * half] or (
            firsts[:half] != firsts[half:]
        ):
            raise InputError(
                f"{root / 'dataset.json'}: the channels {', '.join(stated)} are not those of a "
                "baseline and then, in the same order, of a follow-up"
            )
        stated, visits = firsts[:half], 2
    if scans is None:
        scans = [_READ_AS.get(letters(name).lower(), name) for name in stated]
    if len(scans) != len(stated) or len(set(scans)) < len(scans):
        raise InputError(
            f"{root / 'dataset.json'}: {len(stated)} channels ({', '.join(stated)}), "
            f"but the scans given are {', '.join(scans)}"
        )
    return tuple(scans), visits


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
