"""A comparison of visits: what is written beside the results of each scan, and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionwise.io.files import write_json, write_table
from lesionwise.io.names import Entities
from lesionwise.io.nifti import read_labels, write_volume
from lesionwise.io.record import FileRecord, file_records
from lesionwise.results.columns import (
    LINK_COLUMNS,
    TRACK_COLUMNS,
    VISIT_COLUMNS,
    read_typed,
    write_described,
)
from lesionwise.results.keys import Generator, generated_by, read_keys, to_keys
from lesionwise.results.names import (
    COMPARISON,
    LINKS,
    SCORES,
    TRACKS,
    TRACKS_BEFORE,
    VISITS,
    ScanFiles,
    beside,
    scan_name,
)
from lesionwise.results.quality import QualityEntry, QualityNote
from lesionwise.results.words import STATES, session_name, state_name, subject_name
from lesionwise.types import Grid, InputError, Volume

LEGEND = {str(code): state for code, state in enumerate(STATES, start=1)}
"""The state of each code in change maps."""


@dataclass(frozen=True)
class ComparisonRecord:
    """What ``compare.json`` says.

    Attributes:
        sources: the images of all visits, in time order.
        first_visit_to_visit_mm: (4, 4) each: world mm of the first visit to those of each.
        scans: names of the scans, as ``results.names.scan_name`` writes them.
        recipe, model_hash, departures: what found the lesions.
        options, tracking_rules: settings of finding and of following.
        found_by_following: of each visit, the labels that only following found.
        quality: notes on what changed between visits, and further ones.
        seconds: wall time by stage of each visit.
        truth: whether known lesions lie beside the results.
        files: size and hash of tables and change maps, by path below the output folder.
        further: what else the command wants to be kept, by its key.
    """

    sources: tuple[str, ...]
    first_visit_to_visit_mm: tuple[tuple[tuple[float, ...], ...], ...]
    scans: tuple[str, ...] = ()
    generated_by: Generator = field(default_factory=lambda: generated_by("lesionwise compare"))
    recipe: str = ""
    model_hash: str = ""
    departures: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    tracking_rules: dict[str, Any] = field(default_factory=dict)
    found_by_following: tuple[tuple[int, ...], ...] = ()
    quality: tuple[QualityEntry, ...] = ()
    seconds: tuple[dict[str, float | None], ...] = ()
    truth: bool = False
    files: dict[str, FileRecord] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.sources) < 2 or len(self.first_visit_to_visit_mm) != len(self.sources):
            raise ValueError("a comparison needs two or more sources and a matrix for each")
        for matrix in self.first_visit_to_visit_mm:
            if [len(row) for row in matrix] != [4] * 4 or not np.isfinite(matrix).all():
                raise ValueError("FirstVisitToVisitMm needs 4 x 4 finite numbers for each visit")
            if abs(np.linalg.det(np.array(matrix))) < 1e-9:
                raise ValueError("FirstVisitToVisitMm needs matrices with an inverse")

    @staticmethod
    def read(place: Path) -> ComparisonRecord:
        """From a folder's ``compare.json``.

        Raises:
            InputError: If it is missing or malformed.
        """
        return read_keys(place / COMPARISON, ComparisonRecord)

    @property
    def notes(self) -> tuple[QualityNote, ...]:
        return tuple(QualityNote.read(entry) for entry in self.quality)

    @property
    def matrices(self) -> tuple[np.ndarray[Any, np.dtype[np.float64]], ...]:
        return tuple(np.array(m, dtype=np.float64) for m in self.first_visit_to_visit_mm)


@dataclass(frozen=True, eq=False)
class VisitChange:
    """What changed at a later visit.

    Attributes:
        scan: entities of the visit's scan.
        source: the scan that was read.
        states: uint8 on the scan's grid: 0, or a code of ``LEGEND``.
        common: the same on the grid that all visits share.
        new: mask of new lesions on the scan's grid; None where a model of two visits writes it.
    """

    scan: Entities
    source: str
    states: Volume
    common: Volume
    new: Volume | None = None

    def write(self, root: Path, *, grid: Grid | None = None) -> list[Path]:
        """Write the maps and their sidecars; the paths of the maps.

        Args:
            grid: of the scan's file, whose order of axes maps on its grid take.
        """
        files = ScanFiles(root, self.scan)
        about = {"Sources": [self.source], "Labels": LEGEND}
        written = [files.change, files.change_on_baseline]
        if self.new is not None:
            write_volume(files.new_mask, self.new, grid=grid)
            written.append(files.new_mask)
        write_volume(files.change, self.states, grid=grid)
        write_json(beside(files.change, ".json"), about)
        write_volume(files.change_on_baseline, self.common)
        write_json(beside(files.change_on_baseline, ".json"), about)
        return written

    @staticmethod
    def read(root: Path, scan: Entities, source: str) -> VisitChange:
        """The maps again; ``new`` where it is there.

        Raises:
            InputError: If a map is missing or malformed.
        """
        files = ScanFiles(root, scan)
        return VisitChange(
            scan,
            source,
            read_labels(files.change),
            read_labels(files.change_on_baseline),
            read_labels(files.new_mask) if files.new_mask.is_file() else None,
        )


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """The states of all lesions of a patient.

    Attributes:
        scans: entities of each visit's scan, in time order.
        record: what made it.
        visits: rows as in ``visits.tsv``.
        tracks: rows as in ``tracks.tsv``: session (``ses-…``), label, track, state ….
        links: rows as in ``links.tsv``.
        scores: against known lesions; None where nothing is known.
    """

    scans: tuple[Entities, ...]
    record: ComparisonRecord
    visits: pd.DataFrame
    tracks: pd.DataFrame
    links: pd.DataFrame
    scores: pd.DataFrame | None = None

    def write(self, root: Path, maps: Sequence[Path] = ()) -> ComparisonRecord:
        """Write the tables and last ``compare.json``.

        Args:
            root: the output folder.
            maps: change maps that were written before (``VisitChange.write``).

        Raises:
            InputError: If the folder or the disk does not take a file.
        """
        written = [*maps, root / VISITS, root / TRACKS, root / LINKS]
        write_described(root / VISITS, self.visits, VISIT_COLUMNS)
        write_described(root / TRACKS, self.tracks, TRACK_COLUMNS)
        write_described(root / LINKS, self.links, LINK_COLUMNS)
        if self.scores is not None:
            write_table(root / SCORES, self.scores)
            written.append(root / SCORES)
        else:
            (root / SCORES).unlink(missing_ok=True)
        record = replace(
            self.record,
            scans=tuple(scan_name(scan) for scan in self.scans),
            files=file_records(root, written),
        )
        keys = to_keys(record)
        write_json(root / COMPARISON, {**keys.pop("Further"), **keys})
        return record

    @staticmethod
    def read(place: Path, scans: Sequence[Entities] = ()) -> ComparisonResult:
        """All of it again, also from folders written before.

        Args:
            place: the folder of the tables.
            scans: entities of the scans in time order, where they are known.

        Raises:
            InputError: If a file is missing or malformed.
        """
        record = ComparisonRecord.read(place)
        scores = place / SCORES
        return ComparisonResult(
            tuple(scans),
            record,
            read_typed(place / VISITS) if (place / VISITS).exists() else pd.DataFrame(),
            read_tracks(place),
            read_typed(place / LINKS) if (place / LINKS).exists() else pd.DataFrame(),
            read_typed(scores) if scores.exists() else None,
        )


def read_tracks(place: Path) -> pd.DataFrame:
    """The tracks of a comparison, also of one written before.

    Raises:
        InputError: If the table is missing, malformed, or lacks a column.

    Example:
        >>> track = {"track": 1, "session": "ses-01", "label": 3, "state": "growing"}
        >>> write_table("tracks.tsv", [{**track, "volume_mm3": 20.5, "parents": "2"}])
        >>> read_tracks(Path("."))[["track", "state"]].values.tolist()
        [[1, 'enlarging']]
    """
    path = place / TRACKS
    if not path.exists() and (place / TRACKS_BEFORE).exists():
        path = place / TRACKS_BEFORE
    tracks = read_typed(path)
    lacking = {"track", "session", "label", "state", "volume_mm3", "parents"} - set(tracks)
    if lacking:
        raise InputError(f"{path}: no column {', '.join(sorted(lacking))}")
    if tracks[["track", "label", "session"]].isna().any(axis=None):
        raise InputError(f"{path}: a row has no track, session or label")
    numbers = tracks[["track", "label"]]
    if not ((numbers >= 0) & (numbers < 2**31)).all(axis=None):
        raise InputError(f"{path}: a track or label is not the number of a lesion")
    return tracks.astype({"track": np.int64, "label": np.int64})


def with_states(lesions: pd.DataFrame, tracks: pd.DataFrame) -> pd.DataFrame:
    """Rows of lesions of the main method with their track and state.

    Args:
        lesions: session (``ses-…``) and label of each; others than those of ``tracks`` get none.

    Example:
        >>> lesions = pd.DataFrame({"session": ["ses-01", "ses-02"], "label": [1, 1]})
        >>> tracks = lesions.assign(track=[7, 7], state=["baseline", "stable"])
        >>> with_states(lesions, tracks)[["session", "track", "state"]].values.tolist()
        [['ses-01', 7, 'baseline'], ['ses-02', 7, 'stable']]
    """
    rows = tracks[tracks["label"] > 0].drop_duplicates(["session", "label"])
    columns = [name for name in ("track", "state", "ambiguous", "edge") if name in rows]
    return lesions.drop(columns=columns, errors="ignore").merge(
        rows[["session", "label", *columns]], on=["session", "label"], how="left"
    )


def named_tracks(
    tracks: pd.DataFrame, links: pd.DataFrame, scans: Sequence[Entities]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tracks and links with the names of subject, sessions and scans for the visits' numbers.

    Args:
        tracks: as ``change.tracking`` makes them: visit from 0.
        links: visit_before and visit_after from 0.
        scans: of the visits.

    Example:
        >>> scans = [Entities(sub="01", ses="M00"), Entities(sub="01", ses="M12")]
        >>> tracks = pd.DataFrame({"lineage": [1, 1], "visit": [0, 1], "label": [1, 3]})
        >>> links = pd.DataFrame({"visit_before": [0], "visit_after": [1]})
        >>> tracks, links = named_tracks(tracks, links, scans)
        >>> tracks[["track", "session", "scan"]].values.tolist()
        [[1, 'ses-M00', 'sub-01_ses-M00'], [1, 'ses-M12', 'sub-01_ses-M12']]
        >>> links[["session_before", "session_after"]].values.tolist()
        [['ses-M00', 'ses-M12']]
    """
    subject = subject_name(scans[0].sub)
    sessions = [session_name(scan.ses) for scan in scans]
    numbers = tracks["visit"].tolist()
    states = {n: tracks[n].map(state_name) for n in ("state", "becomes") if n in tracks}
    named = tracks.drop(columns="visit").rename(columns={"lineage": "track"})
    named = named.assign(
        **states,
        subject=subject,
        session=[sessions[number] for number in numbers],
        scan=[scan_name(scans[number]) for number in numbers],
    )
    between = {
        f"session_{side}": [sessions[n] for n in links[f"visit_{side}"].tolist()]
        for side in ("before", "after")
    }
    linked = links.drop(columns=["visit_before", "visit_after"]).assign(subject=subject, **between)
    return named, linked


def state_counts(visits: pd.DataFrame) -> Mapping[str, Mapping[str, int]]:
    """How many lesions of each state, by session; of the first visit none.

    Args:
        visits: rows as in ``visits.tsv``.

    Example:
        >>> visits = pd.DataFrame({"session": ["ses-01", "ses-02"], "new": [0, 2]})
        >>> state_counts(visits)
        {'ses-02': {'new': 2}}
    """
    found = {}
    for number, row in enumerate(visits.to_dict("records")):
        counts = {s: row[s] for s in STATES if s in row and not pd.isna(row[s])}
        if number:  # the first visit has nothing before it
            found[str(row.get("session"))] = {state: int(n) for state, n in counts.items()}
    return found
