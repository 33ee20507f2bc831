"""What changed between the last two visits, lesion by lesion: close-ups and a word why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to
from lesionwise.report.display import Display
from lesionwise.report.palette import CHANGES, ChangeLook
from lesionwise.report.pictures import Rgb, encode, upright
from lesionwise.report.render import number
from lesionwise.report.views import BRIGHTER, CAME
from lesionwise.types import Grid, Volume

SHOWN = ("new", "enlarging", "shrinking", "disappeared", "equivocal")
"""Kinds of change that are shown one by one, in this order."""

PANEL_PX = 168
GAP_PX = 3
MIN_SIDE_MM = 40.0
"""Side of a close-up; a longer lesion gets a larger one."""
AROUND_LESION = 1.8
DIFFERENCE_GAIN = 1.5
QUANTILES = np.linspace(0.02, 0.98, 49)


@dataclass(frozen=True, eq=False)
class DisplayedVisit:
    """A visit as close-ups need it.

    Attributes:
        session: its name.
        display: cropped and in gray levels.
        labels: lesions of the main method on the display's grid.
        to_common: world mm of the visit to world mm shared by all visits.
    """

    session: str
    display: Display
    labels: NDArray[np.int32]
    to_common: NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """One lesion that changed, or may have.

    Attributes:
        state, look: what it is and how that is shown.
        session, label: the lesion in the table and the viewer; of the earlier visit where the
            later one has none.
        names: the lesion at both visits, in words.
        location: place in the brain; may be empty.
        volume: in words, before and after.
        why: what decided, in a few words.
        edge: lies where findings are less certain.
        picture: WebP of close-ups before, after, and their difference.
    """

    state: str
    look: ChangeLook
    session: str
    label: int
    names: str
    location: str
    volume: str
    why: str
    edge: bool
    picture: bytes


def find_findings(
    changes: pd.DataFrame, before: DisplayedVisit, after: DisplayedVisit
) -> list[Finding]:
    """Every new, enlarging, shrinking, disappeared or equivocal lesion of the last interval.

    Args:
        changes: as ``views.StudyPage`` holds them: what changed first, the largest first.
        before, after: the last two visits.

    Returns:
        In the order of ``SHOWN``, the largest first. Lesions that no map holds are left out.
    """
    if not {"state", "baseline", "followup"} <= set(changes):
        return []
    draw = CloseUps(before, after)
    rank = {state: place for place, state in enumerate(SHOWN)}
    found = []
    for entry in changes.to_dict("records"):
        row = {str(name): value for name, value in entry.items()}
        state = str(row["state"])
        if state not in rank:
            continue
        followup, baseline = _labels(row["followup"]), _labels(row["baseline"])
        home, label = (after, followup) if followup else (before, baseline)
        if not label or not (home.labels == label[0]).any():
            continue
        found.append(
            Finding(
                state=state,
                look=CHANGES[state],
                session=home.session,
                label=label[0],
                names=_names(before.session, baseline, after.session, followup),
                location=_word(row.get("location")),
                volume=_volumes(row),
                why=reason(row),
                edge=str(row.get("edge")) == "True",
                picture=draw.of(home is after, label[0], CHANGES[state].color),
            )
        )
    return sorted(found, key=lambda finding: rank[finding.state])


def reason(row: Mapping[str, Any]) -> str:
    """A word why a lesion has its state, from its row of the table of changes.

    Example:
        >>> reason({"state": "enlarging", "baseline_mm3": 100.0, "followup_mm3": 150.0})
        'larger by 50 %'
    """
    state = str(row["state"])
    z, gain = _number(row.get(BRIGHTER)), _number(row.get(CAME))
    parts = []
    if state in ("enlarging", "shrinking"):
        parts.append(_resized(row))
        if z is not None:
            tone = "brighter" if z > 0 else "darker"
            parts.append(f"the tissue between the outlines became {tone} ({number(z, 1)} noise SD)")
    elif z is not None:
        tone = "brighter" if z > 0 else "darker"
        lead = {"new": "no lesion here before", "disappeared": "no lesion here any more"}.get(state)
        parts += [lead] if lead else ["outlined at one visit only"]
        parts.append(f"became {tone} by {number(z, 1)} noise SD")
        if gain is not None:
            way = "gained" if z > 0 else "lost"
            parts.append(f"{number(min(max(gain, 0), 100))} % of its contrast {way}")
    elif state == "equivocal":
        parts.append("outlined at one visit only")
    else:
        parts.append("no lesion here before" if state == "new" else "no lesion here any more")
    note = _word(row.get("note"))
    return "; ".join(filter(None, [", ".join(filter(None, parts)), note]))


@dataclass(frozen=True, eq=False)
class _Scale:
    """Quantiles of normal-appearing brain, to lay one scan's gray levels on the other's."""

    levels: NDArray[np.float64]

    @staticmethod
    def of(shown: DisplayedVisit) -> _Scale:
        inside = (shown.display.gray > 0) & (shown.labels == 0)
        gray = shown.display.gray[inside]
        return _Scale(np.quantile(gray, QUANTILES) if len(gray) else QUANTILES * 255)

    def onto(self, other: _Scale, gray: NDArray[np.float32]) -> NDArray[np.float32]:
        """Gray levels of this scan as the other would show them; straight lines at the ends."""
        source, target = self.levels, other.levels
        reach = source[-1] - source[0]
        slope = (target[-1] - target[0]) / reach if reach > 0 else 1.0
        mapped = np.interp(gray, source, target)
        mapped += slope * (np.maximum(gray - source[-1], 0) - np.maximum(source[0] - gray, 0))
        return mapped.astype(np.float32)


class CloseUps:
    """Draws both visits and their difference around a lesion, in the plane of its own scan."""

    def __init__(self, before: DisplayedVisit, after: DisplayedVisit) -> None:
        self.before, self.after = before, after
        self._scales = _Scale.of(before), _Scale.of(after)

    def of(self, at_after: bool, label: int, color: str) -> bytes:
        """WebP of three squares side by side: before, after, and what became brighter (white).

        Args:
            at_after: the lesion belongs to the later visit.
            label: the lesion; it is shown where its cross-section is largest.
            color: of its outline; other lesions are outlined in gray.
        """
        home = self.after if at_after else self.before
        grid = square_around(home, label)
        panels: list[Rgb] = []
        grays = []
        for visit in (self.before, self.after):
            world = np.linalg.inv(visit.to_common) @ home.to_common
            grays.append(_sampled(visit.display.gray, visit.display.grid, grid, world, 1))
            drawn = _sampled(visit.labels, visit.display.grid, grid, world, 0)
            mine = drawn == label if visit is home else np.zeros_like(drawn, dtype=bool)
            panels.append(_outlined(grays[-1], mine, drawn != 0, color))
        earlier = self._scales[0].onto(self._scales[1], grays[0])
        shown = (grays[0] > 0) & (grays[1] > 0)
        change = np.where(shown, (grays[1] - earlier) * DIFFERENCE_GAIN, 0.0) + 128
        nothing = np.zeros(change.shape, dtype=bool)
        panels.append(_outlined(change.astype(np.float32), nothing, nothing, color))
        gap = np.zeros((PANEL_PX, GAP_PX, 3), dtype=np.uint8)
        return encode(np.hstack([panels[0], gap, panels[1], gap, panels[2]]), "WEBP")


def square_around(home: DisplayedVisit, label: int) -> Grid:
    """One axial slice of square pixels around a lesion, through its largest cross-section."""
    at = np.argwhere(home.labels == label)
    areas = np.bincount(at[:, 2])
    level = int(areas.argmax())
    section = at[at[:, 2] == level]
    center = np.array([*section[:, :2].mean(axis=0), level])
    affine = home.display.grid.affine
    spacing = np.array(home.display.grid.spacing_mm)
    long_mm = float(((section.max(axis=0) - section.min(axis=0) + 1) * spacing)[:2].max())
    step_mm = max(MIN_SIDE_MM, AROUND_LESION * long_mm) / PANEL_PX
    axes = affine[:3, :3] / spacing
    square = np.eye(4)
    square[:3, :3] = axes * [step_mm, step_mm, spacing[2]]
    middle = (PANEL_PX - 1) / 2
    square[:3, 3] = home.display.grid.world_mm(center[None])[0] - square[:3, :3] @ [
        middle,
        middle,
        0.0,
    ]
    return Grid((PANEL_PX, PANEL_PX, 1), square)


def _sampled(
    array: NDArray[Any], source: Grid, grid: Grid, world: NDArray[np.float64], order: int
) -> NDArray[Any]:
    volume = Volume(array, source)
    found = resample_to(volume, grid, order=1 if order else 0, world=world, antialias=False)
    return upright(found.array[:, :, 0])


def _outlined(
    gray: NDArray[np.float32], mine: NDArray[np.bool_], any_: NDArray[np.bool_], color: str
) -> Rgb:
    """The picture with a line just outside the lesion, and a darker one around the others."""
    rgb = np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    for mask, paint in ((any_ & ~mine, (150, 156, 166)), (mine, _rgb(color))):
        rgb[ndimage.binary_dilation(mask) & ~any_] = paint
    return rgb


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _names(before: str, baseline: Sequence[int], after: str, followup: Sequence[int]) -> str:
    def named(session: str, labels: Sequence[int]) -> str:
        return f"{session} {', '.join(map(str, labels))}".strip()

    if not followup:
        return f"lesion {named(before, baseline)}"
    if not baseline:
        return f"lesion {named(after, followup)}"
    return f"lesion {named(before, baseline)} \N{RIGHTWARDS ARROW} {named(after, followup)}"


def _volumes(row: Mapping[str, Any]) -> str:
    before, after = _number(row.get("baseline_mm3")), _number(row.get("followup_mm3"))
    if before is None and after is None:
        return ""
    if before is None or after is None:
        return f"{number(before if after is None else after)} mm³"
    return f"{number(before)} \N{RIGHTWARDS ARROW} {number(after)} mm³"


def _resized(row: Mapping[str, Any]) -> str:
    before, after = _number(row.get("baseline_mm3")), _number(row.get("followup_mm3"))
    form = _word(row.get("form"))
    text = ""
    if before and after is not None and not form:
        grew = after > before
        text = (
            f"{'larger' if grew else 'smaller'} by {number(100 * abs(after - before) / before)} %"
        )
    change = _number(row.get("change_mm3"))
    if form and change is not None:
        sign = "+" if change > 0 else ""
        text = f"{form}, together {sign}{number(change)} mm³"
    return text


def _labels(value: object) -> list[int]:
    return [int(part) for part in str(value).split(",") if part.strip().isdecimal()]


def _number(value: Any) -> float | None:
    try:
        known = float(value)
    except (TypeError, ValueError):
        return None
    return known if np.isfinite(known) else None


def _word(value: Any) -> str:
    return value.replace("_", " ") if isinstance(value, str) else ""
