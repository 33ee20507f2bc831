"""The further scans of a visit that a model takes beside the one it is named by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lesionwise.io.dataset import SUFFIXES
from lesionwise.io.nifti import read_volume
from lesionwise.types import InputError, Study, Visit

NONE: Mapping[str, Path] = {}


def further_scans(
    path: Path, wanted: tuple[str, ...], given: Mapping[str, Path] = NONE
) -> dict[str, Path]:
    """The files of all scans but the first that a model takes, by name.

    Args:
        path: of the first scan.
        wanted: all scans of the model, in channel order.
        given: files by the name of the scan, such as ``{"t1w": path}``; otherwise the file beside
            the first scan with the other contrast in its BIDS name.

    Raises:
        InputError: If a file is missing, or one is given that the model does not take.
    """
    unknown = sorted(set(given) - set(wanted[1:]))
    if unknown:
        takes = f"it takes {', '.join(wanted[1:])}" if wanted[1:] else "it takes one scan alone"
        raise InputError(f"--scan {unknown[0]}: this model takes no such scan; {takes}")
    return {name: given[name] if name in given else _beside(path, name) for name in wanted[1:]}


def _beside(path: Path, name: str) -> Path:
    stem, dot, ending = path.name.partition(".")
    head, underscore, suffix = stem.rpartition("_")
    if suffix in SUFFIXES.values():
        beside = path.with_name(f"{head}{underscore}{SUFFIXES[name]}{dot}{ending}")
        if beside.is_file():
            return beside
    raise InputError(f"{path}: this model needs a {name} scan too (--scan {name}=FILE)")


def with_scans(study: Study, files: Mapping[str, Path]) -> Study:
    """The study with further scans in its only visit, each on its own grid.

    Raises:
        InputError: If a file cannot be read.
    """
    if not files:
        return study
    visit = study.followup
    scans = {**visit.scans, **{name: read_volume(path) for name, path in files.items()}}
    return Study(study.subject, (Visit(scans, visit.labels, visit.brain, visit.session),))
