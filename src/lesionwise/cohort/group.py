"""The group level: one table of lesions, one of scans, one of patients, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise.cohort.people import PEOPLE_COLUMNS, by_group, with_people
from lesionwise.cohort.records import (
    RECORD,
    Record,
    failure_lines,
    failures_of,
    read_record,
    subject_folders,
    write_failures,
)
from lesionwise.report.folder import PageResult, rebuild_pages
from lesionwise.report.page import CohortPage, write_index_page
from lesionwise.results.columns import (
    LESION_COLUMNS,
    PARTICIPANT_COLUMNS,
    SCAN_COLUMNS,
    Column,
    read_typed,
    write_described,
)
from lesionwise.results.comparison import state_counts
from lesionwise.results.folder import FolderTables, read_folder, remove_other_tables
from lesionwise.results.names import INDEX, LESIONS, PARTICIPANTS, SCANS, VISITS, lesions_by
from lesionwise.results.quality import worst
from lesionwise.results.words import CHANGES
from lesionwise.types import InputError, Progress, no_progress

COUNTS = (
    "lesions", "volume_ml", "mask_volume_ml", "brain_volume_ml", "lesion_load_percent",
    "lesions_cc", "lesions_acls", "lesions_offsets",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Group:
    """What the group level made.

    Attributes:
        scans: a row a scan, as in ``scans.tsv``: lesions and volume by the main method, lesions
            by each method, what changed since the visit before, quality, seconds, source, page.
        participants: a row a subject: sessions and scans, counts and volume of the last scan, and
            the worst quality.
        failures: rows of subject, file and error.
        failed: the same, a line each, by file or subject.
        page: the page over all.
    """

    scans: pd.DataFrame
    participants: pd.DataFrame
    failures: pd.DataFrame
    failed: dict[str, str]
    page: Path


def group(output: Path, progress: Progress = no_progress) -> Group:
    """Gather what the participant level wrote; nothing is computed anew.

    Writes ``lesions.tsv`` (every lesion of every scan by the main method; ``lesions_seg-….tsv`` by
    the others), ``scans.tsv``, ``participants.tsv``, each with its data dictionary,
    ``failures.tsv`` where something failed, and ``index.html`` with links to every study.

    Raises:
        InputError: If no subject is done there.
    """
    output = output.absolute()
    folders = subject_folders(output) if output.is_dir() else []
    records = {folder.name.removeprefix("sub-"): read_record(folder) for folder in folders}
    failures = failures_of(output, records)
    scans: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    lesions: dict[str, list[pd.DataFrame]] = {}
    main = ""
    for number, (label, record) in enumerate(records.items()):
        if record is None:
            continue
        progress("gather", number, len(records))
        folder = output / f"sub-{label}"
        try:
            tables = read_folder(output, folder, label)
            rows = _scans(folder, record, tables)
        except InputError as error:
            failures.append({"subject": folder.name, "file": "", "error": str(error)})
            continue
        failures += [
            {"subject": folder.name, "file": name, "error": error}
            for name, error in tables.failures.items()
        ]
        if not rows:
            continue
        main = main or tables.main
        for method, table in tables.lesions.items():
            lesions.setdefault(method, []).append(table)
        scans += rows
        people.append(_person(label, record, rows, len(tables.failures)))
    if not scans:
        raise InputError(f"{output}: no subject is finished; run the participant level first")
    for method, parts in lesions.items():
        name = LESIONS if method == main else lesions_by(method)
        write_described(output / name, _joined(parts), LESION_COLUMNS)
    remove_other_tables(output, [method for method in lesions if method != main])
    found = (
        with_people(output, _table(scans, SCAN_COLUMNS), "subject"),
        with_people(output, _table(people, PARTICIPANT_COLUMNS), "participant_id"),
        pd.DataFrame(failures, columns=["subject", "file", "error"]),
    )
    subject, *others = SCAN_COLUMNS
    write_described(output / SCANS, found[0], (subject, *PEOPLE_COLUMNS, *others))
    participant, *others = PARTICIPANT_COLUMNS
    write_described(output / PARTICIPANTS, found[1], (participant, *PEOPLE_COLUMNS, *others))
    write_failures(output, failures)
    progress("page", len(records), len(records))
    page = write_cohort_page(output, found[0], found[2], records)
    return Group(*found, failure_lines(failures), page)


def write_cohort_page(
    output: Path,
    scans: pd.DataFrame,
    failures: pd.DataFrame,
    records: Mapping[str, Record | None],
) -> Path:
    """The page over all scans, with links to each study."""
    settings = next(record.settings for record in records.values() if record is not None)
    changed = [name for name in ("new", "enlarging") if name in scans]
    patients = scans["subject"].nunique()
    return write_index_page(
        CohortPage(
            title=f"Lesions of {patients} patient{'s' if patients > 1 else ''}",
            scans=scans,
            failures=failures,
            distributions=("lesions", "volume_ml", *changed),
            groups=by_group(scans, ("lesions", "volume_ml", *changed)),
            provenance={
                "recipe": settings.get("model"),
                "model": str(settings.get("weights", ""))[:12],
                "lesionwise": settings.get("version"),
            },
        ),
        output / INDEX,
    )


def _scans(folder: Path, record: Record, tables: FolderTables) -> list[dict[str, Any]]:
    """A row a scan, in time order, with what changed since the visit before."""
    places = {Path(known.path).name: place for place, known in enumerate(record.inputs)}
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()} for row in tables.scans.to_dict("records")
    ]
    rows.sort(key=lambda row: places.get(Path(str(row["source"])).name, len(places)))
    changes = state_counts(read_typed(folder / VISITS)) if record.compared else {}
    for row in rows:
        if row["page"] == INDEX:  # a scan that was compared
            row |= {k: n for k, n in changes.get(str(row["session"]), {}).items() if k in CHANGES}
        row["page"] = f"{folder.name}/{row['page']}"
    return rows


def _person(
    label: str, record: Record, rows: Sequence[Mapping[str, Any]], damaged: int
) -> dict[str, Any]:
    last = rows[-1]
    changes = {
        name: sum(row[name] for row in rows if name in row)
        for name in CHANGES
        if any(name in row for row in rows)
    }
    return {
        "participant_id": f"sub-{label}",
        "sessions": len({row["session"] or row["scan"] for row in rows}),
        "scans": len(rows),
        **{name: last[name] for name in COUNTS if name in last},
        **changes,
        "quality": worst(row["quality"] for row in rows),
        "seconds": record.seconds,
        "failures": len(record.failures) + damaged,
    }


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    """Columns in this order; those that say nothing anywhere are left out."""
    table = pd.DataFrame(list(rows))
    names = [column.name for column in columns if column.name in table]
    table = table[names]
    whole = table.columns[table.notna().any()]
    return table[[name for name in table if name in whole or name == "session"]]


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all tables, with the columns of any; without rows those of the first."""
    columns = list(dict.fromkeys(str(name) for table in tables for name in table.columns))
    filled = [table for table in tables if len(table)]
    return (pd.concat(filled, ignore_index=True) if filled else tables[0]).reindex(columns=columns)


def rebuild(
    output: Path, progress: Progress = no_progress, *, hide_face: bool = False
) -> PageResult:
    """Make the pages of all subjects and of the group again, from the files alone.

    Args:
        hide_face: as for ``rebuild_pages``.

    Raises:
        InputError: If no subject is done there.
    """
    pages: list[Path] = []
    failures: dict[str, str] = {}
    folders = subject_folders(output)
    for number, folder in enumerate(folders):
        progress(f"page of {folder.name}", number, len(folders))
        try:
            label = folder.name.removeprefix("sub-")
            made = rebuild_pages(output, subject=label, hide_face=hide_face)
        except InputError as error:
            failures[folder.name] = str(error)
            continue
        pages += made.pages
        failures.update(made.failures)
    return PageResult((*pages, group(output, progress).page), failures)


def is_cohort(output: Path) -> bool:
    """Whether a participant level wrote this folder."""
    return (output / RECORD).is_file()
