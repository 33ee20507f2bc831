"""The pages of a folder of results again, from its files alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionwise.io.files import read_json, read_table
from lesionwise.io.names import Entities, derivative_path, parse_name
from lesionwise.io.nifti import read_labels, read_mask, read_volume
from lesionwise.report.leaderboard import (
    LEADERBOARD,
    read_leaderboard,
    write_leaderboard_page,
)
from lesionwise.report.page import (
    CohortPage,
    QualityNote,
    StageView,
    StudyPage,
    VisitView,
    write_index_page,
    write_study_page,
)
from lesionwise.report.palette import COMPARED
from lesionwise.report.study import TRUTH
from lesionwise.report.views import BRIGHTER, CAME
from lesionwise.types import InputError, Instances, Progress, silent

TEXT_COLUMNS = {
    *("subject", "session", "method", "visit", "location", "state", "becomes", "note"),
    *("parents", "children", "lesions by", "name", "abbreviation", "color", "mapping"),
}
"""Columns of the tables that stay text; a session called 01 is no number."""


NO_OPTIONS = {"scan", "scans", "model", "recipe", "version"}
"""Settings that a page states elsewhere, or that only tell whether a scan is done."""


@dataclass(frozen=True)
class Rebuilt:
    """What ``rebuild_pages`` made.

    Attributes:
        pages: in the order written; the one to open comes last.
        failures: the fault by the name of what it concerns.
    """

    pages: tuple[Path, ...]
    failures: Mapping[str, str]


def rebuild_pages(output: str | Path, progress: Progress = silent, *, subject: str = "") -> Rebuilt:
    """Write the pages of ``segment``, ``compare``, ``predict``, ``demo`` or ``benchmark`` again.

    Nothing is computed anew.

    A folder with ``compare.json`` gets one page with all visits, any other a page per scan and
    an index; each pair of visits with new lesions by a model of two gets a page. The scans
    themselves are read where the sidecars say they lie.

    Args:
        subject: of a cohort's folder, the one whose pages are made (without ``sub-``); they lie
            with its tables in its own folder.

    Raises:
        InputError: If the folder holds no results, or no page could be made.
    """
    output = Path(output)
    if (output / LEADERBOARD).exists():
        progress("page", 0, 1)
        page = write_leaderboard_page(read_leaderboard(output), output / "leaderboard.html")
        return Rebuilt((page,), {})
    place = output / f"sub-{subject}" if subject else output
    done = list(_finished(output, subject))
    pairs = list(_finished(output, subject, "*_desc-new_mask.json"))
    if not done and not pairs:
        raise InputError(f"{output}: holds no results of segment, compare or predict")
    pages: list[Path] = []
    failures: dict[str, str] = {}
    for number, (entities, about) in enumerate(pairs):
        progress(about["Summary"]["page"], number, len(pairs))
        try:
            pages.append(write_pair_page(output, entities, place))
        except InputError as fault:
            failures[about["Summary"]["page"]] = str(fault)
    if (place / "compare.json").exists():
        progress("page", 0, 1)
        return Rebuilt((*pages, write_comparison_page(output, place)), failures)
    for number, (entities, _) in enumerate(done):
        name = "_".join(f"{key}-{value}" for key, value in _scan_of(entities).items())
        progress(name, number, len(done))
        try:
            pages.append(write_scan_page(output, entities, place))
        except InputError as fault:
            failures[name] = str(fault)
    if not pages:
        raise InputError(next(iter(failures.values())))
    if not done:
        return Rebuilt(tuple(pages), failures)
    pages.append(write_index_page(_index(place, done, failures), place / "index.html"))
    return Rebuilt(tuple(pages), failures)


def write_scan_page(output: Path, entities: Entities, place: Path | None = None) -> Path:
    """Write the page of one scan from what ``segment`` wrote about it; returns where it lies.

    Args:
        place: the folder for the page; None is ``output``.

    Raises:
        InputError: If a file is missing or cannot be read.
    """
    scan = _scan_of(entities)
    about = read_json(derivative_path(output, entities, "mask", ".json", label="L"))
    name = "_".join(f"{key}-{value}" for key, value in scan.items())
    return write_study_page(
        StudyPage(
            title="Lesions of " + " ".join(f"{key}-{value}" for key, value in scan.items()),
            subject=entities.sub,
            visits=(_view(output, entities, about),),
            lesions=_lesions(output, entities, about["Methods"]),
            method=about["Methods"][0],
            quality=_quality(about),
            provenance=_provenance(about),
        ),
        (place or output) / f"{name}.html",
    )


def write_pair_page(output: Path, entities: Entities, place: Path | None = None) -> Path:
    """Write the page of two visits from what ``predict`` wrote about their new lesions.

    Args:
        entities: of the visit that the results lie on.
        place: the folder for the page; None is ``output``.

    Raises:
        InputError: If a file is missing or cannot be read.
    """

    def path(suffix: str, extension: str = ".nii.gz", **stated: str) -> Path:
        names = {"label": "", "desc": "new", **stated}
        return derivative_path(output, entities, suffix, extension, **names)

    about = read_json(path("mask", ".json"))
    made, method = about["Summary"], about["Method"]
    image = read_volume(Path(about["Shown"]))
    labels = read_labels(path("dseg", seg=method))
    if not labels.grid.matches(image.grid):
        raise InputError(f"{about['Shown']}: is not the scan these results were made from")
    lesions = _table(path("dseg", ".tsv", seg=method)).rename(columns={"index": "label"})
    subject, session = entities.sub, entities.ses
    view = VisitView(
        session=session,
        image=image,
        instances={method: Instances(labels.array.astype(np.int32, copy=False), labels.grid)},
        brain=read_mask(path("mask", label="brain")),
        warnings=tuple(about["Warnings"]),
        source=Path(about["Shown"]).name,
    )
    return write_study_page(
        StudyPage(
            title=f"New lesions of sub-{subject} ses-{made['baseline']} to ses-{made['followup']}",
            subject=subject,
            visits=(view,),
            lesions=lesions.assign(method=method, subject=subject, session=session),
            method=method,
            provenance=_provenance(about),
        ),
        (place or output) / str(made["page"]),
    )


def write_comparison_page(output: Path, place: Path | None = None) -> Path:
    """Write ``index.html`` from what ``compare`` wrote; returns where it lies.

    Args:
        output: holds the results of each visit.
        place: the folder of the tables and the page; None is ``output``.

    Raises:
        InputError: If a file is missing or cannot be read.
    """
    place = place or output
    subject = place.name.removeprefix("sub-") if place != output else ""
    page = _comparison(output, place, list(_finished(output, subject)))
    return write_study_page(page, place / "index.html")


def changes_of(
    lineages: pd.DataFrame,
    before: str,
    after: str,
    places: Mapping[tuple[str, int], str] | None = None,
) -> pd.DataFrame:
    """What became of each lesion between two visits, as a page shows it.

    Args:
        lineages: as in ``lineages.tsv``: visit (name), label (0 where gone), state, lineage,
            volume_mm3, parents (labels at the visit before, comma-separated), confidence, note;
            change_z and appeared where the scans were asked.
        places: location by visit and label.

    Returns:
        A row a lesion of the second visit and one for each that is gone by then: what changed
        first, in the order of ``palette.COMPARED``, and the largest first.
    """
    lineages = lineages.assign(visit=lineages["visit"].astype(str))
    rows = lineages[lineages["visit"] == after]
    earlier = lineages[lineages["visit"] == before]
    volumes = dict(zip(earlier["label"].tolist(), earlier["volume_mm3"].tolist(), strict=True))
    parents = [_labels(value) for value in rows["parents"]]
    known = places or {}
    labels = rows["label"].tolist()
    table = pd.DataFrame(
        {
            "state": rows["state"].to_numpy(),
            "lineage": rows["lineage"].to_numpy(),
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
            "confidence": rows["confidence"].to_numpy(),
        }
    )
    if not places:
        table = table.drop(columns="location")
    if {"change_z", "appeared"} <= set(rows):
        table[BRIGHTER] = rows["change_z"].to_numpy()
        table[CAME] = 100 * rows["appeared"].to_numpy()
    table["note"] = rows["note"].fillna("").to_numpy()
    order = {state: rank for rank, state in enumerate(COMPARED)}
    largest = table[["baseline_mm3", "followup_mm3"]].max(axis=1)
    ranked = table.assign(rank=table["state"].map(order).fillna(len(order)), largest=-largest)
    ranked = ranked.sort_values(["rank", "largest"], kind="stable", ignore_index=True)
    return ranked.drop(columns=["rank", "largest"])


def _finished(
    output: Path, subject: str = "", ending: str = "*_label-L_mask.json"
) -> Iterator[tuple[Entities, dict[str, Any]]]:
    """Every scan whose results are complete: its lesion mask has a sidecar."""
    for path in sorted(output.glob(f"sub-{subject or '*'}/**/anat/{ending}")):
        entities = parse_name(path)
        if entities is not None:
            yield entities, read_json(path)


def _scan_of(entities: Entities) -> dict[str, str]:
    """The entities that name the scan, without those that name the result."""
    pairs = entities.pairs()
    return {key: value for key, value in pairs.items() if key not in ("space", "label")}


def _view(
    output: Path,
    entities: Entities,
    about: Mapping[str, Any],
    *,
    known: bool = False,
    **further: Any,
) -> VisitView:
    source = Path(about["Sources"][0])

    def path(suffix: str, **stated: str) -> Path:
        return derivative_path(output, entities, suffix, **{"label": "", **stated})

    def lesions(method: str) -> Instances:
        labels = read_labels(path("dseg", seg=method))
        if not labels.grid.matches(image.grid):
            raise InputError(f"{source}: is not the scan these results were made from")
        return Instances(labels.array.astype(np.int32, copy=False), labels.grid)

    image = read_volume(source)
    return VisitView(
        session=entities.ses,
        image=image,
        instances={method: lesions(method) for method in about["Methods"]},
        truth=lesions(TRUTH) if known else None,
        brain=read_mask(path("mask", desc="brain")),
        warnings=tuple(about.get("Warnings", ())),
        source=source.name,
        stages=tuple(_stage(output, entry) for entry in about.get("Stages", ())),
        **further,
    )


def _stage(output: Path, entry: Mapping[str, Any]) -> StageView:
    path = output / entry["Picture"]
    try:
        picture = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return StageView(
        entry["Step"], picture, entry["Black"], entry["White"], bool(entry["Outlined"])
    )


def _lesions(output: Path, entities: Entities, methods: Sequence[str]) -> pd.DataFrame:
    tables = [
        _table(derivative_path(output, entities, "dseg", ".tsv", label="", seg=method))
        .rename(columns={"index": "label"})
        .assign(method=method)
        for method in methods
    ]
    return pd.concat(tables, ignore_index=True).assign(session=entities.ses)


def _provenance(about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "recipe": about["Recipe"],
        "source": about["Source"],
        "model": about["ModelHash"][:12],
        "versions": {"lesionwise": about["GeneratedBy"]["Version"], **about.get("Versions", {})},
        "departures": about["Departures"],
        "options": {
            name: value
            for name, value in about.get("Settings", {}).items()
            if value is not None and name not in NO_OPTIONS
        },
        "seconds": _added([about.get("Seconds", {})]),
    }


def _quality(about: Mapping[str, Any]) -> tuple[QualityNote, ...]:
    return tuple(QualityNote.read(entry) for entry in about.get("Quality", ()))


def _comparison(
    output: Path, place: Path, done: Sequence[tuple[Entities, Mapping[str, Any]]]
) -> StudyPage:
    compared = read_json(place / "compare.json")
    order = [str(source) for source in compared["Sources"]]
    moves = compared["FirstVisitToVisitMm"]
    by_source = {str(about["Sources"][0]): (entities, about) for entities, about in done}
    missing = [source for source in order if source not in by_source]
    if missing:
        raise InputError(f"{output}: holds no results of {missing[0]}")
    visits = [
        _view(
            output,
            *by_source[source],
            known=bool(compared.get("Truth")),
            to_common=np.linalg.inv(np.array(move)),
        )
        for source, move in zip(order, moves, strict=True)
    ]
    about = by_source[order[-1]][1]
    lesions = _table(place / "lesions.tsv")
    if compared.get("Truth"):
        known = [_lesions(output, by_source[source][0], [TRUTH]) for source in order]
        lesions = pd.concat([lesions, *known], ignore_index=True)
    lineages = _table(place / "lineages.tsv")
    scores = place / "scores.tsv"
    return StudyPage(
        title=f"Lesions of sub-{by_source[order[0]][0].sub} through {len(visits)} visits",
        subject=by_source[order[0]][0].sub,
        visits=tuple(visits),
        lesions=lesions,
        method=about["Methods"][0],
        changes=changes_of(
            lineages, visits[-2].session, visits[-1].session, _places(lesions, about["Methods"][0])
        ),
        scores=_table(scores) if scores.exists() else None,
        quality=(
            *(note for source in order for note in _quality(by_source[source][1])),
            *_quality(compared),
        ),
        provenance={
            **_provenance(about),
            "seconds": _added([by_source[source][1].get("Seconds", {}) for source in order]),
        },
    )


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


def _added(seconds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Times of the same stage added up over visits."""
    stages = dict.fromkeys(stage for visit in seconds for stage in visit)
    return {stage: round(sum(v.get(stage, 0.0) for v in seconds), 1) for stage in stages}


def _index(
    output: Path,
    done: Sequence[tuple[Entities, Mapping[str, Any]]],
    failures: Mapping[str, str],
) -> CohortPage:
    summaries = [dict(about["Summary"]) for _, about in done]
    faults = [{"file": name, "fault": fault} for name, fault in failures.items()]
    listed = output / "failures.tsv"
    before = read_table(listed) if listed.exists() else pd.DataFrame(columns=["file", "fault"])
    about = done[0][1]
    return CohortPage(
        title="Lesions of all scans",
        scans=pd.DataFrame(summaries),
        failures=pd.concat([before, pd.DataFrame(faults)], ignore_index=True),
        distributions=("lesions", "volume_ml"),
        provenance={"recipe": about["Recipe"], "model": about["ModelHash"][:12]},
    )


def _table(path: Path) -> pd.DataFrame:
    table = read_table(path)
    for name in table.columns:
        if name not in TEXT_COLUMNS:
            table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def _labels(value: object) -> list[int]:
    """The labels of a comma-separated cell, which is missing where there are none."""
    return [int(part) for part in str(value).split(",") if part.strip().isdigit()]
