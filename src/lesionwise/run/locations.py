"""The McDonald location of every lesion that was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from lesionwise.preprocess.location import Landmarks, find_landmarks, locate_lesions
from lesionwise.preprocess.visits import Beside
from lesionwise.run.stopwatch import Stopwatch
from lesionwise.types import InputError, Instances, Volume

if TYPE_CHECKING:
    from lesionwise.run.find_lesions import VisitResult

MIN_BRAIN_ML = 500.0
"""A part of a brain smaller than this cannot be registered to the template with confidence."""


def add_locations(
    found: VisitResult, tables: Mapping[str, pd.DataFrame], known: Instances | None = None
) -> tuple[VisitResult, dict[str, pd.DataFrame]]:
    """The tables with a column ``location``, and what was found with the time that took.

    Where the scan cannot be registered to the template, or shows less than ``MIN_BRAIN_ML`` of a
    brain, no lesion has a location and a warning says so.

    Args:
        tables: lesions by separation method, each with a column ``label``; a table
            of that name in ``found.instances``, or ``truth`` for those of ``known``.
        known: lesions of the truth on the scan's grid.
    """
    watch = Stopwatch()
    warnings = found.warnings
    places: dict[str, Mapping[int, str]] = {}
    instances = {**found.instances, **({} if known is None else {"truth": known})}
    with watch.stage("location"):
        if any(len(table) for table in tables.values()):
            try:
                landmarks = _landmarks(found)
            except InputError as error:
                warnings = (*warnings, f"lesions have no location: {error}")
            else:
                places = {name: locate_lesions(instances[name], landmarks) for name in tables}
    located = {
        name: table.assign(location=table["label"].map(dict(places.get(name, {}))))
        for name, table in tables.items()
    }
    seconds = {
        **found.seconds,
        "location": found.seconds.get("location", 0) + watch.seconds["location"],
    }
    return replace(found, warnings=warnings, seconds=seconds), located


def _landmarks(found: VisitResult) -> Landmarks:
    scan = next(iter(found.visit.scans.values()))
    brain_ml = float(found.brain.array.sum() * found.brain.grid.voxel_volume_mm3 / 1000)
    if brain_ml < MIN_BRAIN_ML:
        raise InputError(f"{brain_ml:.0f} ml of brain are too little")
    return found.landmarks.result() if found.landmarks else find_landmarks(scan, found.brain)


def landmarks_beside(scan: Volume, brain: Volume) -> Beside[Landmarks]:
    """The landmarks of a scan, found while other work goes on."""
    return Beside(find_landmarks, scan, brain)
