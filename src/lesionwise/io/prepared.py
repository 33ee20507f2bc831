"""Prepared studies as plain arrays on disk.

A prepared study is a folder of ``.npy`` files with a ``study.json``: reading one needs no imaging
library, so that a machine with nothing but torch, Lightning and SciPy can train.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise.io.checked import inside, printable, read_checked
from lesionwise.io.files import atomic_folder, write_json
from lesionwise.types import IDENTITY, Grid, InputError, LazyStudies, Matrix, Study, Visit, Volume

DESCRIPTION = "study.json"
LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True)
class _VisitText:
    """A visit as ``study.json`` holds it; ``as_read`` is ``to_native`` in files written before."""

    session: str
    affines: dict[str, list[list[float]]]
    to_native: list[list[float]] | None = None
    as_read: list[list[float]] | None = None


@dataclass(frozen=True)
class _StudyText:
    """What ``study.json`` holds."""

    subject: str
    visits: tuple[_VisitText, ...]
    changes: dict[str, list[list[float]]] = field(default_factory=dict)


def write_prepared(study: Study, folder: Path) -> None:
    """Keep a study as arrays in ``folder``: scans as float16 (float32 where values exceed its
    range), masks as bool, labels as the smallest unsigned integers that hold them.

    The folder appears complete or not at all.

    Raises:
        InputError: If the disk does not take it.

    Example:
        >>> volume = Volume(np.ones((2, 2, 2), dtype=np.float32), Grid((2, 2, 2), np.eye(4)))
        >>> write_prepared(Study("a", (Visit({"flair": volume}),)), Path("a"))
        >>> is_prepared(Path("a"))
        True
    """
    with atomic_folder(folder) as partial:
        visits = []
        for number, visit in enumerate(study.visits):
            volumes = {f"scan-{name}": v for name, v in visit.scans.items()}
            volumes |= {f"label-{name}": v for name, v in visit.labels.items()}
            if visit.brain is not None:
                volumes["brain"] = visit.brain
            affines = {
                name: _save(partial / f"visit-{number}_{name}.npy", name, volume)
                for name, volume in volumes.items()
            }
            visits.append(_VisitText(visit.session, affines, visit.to_native.tolist()))
        changes = {
            name: _save(partial / f"change-{name}.npy", name, volume)
            for name, volume in study.changes.items()
        }
        about = _StudyText(study.subject, tuple(visits), changes)
        keys = asdict(about)
        for visit_keys in keys["visits"]:
            del visit_keys["as_read"]
        write_json(partial / DESCRIPTION, keys)


def _save(path: Path, name: str, volume: Volume) -> list[list[float]]:
    """Write an array; its affine."""
    packed = io.BytesIO()  # NumPy does not say why a file was not taken
    np.save(packed, volume.array.astype(_kept_as(name, volume)))
    path.write_bytes(packed.getbuffer())
    affine: list[list[float]] = volume.grid.affine.tolist()
    return affine


def _kept_as(name: str, volume: Volume) -> np.dtype[Any]:
    if name.startswith("scan-"):
        largest = max(volume.array.max(initial=0), -volume.array.min(initial=0))
        return np.dtype(np.float16 if largest <= LARGEST_FLOAT16 else np.float32)
    if name == "brain" or volume.array.dtype == bool:
        return np.dtype(bool)
    if np.issubdtype(volume.array.dtype, np.floating):  # fractions, such as the mean of raters
        return np.dtype(np.float16)
    return np.min_scalar_type(int(volume.array.max(initial=0)))


def read_prepared(folder: Path) -> Study:
    """The study kept in ``folder``; its arrays are mapped from their files, not loaded.

    Raises:
        InputError: If the folder holds no prepared study, or an incomplete one.

    Example:
        >>> volume = Volume(np.ones((2, 2, 2), dtype=np.float32), Grid((2, 2, 2), np.eye(4)))
        >>> write_prepared(Study("a", (Visit({"flair": volume}),)), Path("a"))
        >>> read_prepared(Path("a")).subject
        'a'
    """
    try:
        about = read_checked(folder / DESCRIPTION, _StudyText)
        if not about.visits:
            raise InputError(f"{folder / DESCRIPTION}: no visits")
        visits = []
        for number, visit in enumerate(about.visits):
            volumes = {
                name: _mapped(folder, f"visit-{number}_{name}.npy", affine)
                for name, affine in visit.affines.items()
            }
            to_native = visit.as_read if visit.to_native is None else visit.to_native
            visits.append(
                Visit(
                    scans=_named(volumes, "scan-"),
                    labels=_named(volumes, "label-"),
                    brain=volumes.get("brain"),
                    session=visit.session,
                    to_native=IDENTITY if to_native is None else _matrix(folder, to_native),
                )
            )
        changes = {
            name: _mapped(folder, f"change-{name}.npy", affine)
            for name, affine in about.changes.items()
        }
    except InputError as error:
        raise InputError(f"{folder}: not a prepared study ({error})") from error
    return Study(subject=about.subject, visits=tuple(visits), changes=changes)


def is_prepared(folder: Path) -> bool:
    """Whether a folder holds a prepared study of which nothing is missing or cut off.

    Example:
        >>> is_prepared(Path("nothing"))
        False
    """
    try:
        read_prepared(folder)
    except InputError:
        return False
    return True


def _mapped(folder: Path, name: str, affine: list[list[float]]) -> Volume:
    path = inside(folder, name)
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    except Exception as error:  # NumPy has no common ancestor for what damaged files raise
        raise InputError(f"{path}: no array ({printable(error)[:120]})") from error
    if array.ndim != 3 or array.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected numbers along three axes, got {array.dtype}")
    return Volume(array, Grid(array.shape, _matrix(path, affine)))


def _matrix(path: Path, rows: list[list[float]]) -> Matrix:
    if len(rows) != 4 or any(len(row) != 4 for row in rows):
        raise InputError(f"{path}: expected 4 x 4 numbers")
    matrix = np.asarray(rows, dtype=np.float64)
    if not abs(np.linalg.det(matrix[:3, :3])) > 0:
        raise InputError(f"{path}: its axes do not span three dimensions")
    return matrix


def _named(volumes: dict[str, Volume], prefix: str) -> dict[str, Volume]:
    return {k.removeprefix(prefix): v for k, v in volumes.items() if k.startswith(prefix)}


def prepared_studies(folders: Iterable[Path]) -> LazyStudies:
    """Prepared studies, each read on demand.

    Example:
        >>> volume = Volume(np.ones((2, 2, 2), dtype=np.float32), Grid((2, 2, 2), np.eye(4)))
        >>> for subject in ("a", "b"):
        ...     write_prepared(Study(subject, (Visit({"flair": volume}),)), Path(subject))
        ...
        >>> [study.subject for study in prepared_studies([Path("a"), Path("b")])]
        ['a', 'b']
    """
    return LazyStudies(tuple(folders), read_prepared)
