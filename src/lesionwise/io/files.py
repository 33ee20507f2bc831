"""Files written whole or not at all: tables, sidecars and folders."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionwise.io.checked import MAX_BYTES, encodable, printable, read_checked
from lesionwise.io.checked import MISSING as MISSING
from lesionwise.types import InputError

if TYPE_CHECKING:  # a machine that trains on prepared arrays needs no pandas
    import pandas as pd

_FILE_SYSTEM_ERRNOS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


_SHOWN_OF_A_NAME = 40


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes ``path`` when the block ends without error.

    The temporary file lies in the same folder (created where it is missing), starts with a dot
    and keeps all suffixes. Its name cannot be guessed, and it is there, empty, when the block
    begins; nothing that lay there before, a link least of all, is written to. After an error it is
    removed and whatever lay at ``path`` stays; a link at ``path`` is replaced, not followed.
    The new name appears at once for other processes; it is not forced to the disk, so a power
    failure may still lose it.

    Raises:
        InputError: If the folder or the disk does not take the file.

    Example:
        >>> with atomic_path("notes.txt") as temporary:
        ...     _ = temporary.write_text("whole or not at all")
        ...
        >>> Path("notes.txt").read_text()
        'whole or not at all'
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.open("xb").close()  # fails where anything is, a link too
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        elsewhere = error.filename is not None and str(error.filename) != str(temporary)
        if elsewhere or error.errno not in _FILE_SYSTEM_ERRNOS:
            raise
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if temporary.is_file():
            temporary.unlink()


@contextmanager
def atomic_folder(
    path: str | Path, keep: Callable[[Path], bool] = lambda there: False
) -> Iterator[Path]:
    """An empty folder to write to, which becomes ``path`` when the block ends without error.

    As for ``atomic_path``: the temporary folder lies beside it, under a name that starts with a dot
    and cannot be guessed, and is removed after an error. What lies at ``path`` is replaced.

    Args:
        keep: whether what lies at ``path`` by then, maybe from another process, stays as it is;
            the new folder is removed then.

    Raises:
        InputError: If the folder above or the disk does not take it.

    Example:
        >>> with atomic_folder("results") as temporary:
        ...     _ = (temporary / "a.txt").write_text("a")
        ...
        >>> [path.name for path in Path("results").iterdir()]
        ['a.txt']
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        with file_system_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            while not _renamed(temporary, path) and not keep(path):
                _remove(path)
    except InputError as error:  # of a file in it
        text = str(error)
        if str(temporary) not in text:
            raise
        raise type(error)(text.replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name in the same folder that cannot be guessed."""
    return path.with_name(f".{secrets.token_hex(16)}-{path.name[-_SHOWN_OF_A_NAME:]}")


def _renamed(folder: Path, path: Path) -> bool:
    """Rename a folder; False where something has the name."""
    if path.is_symlink() or path.is_file():
        return False
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) and path.exists():
            return False
        raise
    return True


def _remove(path: Path) -> None:
    """Free a name at once, whatever has it."""
    aside = _beside(path)
    with suppress(FileNotFoundError):  # another process was faster
        path.rename(aside)
        if aside.is_symlink() or aside.is_file():
            aside.unlink()
        else:
            shutil.rmtree(aside)


@contextmanager
def file_system_errors(path: str | Path) -> Iterator[None]:
    """Within the block, a disk that is full, read-only or takes no files is one line.

    Args:
        path: named where the system does not say which file it was.

    Raises:
        InputError: Instead of the system's error; other errors pass as they are.

    Example:
        >>> with file_system_errors("results"):
        ...     Path("results").mkdir()
        ...
        >>> Path("results").is_dir()
        True
    """
    try:
        yield
    except OSError as error:
        readable = file_system_error(error, path)
        if readable is None:
            raise
        raise readable from error


def file_system_error(error: OSError, path: str | Path = "") -> InputError | None:
    """One line about an error of the file system; None where it says something else.

    Args:
        path: named where the error does not name a file.

    Example:
        >>> print(file_system_error(OSError(errno.ENOSPC, "No space left on device"), "mask.nii"))
        mask.nii: cannot be written (No space left on device)
    """
    if error.errno is not None and error.errno not in _FILE_SYSTEM_ERRNOS:
        return None
    name = path if error.filename is None else error.filename
    what = error.strerror or printable(error) or "no reason is known"  # NumPy gives no errno
    only_writing = error.errno in (errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EROFS)
    done = "written" if only_writing else "read or written"
    return InputError(f"{printable(name)}: cannot be {done} ({what})")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically; a link at ``path`` is replaced, not followed.

    Raises:
        InputError: If the file cannot be written.

    Example:
        >>> write_bytes("a.bin", b"abc")
        >>> Path("a.bin").stat().st_size
        3
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically, with plain newlines on every system.

    Bytes of file names that are no UTF-8 are written as escapes, such as ``\\xe9``.

    Example:
        >>> write_text("a.txt", "abc")
        >>> Path("a.txt").read_text()
        'abc'
    """
    write_bytes(path, encodable(text).encode("utf-8"))


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON, atomically.

    Keys keep the caller's order, sets are sorted, so equal data give equal bytes. NumPy
    scalars and arrays become numbers and lists, paths become text, frozen dataclasses become
    mappings. NaN and infinity, which JSON lacks, become null.

    Raises:
        TypeError: If a value has no place in JSON.
        InputError: If the file cannot be written.

    Example:
        >>> write_json("a.json", {"lesions": 3})
        >>> read_json("a.json")
        {'lesions': 3}
    """
    text = json.dumps(as_json(data), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file of any form; ``read_checked`` is for a form that is known.

    Raises:
        InputError: As for ``read_checked``.

    Example:
        >>> write_json("a.json", {"lesions": 3})
        >>> read_json("a.json")
        {'lesions': 3}
    """
    anything: Any = Any
    return read_checked(path, anything)


def write_table(
    path: str | Path,
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    columns: Sequence[str] | None = None,
) -> None:
    """Write rows as a tab-separated table in BIDS style, atomically.

    None, NaN and infinity become ``n/a``, truth values ``true`` and ``false``. Floats are
    written with 8 significant digits. Tabs and line breaks inside text become spaces.

    Args:
        rows: one mapping a row, or a data frame without its index.
        columns: names and order; by default those of the rows, in order of first appearance.
            Needed to give an empty table its header.

    Example:
        >>> write_table("a.tsv", [{"scan": "a", "lesions": 3}, {"scan": "b", "lesions": None}])
        >>> Path("a.tsv").read_text().splitlines()
        ['scan\\tlesions', 'a\\t3', 'b\\tn/a']
    """
    if not isinstance(rows, Sequence):
        columns = [str(name) for name in rows.columns] if columns is None else columns
        rows = [dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False)]
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    write_text(path, table.getvalue())


def read_table(path: str | Path) -> pd.DataFrame:
    """A tab-separated table, all columns as text except that ``n/a`` and empty cells are missing.

    Text is kept because names such as ``01`` are no numbers; convert the columns that are.

    Raises:
        InputError: If the file is missing or is no table.

    Example:
        >>> write_table("a.tsv", [{"scan": "a", "lesions": 3}])
        >>> read_table("a.tsv").to_dict("records")
        [{'scan': 'a', 'lesions': '3'}]
    """
    import pandas as pd

    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES / 2**20:.4g} MiB")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            table = pd.read_csv(
                path,
                sep="\t",
                dtype=str,
                na_values=[MISSING, ""],
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
            )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except InputError:
        raise
    except (ValueError, OverflowError, pd.errors.ParserWarning) as error:
        raise InputError(f"{path}: not a tab-separated table ({printable(error)})") from error
    return table


def check_writable(folder: str | Path) -> Path:
    """The folder, after a small file was written to it and removed.

    A missing folder is not created, so that an error which comes to light later leaves none: the
    nearest folder above it is tried. Whatever writes results creates it (``atomic_path``).

    Raises:
        InputError: If it or a folder above it is a file, or takes no files.

    Example:
        >>> check_writable(".").is_dir()
        True
    """
    folder = Path(folder)
    try:
        # folders above are named as the user wrote them; every path ends with . or /
        there = next(place for place in (folder, *folder.parents) if place.exists())
        is_folder = there.is_dir()
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    if not is_folder:
        raise InputError(f"{there}: is a file, but a folder for results is needed")
    probe = there / f".{secrets.token_hex(16)}-probe"
    try:
        with probe.open("xb") as file:
            file.write(b"x")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: results cannot be written here ({error.strerror})") from error
    return folder


def as_json(value: Any) -> Any:
    """The value as ``read_json`` gives it back after ``write_json``.

    Raises:
        TypeError: If it has no place in JSON.

    Example:
        >>> as_json({"size": (1, 2), "limit": float("inf")})
        {'size': [1, 2], 'limit': None}
    """
    if isinstance(value, str):
        return encodable(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return as_json(value.tolist())
    if isinstance(value, Mapping):
        return {encodable(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return [as_json(item) for item in sorted(value)]
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, Path):
        return encodable(value.as_posix())
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: as_json(getattr(value, part.name)) for part in fields(value)}
    raise TypeError(f"{type(value).__name__} has no place in JSON: {value!r}")


def _cell(value: Any) -> str:
    import pandas as pd

    if value is None or value is pd.NA or value is pd.NaT:
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        return f"{float(value):.8g}" if math.isfinite(value) else MISSING
    return " ".join(str(value).split("\t")).replace("\r", "").replace("\n", " ") or MISSING
