"""Prepared studies as plain arrays on disk.

A prepared study is a folder of ``.npy`` files with a ``study.json``: reading one needs NumPy
alone, so that a machine with nothing but torch, Lightning and SciPy can train.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from lesionwise.types import IDENTITY, Grid, InputError, Study, Visit, Volume

LARGEST_FLOAT16 = 65504.0


def write_prepared(study: Study, folder: Path) -> None:
    """Keep a study as arrays in ``folder``: scans as float16 (float32 where values exceed its
    range), masks as bool, labels as the smallest unsigned integers that hold them.

    The folder appears complete or not at all.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    visits = []
    for number, visit in enumerate(study.visits):
        volumes = {f"scan-{name}": v for name, v in visit.scans.items()}
        volumes |= {f"label-{name}": v for name, v in visit.labels.items()}
        if visit.brain is not None:
            volumes["brain"] = visit.brain
        grids = {}
        for name, volume in volumes.items():
            np.save(
                partial / f"visit-{number}_{name}.npy", volume.array.astype(_kept_as(name, volume))
            )
            grids[name] = volume.grid.affine.tolist()
        described = {"session": visit.session, "affines": grids, "as_read": visit.as_read.tolist()}
        visits.append(described)
    changes = {}
    for name, volume in study.changes.items():
        np.save(partial / f"change-{name}.npy", volume.array.astype(_kept_as(name, volume)))
        changes[name] = volume.grid.affine.tolist()
    description = {"subject": study.subject, "visits": visits, "changes": changes}
    (partial / "study.json").write_text(json.dumps(description), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


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
    """
    try:
        description = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        visits = []
        for number, described in enumerate(description["visits"]):
            volumes = {
                name: _mapped(folder / f"visit-{number}_{name}.npy", affine)
                for name, affine in described["affines"].items()
            }
            visits.append(
                Visit(
                    scans=_named(volumes, "scan-"),
                    labels=_named(volumes, "label-"),
                    brain=volumes.get("brain"),
                    session=described["session"],
                    as_read=np.asarray(described.get("as_read", IDENTITY)),
                )
            )
        changes = {
            name: _mapped(folder / f"change-{name}.npy", affine)
            for name, affine in description.get("changes", {}).items()
        }
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{folder}: not a prepared study ({error})") from error
    return Study(subject=description["subject"], visits=tuple(visits), changes=changes)


def _mapped(path: Path, affine: list[list[float]]) -> Volume:
    array = np.load(path, mmap_mode="r")
    return Volume(array, Grid(array.shape, np.asarray(affine)))


def _named(volumes: dict[str, Volume], prefix: str) -> dict[str, Volume]:
    return {k.removeprefix(prefix): v for k, v in volumes.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class PreparedStudies(Sequence[Study]):
    """Prepared studies, each read when it is asked for."""

    folders: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.folders)

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> PreparedStudies: ...
    def __getitem__(self, index: int | slice) -> Study | PreparedStudies:
        if isinstance(index, slice):
            return PreparedStudies(self.folders[index])
        return read_prepared(self.folders[index])
