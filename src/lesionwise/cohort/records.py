"""What a cohort run keeps on disk about itself: settings, one record a subject, failures.

A subject's results and its record become visible together, by the renaming of one folder, so
a kill at any point leaves a subject either done or not begun as far as anybody can see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lesionwise.cohort.subjects import CohortSubject
from lesionwise.io.files import read_json, write_json, write_table
from lesionwise.io.names import natural
from lesionwise.types import InputError

RECORD = "cohort.json"
"""The name of a subject's record in its folder, and of the settings in the output folder."""
STATE = ".cohort"
"""Folder of unfinished subjects and of failures, in the output folder."""
DAMAGED = "missing or damaged; run the participant level again"
FAILURES = ("subject", "file", "fault")


@dataclass(frozen=True)
class Input:
    """One file that a subject's results were made from.

    Attributes:
        path: relative to the data set.
        bytes, mtime_ns: as the file system tells them; both unchanged means unread.
        sha256: of its content.
    """

    path: str
    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """What stands beside the results of a subject that is done.

    Attributes:
        subject: without ``sub-``.
        compared: whether its visits were compared.
        settings: all that decides the results.
        inputs: what they were made from.
        files: size in bytes of each result but the pages, by its path below the subject's folder.
        faults: why a part (a scan, the comparison) gave nothing, by its name.
        seconds: wall time.
        cpu_seconds: processor time of the worker process, all threads.
        peak_mib: the most memory its process had held by its end.
        attempts: how often it was begun in the run that ended it.
        host: where it was computed.
    """

    subject: str
    compared: bool
    settings: Mapping[str, Any]
    inputs: tuple[Input, ...]
    files: Mapping[str, int]
    faults: Mapping[str, str]
    seconds: float
    cpu_seconds: float
    peak_mib: int
    attempts: int
    host: str


def inputs_of(subject: CohortSubject, dataset: Path) -> tuple[Input, ...]:
    """The subject's files as they are now, read in full.

    Raises:
        InputError: If one cannot be read.
    """
    found = []
    for scan in subject.scans:
        size, time = _seen(scan.path)
        digest = hashlib.sha256()
        try:
            with scan.path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{scan.path}: cannot be read ({error.strerror})") from error
        name = scan.path.relative_to(dataset).as_posix()
        found.append(Input(name, size, time, digest.hexdigest()))
    return tuple(found)


def _seen(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        why = "a link to a file that is not there" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {why}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return status.st_size, status.st_mtime_ns


def same_inputs(record: Record, subject: CohortSubject, dataset: Path) -> bool:
    """Whether a record was made from the subject's files as they are now.

    A file whose size and time of change are those of the record is not read again; one whose
    time differs is, and counts as the same if its content is.
    """
    paths = [scan.path.relative_to(dataset).as_posix() for scan in subject.scans]
    if [known.path for known in record.inputs] != paths:
        return False
    try:
        seen = [_seen(scan.path) for scan in subject.scans]
        before = [(known.bytes, known.mtime_ns) for known in record.inputs]
        if seen == before:
            return True
        if [size for size, _ in seen] != [size for size, _ in before]:
            return False
        now = inputs_of(subject, dataset)
    except InputError:
        return False
    return [found.sha256 for found in now] == [known.sha256 for known in record.inputs]


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a subject into its folder."""
    write_json(folder / RECORD, asdict(record))


def read_record(folder: Path) -> Record | None:
    """The record of a subject's folder; None where it is missing, cut off or of another form."""
    try:
        data = read_json(folder / RECORD)
        inputs = tuple(Input(**entry) for entry in data.pop("inputs"))
        record = Record(inputs=inputs, **data)
    except (InputError, KeyError, TypeError, AttributeError):
        return None
    mappings = (record.settings, record.files, record.faults)
    return record if all(isinstance(part, Mapping) for part in mappings) else None


def is_whole(folder: Path, record: Record) -> bool:
    """Whether every file that the record names lies in the folder with its size."""
    for name, size in record.files.items():
        try:
            if (folder / name).stat().st_size != size:
                return False
        except OSError:
            return False
    return True


def check_settings(record: Record, settings: Mapping[str, Any], folder: Path) -> None:
    """Refuse to add to results that were made with other settings.

    Raises:
        InputError: If they differ; it names the first setting that does.
    """
    for name, value in settings.items():
        before = record.settings.get(name)
        if before != value:
            raise InputError(
                f"{folder}: was made with {name} {_said(before)}, now it is {_said(value)}; "
                "choose another output folder, or delete this one's subjects to make them again"
            )


def _said(value: Any) -> str:
    if value is None:
        return "not set"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:60] or "empty"


def write_fault(output: Path, subject: str, fault: str, details: str = "") -> None:
    """Keep why a subject gave nothing, with the program's own account of it."""
    write_json(_fault_path(output, subject), {"fault": fault, "details": details})


def forget_fault(output: Path, subject: str) -> None:
    """Nothing is wrong with the subject any more."""
    _fault_path(output, subject).unlink(missing_ok=True)


def _fault_path(output: Path, subject: str) -> Path:
    return output / STATE / "failed" / f"sub-{subject}.json"


def subject_folders(output: Path) -> list[Path]:
    """The folders of subjects in the output folder, in natural order."""
    found = (path for path in output.glob("sub-*") if path.is_dir())
    return sorted(found, key=lambda path: natural(path.name))


def failures_of(output: Path, records: Mapping[str, Record | None]) -> list[dict[str, str]]:
    """A row a fault: of subjects without results, and of parts of those that have some.

    Args:
        records: of every subject's folder by label; None where the record is damaged.
    """
    rows = []
    for path in (output / STATE / "failed").glob("sub-*.json"):
        label = path.stem.removeprefix("sub-")
        if records.get(label) is None:
            try:
                fault = str(read_json(path)["fault"])
            except (InputError, KeyError, TypeError):
                fault = f"{path}: {DAMAGED}"
            rows.append(_row(label, "", fault))
    known = {row["subject"] for row in rows}
    for label, record in records.items():
        if record is None and f"sub-{label}" not in known:
            path = output / f"sub-{label}" / RECORD
            rows.append(_row(label, "", f"{path}: {DAMAGED}"))
        elif record is not None:
            rows += [_row(label, part, fault) for part, fault in record.faults.items()]
    return sorted(rows, key=lambda row: natural(row["subject"]))


def _row(label: str, part: str, fault: str) -> dict[str, str]:
    return {"subject": f"sub-{label}", "file": part, "fault": fault}


def fault_lines(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Each fault as one line that names its subject."""
    return tuple(
        row["fault"] if row["subject"] in row["fault"] else f"{row['subject']}: {row['fault']}"
        for row in rows
    )


def write_failures(output: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write ``failures.tsv``, or remove it where nothing failed."""
    path = output / "failures.tsv"
    if rows:
        write_table(path, rows, FAILURES)
    else:
        path.unlink(missing_ok=True)
