"""The page of one study: viewer, lesion table, pictures, counts by method, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from lesionwise.instances.describe import describe_lesions
from lesionwise.preprocess.visits import Beside
from lesionwise.report.contents import (
    Look,
    answer,
    change_rows,
    change_tiles,
    free_table,
    heading,
    interval_rows,
    lesion_rows,
    location_chart,
    mask_volumes,
    method_table,
    regions,
    tiles,
    with_fate,
)
from lesionwise.report.display import Display, prepare
from lesionwise.report.edges import with_edges
from lesionwise.report.figures import to_svg
from lesionwise.report.findings import DisplayedVisit, Finding, find_findings
from lesionwise.report.palette import CHANGES, change_look, instance_colors
from lesionwise.report.pictures import Picture, montage_of
from lesionwise.report.render import data_uri, safe_link, write_page
from lesionwise.report.stages import moved_by, overlaid
from lesionwise.report.viewer import Embedded, embed_image, embed_labels, niivue
from lesionwise.report.views import BRIGHTER, StudyPage, VisitView

TRUTH = "truth"
"""How the known lesions are called among the ways of telling lesions apart."""

GRADE_SIGNS = {
    "good": "\N{CHECK MARK}",
    "fair": "\N{WHITE UP-POINTING TRIANGLE}",
    "poor": "\N{BLACK UP-POINTING TRIANGLE}",
}

_FOR_SCRIPTS = (
    *("label", "session", "method", "color", "place"),
    *("state", "location", "volume", "confidence", "group", "track"),
)

_OPTIONAL = ("state", "location", "confidence", "confluent_group", "extent_i_mm", "track")


@dataclass(frozen=True, eq=False)
class _VisitDisplay:
    """One visit made ready: what the page embeds, and how its lesions look by method."""

    display: Display
    looks: Mapping[str, Look]
    image: Embedded
    labels: Mapping[str, Embedded]
    picture: Picture


def write_study_page(page: StudyPage, path: str | Path) -> Path:
    """Write the page of one study, and return where it lies.

    Raises:
        ValueError: If the page has no visit, two visits of one name, or maps that do not share
            the grid of their image.
        InputError: If the file cannot be written.
    """
    sessions = [visit.session for visit in page.visits]
    if not sessions or len(set(sessions)) < len(sessions):
        raise ValueError(f"a study page needs visits with names of their own, got {sessions}")
    methods = _methods(page)
    lesions = with_edges(_complete(page, methods), page.visits)
    before = sessions[-2] if len(sessions) > 1 else ""
    if page.changes is not None and {"state", "baseline"} <= set(page.changes):
        fate = with_fate(lesions[lesions["method"] == methods[0]], page.changes, before)
        lesions = pd.concat([fate, lesions[lesions["method"] != methods[0]]], ignore_index=True)
    main = lesions[lesions["method"] == methods[0]]
    visits = [
        _show(visit, main[main["session"] == visit.session], methods[0]) for visit in page.visits
    ]
    looks = {
        (session, method): look
        for session, visit in zip(sessions, visits, strict=True)
        for method, look in visit.looks.items()
    }
    rows = lesion_rows(lesions, looks)
    findings = _findings(page, visits, methods[0])
    states = [state for state in CHANGES if state in _values(lesions, "state")]
    chart = location_chart(lesions, sessions[-1], methods)
    return write_page(
        path,
        "study.html",
        title=page.title,
        page=page,
        sessions=sessions,
        methods=methods,
        tiles=tiles(
            [main[main["session"] == session] for session in sessions],
            [_brain_ml(visit) for visit in page.visits],
        ),
        masks=mask_volumes(page.visits, main),
        change_tiles=change_tiles(main, page.changes),
        before=before,
        answer=answer(change_tiles(main, page.changes)),
        findings=findings,
        intervals=interval_rows(page.intervals),
        rows=rows,
        has={name: _has(lesions, name) for name in _OPTIONAL},
        locations=_values(lesions, "location"),
        states=states,
        method_table=method_table(lesions, _available(page.visits, lesions, methods)),
        location_svg=None if chart is None else Markup(to_svg(chart)),
        regions=regions(main[main["session"] == sessions[-1]]),
        changes=None if page.changes is None else free_table(page.changes),
        change_rows=[] if page.changes is None else change_rows(page.changes, before, sessions[-1]),
        change_looks=CHANGES,
        scans_asked=page.changes is not None and BRIGHTER in page.changes,
        scores=None if page.scores is None else free_table(page.scores),
        pictures=list(zip(sessions, [visit.picture for visit in visits], strict=True)),
        registrations=_registrations(page.visits),
        links={text: safe_link(target) for text, target in page.links.items()},
        sources=[visit.source for visit in page.visits if visit.source],
        grade_signs=GRADE_SIGNS,
        heading=heading,
        warnings=[
            *page.warnings,
            *(
                f"{note.about}: {'; '.join(note.reasons) or 'poor input'}"
                for note in page.quality
                if note.grade == "poor"
            ),
            *(
                f"{visit.session}: {message}" if len(sessions) > 1 else message
                for visit in page.visits
                for message in visit.warnings
            ),
        ],
        embedded=visits,
        niivue=niivue(),
        data={
            **_data(sessions, methods, visits, rows, bool(states)),
            "start": _first(findings, rows, sessions[-1], methods[0]),
        },
    )


def _show(visit: VisitView, lesions: pd.DataFrame, method: str) -> _VisitDisplay:
    shown = dict(visit.instances)
    if visit.truth is not None:
        shown[TRUTH] = visit.truth
    display = prepare(visit.image, shown, visit.brain)
    to_common = np.eye(4) if visit.to_common is None else visit.to_common
    looks = {
        name: Look.of(labels, display.grid, to_common, instance_colors(labels))
        for name, labels in display.labels.items()
    }
    states = lesions["state"] if "state" in lesions else pd.Series("", index=lesions.index)
    draw = partial(
        montage_of,
        display,
        method,
        px_per_mm=2.0,
        colors=looks[method].colors if method in looks else {},
        notes={
            int(label): change_look(str(state)).symbol
            for label, state in zip(lesions["label"], states, strict=True)
            if str(state) in CHANGES
        },
    )
    picture = Beside(draw)
    image = Beside(embed_image, display, to_common)
    labels = Beside(embed_labels, display, to_common)
    return _VisitDisplay(display, looks, image.result(), labels.result(), picture.result())


def _findings(page: StudyPage, visits: Sequence[_VisitDisplay], method: str) -> list[Finding]:
    """What changed between the last two visits, with close-ups."""
    if page.changes is None or len(visits) < 2:
        return []
    pair = []
    for view, visit in zip(page.visits[-2:], visits[-2:], strict=True):
        labels = visit.display.labels.get(method)
        if labels is None:
            labels = np.zeros(visit.display.gray.shape, dtype=np.int32)
        to_common = np.eye(4) if view.to_common is None else view.to_common
        pair.append(DisplayedVisit(view.session, visit.display, labels, to_common))
    return find_findings(page.changes, pair[0], pair[1])


def _first(
    findings: Sequence[Finding], rows: Sequence[Mapping[str, Any]], session: str, method: str
) -> dict[str, Any] | None:
    """The lesion that the crosshair starts in: what changed most, or else the largest."""
    if findings:
        return {"session": findings[0].session, "label": findings[0].label, "method": method}
    own = [
        row
        for row in rows
        if row["session"] == session and row["method"] == method and row["volume"] is not None
    ]
    if not own:
        return None
    largest = max(own, key=lambda row: row["volume"])
    return {"session": session, "label": largest["label"], "method": method}


def _brain_ml(visit: VisitView) -> float | None:
    """Volume of the brain; None where it is unknown."""
    if visit.brain_ml is not None or visit.brain is None:
        return visit.brain_ml
    return float((visit.brain.array != 0).sum() * visit.brain.grid.voxel_volume_mm3 / 1000)


def _registrations(visits: Sequence[VisitView]) -> list[dict[str, Any]]:
    """Every later visit over the first, as the scanner placed it and as it was registered."""
    first = visits[0]
    if first.brain is None or not first.brain.array.any():
        return []
    found = []
    for visit in visits[1:]:
        if visit.to_common is None:
            continue
        common = np.eye(4) if first.to_common is None else first.to_common
        world = np.asarray(np.linalg.inv(visit.to_common) @ common, dtype=np.float64)
        pictures = [
            overlaid(first.image, first.brain, visit.image, each) for each in (np.eye(4), world)
        ]
        degrees, mm = moved_by(first.brain, world)
        found.append(
            {
                "first": first.session,
                "later": visit.session,
                "before": data_uri(pictures[0], "image/webp"),
                "after": data_uri(pictures[1], "image/webp"),
                "degrees": degrees,
                "mm": mm,
            }
        )
    return found


def _data(
    sessions: Sequence[str],
    methods: Sequence[str],
    visits: Sequence[_VisitDisplay],
    rows: Sequence[Mapping[str, Any]],
    changes: bool,
) -> dict[str, Any]:
    """What the scripts of the page know."""
    return {
        "methods": list(methods),
        "changes": changes,
        "visits": [
            {
                "session": session,
                "size_mm": [
                    round(n * mm, 1)
                    for n, mm in zip(
                        visit.display.grid.shape, visit.display.grid.spacing_mm, strict=True
                    )
                ],
                "labels": {
                    method: {"id": f"labels-{number}-{place}", "labels": volume.labels}
                    for place, (method, volume) in enumerate(visit.labels.items())
                },
            }
            for number, (session, visit) in enumerate(zip(sessions, visits, strict=True))
        ],
        "rows": [
            {
                **{name: row[name] for name in _FOR_SCRIPTS},
                "changeColor": row["change"].color if row["change"] else None,
                "picture": visits[sessions.index(row["session"])].picture.places.get(row["label"])
                if row["method"] == methods[0] and row["session"] in sessions
                else None,
            }
            for row in rows
        ],
    }


def _methods(page: StudyPage) -> list[str]:
    """Every way of telling lesions apart, the main one first, the truth last."""
    found = [name for visit in reversed(page.visits) for name in visit.instances]
    if "method" in page.lesions:
        found += [str(name) for name in page.lesions["method"].unique()]
    if any(visit.truth is not None for visit in page.visits):
        found.append(TRUTH)
    first = page.method or (found[0] if found else "lesions")
    return list(dict.fromkeys([first, *found]))


def _available(
    visits: Sequence[VisitView], lesions: pd.DataFrame, methods: Sequence[str]
) -> dict[str, list[str]]:
    """The methods that were applied to each visit, whether or not they found lesions."""
    found = {}
    for visit in visits:
        has = set(visit.instances) | ({TRUTH} if visit.truth is not None else set())
        has |= set(lesions.loc[lesions["session"] == visit.session, "method"])
        found[visit.session] = [method for method in methods if method in has]
    return found


def _complete(page: StudyPage, methods: Sequence[str]) -> pd.DataFrame:
    """The lesion table with session, method and volume, and with the rows of the truth."""
    lesions = page.lesions.copy()
    if "session" not in lesions or len(page.visits) == 1:
        lesions["session"] = page.visits[-1].session
    if "method" not in lesions:
        lesions["method"] = methods[0]
    for name in ("label", "volume_mm3"):
        if name not in lesions:
            lesions[name] = np.nan
    lesions["session"] = lesions["session"].fillna("").astype(str)
    known = [lesions]
    for visit in page.visits:
        if visit.truth is not None and TRUTH not in set(lesions["method"]):
            table = describe_lesions(visit.truth, visit.image.array)
            known.append(table.assign(session=visit.session, method=TRUTH, confidence=np.nan))
    return pd.concat([table for table in known if len(table)] or known, ignore_index=True)


def _has(lesions: pd.DataFrame, column: str) -> bool:
    """Whether a column says something; a confluent group of 0 says nothing."""
    if column not in lesions:
        return False
    known = lesions[column].dropna()
    return bool((known > 0).any() if column == "confluent_group" else len(known))


def _values(lesions: pd.DataFrame, column: str) -> list[str]:
    if column not in lesions:
        return []
    return [str(value) for value in lesions[column].dropna().unique() if str(value)]
