"""What tells one state of a data set from another."""

from __future__ import annotations

from pathlib import Path

from lesionwise.io.dataset import images_of
from lesionwise.io.record import sha256, sha256_of_bytes
from lesionwise.types import InputError

_OF_CONTENT = ":content"
"""Ends every fingerprint but those of earlier versions, which were over names and sizes alone."""


def fingerprint_of(dataset: Path, known: str = "") -> str:
    """SHA-256 over the names and contents of a data set's images, in the order of visits.

    What counts are the files that studies are read from (``io.dataset.images_of``): what a command
    writes into ``derivatives`` changes nothing. Files that cannot be read, such as links that lead
    nowhere, count by their names.

    Args:
        known: a fingerprint from a record, in whose form it is given: those of earlier versions
            are over the names and sizes of all NIfTI files at any depth.

    Raises:
        InputError: If the folder cannot be read.

    Example:
        >>> Path("sub-01").mkdir()
        >>> _ = Path("sub-01/sub-01_FLAIR.nii").write_text("a scan")
        >>> before = fingerprint_of(Path("."))
        >>> _ = Path("sub-01/sub-01_FLAIR.nii").write_text("b scan")
        >>> fingerprint_of(Path(".")) == before
        False
    """
    if not same_form(known, _OF_CONTENT):
        return _hash_of(_sizes(dataset))
    lines = [f"{p.relative_to(dataset).as_posix()} {_content(p)}" for p in images_of(dataset)]
    return _hash_of(lines) + _OF_CONTENT


def same_form(one: str, other: str) -> bool:
    """Whether two fingerprints can be compared; an empty one can, with any of this version.

    Example:
        >>> same_form("", "5d41:content"), same_form("5d41", "5d41:content")
        (True, False)
    """
    earlier = [bool(known) and not known.endswith(_OF_CONTENT) for known in (one, other)]
    return earlier[0] == earlier[1]


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except InputError:
        return "cannot be read"


def _sizes(folder: Path) -> list[str]:
    found = [path for path in sorted(folder.rglob("*.nii*")) if path.exists()]
    return [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in found]


def _hash_of(lines: list[str]) -> str:
    text = "".join(f"{line}\n" for line in lines)
    return sha256_of_bytes(text.encode("utf-8", "surrogateescape"))
