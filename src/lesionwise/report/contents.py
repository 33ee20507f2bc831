"""What the tables, tiles and charts of a page say, from the lesion table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lesionwise.report.figures import stacked_bars
from lesionwise.report.palette import CHANGES, COMPARED, change_look
from lesionwise.report.render import number, shown
from lesionwise.report.views import VisitView
from lesionwise.results.scan import lesion_load_percent
from lesionwise.types import Grid, LabelArray

PLACES = ("periventricular", "juxtacortical", "infratentorial", "deep white matter")
"""Brain locations in the order shown; other words follow in the order they come."""

IN_CRITERIA = ("periventricular", "juxtacortical", "infratentorial")
"""The brain regions that count for dissemination in space (McDonald criteria, 2017)."""


UNITS = {
    "_mm3": " (mm³)", "_ml": " (ml)", "_mm": " (mm)", "_percent": " (%)",
    "_gb": " (GB)", "_mb": " (MB)", "_min": " (min)", "_s": " (s)",
}  # fmt: skip
"""Ends of column names that are units, and how a person writes them."""

DIGITS = {"_mm3": 0, "(%)": 0, "(noise)": 1}
"""Decimals of columns whose names end so, where a value reaches 1."""

ABBREVIATIONS = {
    "dsc": "DSC", "f1": "F1", "pq": "PQ", "sq": "SQ", "rq": "RQ", "hd95": "HD95",
    "assd": "ASSD", "ppv": "PPV", "npv": "NPV", "ci": "CI", "iou": "IoU", "fpr": "FPR",
}  # fmt: skip

COLUMN_WORDS = {
    "dic": "difference in lesion count",
    "clu_recall": "recall of confluent units",
    "challenge_f1": "lesion F1 (MSSEG)",
    "train_s": "training time (s)",
    "predict_s": "prediction time (s)",
    "peak_gb": "peak memory (GB)",
    "wilcoxon_p": "p (Wilcoxon)",
    "p_holm": "p (Holm)",
    "p_holm_all_metrics": "p (Holm, all metrics)",
    "t_p": "p (t test)",
    "rank_biserial": "rank-biserial correlation",
}
"""Names of columns that say too little by themselves."""


@dataclass(frozen=True, eq=False)
class Look:
    """How the lesions of one visit and method are shown, by label.

    Attributes:
        colors: of the outline.
        place_mm: a point inside the lesion, nearest to its center, in common world mm.
    """

    colors: Mapping[int, str]
    place_mm: Mapping[int, tuple[float, float, float]]

    @staticmethod
    def of(
        labels: LabelArray,
        grid: Grid,
        to_common: NDArray[np.float64],
        colors: Mapping[int, str],
    ) -> Look:
        flat = np.flatnonzero(labels)
        label = labels.reshape(-1)[flat]
        index = np.stack(np.unravel_index(flat, labels.shape), axis=1)
        found, row, count = np.unique(label, return_inverse=True, return_counts=True)
        center = (
            np.stack([np.bincount(row, index[:, axis], len(found)) for axis in range(3)], axis=1)
            / np.maximum(count, 1)[:, None]
        )
        apart = (((index - center[row]) @ grid.axes_mm.T) ** 2).sum(axis=1)
        # Sorted by lesion, then by distance: the first voxel of each lesion is the nearest one.
        order = np.lexsort((apart, row))
        first = (
            order[np.concatenate([[0], np.cumsum(count)[:-1]]).astype(int)] if len(found) else []
        )
        world = grid.world_mm(index[first]) @ to_common[:3, :3].T + to_common[:3, 3]
        return Look(
            colors,
            {
                int(name): (float(x), float(y), float(z))
                for name, (x, y, z) in zip(found, world, strict=True)
            },
        )


@dataclass(frozen=True)
class Cell:
    """One cell of a free table.

    Attributes:
        text: what is read.
        value: what is sorted by.
        link: where it leads.
        best: of its column.
        share: drawn as a bar, in [0, 1].
    """

    text: str
    value: str
    link: str = ""
    best: bool = False
    share: float | None = None


def tiles(
    visits: Sequence[pd.DataFrame], brains_ml: Sequence[float | None] = ()
) -> list[tuple[str, str]]:
    """(value, what it is) for the top of the page, from the lesions of each visit in time order.

    Several visits share a tile: their values stand in order with arrows between them.

    Args:
        brains_ml: volume of each visit's brain; lesion load is a tile where all are known.
    """

    def of(lesions: pd.DataFrame, brain_ml: float | None) -> list[tuple[str, str]]:
        volume = lesions["volume_mm3"]
        found = [
            (number(len(lesions)), "lesions"),
            (number(volume.sum() / 1000, 2), "ml lesion volume"),
            *(
                [(number(lesion_load_percent(volume.sum() / 1000, brain_ml), 2), "% of the brain")]
                if known
                else []
            ),
            (number(volume.median()), "mm³ median lesion"),
            (number(volume.max()), "mm³ largest lesion"),
        ]
        if "confluent_group" in lesions:
            groups = lesions.loc[lesions["confluent_group"].fillna(0) > 0, "confluent_group"]
            found.append((number(groups.nunique()), "confluent groups"))
            found.append((number(len(groups)), "lesions in them"))
        return found

    known = len(brains_ml) == len(visits) and all(brains_ml)
    brains = brains_ml if known else [None] * len(visits)
    by_visit = [of(lesions, brain) for lesions, brain in zip(visits, brains, strict=True)]
    return [
        (" \N{RIGHTWARDS ARROW} ".join(value for value, _ in column), column[0][1])
        for column in zip(*by_visit, strict=True)
    ]


def answer(counts: Sequence[Mapping[str, Any]]) -> str:
    """What is new, in a sentence; empty where nothing was followed.

    Example:
        >>> answer([{"state": "new", "count": 2, "before": 0}])
        '2 new lesions; none enlarging, shrinking or disappeared'
    """
    if not counts:
        return ""
    by_state = {entry["state"]: entry["count"] for entry in counts}
    asked = ("new", "enlarging", "shrinking", "disappeared")
    there = [(by_state.get(state, 0), state) for state in asked if by_state.get(state, 0)]
    none = [state for state in asked if not by_state.get(state, 0)]
    if not there:
        text = f"No {_enumerated(none, 'or')} lesion"
    else:
        first, *others = [f"{number(count)} {state}" for count, state in there]
        noun = "lesion" if there[0][0] == 1 else "lesions"
        text = ", ".join([f"{first} {noun}", *others])
        if none:
            text += f"; none {_enumerated(none, 'or')}"
    doubtful = sum(
        entry["count"] + entry["before"] for entry in counts if entry["state"] == "equivocal"
    )
    return f"{text}; {doubtful} equivocal" if doubtful else text


def interval_rows(intervals: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Counts of each state between every two visits; empty where there is one interval or none."""
    if intervals is None or len(intervals) < 2:
        return []
    return [
        {
            "before": str(row["before"]),
            "after": str(row["after"]),
            "counts": [
                {"state": state, "count": int(_finite(row.get(state)) or 0)} for state in COMPARED
            ],
        }
        for row in intervals.to_dict("records")
    ]


def _enumerated(words: Sequence[str], last: str) -> str:
    """Words with commas, and ``last`` before the last one."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def mask_volumes(visits: Sequence[VisitView], lesions: pd.DataFrame) -> str:
    """The volume of each visit's mask in ml, in order; empty where none differs from its lesions.

    Args:
        lesions: of the main method that passed the size filters, with their session.
    """
    texts, differ = [], False
    for visit in visits:
        kept_ml = float(lesions.loc[lesions["session"] == visit.session, "volume_mm3"].sum()) / 1000
        if visit.mask_ml is None:
            return ""
        texts.append(number(visit.mask_ml, 2))
        differ |= texts[-1] != number(kept_ml, 2)
    return " \N{RIGHTWARDS ARROW} ".join(texts) if differ else ""


def change_tiles(lesions: pd.DataFrame, changes: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Number and difference in volume of each kind of change; empty where nothing was followed.

    Rows that share their baseline lesions, as the parts of a split one do, count those once. As in
    ``visits.tsv``, what counts are the lesions of the later visit, and under disappeared those of
    the visit before; ``before`` counts the others of the visit before, such as equivocal ones.
    """
    table = changes if changes is not None and "state" in changes else lesions
    if "state" not in table or not table["state"].isin(COMPARED).any():
        return []
    found = []
    for state in COMPARED:
        rows = table[table["state"] == state]
        earlier = 0
        if "followup" in rows and state != "disappeared":
            earlier = int((rows["followup"] == "").sum())
        difference = None
        if {"baseline_mm3", "followup_mm3", "baseline"} <= set(rows):
            before = rows.drop_duplicates("baseline")["baseline_mm3"].sum()
            difference = float(rows["followup_mm3"].sum() - before)
        found.append(
            {
                "state": state,
                "look": CHANGES[state],
                "count": len(rows) - earlier,
                "before": earlier,
                "difference_mm3": difference,
            }
        )
    return found


def with_fate(lesions: pd.DataFrame, changes: pd.DataFrame, session: str) -> pd.DataFrame:
    """The lesion table where lesions of the visit before the last have their state at the last.

    Args:
        lesions: rows of the main method.
        changes: as on a page, with the columns state and baseline (labels, comma-separated).
        session: the visit before the last.
    """
    fate = {
        int(label): str(state)
        for labels, state in zip(changes["baseline"], changes["state"], strict=True)
        for label in str(labels).split(",")
        if label.strip().isdigit()
    }
    lesions = lesions.copy()
    if "state" not in lesions:
        lesions["state"] = None
    here = (lesions["session"] == session) & lesions["label"].isin(list(fate))
    lesions.loc[here, "state"] = lesions.loc[here, "label"].map(fate)
    return lesions


def change_rows(changes: pd.DataFrame, before: str, after: str) -> list[dict[str, Any]]:
    """Cells of the table of changes, each row with the lesion that a click leads to."""
    table = free_table(changes)
    rows = []
    for cells, entry in zip(table["rows"], changes.to_dict("records"), strict=True):
        target = None
        for session, column in ((after, "followup"), (before, "baseline")):
            label = _text(entry.get(column)).split(",")[0].strip()
            if target is None and label.isdigit():
                target = {"session": session, "label": int(label)}
        rows.append(
            {
                "cells": cells,
                "target": target,
                "state": _text(entry.get("state")),
                "look": change_look(_text(entry.get("state"))),
            }
        )
    return rows


def lesion_rows(
    lesions: pd.DataFrame, looks: Mapping[tuple[str, str], Look]
) -> list[dict[str, Any]]:
    """One entry per lesion for the table that acts together with the viewer."""
    rows = []
    for entry in lesions.to_dict("records"):
        label, session, method = int(entry["label"]), str(entry["session"]), str(entry["method"])
        look = looks.get((session, method))
        place = look.place_mm.get(label) if look else None
        if place is None and all(f"center_{axis}_mm" in entry for axis in "xyz"):
            place = tuple(float(entry[f"center_{axis}_mm"]) for axis in "xyz")  # type: ignore[assignment]
        extent = [entry.get(f"extent_{axis}_mm") for axis in "ijk"]
        state = _text(entry.get("state"))
        rows.append(
            {
                "label": label,
                "session": session,
                "method": method,
                "color": look.colors.get(label, "#ffffff") if look else "#ffffff",
                "place": place,
                "state": state,
                "change": change_look(state) if state else None,
                "location": _text(entry.get("location")).replace("_", " "),
                "edge": _text(entry.get("edge")) == "True",
                "volume": _finite(entry.get("volume_mm3")),
                "extent": max((x for x in map(_finite, extent) if x is not None), default=None),
                "confidence": _finite(entry.get("confidence")),
                "intensity": _finite(entry.get("mean_intensity")),
                "group": int(_finite(entry.get("confluent_group")) or 0),
                "track": int(_finite(entry.get("track")) or 0),
            }
        )
    return rows


def method_table(lesions: pd.DataFrame, available: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Counts and volumes by method, so that one sees how a count depends on it.

    Args:
        available: methods in the order shown, by session.
    """
    places = _places(lesions)
    rows = []
    for session, methods in available.items():
        for method in methods:
            here = lesions[(lesions["session"] == session) & (lesions["method"] == method)]
            location = _location(here)
            rows.append(
                {
                    "session": session,
                    "method": method,
                    "count": len(here),
                    "confluent": int((here["confluent_group"].fillna(0) > 0).sum())
                    if "confluent_group" in here
                    else None,
                    "volume_ml": float(here["volume_mm3"].sum()) / 1000,
                    "places": [
                        (
                            int((location == place).sum()),
                            float(here.loc[location == place, "volume_mm3"].sum()) / 1000,
                        )
                        for place in places
                    ],
                }
            )
    return {"places": places, "rows": rows}


def location_chart(lesions: pd.DataFrame, session: str, methods: Sequence[str]) -> Figure | None:
    """Lesions by location and method of one visit; None where no location is known."""
    here = lesions[lesions["session"] == session]
    places = _places(here)
    if not places:
        return None
    table = pd.DataFrame(
        [
            [int((_location(here[here["method"] == method]) == place).sum()) for place in places]
            for method in methods
        ],
        index=list(methods),
        columns=places,
    )
    return stacked_bars(table[table.sum(axis=1) > 0], label="lesions")


@dataclass(frozen=True)
class Region:
    """A brain region of the criteria.

    Attributes:
        name: of the region.
        count: lesions in it that decide.
        flagged: further ones, in edge slices or at the border of the brainstem, which do not.
    """

    name: str
    count: int
    flagged: int


def regions(lesions: pd.DataFrame) -> list[Region]:
    """Lesions in each brain region of the criteria; empty where no location is known.

    Lesions whose ``edge`` is true do not decide: pulsating fluid and the ends of a scan look alike.
    """
    if not _places(lesions):
        return []
    location = _location(lesions)
    edge = lesions["edge"].eq(True) if "edge" in lesions else pd.Series(False, index=lesions.index)
    found = []
    for name in IN_CRITERIA:
        there = location.str.startswith(name)
        found.append(Region(name, int((there & ~edge).sum()), int((there & edge).sum())))
    return found


def free_table(
    table: pd.DataFrame, links: Sequence[str] | None = None, *, by: str = ""
) -> dict[str, Any]:
    """Any table as columns and cells; a column ``page`` is left out, since it becomes a link.

    Args:
        links: where the first cell of each row leads.
        by: a column, such as the metric: numbers have the decimals of the rows that share its
            value, so that a volume in mm³ does not take the decimals of a Dice coefficient.
    """
    names = [name for name in table.columns if name != "page"]
    columns = [
        {
            "name": heading(str(name)),
            "kind": "number" if pd.api.types.is_numeric_dtype(table[name]) else "text",
        }
        for name in names
    ]
    groups = table[by].astype(str) if by in table else pd.Series("", index=table.index)
    digits = {
        (name, group): _digits(str(name), table.loc[groups == group, name])
        for name in names
        for group in groups.unique()
    }
    of_p = {name for name in names if {"p", "p-value"} & set(str(name).split("_"))}
    rows = []
    rows_of = zip(table[names].itertuples(index=False), groups, strict=True)
    for place, (values, group) in enumerate(rows_of):
        rows.append(
            [
                Cell(
                    p_value(value) if name in of_p else _read(_plain(value), digits[name, group]),
                    "" if _missing(value) else str(_plain(value)),
                    links[place] if links and name == names[0] else "",
                )
                for name, value in zip(names, values, strict=True)
            ]
        )
    return {"columns": columns, "rows": rows}


def heading(column: str) -> str:
    """The name of a column as a person writes it: ``volume_mm3`` is volume (mm³)."""
    if column in COLUMN_WORDS:
        return COLUMN_WORDS[column]
    for unit, written in UNITS.items():
        if column.endswith(unit):
            column = column.removesuffix(unit) + written
    return " ".join(ABBREVIATIONS.get(word, word) for word in column.replace("_", " ").split(" "))


def outliers(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Values further than 1.5 interquartile ranges outside the middle half (Tukey's fences).

    Returns:
        One row each: the first column of the table, its session, quantity, value, middle half, and
        the page, where the table has them; none where fewer than eight values are known.
    """
    named = [*table.columns[:1], *(column for column in ("session",) if column in table)]
    rows = []
    for name in columns:
        if name not in table:
            continue
        values = pd.to_numeric(table[name], errors="coerce")
        if values.notna().sum() < 8:
            continue
        low, high = values.quantile(0.25), values.quantile(0.75)
        reach = 1.5 * (high - low)
        for place in np.flatnonzero((values < low - reach) | (values > high + reach)):
            rows.append(
                {
                    **{str(column): table[column].iloc[place] for column in named},
                    "quantity": heading(name),
                    "value": shown(float(values.iloc[place])),
                    "middle half": f"{shown(float(low))} to {shown(float(high))}",
                    **({"page": table["page"].iloc[place]} if "page" in table else {}),
                }
            )
    columns = [*map(str, named), "quantity", "value", "middle half"]
    return pd.DataFrame(rows, columns=[*columns, *(["page"] if "page" in table else [])])


def p_value(value: Any) -> str:
    """A p value for reading: three digits, and a bound where these would all be 0."""
    return "< 0.001" if not _missing(value) and float(value) < 0.001 else number(value, 3)


def _read(value: Any, digits: int | None) -> str:
    return shown(value) if digits is None else number(value, digits)


def _digits(name: str, column: pd.Series) -> int | None:
    """Decimals that show a column of numbers alike; None for a column of anything else."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return None
    values = column.dropna().to_numpy(dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values) or (values == np.round(values)).all():
        return 0
    largest = float(np.abs(values).max())
    for ending, digits in DIGITS.items():
        if name.endswith(ending) and largest >= 1:
            return digits
    return 3 if largest < 10 else 1 if largest < 1000 else 0


def _places(lesions: pd.DataFrame) -> list[str]:
    found = set(_location(lesions)) - {""}
    known = [place for place in PLACES if place in found]
    return known + sorted(found - set(known))


def _location(lesions: pd.DataFrame) -> pd.Series:
    if "location" not in lesions:
        return pd.Series("", index=lesions.index)
    return lesions["location"].fillna("").astype(str).str.replace("_", " ")


def _missing(value: Any) -> bool:
    missing: Any = pd.isna(value)
    return missing is True or missing is np.True_


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any) -> str:
    return "" if _missing(value) else str(value)


def _finite(value: Any) -> float | None:
    if _missing(value):
        return None
    value = float(value)
    return value if np.isfinite(value) else None
