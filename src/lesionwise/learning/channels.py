"""Which scans of which visits are the channels of a network.

A name such as ``flair`` is that scan of every visit; ``difference@followup`` is a scan that the
last visit alone has, and ``t2w@baseline`` one of the first. Channels come in the time order of
their visits, those of one visit in the order of their names.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from lesionwise.types import InputError, Study, scan_of

VISITS = ("baseline", "followup")


def channel_names(visits: int, scans: tuple[str, ...]) -> tuple[str, ...]:
    """The name of each channel: ``scan@visit``.

    Visits are ``baseline``, ``visit-2`` … and ``followup``; the only visit of a study is its
    ``followup``.

    >>> channel_names(2, ("flair", "difference@followup"))
    ('flair@baseline', 'flair@followup', 'difference@followup')

    Raises:
        InputError: If a name refers to a visit other than ``baseline`` and ``followup``.
    """
    return tuple(f"{scan}@{_visit_name(visit, visits)}" for visit, scan in _chosen(visits, scans))


def channels(study: Study, scans: tuple[str, ...]) -> list[NDArray[Any]]:
    """The arrays of a study's channels.

    Raises:
        InputError: If a visit lacks a scan.

    Example:
        >>> import numpy as np
        >>> from lesionwise.types import Grid, Visit, Volume
        >>> scan = Volume(np.zeros((2, 3, 4)), Grid((2, 3, 4), np.eye(4)))
        >>> study = Study("01", (Visit({"flair": scan}), Visit({"flair": scan})))
        >>> [array.shape for array in channels(study, ("flair",))]
        [(2, 3, 4), (2, 3, 4)]
    """
    arrays = []
    for number, name in _chosen(len(study.visits), scans):
        arrays.append(scan_of(study, study.visits[number], name).array)
    return arrays


def _chosen(visits: int, scans: tuple[str, ...]) -> list[tuple[int, str]]:
    found = []
    for number in range(visits):
        for text in scans:
            name, at, visit = text.partition("@")
            if at and visit not in VISITS:
                raise InputError(f"scan {text}: write {name}@baseline or {name}@followup")
            if not at or number == (0 if visit == "baseline" else visits - 1):
                found.append((number, name))
    return found


def _visit_name(number: int, visits: int) -> str:
    if number == visits - 1:
        return "followup"
    return "baseline" if number == 0 else f"visit-{number + 1}"
