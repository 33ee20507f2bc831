"""What a cohort run keeps on disk about itself: settings, one record a subject, failures.

A subject's results and its record become visible together, by the renaming of one folder, so
a kill at any point leaves a subject either done or not begun as far as anybody can see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lesionwise.cohort.subjects import CohortSubject
from lesionwise.io.checked import inside, read_checked
from lesionwise.io.files import write_json
from lesionwise.io.names import natural
from lesionwise.io.record import sha256
from lesionwise.io.record import write_failures as write_failures
from lesionwise.types import InputError

RECORD = "cohort.json"
"""The name of a subject's record in its folder, and of the settings in the output folder."""
STATE = ".cohort"
"""Folder of unfinished subjects and of failures, in the output folder."""
DAMAGED = "missing or damaged; run the participant level again"


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
class KnownFile:
    """One result as it was when it was complete; fields as for an input."""

    bytes: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class Record:
    """The record in the folder of a finished subject.

    Attributes:
        subject: without ``sub-``.
        compared: whether its visits were compared.
        settings: all that decides the results.
        inputs: what they were made from.
        files: each result but the pages, by its path below the subject's folder; in folders
            written before, its size alone.
        failures: why a part (a scan, the comparison) gave nothing, by its name.
        seconds: wall time.
        cpu_seconds: processor time of the worker process, all threads.
        peak_mib: the most memory its process had held by its end.
        attempts: how often it was begun in the run that ended it.
        host: where it was computed.
        faults: failures in records written before; not written any more.
    """

    subject: str
    compared: bool
    settings: dict[str, Any]
    inputs: tuple[Input, ...]
    files: dict[str, KnownFile | int]
    seconds: float
    cpu_seconds: float
    peak_mib: int
    attempts: int
    host: str
    failures: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Failed:
    """Why a subject gave nothing; ``fault`` is the error in files written before."""

    error: str = ""
    fault: str = ""
    details: str = ""


def inputs_of(subject: CohortSubject, dataset: Path) -> tuple[Input, ...]:
    """The subject's files as they are now, read in full.

    Raises:
        InputError: If one cannot be read.
    """
    found = []
    for path in subject.files:
        size, time = _seen(path)
        name = path.relative_to(dataset).as_posix()
        found.append(Input(name, size, time, sha256(path)))
    return tuple(found)


def files_of(folder: Path) -> dict[str, KnownFile | int]:
    """Every result of a subject's folder but the pages, which can be made again.

    Raises:
        InputError: If one cannot be read.
    """
    found: dict[str, KnownFile | int] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".html" and path != folder / RECORD:
            found[path.relative_to(folder).as_posix()] = KnownFile(*_seen(path), sha256(path))
    return found


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
    paths = [path.relative_to(dataset).as_posix() for path in subject.files]
    if [known.path for known in record.inputs] != paths:
        return False
    try:
        seen = [_seen(path) for path in subject.files]
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
    keys = dict(vars(record))
    del keys["faults"]
    write_json(folder / RECORD, keys)


def read_record(folder: Path) -> Record | None:
    """The record of a subject's folder; None where it is missing, cut off or of another form."""
    try:
        record = read_checked(folder / RECORD, Record)
    except InputError:
        return None
    return replace(record, failures=record.failures or record.faults, faults={})


def is_whole(folder: Path, record: Record) -> bool:
    """Whether every file that the record names lies in the folder as it was.

    A file whose size and time of change are those of the record is not read again; one whose
    time differs is. Names that lead out of the folder count as missing.
    """
    for name, known in record.files.items():
        try:
            path = inside(folder, name)
            size, time = _seen(path)
            if isinstance(known, int):
                if size != known:
                    return False
            elif size != known.bytes or (time != known.mtime_ns and sha256(path) != known.sha256):
                return False
        except InputError:
            return False
    return True


def write_error(output: Path, subject: str, error: str, details: str = "") -> None:
    """Keep why a subject gave nothing, with the program's own account of it."""
    write_json(_error_path(output, subject), {"error": error, "details": details})


def forget_error(output: Path, subject: str) -> None:
    """Nothing is wrong with the subject any more."""
    _error_path(output, subject).unlink(missing_ok=True)


def _error_path(output: Path, subject: str) -> Path:
    return output / STATE / "failed" / f"sub-{subject}.json"


def subject_folders(output: Path) -> list[Path]:
    """The folders of subjects in the output folder, in natural order."""
    found = (path for path in output.glob("sub-*") if path.is_dir())
    return sorted(found, key=lambda path: natural(path.name))


def failures_of(output: Path, records: Mapping[str, Record | None]) -> list[dict[str, str]]:
    """A row an error: of subjects without results, and of parts of those that have some.

    Args:
        records: of every subject's folder by label; None where the record is damaged.
    """
    rows = []
    for path in (output / STATE / "failed").glob("sub-*.json"):
        label = path.stem.removeprefix("sub-")
        if records.get(label) is None:
            try:
                failed = read_checked(path, _Failed)
                error = failed.error or failed.fault or f"{path}: {DAMAGED}"
            except InputError:
                error = f"{path}: {DAMAGED}"
            rows.append(_row(label, "", error))
    known = {row["subject"] for row in rows}
    for label, record in records.items():
        if record is None and f"sub-{label}" not in known:
            path = output / f"sub-{label}" / RECORD
            rows.append(_row(label, "", f"{path}: {DAMAGED}"))
        elif record is not None:
            rows += [_row(label, part, error) for part, error in record.failures.items()]
    return sorted(rows, key=lambda row: natural(row["subject"]))


def _row(label: str, part: str, error: str) -> dict[str, str]:
    return {"subject": f"sub-{label}", "file": part, "error": error}


def failure_lines(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Each error as one line that names its subject, by the file or the part that gave nothing.

    Example:
        >>> row = {"subject": "sub-01", "file": "comparison", "error": "one visit cannot be read"}
        >>> failure_lines([row, {"subject": "sub-02", "file": "", "error": "no FLAIR scan"}])
        {'sub-01 comparison': 'sub-01: one visit cannot be read', 'sub-02': 'sub-02: no FLAIR scan'}
    """
    lines: dict[str, str] = {}
    for row in rows:
        subject, file, error = row["subject"], row["file"], row["error"]
        name = file if subject in file else f"{subject} {file}".strip()
        lines[name] = error if subject in error else f"{subject}: {error}"
    return lines
