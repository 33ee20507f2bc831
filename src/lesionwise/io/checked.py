"""Files that are read back, checked against the type that the caller wants, and names in them.

Whatever the project reads again (its own sidecars, tables and records as well as those of other
tools) may have been edited, cut off or made to do harm. Everything here gives either a value of
the wanted type or one ``InputError``.
"""

from __future__ import annotations

import csv
import io
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec
import numpy as np

from lesionwise.types import InputError

T = TypeVar("T")

MAX_BYTES = 256 * 2**20
"""A larger JSON file or table is refused before it is read."""

MAX_DEPTH = 100
"""Lists and mappings in each other, at most."""

MISSING = "n/a"
"""What BIDS tables hold where a value is missing."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*+"?', re.DOTALL)
_NOT_A_BRACKET = re.compile(rb"[^\[\]{}]+")
_HUGE = re.compile(rb"(?<![\d.eE+])\d{20,}+(?![.eE])")
_WORDS = {
    "float": "number",
    "int": "whole number",
    "str": "text",
    "bool": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "null",
}
_SHOWN_AS = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_REORDERING = {*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def read_checked(path: str | Path, wanted: type[T], *, max_bytes: int = MAX_BYTES) -> T:
    """The content of a JSON file as a value of the wanted type.

    Args:
        wanted: a (frozen) dataclass, a ``TypedDict``, or a plain type such as ``list[float]`` or
            ``dict[str, Any]``. Keys that it does not name are passed over, or kept where it is a
            ``dict``. Whole numbers count as numbers; truth values and text do not.
        max_bytes: a larger file is refused.

    Raises:
        InputError: ``FILE: KEY: expected number, got text`` or the like, if the file is missing,
            too large or no UTF-8, is no JSON, holds NaN, infinity, lone surrogates, whole numbers
            of 20 digits or more or lists and mappings nested more than 100 deep, or if a value is
            missing or of another type.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Summary:
        ...     lesions: int
        ...     volume_mm3: float | None = None
        ...
        >>> _ = Path("sub-01_FLAIR.json").write_text('{"lesions": 3, "volume_mm3": 412.5}')
        >>> read_checked("sub-01_FLAIR.json", Summary)
        Summary(lesions=3, volume_mm3=412.5)
    """
    return parse_checked(_content(path, max_bytes), wanted, path)


def parse_checked(text: str | bytes, wanted: type[T], path: str | Path) -> T:
    """JSON text as a value of the wanted type, as ``read_checked`` gives it for a file.

    Args:
        text: bytes are taken as UTF-8, with or without a byte order mark.
        path: named in errors.

    Raises:
        InputError: As for ``read_checked``.

    Example:
        >>> parse_checked('{"lesions": 3}', dict[str, int], "summary.json")
        {'lesions': 3}
    """
    name = printable(path)
    data = _utf8(text, name)
    bare = _STRING.sub(b"", data)
    brackets = np.frombuffer(_NOT_A_BRACKET.sub(b"", bare), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    if np.cumsum(steps).max(initial=0) > MAX_DEPTH:
        raise InputError(f"{name}: lists and mappings nested more than {MAX_DEPTH} deep")
    if _HUGE.search(bare):
        raise InputError(f"{name}: holds a whole number of 20 digits or more")
    try:
        return msgspec.json.decode(data, type=wanted)
    except msgspec.ValidationError as error:
        raise InputError(f"{name}: {_reason(str(error))}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid JSON ({printable(error)})") from error


def read_rows(path: str | Path, wanted: type[T], *, max_bytes: int = MAX_BYTES) -> list[T]:
    """The rows of a tab-separated table in BIDS style, each as a value of the wanted type.

    Args:
        wanted: a (frozen) dataclass or a ``TypedDict`` with the columns as keys. Columns that it
            does not name are passed over. ``n/a`` and empty cells are None.
        max_bytes: a larger file is refused.

    Raises:
        InputError: ``FILE: row 2: volume_mm3: expected number, got text`` or the like, if the
            file is missing, too large or no UTF-8, is no table, lacks a column, or if a cell is
            missing, of another type, NaN or infinite. Rows count from 1 below the header.

    Example:
        >>> from dataclasses import dataclass
        >>> _ = Path("scans.tsv").write_text("scan\\tlesions\\na\\t3\\nb\\tn/a\\n")
        >>> @dataclass(frozen=True)
        ... class Row:
        ...     scan: str
        ...     lesions: int | None
        ...
        >>> read_rows("scans.tsv", Row)
        [Row(scan='a', lesions=3), Row(scan='b', lesions=None)]
    """
    return parse_rows(_content(path, max_bytes), wanted, path)


def parse_rows(text: str | bytes, wanted: type[T], path: str | Path) -> list[T]:
    """The rows of a table's text, as ``read_rows`` gives them for a file.

    Raises:
        InputError: As for ``read_rows``.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True)
        ... class Row:
        ...     scan: str
        ...     lesions: int
        ...
        >>> parse_rows("scan\\tlesions\\na\\t3\\n", Row, "scans.tsv")
        [Row(scan='a', lesions=3)]
    """
    name = printable(path)
    decoded = _utf8(text, name).decode("utf-8")
    try:
        lines = list(csv.reader(io.StringIO(decoded, newline=""), delimiter="\t", strict=True))
    except (csv.Error, ValueError) as error:
        raise InputError(f"{name}: not a tab-separated table ({printable(error)})") from error
    if not lines or not lines[0]:
        raise InputError(f"{name}: not a tab-separated table (it is empty)")
    header = lines[0]
    if len(set(header)) < len(header):
        raise InputError(f"{name}: two columns have the same name")
    known, needed = _columns(wanted)
    lacking = [column for column in needed if column not in header]
    if lacking:
        raise InputError(f"{name}: no column {', '.join(lacking)}")
    rows = []
    for number, cells in enumerate(filter(None, lines[1:]), start=1):
        if len(cells) != len(header):
            raise InputError(
                f"{name}: row {number}: {len(cells)} cells, but there are {len(header)} columns"
            )
        stated = {
            column: None if cell in (MISSING, "") else cell
            for column, cell in zip(header, cells, strict=True)
            if column in known
        }
        try:
            row = msgspec.convert(stated, wanted, strict=False)
        except (msgspec.ValidationError, ValueError, OverflowError) as error:
            raise InputError(f"{name}: row {number}: {_reason(str(error))}") from error
        values = row if isinstance(row, Mapping) else vars(row)
        for column in stated:
            value = values.get(column)
            if isinstance(value, float) and not math.isfinite(value):
                raise InputError(f"{name}: row {number}: {printable(column)}: NaN or infinite")
        rows.append(row)
    return rows


def inside(folder: str | Path, name: str) -> Path:
    """The path of a file that a name found in a file stands for, always inside the folder.

    Args:
        folder: where the names of that file lead from.
        name: as it stands in the file, with ``/`` between folders. Nothing need be there.

    Raises:
        InputError: If the name is empty, absolute, holds ``..``, a drive letter, a backslash, a
            control character or a lone surrogate, or follows a link that leads out of the folder.

    Example:
        >>> inside("results", "sub-01/mask.nii.gz").name
        'mask.nii.gz'
    """
    folder = Path(folder)
    place = f"{printable(folder)}: the name {printable(repr(name))}"
    unfit = (
        not name.strip("./ ")
        or name.startswith("/")
        or "\\" in name
        or ".." in name.split("/")
        or re.match(r"[A-Za-z]:", name) is not None
        or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name)
    )
    if unfit:
        raise InputError(f"{place} is not the name of a file inside this folder")
    path = folder / name
    try:
        leads_out = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{place} cannot be resolved") from error
    if leads_out:
        raise InputError(f"{place} leads out of this folder")
    return path


def printable(text: object) -> str:
    """A name or message on one line that no terminal takes for a command.

    Control characters, so escape sequences and line breaks too, and signs that turn the direction
    of writing become escapes such as ``\\x1b``. So do bytes of a file name that are no UTF-8
    (``\\xe9``) and lone surrogates, so the text can be encoded. All other signs stay.

    Example:
        >>> print(printable("two\\nlines"))
        two\\nlines
    """
    return "".join(_SHOWN_AS.get(sign) or _shown(sign) for sign in str(text))


def encodable(text: str) -> str:
    """The text with what UTF-8 cannot hold as escapes: bytes of a file name, lone surrogates.

    Example:
        >>> encodable("plain text")
        'plain text'
    """
    return _SURROGATES.sub(lambda found: _shown(found[0]), text)


def file_named(text: str) -> Path:
    """The file that a text stands for, which ``encodable`` may have made of its path.

    Bytes that are no text are taken back from their escapes where no file has the text itself for
    its name. Nothing need be there.

    Example:
        >>> file_named("sub-01_FLAIR.nii.gz").name
        'sub-01_FLAIR.nii.gz'
        >>> file_named(r"M\\xfcller.nii.gz").name == "M\\udcfcller.nii.gz"  # a byte that is no text
        True
    """
    path = Path(text)
    if "\\x" not in text or path.exists():
        return path
    return Path(_BYTE.sub(lambda found: chr(0xDC00 + int(found[1], 16)), text))


_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
_SURROGATES = re.compile("[\ud800-\udfff]")


def _shown(sign: str) -> str:
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as Python keeps it
        return f"\\x{code - 0xDC00:02x}"
    if code not in _REORDERING and unicodedata.category(sign) not in ("Cc", "Cs", "Zl", "Zp"):
        return sign
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """What the system has against reading a file or a folder within the block, in one line.

    Raises:
        InputError: For an OSError of the block.

    Example:
        >>> with reading("scans"):
        ...     Path("scans").read_bytes()
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: scans: cannot be read (No such file or directory)
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _content(path: str | Path, max_bytes: int) -> bytes:
    path, name = Path(path), printable(path)
    with reading(name):
        try:
            other = path.exists() and not path.is_file()
        except ValueError as error:  # NUL or a lone surrogate
            raise InputError(f"{name}: not the name of a file") from error
        if other:
            raise InputError(f"{name}: not a file")
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(f"{name}: larger than {max_bytes / 2**20:.4g} MiB")
    return content


def _utf8(text: str | bytes, name: str) -> bytes:
    try:
        data = text.encode("utf-8") if isinstance(text, str) else text
        data.decode("utf-8")
    except UnicodeError as error:
        raise InputError(f"{name}: not UTF-8 text") from error
    return data.removeprefix(b"\xef\xbb\xbf")


def _columns(wanted: Any) -> tuple[frozenset[str], tuple[str, ...]]:
    """The columns that a type of rows names, and those that have to be there."""
    if is_dataclass(wanted):
        known = frozenset(part.name for part in fields(wanted))
    else:
        known = frozenset(get_type_hints(wanted))
    described = msgspec.inspect.type_info(wanted)
    parts = getattr(described, "fields", ())
    return known, tuple(part.name for part in parts if part.required)


def _reason(message: str) -> str:
    """What msgspec says, in the order and words of this project's messages."""
    said, _, place = message.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    place = f"{place}: " if place else ""
    lacking = re.fullmatch(r"Object missing required field `(.*)`", said)
    if lacking:
        return printable(f"{place}no {lacking[1]}")
    kinds = re.fullmatch(r"Expected `([^`]*)`(.*?)(?:, got `([^`]*)`)?", said)
    if kinds:
        wanted = " or ".join(_WORDS.get(kind, kind) for kind in kinds[1].split(" | "))
        got = f", got {_WORDS.get(kinds[3], kinds[3])}" if kinds[3] else ""
        return printable(f"{place}expected {wanted}{kinds[2]}{got}")
    return printable(place + said[:1].lower() + said[1:])
