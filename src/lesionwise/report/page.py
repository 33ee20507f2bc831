"""Pages from what a command found: one study, or many scans.

A page is one file that opens from disk, loads nothing, and shows all text as text.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from markupsafe import Markup

from lesionwise.report.contents import free_table, heading, outliers
from lesionwise.report.figures import histogram, to_svg
from lesionwise.report.palette import CHANGES
from lesionwise.report.render import safe_link, write_page
from lesionwise.report.study import write_study_page
from lesionwise.report.views import CohortPage, QualityNote, StageView, StudyPage, VisitView

__all__ = [
    "CohortPage",
    "QualityNote",
    "StageView",
    "StudyPage",
    "VisitView",
    "safe_link",
    "write_index_page",
    "write_study_page",
]


def write_index_page(page: CohortPage, path: str | Path) -> Path:
    """Write the page of many scans, and return where it lies.

    Raises:
        InputError: If the file cannot be written.
    """
    unusual = outliers(page.scans, page.distributions)
    charts = [
        (to_svg(histogram(page.scans[name], label=heading(name))), name)
        for name in page.distributions
        if name in page.scans and pd.to_numeric(page.scans[name], errors="coerce").notna().any()
    ]
    return write_page(
        path,
        "cohort.html",
        title=page.title,
        page=page,
        scans=free_table(_changes_first(page.scans), links=_links(page.scans)),
        failures=free_table(page.failures),
        groups=None if page.groups is None else free_table(page.groups),
        outliers=free_table(unusual, links=_links(unusual)),
        charts=[(Markup(svg), heading(name)) for svg, name in charts],
    )


def _changes_first(scans: pd.DataFrame) -> pd.DataFrame:
    """The scans with counts of changed lesions behind the volume; names that say nothing left out.

    A scan's name says nothing where it is that of its subject and session.
    """
    named = {"subject", "session", "scan"} <= set(scans.columns)
    if named and (scans["scan"] == scans["subject"] + "_" + scans["session"]).all():
        scans = scans.drop(columns="scan")
    names = list(scans.columns)
    if "volume_ml" not in names:
        return scans
    changes = [name for name in CHANGES if name in names]
    rest = [name for name in names if name not in changes]
    behind = rest.index("volume_ml") + 1
    return scans[[*rest[:behind], *changes, *rest[behind:]]]


def _links(table: pd.DataFrame) -> list[str] | None:
    if "page" not in table:
        return None
    return [safe_link(str(target)) if pd.notna(target) else "" for target in table["page"]]
