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
from lesionwise.report.palette import CHANGES, change_look
from lesionwise.report.render import number, shown
from lesionwise.types import Grid, LabelArray

PLACES = ("periventricular", "juxtacortical", "infratentorial", "deep white matter")
"""Brain locations in the order shown; other words follow in the order they come."""

IN_CRITERIA = ("periventricular", "juxtacortical", "infratentorial")
"""The brain regions that count for dissemination in space (McDonald criteria, 2017)."""


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
        apart = (((index - center[row]) * np.array(grid.spacing_mm)) ** 2).sum(axis=1)
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
    """One cell of a free table: what is read, what is sorted by, where it leads."""

    text: str
    value: str
    link: str = ""


def tiles(visits: Sequence[pd.DataFrame]) -> list[tuple[str, str]]:
    """(value, what it is) for the top of the page, from the lesions of each visit in time order.

    Several visits share a tile: their values stand in order with arrows between them.
    """

    def of(lesions: pd.DataFrame) -> list[tuple[str, str]]:
        volume = lesions["volume_mm3"]
        found = [
            (number(len(lesions)), "lesions"),
            (number(volume.sum() / 1000, 1), "ml lesion volume"),
            (number(volume.median()), "mm³ median lesion"),
            (number(volume.max()), "mm³ largest lesion"),
        ]
        if "confluent_group" in lesions:
            groups = lesions.loc[lesions["confluent_group"].fillna(0) > 0, "confluent_group"]
            found.append((number(groups.nunique()), "confluent groups"))
            found.append((number(len(groups)), "lesions in them"))
        return found

    by_visit = [of(lesions) for lesions in visits]
    return [
        (" \N{RIGHTWARDS ARROW} ".join(value for value, _ in column), column[0][1])
        for column in zip(*by_visit, strict=True)
    ]


def change_tiles(lesions: pd.DataFrame, changes: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Number and volume of each kind of change; empty where nothing was followed."""
    table = changes if changes is not None and "state" in changes else lesions
    if "state" not in table or not table["state"].notna().any():
        return []
    found = []
    for state, look in CHANGES.items():
        rows = table[table["state"] == state]
        volume = None
        if changes is not None and {"baseline_mm3", "followup_mm3"} <= set(rows):
            volume = float(
                rows["followup_mm3"].fillna(0).sum() - rows["baseline_mm3"].fillna(0).sum()
            )
        found.append({"state": state, "look": look, "count": len(rows), "difference_mm3": volume})
    return found


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
                "volume": _finite(entry.get("volume_mm3")),
                "extent": max((x for x in map(_finite, extent) if x is not None), default=None),
                "confidence": _finite(entry.get("confidence")),
                "intensity": _finite(entry.get("mean_intensity")),
                "group": int(_finite(entry.get("confluent_group")) or 0),
            }
        )
    return rows


def method_table(
    lesions: pd.DataFrame, sessions: Sequence[str], methods: Sequence[str]
) -> dict[str, Any]:
    """Counts and volumes by method, so that one sees how a count depends on it."""
    places = _places(lesions)
    rows = []
    for session in sessions:
        for method in methods:
            here = lesions[(lesions["session"] == session) & (lesions["method"] == method)]
            if not len(here) and method not in set(lesions["method"]):
                continue
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


def regions(lesions: pd.DataFrame) -> list[tuple[str, int]]:
    """Lesions in each brain region of the criteria; empty where no location is known."""
    if not _places(lesions):
        return []
    location = _location(lesions)
    return [(region, int(location.str.startswith(region).sum())) for region in IN_CRITERIA]


def free_table(table: pd.DataFrame, links: Sequence[str] | None = None) -> dict[str, Any]:
    """Any table as columns and cells; a column ``page`` is left out, since it becomes a link."""
    names = [name for name in table.columns if name != "page"]
    columns = [
        {
            "name": str(name).replace("_mm3", " (mm³)").replace("_ml", " (ml)").replace("_", " "),
            "kind": "number" if pd.api.types.is_numeric_dtype(table[name]) else "text",
        }
        for name in names
    ]
    rows = []
    for place, values in enumerate(table[names].itertuples(index=False)):
        rows.append(
            [
                Cell(
                    shown(_plain(value)),
                    "" if _missing(value) else str(_plain(value)),
                    links[place] if links and at == 0 else "",
                )
                for at, value in enumerate(values)
            ]
        )
    return {"columns": columns, "rows": rows}


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
