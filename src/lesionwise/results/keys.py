"""Records as dataclasses, kept as JSON with the keys that BIDS sidecars have (``ModelHash``)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from lesionwise import __version__
from lesionwise.io.checked import parse_checked, read_checked

T = TypeVar("T")


class Generator(TypedDict):
    """Which program wrote a file."""

    Name: str
    Version: str


def check_labels(labels: Iterable[str]) -> None:
    """Pass where labels can stand in file names.

    Raises:
        ValueError: If one holds anything but letters, digits and plus signs.

    Example:
        >>> check_labels(["offsets", "acls"])
    """
    for label in labels:
        if not re.fullmatch(r"[A-Za-z0-9+]*", label):
            raise ValueError(f"{label!r} is no label of a file name")


def generated_by(name: str = "lesionwise") -> Generator:
    """The entry of this version.

    Example:
        >>> generated_by()["Name"]
        'lesionwise'
    """
    return {"Name": name, "Version": __version__}


def key_of(name: str) -> str:
    """The key of an attribute.

    Example:
        >>> key_of("model_hash")
        'ModelHash'
    """
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def to_keys(record: Any) -> dict[str, Any]:
    """A dataclass as a mapping with keys for a sidecar.

    Example:
        >>> from lesionwise.io.record import FileRecord
        >>> to_keys(FileRecord(bytes=3, sha256="ba78"))
        {'Bytes': 3, 'Sha256': 'ba78'}
    """
    return {key_of(part.name): getattr(record, part.name) for part in fields(record)}


def read_keys(path: Path, wanted: type[T]) -> T:
    """A sidecar as a dataclass; keys that it does not have are passed over.

    Raises:
        InputError: If the file is missing or malformed, or a value is missing or of another type.

    Example:
        >>> from lesionwise.io.record import FileRecord
        >>> _ = Path("a.json").write_text('{"Bytes": 3, "Sha256": "ba78", "Further": true}')
        >>> read_keys(Path("a.json"), FileRecord)
        FileRecord(bytes=3, sha256='ba78')
    """
    content = read_checked(path, dict[str, Any])
    known = {key_of(part.name): part.name for part in fields(wanted)}  # type: ignore[arg-type]
    stated = {known[key]: value for key, value in content.items() if key in known}
    return parse_checked(json.dumps(stated), wanted, path)
