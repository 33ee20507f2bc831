"""The pages of a folder of results again, from its files alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionwise.io.checked import file_named, inside
from lesionwise.io.names import Entities
from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.report.faces import brain_without_face
from lesionwise.report.leaderboard import LEADERBOARD, read_leaderboard, write_leaderboard_page
from lesionwise.report.page import (
    CohortPage,
    StageView,
    StudyPage,
    VisitView,
    write_index_page,
    write_study_page,
)
from lesionwise.report.palette import COMPARED
from lesionwise.report.views import BRIGHTER, CAME
from lesionwise.results.comparison import ComparisonResult, with_states
from lesionwise.results.folder import FolderTables, compared_scans, read_folder
from lesionwise.results.lesion_set import read_lesion_table, read_lesions
from lesionwise.results.names import (
    COMPARISON,
    INDEX,
    TRUTH,
    PairFiles,
    ScanFiles,
    finished_pairs,
    finished_scans,
    pair_page,
    scan_title,
)
from lesionwise.results.pair import PairRecord
from lesionwise.results.provenance import stated_volume_ml
from lesionwise.results.scan import ScanRecord, read_picture
from lesionwise.results.words import STATES
from lesionwise.types import InputError, Instances, Progress, Volume, no_progress

NO_OPTIONS = {"scan", "scans", "model", "recipe", "version"}
"""Settings that a page states elsewhere, or that only tell whether a scan is done."""


@dataclass(frozen=True)
class PageResult:
    """What ``rebuild_pages`` made.

    Attributes:
        pages: in the order written; the one to open comes last.
        failures: the error by the name of what it concerns.
    """

    pages: tuple[Path, ...]
    failures: Mapping[str, str]


def rebuild_pages(
    output: str | Path,
    progress: Progress = no_progress,
    *,
    subject: str = "",
    hide_face: bool = False,
) -> PageResult:
    """Write the pages of ``segment``, ``compare``, ``predict``, ``demo`` or ``benchmark`` again.

    Nothing is computed anew.

    A folder with ``compare.json`` gets one page with all visits, any other a page per scan and
    an index; each pair of visits with new lesions by a model of two gets a page. The scans
    themselves are read where the sidecars say they lie.

    Args:
        subject: of a cohort's folder, the one whose pages are made (without ``sub-``); they lie
            with its tables in its own folder.
        hide_face: show nothing but the brain, which is then looked for in each scan
            (``report.faces``).

    Raises:
        InputError: If the folder holds no results, or no page could be made.
    """
    output = Path(output)
    if (output / LEADERBOARD).exists():
        progress("page", 0, 1)
        page = write_leaderboard_page(read_leaderboard(output), output / "leaderboard.html")
        return PageResult((page,), {})
    place = output / f"sub-{subject}" if subject else output
    scans = list(finished_scans(output, subject))
    pairs = list(finished_pairs(output, subject))
    if not scans and not pairs:
        raise InputError(f"{output}: holds no results of segment, compare or predict")
    pages: list[Path] = []
    failures: dict[str, str] = {}
    for number, scan in enumerate(pairs):
        progress(f"new lesions of {scan_title(scan)}", number, len(pairs))
        try:
            pages.append(write_pair_page(output, scan, place, hide_face=hide_face))
        except InputError as error:
            failures[f"new lesions of {scan_title(scan)}"] = str(error)
    compared: list[Entities] = []
    if (place / COMPARISON).exists():
        compared = compared_scans(output, place)
    for number, scan in enumerate(scan for scan in scans if scan not in compared):
        name = ScanFiles(output, scan).name
        progress(name, number, len(scans))
        try:
            pages.append(write_scan_page(output, scan, place, hide_face=hide_face))
        except InputError as error:
            failures[name] = str(error)
    if compared:
        progress("page", 0, 1)
        page = write_comparison_page(output, place, hide_face=hide_face)
        return PageResult((*pages, page), failures)
    if not pages:
        raise InputError(next(iter(failures.values())))
    if scans:
        pages.append(write_index(place, read_folder(output, place, subject), failures))
    return PageResult(tuple(pages), failures)


def write_index(
    place: Path, tables: FolderTables, failures: Mapping[str, str] | None = None
) -> Path:
    """Write the page over all scans of a folder, ``index.html``, with links to each.

    Args:
        failures: of pages, beside those of the scans.
    """
    failed = {**tables.failures, **(failures or {})}
    record = next(iter(tables.records.values()), None)
    made = {} if record is None else {"recipe": record.recipe, "model": record.model_hash[:12]}
    return write_index_page(
        CohortPage(
            title="Lesions of all scans",
            scans=tables.scans,
            failures=pd.DataFrame(
                [{"file": name, "error": error} for name, error in failed.items()],
                columns=["file", "error"],
            ),
            distributions=("lesions", "volume_ml"),
            provenance=made,
        ),
        place / INDEX,
    )


def write_scan_page(
    output: Path, scan: Entities, place: Path | None = None, *, hide_face: bool = False
) -> Path:
    """Write the page of one scan from what ``segment`` wrote about it; returns its path.

    Args:
        scan: its entities.
        place: the folder for the page; None is ``output``.

    Raises:
        InputError: If a file is missing or cannot be read, or a name in the sidecar leads out of
            the folder.
    """
    files = ScanFiles(output, scan)
    record = ScanRecord.read(files)
    return write_study_page(
        StudyPage(
            title=f"Lesions of {scan_title(scan)}",
            subject=scan.sub,
            visits=(_view(files, record, hide_face=hide_face),),
            lesions=_lesions(files, record.methods),
            method=record.methods[0],
            quality=record.notes,
            provenance=_provenance(record),
        ),
        (place or output) / files.page,
    )


def write_pair_page(
    output: Path, scan: Entities, place: Path | None = None, *, hide_face: bool = False
) -> Path:
    """Write the page of two visits from what ``predict`` wrote about their new lesions.

    Args:
        scan: entities of the visit that the results lie on.
        place: the folder for the page; None is ``output``.

    Raises:
        InputError: If a file is missing or cannot be read, or a name in the sidecar leads out of
            the folder.
    """
    files = PairFiles(output, scan)
    record = PairRecord.read(files)
    image = _read_source(output, record.shown)
    found = read_lesions(files, record.method)
    _check_grid(found.instances, image, record.shown)
    view = VisitView(
        session=scan.ses,
        image=image,
        instances={record.method: found.instances},
        brain=_shown_brain(files.brain, image, record.shown, hide_face),
        warnings=record.warnings,
        source=Path(record.shown).name,
        mask_ml=record.mask_volume_ml,
    )
    lesions = found.table.assign(method=record.method, subject=scan.sub, session=scan.ses)
    between = f"ses-{record.baseline} to ses-{record.followup}"
    return write_study_page(
        StudyPage(
            title=f"New lesions of sub-{scan.sub} {between}",
            subject=scan.sub,
            visits=(view,),
            lesions=lesions,
            method=record.method,
            provenance=_provenance(record),
        ),
        (place or output) / pair_page(scan, record.baseline, record.followup),
    )


def write_comparison_page(
    output: Path, place: Path | None = None, *, hide_face: bool = False
) -> Path:
    """Write ``index.html`` from what ``compare`` wrote; returns its path.

    Args:
        output: holds the results of each visit.
        place: the folder of the tables and the page; None is ``output``.

    Raises:
        InputError: If a file is missing or cannot be read.
    """
    place = place or output
    page = _comparison(output, place, hide_face)
    return write_study_page(page, place / INDEX)


def changes_of(
    tracks: pd.DataFrame,
    before: str,
    after: str,
    places: Mapping[tuple[str, int], str] | None = None,
) -> pd.DataFrame:
    """The state of each lesion between two visits, as a page shows it.

    Args:
        tracks: as in ``tracks.tsv``: session, label (0 where the lesion disappeared), state,
            track, volume_mm3, parents (labels at the visit before, comma-separated), confidence,
            note; change_z and contrast_gain (or appeared) where the scans were asked.
        before, after: names of the visits as they stand in ``session``.
        places: location by visit and label.

    Returns:
        A row a lesion of the second visit and one for each that disappeared: what changed first,
        in the order of ``palette.COMPARED``, and the largest first.
    """
    tracks = tracks.assign(session=tracks["session"].astype(str))
    rows = tracks[tracks["session"] == after]
    earlier = tracks[tracks["session"] == before]
    volumes = dict(zip(earlier["label"].tolist(), earlier["volume_mm3"].tolist(), strict=True))
    parents = [_labels(value) for value in rows["parents"]]
    known = places or {}
    labels = rows["label"].tolist()
    table = pd.DataFrame(
        {
            "state": rows["state"].to_numpy(),
            "track": rows["track"].to_numpy(),
            "location": [
                known.get((after, label), known.get((before, first[0]), "") if first else "")
                for label, first in zip(labels, parents, strict=True)
            ],
            "baseline": [", ".join(map(str, each)) for each in parents],
            "followup": [str(label) if label else "" for label in labels],
            "baseline_mm3": [
                sum(volumes.get(label, np.nan) for label in each) if each else np.nan
                for each in parents
            ],
            "followup_mm3": np.where(rows["label"] > 0, rows["volume_mm3"], np.nan),
            "confidence": _column(rows, "confidence"),
        }
    )
    for name in ("form", "change_mm3", "edge"):
        if name in rows and not rows[name].astype(str).isin(["", "nan", "False"]).all():
            table[name] = rows[name].to_numpy()
    if not places:
        table = table.drop(columns="location")
    gain = next((name for name in ("contrast_gain", "appeared") if name in rows), "")
    if gain and "change_z" in rows:
        table[BRIGHTER] = rows["change_z"].to_numpy()
        table[CAME] = 100 * rows[gain].to_numpy()
    notes = rows["note"] if "note" in rows else pd.Series("", index=rows.index)
    table["note"] = notes.fillna("").to_numpy()
    order = {state: rank for rank, state in enumerate(COMPARED)}
    largest = table[["baseline_mm3", "followup_mm3"]].max(axis=1)
    ranked = table.assign(rank=table["state"].map(order).fillna(len(order)), largest=-largest)
    ranked = ranked.sort_values(["rank", "largest"], kind="stable", ignore_index=True)
    return ranked.drop(columns=["rank", "largest"])


def intervals_of(visits: pd.DataFrame, sessions: Sequence[str]) -> pd.DataFrame | None:
    """Lesions of each state at each visit after the first; None where the table lacks a visit.

    Args:
        visits: rows as in ``visits.tsv``, in time order.
        sessions: names of the visits, in time order.
    """
    states = [state for state in STATES if state in visits and state != "baseline"]
    if not states or len(visits) != len(sessions):
        return None
    named = pd.DataFrame({"before": sessions[:-1], "after": sessions[1:]})
    return named.join(visits[states].iloc[1:].reset_index(drop=True))


def _view(
    files: ScanFiles,
    record: ScanRecord,
    *,
    known: bool = False,
    hide_face: bool = False,
    **further: Any,
) -> VisitView:
    source = record.sources[0]
    image = _read_source(files.root, source)

    def lesions(method: str) -> Instances:
        found = read_lesions(files, method).instances
        _check_grid(found, image, source)
        return found

    return VisitView(
        session=files.scan.ses,
        image=image,
        instances={method: lesions(method) for method in record.methods},
        truth=lesions(TRUTH) if known else None,
        brain=_shown_brain(files.brain, image, source, hide_face),
        brain_ml=record.brain_volume_ml,
        warnings=record.warnings,
        source=Path(source).name,
        stages=tuple(
            StageView(
                stage["Step"],
                read_picture(files.root, stage),
                stage["Black"],
                stage["White"],
                stage["Outlined"],
            )
            for stage in record.stages
        ),
        mask_ml=stated_volume_ml(record),
        **further,
    )


def _shown_brain(mask: Path, image: Volume, source: str, hide_face: bool) -> Volume:
    """The brain mask of a scan, without the face on request."""
    brain = read_mask(mask)
    return brain_without_face(image, brain, source) if hide_face else brain


def _read_source(output: Path, name: str) -> Volume:
    """The scan that a sidecar names; one without a folder's root is looked for here, then there."""
    path = file_named(name)
    if not path.is_absolute() and not path.exists():
        path = inside(output, name)
    return read_volume(path)


def _check_grid(lesions: Instances, image: Volume, name: str) -> None:
    if not lesions.grid.matches(image.grid):
        raise InputError(f"{name}: is not the scan these results were made from")


def _lesions(files: ScanFiles, methods: Sequence[str]) -> pd.DataFrame:
    tables = [read_lesion_table(files, name).assign(method=name) for name in methods]
    return pd.concat(tables, ignore_index=True).assign(session=files.scan.ses)


def _citation(text: str) -> dict[str, str]:
    """The citation for the page, unless it is a numbered reference as earlier versions wrote."""
    return {} if not text or re.match(r"\d{3}(, |$)", text) else {"citation": text}


def _trained_with(model: Mapping[str, Any]) -> dict[str, Any]:
    """In which settings a model differs from its recipe; nothing in folders written before."""
    changed = model.get("Changed")
    return {"settings that differ from the recipe": changed} if isinstance(changed, dict) else {}


def _provenance(record: ScanRecord | PairRecord) -> dict[str, Any]:
    return {
        "recipe": record.recipe,
        **_citation(record.source),
        "model": record.model_hash[:12],
        "versions": {"lesionwise": record.generated_by["Version"], **record.versions},
        **_trained_with(record.model),
        "departures": list(record.departures),
        "options": {
            name: value
            for name, value in record.settings.items()
            if value is not None and name not in NO_OPTIONS
        },
        "seconds": _added([record.seconds]),
    }


def _comparison(output: Path, place: Path, hide_face: bool) -> StudyPage:
    scans = compared_scans(output, place)
    compared = ComparisonResult.read(place, scans)
    files = [ScanFiles(output, scan) for scan in scans]
    records = [ScanRecord.read(each) for each in files]
    known = compared.record.truth
    visits = [
        _view(each, record, known=known, hide_face=hide_face, to_common=np.linalg.inv(matrix))
        for each, record, matrix in zip(files, records, compared.record.matrices, strict=True)
    ]
    method = records[-1].methods[0]
    tracks = compared.tracks.assign(session=_plain_sessions(compared.tracks["session"]))
    tables = [
        _lesions(each, [*record.methods, *([TRUTH] if known else [])])
        for each, record in zip(files, records, strict=True)
    ]
    lesions = _with_tracks(pd.concat(tables, ignore_index=True), tracks, method)
    return StudyPage(
        title=f"Lesions of sub-{scans[0].sub} through {len(visits)} visits",
        subject=scans[0].sub,
        visits=tuple(visits),
        lesions=lesions,
        method=method,
        changes=changes_of(
            tracks, visits[-2].session, visits[-1].session, _places(lesions, method)
        ),
        intervals=intervals_of(compared.visits, [visit.session for visit in visits]),
        scores=compared.scores,
        quality=(*(note for record in records for note in record.notes), *compared.record.notes),
        provenance={
            **_provenance(records[-1]),
            "seconds": _added([record.seconds for record in records]),
        },
    )


def _with_tracks(lesions: pd.DataFrame, tracks: pd.DataFrame, method: str) -> pd.DataFrame:
    """Lesions of the main method with their track and state, the others without."""
    main = lesions["method"] == method
    followed = with_states(lesions[main], tracks)
    return pd.concat([followed, lesions[~main]], ignore_index=True)


def _plain_sessions(sessions: pd.Series) -> pd.Series:
    return sessions.astype(str).str.removeprefix("ses-")


def _places(lesions: pd.DataFrame, method: str) -> dict[tuple[str, int], str]:
    """Where each lesion of the main method lies, by visit and label; empty where unknown."""
    if not {"session", "location"} <= set(lesions):
        return {}
    rows = lesions[(lesions["method"] == method) & lesions["location"].notna()]
    return {
        (str(session), int(label)): str(place).replace("_", " ")
        for session, label, place in zip(
            rows["session"], rows["label"], rows["location"], strict=True
        )
    }


def _added(seconds: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Times of the same stage added up over visits."""
    stages = dict.fromkeys(stage for visit in seconds for stage in visit)
    return {stage: round(sum(v.get(stage) or 0.0 for v in seconds), 1) for stage in stages}


def _column(rows: pd.DataFrame, name: str) -> Any:
    return rows[name].to_numpy() if name in rows else np.full(len(rows), np.nan)


def _labels(value: object) -> list[int]:
    """The labels of a comma-separated cell, which is missing where there are none."""
    return [int(part) for part in str(value).split(",") if part.strip().isdecimal()]
