"""When visits were, and the order they come in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

from lesionwise.io.checked import printable
from lesionwise.io.files import read_table
from lesionwise.io.names import natural
from lesionwise.io.sidecar import parse_time, utc
from lesionwise.types import InputError

ONE_DAY = timedelta(days=1)
"""A time whose zone is not known lies nearer than this to the same time in UTC."""

_NUMBERS = re.compile(r"([0-9]+)")


def order_visits(sessions: Iterable[str], times: Mapping[str, datetime]) -> list[str]:
    """Sessions in the order of time: by their dates where each has one, else by their names.

    Names go by the numbers in them, ``M2`` before ``M10``, and so do sessions of one date.

    Example:
        >>> order_visits(["M12", "M2"], {})
        ['M2', 'M12']
    """
    named = sorted(set(sessions), key=natural)
    if not all(session in times for session in named):
        return named
    return sorted(named, key=lambda session: times[session])


class OfSession(Protocol):
    """A scan, where it lies, and the session that its name states."""

    @property
    def path(self) -> Path: ...

    @property
    def session(self) -> str: ...


S = TypeVar("S", bound=OfSession)


def in_time_order(dataset: Path, subject: str, scans: Sequence[S]) -> list[S]:
    """Scans of one subject of a BIDS data set by the time of their sessions.

    As ``order_visits`` has it, of the sessions that the scans are of; scans of one session keep
    their order.

    Args:
        subject: without ``sub-``, as its folder is called.

    Raises:
        InputError: If a table of times cannot be read or a time in it is none.

    Example:
        >>> from lesionwise.io.scans import FoundScan
        >>> from lesionwise.io.names import parse_name
        >>> names = ["sub-01_ses-M12_FLAIR.nii.gz", "sub-01_ses-M00_FLAIR.nii.gz"]
        >>> scans = [FoundScan(Path(name), parse_name(name)) for name in names]
        >>> [scan.session for scan in in_time_order(Path("data"), "01", scans)]
        ['M00', 'M12']
    """
    sessions = {scan.session for scan in scans}
    if len(sessions) < 2:
        return list(scans)
    order = order_visits(sessions, visit_times(dataset, subject, sessions))
    return sorted(scans, key=lambda scan: order.index(scan.session))


def order_unless_named(scans: Sequence[S], named: Iterable[Path]) -> list[S]:
    """Scans of one subject in time order, unless the user named one of them.

    Those that are named one by one stay in the order given, and so do those that lie in no folder
    ``sub-…``.

    Args:
        named: files and folders as the user named them.

    Raises:
        InputError: As for ``in_time_order``.

    Example:
        >>> from lesionwise.io.scans import FoundScan
        >>> from lesionwise.io.names import parse_name
        >>> names = ["sub-01_ses-M12_FLAIR.nii.gz", "sub-01_ses-M00_FLAIR.nii.gz"]
        >>> paths = [Path("sub-01") / name for name in names]
        >>> scans = [FoundScan(path, parse_name(path)) for path in paths]
        >>> [scan.session for scan in order_unless_named(scans, named=[Path("sub-01")])]
        ['M00', 'M12']
        >>> [scan.session for scan in order_unless_named(scans, named=paths)]
        ['M12', 'M00']
    """
    folder = _folder_of_subject(scans[0].path) if scans else None
    if folder is None or {scan.path for scan in scans} & set(named):
        return list(scans)
    return in_time_order(folder.parent, folder.name.removeprefix("sub-"), scans)


def visit_times(dataset: Path, subject: str, sessions: Iterable[str]) -> dict[str, datetime]:
    """When sessions of a subject of a BIDS data set were, as far as its tables say it.

    By ``acq_time`` in ``sub-*_sessions.tsv``, else by the first one in the session's
    ``*_scans.tsv``. Times with a time zone become UTC, those without are taken as they stand.

    Args:
        subject, sessions: without ``sub-`` and ``ses-``, as their folders are called.

    Raises:
        InputError: If a table cannot be read, a time in it is none, or only some of a subject's
            times have a time zone.

    Example:
        >>> Path("sub-01").mkdir()
        >>> _ = Path("sub-01/sub-01_sessions.tsv").write_text(
        ...     "session_id\\tacq_time\\nses-M00\\t2020-01-31T09:30:00\\n"
        ... )
        >>> print(visit_times(Path("."), "01", ["M00", "M12"])["M00"])
        2020-01-31 09:30:00
    """
    folder = dataset / f"sub-{subject}"
    table = folder / f"sub-{subject}_sessions.tsv"
    stated = _times(table, "session_id")
    found = {name.removeprefix("ses-"): time for name, time in stated}
    for session in sessions:
        if session not in found:
            name = f"sub-{subject}_ses-{session}_scans.tsv"
            scans = [time for _, time in _times(folder / f"ses-{session}" / name, "filename")]
            if scans:
                _one_kind(table, scans)
                found[session] = min(scans)
    _one_kind(table, list(found.values()))
    return {session: utc(time) for session, time in found.items()}


def check_visit_order(
    paths: Sequence[str | Path],
    times: Sequence[datetime | None] = (),
    names: Sequence[str] = (),
) -> None:
    """Pass unless two visits that follow each other run backwards, by their dates or their names.

    Dates count where both visits have one and they differ; where only one of them states its time
    zone, they have to differ by more than a day. Names count where they differ in one number alone,
    as ``P14_T2_FLAIR`` and ``P14_T1_FLAIR`` or ``M12`` and ``M00`` do, and no dates say otherwise.

    Args:
        paths: what the user named, in that order.
        times: of each visit, None where it is not known; empty if of none.
        names: of the visits, such as BIDS sessions; the paths themselves if empty.

    Raises:
        InputError: If they run backwards.

    Example:
        >>> check_visit_order(["a.nii.gz", "b.nii.gz"], names=["ses-01", "ses-02"])
    """
    known = list(times) or [None] * len(paths)
    called = list(names) or [str(path) for path in paths]
    for one, two in pairwise(range(len(paths))):
        before, after = known[one], known[two]
        if before is not None and after is not None and _differ(before, after):
            wrong = "acquired" if utc(after) < utc(before) else ""
        else:
            wrong = "by its name" if _counts_down(called[one], called[two]) else ""
        if wrong:
            raise InputError(
                f"{printable(paths[two])}: {wrong} before {printable(paths[one])}; "
                "give visits in time order, baseline first"
            )


def _differ(before: datetime, after: datetime) -> bool:
    """Whether one of two times is surely the earlier."""
    apart = abs(utc(after) - utc(before))
    is_sure = (before.tzinfo is None) == (after.tzinfo is None)
    return apart > (timedelta(0) if is_sure else ONE_DAY)


def _folder_of_subject(path: Path) -> Path | None:
    """The folder ``sub-…`` that a file lies in; None where it lies in none."""
    return next((folder for folder in path.parents if folder.name.startswith("sub-")), None)


def _counts_down(before: str, after: str) -> bool:
    one, two = (_NUMBERS.split(visit) for visit in (before, after))
    if len(one) != len(two):
        return False
    differing = [n for n, (a, b) in enumerate(zip(one, two, strict=True)) if a != b]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return False
    number = differing[0]
    return natural(two[number]) < natural(one[number])


def _times(path: Path, key: str) -> list[tuple[str, datetime]]:
    """``acq_time`` by session or file name from a BIDS table; empty where there is none."""
    if not path.is_file():
        return []
    table = read_table(path)
    if not {key, "acq_time"} <= set(table):
        return []
    found = []
    for name, text in zip(table[key], table["acq_time"], strict=True):
        if isinstance(name, str) and isinstance(text, str):
            time = parse_time(text)
            if time is None:
                raise InputError(f"{path}: {printable(text)} is not a time")
            found.append((name, time))
    return found


def _one_kind(path: Path, times: Sequence[datetime]) -> None:
    if len({time.tzinfo is None for time in times}) > 1:
        raise InputError(f"{path.parent}: some times have a time zone and some have none")
