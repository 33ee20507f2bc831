"""The group level: one table of lesions, one of scans, one of patients, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise.change.rules import STATES
from lesionwise.cohort.records import (
    RECORD,
    Record,
    failures_of,
    fault_lines,
    read_record,
    subject_folders,
    write_failures,
)
from lesionwise.io.files import read_json, read_table, write_table
from lesionwise.report.folder import Rebuilt, rebuild_pages
from lesionwise.report.page import CohortPage, write_index_page
from lesionwise.types import InputError, Progress, silent

COUNTS = ("lesions", "volume_ml", "cc", "acls", "offsets")
CHANGES = tuple(state for state in STATES if state != "baseline")
QUALITY = ("quality", "quality_reasons")
GRADES = ("good", "fair", "poor")
"""From the best to the worst."""


@dataclass(frozen=True, eq=False)
class Group:
    """What the group level made.

    Attributes:
        scans: a row a scan: subject, session, lesions and volume by the main way, lesions by
            each way, what changed since the visit before, quality, seconds, page.
        participants: a row a subject: visits, and counts, volume and quality of the last one.
        failures: rows of subject, file and fault.
        failed: the same, a line each.
        page: the page over all.
    """

    scans: pd.DataFrame
    participants: pd.DataFrame
    failures: pd.DataFrame
    failed: tuple[str, ...]
    page: Path


def group(output: Path, progress: Progress = silent) -> Group:
    """Gather what the participant level wrote; nothing is computed anew.

    Writes ``lesions.tsv`` (every lesion of every scan), ``scans.tsv``, ``participants.tsv``,
    ``failures.tsv`` where something failed, and ``index.html`` with links to every study.

    Raises:
        InputError: If no subject is done there.
    """
    output = output.absolute()
    folders = subject_folders(output) if output.is_dir() else []
    records = {folder.name.removeprefix("sub-"): read_record(folder) for folder in folders}
    faults = failures_of(output, records)
    scans: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    lesions: list[pd.DataFrame] = []
    for number, (label, record) in enumerate(records.items()):
        if record is None:
            continue
        progress("gather", number, len(records))
        folder = output / f"sub-{label}"
        try:
            rows = _scans(folder, record)
            lesions.append(read_table(folder / "lesions.tsv"))
        except (InputError, KeyError, TypeError) as fault:
            line = str(fault) if isinstance(fault, InputError) else f"{folder}: damaged results"
            faults.append({"subject": folder.name, "file": "", "fault": line})
            continue
        scans += rows
        people.append(_person(label, record, rows))
    if not scans:
        raise InputError(f"{output}: no subject is done; run the participant level first")
    _write_lesions(output, lesions)
    tables = (
        _table(scans, ["subject", "session", *COUNTS, *CHANGES, *QUALITY, "seconds", "page"]),
        _table(people, ["participant_id", "visits", *COUNTS, *CHANGES, "quality", "seconds"]),
        pd.DataFrame(faults, columns=["subject", "file", "fault"]),
    )
    write_table(output / "scans.tsv", tables[0])
    write_table(output / "participants.tsv", tables[1])
    write_failures(output, faults)
    progress("page", len(records), len(records))
    page = write_cohort_page(output, tables[0], tables[2], records)
    return Group(*tables, fault_lines(faults), page)


def write_cohort_page(
    output: Path,
    scans: pd.DataFrame,
    failures: pd.DataFrame,
    records: Mapping[str, Record | None],
) -> Path:
    """The page over all scans, with links to each study."""
    settings = next(record.settings for record in records.values() if record is not None)
    changed = [name for name in ("new", "growing") if name in scans]
    patients = scans["subject"].nunique()
    return write_index_page(
        CohortPage(
            title=f"Lesions of {patients} patient{'s' if patients > 1 else ''}",
            scans=scans,
            failures=failures,
            distributions=("lesions", "volume_ml", *changed),
            provenance={
                "recipe": settings.get("model"),
                "model": str(settings.get("weights", ""))[:12],
                "lesionwise": settings.get("version"),
            },
        ),
        output / "index.html",
    )


def _scans(folder: Path, record: Record) -> list[dict[str, Any]]:
    """A row a scan, in time order, from the sidecars of the lesion masks."""
    abouts = [
        read_json(folder / name) for name in record.files if name.endswith("_label-L_mask.json")
    ]
    places = {Path(known.path).name: place for place, known in enumerate(record.inputs)}
    abouts.sort(key=lambda about: places.get(Path(about["Sources"][0]).name, len(places)))
    changes = _changes(folder) if record.compared else {}
    rows = []
    for about in abouts:
        summary = about["Summary"]
        page = "index.html" if record.compared else summary["page"]
        session = summary["session"]
        row = {
            "subject": f"sub-{record.subject}",
            "session": session,
            **{name: summary.get(name) for name in COUNTS},
            **changes.get(str(session), {}),
            "quality": worst(note.get("grade") for note in about.get("Quality", ())),
            "quality_reasons": _reasons(about.get("Quality", ())),
            "seconds": summary["seconds"],
            "page": f"{folder.name}/{page}",
        }
        rows.append(row)
    return rows


def _changes(folder: Path) -> dict[str, dict[str, int]]:
    table = read_table(folder / "visits.tsv")
    found = {}
    for number, row in enumerate(table.to_dict("records")):
        names = [name for name in CHANGES if name in row]
        if number:  # the first visit has nothing before it
            found[str(row["visit"])] = {str(name): int(row[name]) for name in names}
    return found


def worst(grades: Any) -> str | None:
    """The worst of the grades; None where there is none."""
    found = [GRADES.index(grade) for grade in grades if grade in GRADES]
    return GRADES[max(found)] if found else None


def _reasons(notes: Sequence[Mapping[str, Any]]) -> str | None:
    return "; ".join(str(reason) for note in notes for reason in note.get("reasons", ())) or None


def _person(label: str, record: Record, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = rows[-1]
    changes = {
        name: sum(row[name] for row in rows if name in row)
        for name in CHANGES
        if any(name in row for row in rows)
    }
    return {
        "participant_id": f"sub-{label}",
        "visits": len(rows),
        **{name: last[name] for name in COUNTS},
        **changes,
        "quality": worst(row["quality"] for row in rows),
        "seconds": record.seconds,
        "failures": len(record.faults),
    }


def _table(rows: Sequence[Mapping[str, Any]], order: Sequence[str]) -> pd.DataFrame:
    """Columns in this order, then any others; those that say nothing anywhere are left out."""
    table = pd.DataFrame(list(rows))
    names = [name for name in order if name in table]
    table = table[[*names, *(name for name in table if name not in names)]]
    whole = table.columns[table.notna().any()]
    return table[[name for name in table if name in whole or name == "session"]]


def _write_lesions(output: Path, tables: Sequence[pd.DataFrame]) -> None:
    columns = list(dict.fromkeys(str(name) for table in tables for name in table.columns))
    filled = [table for table in tables if len(table)]
    both = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()
    write_table(output / "lesions.tsv", both, columns)


def rebuild(output: Path, progress: Progress = silent) -> Rebuilt:
    """Make the pages of all subjects and of the group again, from the files alone.

    Raises:
        InputError: If no subject is done there.
    """
    pages: list[Path] = []
    failures: dict[str, str] = {}
    folders = subject_folders(output)
    for number, folder in enumerate(folders):
        progress(f"page of {folder.name}", number, len(folders))
        try:
            made = rebuild_pages(output, subject=folder.name.removeprefix("sub-"))
        except InputError as fault:
            failures[folder.name] = str(fault)
            continue
        pages += made.pages
        failures.update(made.failures)
    return Rebuilt((*pages, group(output, progress).page), failures)


def is_cohort(output: Path) -> bool:
    """Whether a participant level wrote this folder."""
    return (output / RECORD).is_file()
