"""Metadata of a scan: its JSON sidecars, and its acquisition time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any

from lesionwise.io.checked import read_checked
from lesionwise.io.files import read_table
from lesionwise.io.names import parse_name
from lesionwise.io.tree import BidsFile

_ROOT = "dataset_description.json"


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """All that JSON files say about a scan, by key; empty where there are none.

    The file of the same name counts, and by the inheritance principle of BIDS every one in the
    scan's folder and the folders above, up to the data set's root, whose suffix is the scan's and
    whose entities the scan all has. What stands nearer to the scan wins.

    Raises:
        InputError: If a sidecar is no JSON, or holds no mapping.

    Example:
        >>> _ = Path("sub-01_FLAIR.json").write_text('{"EchoTime": 0.1}')
        >>> read_sidecar("sub-01_FLAIR.nii.gz")["EchoTime"]
        0.1
    """
    found: dict[str, Any] = {}
    for sidecar in _sidecars(Path(path)):
        found |= read_checked(sidecar, dict[str, Any])
    return found


def acquired(path: str | Path) -> datetime | None:
    """When a scan was acquired, in the time zone that is stated; None where nothing says it.

    By its sidecars (``AcquisitionDateTime``, or ``AcquisitionDate`` with ``AcquisitionTime``),
    else by ``acq_time`` in the session's ``*_scans.tsv`` or in ``*_sessions.tsv``. ``utc`` makes
    two such times comparable.

    Raises:
        InputError: If a sidecar or a table is malformed.

    Example:
        >>> acquired("sub-01_FLAIR.nii.gz") is None
        True
    """
    path = Path(path)
    about = read_sidecar(path)
    date = str(about.get("AcquisitionDate") or "")
    stated = str(about.get("AcquisitionDateTime") or "") or (
        f"{date} {about.get('AcquisitionTime') or ''}".strip() if date else ""
    )
    return parse_time(stated) or parse_time(_listed(path))


def _sidecars(path: Path) -> Iterator[Path]:
    """From the farthest to the nearest."""
    stem = path.name
    for extension in (".nii.gz", ".nii"):
        if stem.lower().endswith(extension):
            stem = stem[: -len(extension)]
    own = path.with_name(f"{stem}.json")
    entities = parse_name(path)
    if entities is not None:
        for folder in reversed(_folders(path)):
            found = []
            for sidecar in sorted(folder.glob(f"*{escape(entities.suffix)}.json")):
                # a sidecar above the subject states none, which makes it no BIDS name by itself
                stated = parse_name(sidecar) or parse_name(f"sub-{entities.sub}_{sidecar.name}")
                if stated is None or sidecar == own or stated.suffix != entities.suffix:
                    continue
                if stated.pairs().items() <= entities.pairs().items():
                    found.append(BidsFile(sidecar, stated))
            yield from (f.path for f in sorted(found, key=lambda f: len(f.entities.pairs())))
    if own.is_file():
        yield own


def _folders(path: Path) -> list[Path]:
    """The scan's folder and those above, to the data set's root; without a root the first alone."""
    folders = list(path.absolute().parents)[:4]
    for count, folder in enumerate(folders, start=1):
        if (folder / _ROOT).is_file():
            return folders[:count]
    return folders[:1]


def _listed(path: Path) -> str:
    """``acq_time`` of a scan in the tables of its data set; empty where they do not say it."""
    entities = parse_name(path)
    if entities is None:
        return ""
    subject, session = f"sub-{entities.sub}", f"ses-{entities.ses}"
    for folder in _folders(path):
        scans = folder / (
            f"{subject}_{session}_scans.tsv" if entities.ses else f"{subject}_scans.tsv"
        )
        sessions = folder / f"{subject}_sessions.tsv"
        for table, key, wanted in (
            (scans, "filename", path.absolute().relative_to(folder).as_posix()),
            (sessions, "session_id", session),
        ):
            if table.is_file():
                rows = read_table(table)
                if {key, "acq_time"} <= set(rows):
                    times = rows.loc[rows[key] == wanted, "acq_time"].dropna()
                    if len(times):
                        return str(times.iloc[0])
    return ""


def parse_time(text: str) -> datetime | None:
    """A date, with or without a time of day, as BIDS, ISO 8601 and DICOM write it; else None.

    ``2020-03-04``, ``2020-03-04T10:11:12.5Z``, ``20200304 101112.25`` and ``20200304101112`` are.

    Example:
        >>> parse_time("2024-05-01"), parse_time("unknown")
        (datetime.datetime(2024, 5, 1, 0, 0), None)
    """
    parts = _DICOM_TIME.fullmatch(text.strip())
    if parts:
        time = (parts["time"] or "").ljust(6, "0")
        text = f"{parts['date']}T{time}{(parts['fraction'] or '')[:7]}"
    text = re.sub(r"(?<=[T :])([0-9])(?=[:.]|$)", r"0\1", text.strip())  # dcm2niix writes 9:5:2.5
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def utc(time: datetime) -> datetime:
    """A time with a zone in UTC, without the zone; one without a zone as it stands.

    Example:
        >>> print(utc(datetime.fromisoformat("2020-03-04T01:00:00+09:00")))
        2020-03-03 16:00:00
    """
    if time.tzinfo is None:
        return time
    try:
        return time.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:  # in the first or the last hours that a date can have
        return time.replace(tzinfo=None)


_DICOM_TIME = re.compile(
    r"(?P<date>[0-9]{8})[T ]?(?P<time>(?:[0-9]{2}){0,3})(?P<fraction>\.[0-9]{1,9})?"
)
