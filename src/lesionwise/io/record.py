"""What a command writes down about its own work: settings, versions, hashes, failures.

Every command that keeps a record does it with these functions, so that a folder that was begun
with other settings, a damaged file and an input that failed read the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any

from lesionwise.io.checked import encodable, inside, printable, read_checked
from lesionwise.io.files import as_json, write_json, write_table
from lesionwise.types import InputError

NUMERIC_PACKAGES = ("torch", "numpy", "scipy", "simpleitk")
"""Packages whose version may change a result in its last digits."""

TRAINING_PACKAGES = (*NUMERIC_PACKAGES, "lightning", "monai")
"""The same for what a training leaves."""

STATE = ".lesionwise"
"""Hidden folder for what a results folder remembers beside its results."""

FAILURES = "failures.tsv"

OTHER_FOLDER = "choose another output folder"
"""What a user can do about a folder that was begun with other settings."""


@dataclass(frozen=True)
class FileRecord:
    """One file as it was when it was complete.

    Attributes:
        bytes: its size.
        sha256: of its content, hexadecimal.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Note:
    """What gave nothing in a call.

    Attributes:
        inputs: those that the failures are about.
        failures: the error by what it concerns.
        were_there: whether all of the inputs were files or folders when this was written.
    """

    inputs: tuple[str, ...]
    failures: dict[str, str]
    were_there: bool = False


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's content.

    Raises:
        InputError: If it cannot be read, or is no file.

    Example:
        >>> _ = Path("a.txt").write_bytes(b"abc")
        >>> sha256("a.txt")[:8]
        'ba7816bf'
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError as error:
        why = "a link to a file that is not there" if path.is_symlink() else "no such file"
        raise InputError(f"{path}: {why}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def sha256_of_bytes(content: bytes) -> str:
    """Hexadecimal SHA-256 of content in memory.

    Example:
        >>> sha256_of_bytes(b"abc")[:8]
        'ba7816bf'
    """
    return hashlib.sha256(content).hexdigest()


def settings_id(settings: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that equal settings share, in whatever order, for names of folders.

    Example:
        >>> settings_id({"a": 1, "b": 2}) == settings_id({"b": 2, "a": 1})
        True
    """
    return sha256_of_bytes(json.dumps(settings, sort_keys=True).encode())[:12]


def file_records(root: Path, paths: Iterable[Path]) -> dict[str, FileRecord]:
    """Size and hash of files, by their path below ``root``, in the order of names.

    Raises:
        InputError: If one cannot be read.

    Example:
        >>> _ = Path("a.txt").write_bytes(b"abc")
        >>> list(file_records(Path("."), [Path("a.txt")]))
        ['a.txt']
    """
    return {
        path.relative_to(root).as_posix(): FileRecord(path.stat().st_size, sha256(path))
        for path in sorted(set(paths))
    }


def damage(root: Path, files: Mapping[str, FileRecord], *, read: bool = True) -> str:
    """Why files are no longer what their record says; empty where all are.

    Args:
        read: compare hashes too; without it, sizes alone, which is fast.

    Returns:
        One line that names the first file that is missing, cut off or changed.

    Raises:
        InputError: If a name leads out of ``root``.

    Example:
        >>> _ = Path("a.txt").write_bytes(b"abc")
        >>> record = file_records(Path("."), [Path("a.txt")])
        >>> damage(Path("."), record)
        ''
    """
    for name, known in files.items():
        path = inside(root, name)
        try:
            size = path.stat().st_size if path.is_file() else -1
        except OSError:
            size = -1
        if size < 0:
            return f"{path}: is missing"
        if size != known.bytes:
            return f"{path}: has {size} bytes, but {known.bytes} were written"
        if read:
            try:
                changed = sha256(path) != known.sha256
            except InputError as error:
                return str(error)
            if changed:
                return f"{path}: its content is not what was written"
    return ""


def versions(packages: Sequence[str] = NUMERIC_PACKAGES) -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers, as far as installed.

    Example:
        >>> sorted(versions(("numpy",)))
        ['machine', 'numpy', 'python']
    """
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_settings(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    place: str | Path,
    remedy: str = OTHER_FOLDER,
) -> None:
    """Refuse to add to what was begun with other settings.

    A setting that only one side names does not count: it came or went with a version.

    Args:
        before: as read from a record.
        now: as JSON holds it (lists, not tuples).
        place: named first in the message.
        remedy: what the user can do, named last.

    Raises:
        InputError: If a setting differs; the message names the first one.

    Example:
        >>> check_settings({"folds": 5}, {"folds": 3}, "runs/a")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: runs/a: was begun with folds 5, now it is 3; choose another \
output folder
    """
    for name, value in now.items():
        if name in before and before[name] != value:
            raise _other_setting(name, before[name], value, place, remedy)


def check_same_settings(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    place: str | Path,
    remedy: str = OTHER_FOLDER,
) -> None:
    """The same where a setting that one side does not name is not set there, and so counts.

    For trained and prepared data, where the settings of a part exist only with the part.

    Args:
        before: as read from a record.
        now: anything that ``write_json`` can write.
        place, remedy: as for ``check_settings``.

    Raises:
        InputError: If a setting differs; the message names the first one by name, parts of a
            recipe (``PATH.is``) before their values.

    Example:
        >>> check_same_settings({"folds": 5}, {"folds": 5, "seed": 1}, "runs/a")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: runs/a: was begun with seed not set, now it is 1; choose \
another output folder
    """
    written: dict[str, Any] = as_json(now)
    for name in sorted({*before, *written}, key=lambda name: (not name.endswith(".is"), name)):
        if before.get(name) != written.get(name):
            raise _other_setting(name, before.get(name), written.get(name), place, remedy)


def _other_setting(name: str, was: Any, now: Any, place: str | Path, remedy: str) -> InputError:
    before, after = _shown(was), _shown(now)
    if before == after:  # they differ behind what one line can show
        return InputError(f"{place}: was begun with another {name}; {remedy}")
    return InputError(f"{place}: was begun with {name} {before}, now it is {after}; {remedy}")


def write_failures(
    folder: Path, failures: Mapping[str, str] | Sequence[Mapping[str, str]], first: str = "file"
) -> None:
    """Write ``failures.tsv``, or remove it where nothing failed.

    Args:
        failures: the error by what it concerns, or rows that are complete.
        first: name of the column of what failed.

    Example:
        >>> write_failures(Path("."), {"sub-01_FLAIR.nii.gz": "the file is empty"})
        >>> Path("failures.tsv").read_text().splitlines()
        ['file\\terror', 'sub-01_FLAIR.nii.gz\\tthe file is empty']
    """
    path = folder / FAILURES
    rows: Sequence[Mapping[str, str]]
    if isinstance(failures, Mapping):
        rows = [{first: name, "error": error} for name, error in failures.items()]
    else:
        rows = failures
    if rows:
        write_table(path, rows)
    else:
        path.unlink(missing_ok=True)


def note_failures(folder: Path, inputs: Iterable[str], failures: Mapping[str, str]) -> None:
    """Remember which inputs of a call gave nothing, each until a call takes it again.

    So a call that takes one of them again replaces what was remembered of that one, and calls on
    other inputs (a shell loop, an array of jobs) add to it. A folder is taken again where
    something in it is. What was a file or a folder and is no longer there is forgotten too.

    Args:
        inputs: all that the call was given, each as one text that does not change from call to
            call, such as an absolute path.
        failures: the error by the input that it concerns, which may be named by a relative path.
            One by any other name concerns all inputs of the call, and goes as soon as one of them
            is taken again.

    Example:
        >>> failures = {"b.nii": "the file is empty", "c.nii": "not a NIfTI file"}
        >>> note_failures(Path("results"), ["a.nii", "b.nii", "c.nii"], failures)
        >>> note_failures(Path("results"), ["b.nii"], {})  # a later call, which could read it
        >>> noted_failures(Path("results"))
        {'c.nii': 'not a NIfTI file'}
    """
    taken = set(inputs)
    by_inputs: dict[tuple[str, ...], dict[str, str]] = {}
    for name, error in failures.items():
        own = {name, encodable(Path(os.path.abspath(name)).as_posix())} & taken
        by_inputs.setdefault(tuple(sorted(own or taken)), {})[name] = error
    # A file for each input, so that calls at the same time can forget one each.
    new = {
        names: _Note(names, errors, were_there=bool(names) and all(map(_is_there, names)))
        for names, errors in by_inputs.items()
    }
    reached = taken | {str(folder) for name in taken for folder in PurePath(name).parents}
    for path, note in _notes(folder):
        is_gone = note.were_there and not any(map(_is_there, note.inputs))
        if new.get(note.inputs) == note:
            del new[note.inputs]
        elif is_gone or not reached.isdisjoint(note.inputs):
            path.unlink(missing_ok=True)
    for note in new.values():
        write_json(folder / STATE / f"failed-{secrets.token_hex(6)}.json", vars(note))


def _is_there(name: str) -> bool:
    return os.path.isabs(name) and os.path.lexists(name)


def noted_failures(folder: Path) -> dict[str, str]:
    """The error of everything that gave nothing in any call, by what it concerns.

    Example:
        >>> note_failures(Path("results"), ["b.nii"], {"b.nii": "the file is empty"})
        >>> note_failures(Path("results"), ["a.nii"], {"a.nii": "not a NIfTI file"})
        >>> noted_failures(Path("results"))
        {'a.nii': 'not a NIfTI file', 'b.nii': 'the file is empty'}
    """
    found: dict[str, str] = {}
    for _, note in _notes(folder):
        found |= note.failures
    return dict(sorted(found.items()))


def _notes(folder: Path) -> list[tuple[Path, _Note]]:
    found = []
    for path in sorted((folder / STATE).glob("failed-*.json")):
        try:
            found.append((path, read_checked(path, _Note)))
        except InputError:
            if path.exists():  # damaged, so it says nothing any more
                path.unlink(missing_ok=True)
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping):
        return _shown([f"{name} {_shown(each)}" for name, each in value.items()])
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if _HASH.fullmatch(text):
        return f"SHA-256 {text[:12]}"
    return printable(text[:60]) or "empty"


_HASH = re.compile("[0-9a-f]{64}(:[a-z]+)?")
