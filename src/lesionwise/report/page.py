"""Pages from what a command found: one study, many scans, or plain tables.

A page is one file that opens from disk, loads nothing, and shows all text as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lesionwise.report.contents import (
    Look,
    change_tiles,
    free_table,
    lesion_rows,
    location_chart,
    method_table,
    regions,
    tiles,
)
from lesionwise.report.display import prepare
from lesionwise.report.figures import histogram, to_svg
from lesionwise.report.palette import CHANGES, change_look, instance_colors
from lesionwise.report.pictures import montage_of
from lesionwise.report.render import data_uri, write_page
from lesionwise.types import NOTHING, Instances, Volume


@dataclass(frozen=True, eq=False)
class VisitView:
    """One visit as the page shows it; every map lies on the grid of the image.

    Attributes:
        session: name of the time point; may be empty where there is one visit.
        image: the scan, any orientation and unit.
        instances: lesions by the way they were told apart (offsets, acls, cc …).
        brain: brain mask, for cropping and gray levels.
        truth: known lesions, outlined beside the found ones.
        to_common: (4, 4) world mm of this visit to world mm shared by all visits of the page;
            None where they are the same.
        quality: what was measured on the input, by name.
        warnings: what the reader should know before believing the result.
        source: name of the scan that was read.
    """

    session: str
    image: Volume
    instances: Mapping[str, Instances]
    brain: Volume | None = None
    truth: Instances | None = None
    to_common: NDArray[np.float64] | None = None
    quality: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    warnings: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True, eq=False)
class StudyPage:
    """What the page of one study shows.

    Attributes:
        title: heading.
        subject: name of the patient.
        visits: one, two or more, in time order.
        lesions: rows as in ``lesions.tsv``: label, volume_mm3 and, as far as known, session,
            method, location, state, confidence, confluent_group, mean_intensity,
            center_x_mm …, extent_i_mm ….
        method: the main way of telling lesions apart; by default the first of the last visit.
        changes: what became of each lesion, a row a lesion or group: state, and as far as
            known baseline and followup (labels), baseline_mm3, followup_mm3.
        scores: metric values against a known truth, a free table.
        provenance: what made the page: recipe, model, versions, departures, options.
        warnings: about the study as a whole.
        links: relative paths of related files by the text to show.
    """

    title: str
    subject: str
    visits: tuple[VisitView, ...]
    lesions: pd.DataFrame
    method: str = ""
    changes: pd.DataFrame | None = None
    scores: pd.DataFrame | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    warnings: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=lambda: NOTHING)


@dataclass(frozen=True, eq=False)
class CohortPage:
    """What the page of many scans shows.

    Attributes:
        title: heading.
        scans: one row per scan, shown as it is; columns that end in ``_mm3`` or ``_ml`` or hold
            counts are shown as numbers. A column ``page`` holds the relative path of the scan's
            own page.
        failures: one row per scan that failed, with the reason.
        distributions: columns of ``scans`` to draw as histograms.
        provenance, warnings: as for a study.
    """

    title: str
    scans: pd.DataFrame
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    distributions: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Section:
    """A heading with what stands below it, in this order.

    Attributes:
        heading: its title.
        text: paragraphs.
        table: shown with sortable columns; a column ``page`` becomes a link on the first column.
        charts: (chart, what it shows in words) each.
        pictures: (PNG or WebP bytes, caption) each.
    """

    heading: str
    text: tuple[str, ...] = ()
    table: pd.DataFrame | None = None
    charts: tuple[tuple[Figure, str], ...] = ()
    pictures: tuple[tuple[bytes, str], ...] = ()


@dataclass(frozen=True, eq=False)
class TablePage:
    """A page of sections, as for an evaluation or a leaderboard."""

    title: str
    sections: tuple[Section, ...]
    lead: str = ""
    provenance: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    warnings: tuple[str, ...] = ()


def write_study_page(page: StudyPage, path: str | Path) -> Path:
    """Write the page of one study, and return where it lies.

    Raises:
        ValueError: If the page has no visit, or maps do not share the grid of their image.
        InputError: If the file cannot be written.
    """
    if not page.visits:
        raise ValueError("a study page needs at least one visit")
    methods = _methods(page)
    lesions = _complete(page.lesions, page.visits, methods)
    looks: dict[tuple[str, str], Look] = {}
    pictures = []
    for visit in page.visits:
        shown = dict(visit.instances)
        if visit.truth is not None:
            shown["truth"] = visit.truth
        display = prepare(visit.image, shown, visit.brain)
        for method, labels in display.labels.items():
            to_common = np.eye(4) if visit.to_common is None else visit.to_common
            looks[visit.session, method] = Look.of(
                labels, display.grid, to_common, instance_colors(labels)
            )
        here = lesions[(lesions["session"] == visit.session) & (lesions["method"] == methods[0])]
        states = dict(zip(here["label"], here["state"], strict=True)) if "state" in here else {}
        picture = montage_of(
            display,
            methods[0],
            px_per_mm=2.0,
            colors=looks[visit.session, methods[0]].colors
            if (visit.session, methods[0]) in looks
            else {},
            notes={
                int(label): change_look(str(state)).symbol
                for label, state in states.items()
                if str(state) in CHANGES
            },
        )
        pictures.append(
            {
                "session": visit.session,
                "uri": data_uri(picture.webp(), "image/webp"),
                "numbered": len(picture.numbered),
                "missing": picture.missing,
            }
        )
    main = lesions[lesions["method"] == methods[0]]
    return write_page(
        path,
        "study.html",
        title=page.title,
        page=page,
        sessions=[visit.session for visit in page.visits],
        methods=methods,
        tiles=[
            (visit.session, tiles(main[main["session"] == visit.session])) for visit in page.visits
        ],
        change_tiles=change_tiles(main, page.changes),
        rows=lesion_rows(lesions, looks),
        has={name: name in lesions and lesions[name].notna().any() for name in _OPTIONAL},
        locations=_values(lesions, "location"),
        states=[state for state in CHANGES if state in _values(lesions, "state")],
        method_table=method_table(lesions, [visit.session for visit in page.visits], methods),
        location_svg=_svg(location_chart(lesions, page.visits[-1].session, methods)),
        regions=regions(main[main["session"] == page.visits[-1].session]),
        changes=None if page.changes is None else free_table(page.changes),
        change_looks=CHANGES,
        scores=None if page.scores is None else free_table(page.scores),
        pictures=pictures,
        links={text: safe_link(target) for text, target in page.links.items()},
        warnings=[
            *page.warnings,
            *(
                f"{visit.session}: {message}" if len(page.visits) > 1 else message
                for visit in page.visits
                for message in visit.warnings
            ),
        ],
    )


def write_index_page(page: CohortPage, path: str | Path) -> Path:
    """Write the page of many scans, and return where it lies.

    Raises:
        InputError: If the file cannot be written.
    """
    charts = [
        (to_svg(histogram(page.scans[name], label=name.replace("_", " "))), name)
        for name in page.distributions
        if name in page.scans and pd.to_numeric(page.scans[name], errors="coerce").notna().any()
    ]
    return write_page(
        path,
        "cohort.html",
        title=page.title,
        page=page,
        scans=free_table(page.scans, links=_links(page.scans)),
        failures=free_table(page.failures),
        charts=[(Markup(svg), name.replace("_", " ")) for svg, name in charts],
    )


def write_table_page(page: TablePage, path: str | Path) -> Path:
    """Write a page of tables, charts and pictures, and return where it lies.

    Raises:
        InputError: If the file cannot be written.
    """
    sections = [
        {
            "heading": section.heading,
            "text": section.text,
            "table": None
            if section.table is None
            else free_table(section.table, links=_links(section.table)),
            "charts": [(_svg(figure), words) for figure, words in section.charts],
            "pictures": [(_picture_uri(data), caption) for data, caption in section.pictures],
        }
        for section in page.sections
    ]
    return write_page(path, "tables.html", title=page.title, page=page, sections=sections)


def safe_link(target: str) -> str:
    """A relative path as an address; anything with a scheme of its own is refused.

    Raises:
        ValueError: If the target is not a relative path.
    """
    if urlsplit(target).scheme or target.startswith(("/", "\\")):
        raise ValueError(f"links of a page are relative paths, got {target!r}")
    return quote(target)


_OPTIONAL = (
    "state",
    "location",
    "confidence",
    "mean_intensity",
    "confluent_group",
    "extent_i_mm",
)


def _methods(page: StudyPage) -> list[str]:
    """Every way of telling lesions apart, the main one first."""
    found = [name for visit in reversed(page.visits) for name in visit.instances]
    if "method" in page.lesions:
        found += [str(name) for name in page.lesions["method"].unique()]
    first = page.method or (found[0] if found else "lesions")
    return list(dict.fromkeys([first, *found]))


def _complete(
    lesions: pd.DataFrame, visits: Sequence[VisitView], methods: Sequence[str]
) -> pd.DataFrame:
    """The lesion table with session and method filled in where there is only one."""
    lesions = lesions.copy()
    if "session" not in lesions or len(visits) == 1:
        lesions["session"] = visits[-1].session
    if "method" not in lesions:
        lesions["method"] = methods[0]
    if "volume_mm3" not in lesions:
        lesions["volume_mm3"] = np.nan
    lesions["session"] = lesions["session"].fillna("").astype(str)
    return lesions


def _values(lesions: pd.DataFrame, column: str) -> list[str]:
    if column not in lesions:
        return []
    return [str(value) for value in lesions[column].dropna().unique() if str(value)]


def _svg(figure: Figure | None) -> Markup | None:
    return None if figure is None else Markup(to_svg(figure))


def _links(table: pd.DataFrame) -> list[str] | None:
    if "page" not in table:
        return None
    return [safe_link(str(target)) if pd.notna(target) else "" for target in table["page"]]


def _picture_uri(data: bytes) -> str:
    return data_uri(data, "image/png" if data.startswith(b"\x89PNG") else "image/webp")
