"""Pictures of scans with their lesions outlined and numbered, for pages, print and documents."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from lesionwise.report.display import Display
from lesionwise.report.palette import instance_colors

Plane = Literal["axial", "coronal", "sagittal"]
Rgb = NDArray[np.uint8]

AXIS: Mapping[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
WORLD = "xyz"
UNLABELED: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture and what it leaves out.

    Attributes:
        rgb: (height, width, 3) uint8.
        numbered: labels that carry their number in it.
        missing: labels that do not.
        places: (x, y) of each numbered lesion, as fractions of width and height.
    """

    rgb: Rgb
    numbered: tuple[int, ...]
    missing: tuple[int, ...]
    places: Mapping[int, tuple[float, float]]

    def png(self) -> bytes:
        return encode(self.rgb, "PNG")

    def webp(self) -> bytes:
        """Lossy, about a fifth of the PNG; outlines and numbers stay sharp at the quality used."""
        return encode(self.rgb, "WEBP")


def montage_of(
    display: Display,
    method: str,
    *,
    axial: int = 10,
    columns: int = 5,
    px_per_mm: float = 1.6,
    notes: Mapping[int, str] | None = None,
    colors: Mapping[int, str] | None = None,
) -> Picture:
    """Axial slices that together show as many lesions as possible, then coronal and sagittal ones.

    Every lesion gets its number once, on the slice of the montage where it is largest, so that
    lesions can be counted in the picture. The patient's right is on the left.

    Args:
        display: a visit that is ready to be shown (``report.display.prepare``).
        method: whose lesions are shown; without lesions the slices are evenly spaced.
        axial: number of axial slices; one more row holds coronal and sagittal ones.
        columns: slices side by side.
        px_per_mm: size.
        notes: text after the number of a lesion, such as the symbol of its change.
        colors: by label; by default those of ``instance_colors``.
    """
    labels = display.labels.get(method)
    if labels is None:
        labels = np.zeros(display.gray.shape, dtype=np.int32)
    colors = instance_colors(labels) if colors is None else colors
    coronal = columns // 2
    wanted: list[tuple[Plane, int]] = [
        *(("axial", at) for at in reversed(choose_slices(labels, display.gray, "axial", axial))),
        *(("coronal", at) for at in choose_slices(labels, display.gray, "coronal", coronal)),
        *(
            ("sagittal", at)
            for at in choose_slices(labels, display.gray, "sagittal", columns - coronal)
        ),
    ]
    best = _best_panels(labels, wanted)
    panels, boxes = [], []
    for place, (plane, at) in enumerate(wanted):
        numbers = {
            label: f"{label}{(notes or {}).get(label, '')}"
            for label, chosen in best.items()
            if chosen == place
        }
        rgb, found = panel(
            display, labels, plane, at, px_per_mm=px_per_mm, colors=colors, numbers=numbers
        )
        panels.append(rgb)
        boxes.append(found)
    rows = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    whole, corners = _stack(rows)
    places = {}
    for label, place in best.items():
        if label in boxes[place]:
            left, top, right, bottom = boxes[place][label]
            x, y = corners[place]
            places[label] = (
                (x + (left + right) / 2) / whole.shape[1],
                (y + (top + bottom) / 2) / whole.shape[0],
            )
    present = {int(label) for label in np.unique(labels)} - {0}
    return Picture(whole, tuple(sorted(places)), tuple(sorted(present - set(places))), places)


def choose_slices(
    labels: NDArray[np.int32], gray: NDArray[np.uint8], plane: Plane, count: int
) -> list[int]:
    """Slices, ascending, that show the most lesions; evenly spaced ones fill the rest.

    A slice shows a lesion where at least half of its largest cross-section lies in it. Slices are
    taken one by one, each time the one that adds the most lesions, then the most lesion voxels; of
    equal ones the lowest.
    """
    axis = AXIS[plane]
    extent = labels.shape[axis]
    at = np.moveaxis(labels, axis, 0).reshape(extent, -1)
    slice_of, where = np.nonzero(at)
    found, row = np.unique(at[slice_of, where], return_inverse=True)
    area = np.zeros((extent, len(found)), dtype=np.int64)
    np.add.at(area, (slice_of, row), 1)
    shows = area * 2 >= area.max(axis=0, initial=1)
    shows &= area > 0
    left = np.ones(len(found), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < count and left.any():
        gain = shows[:, left].sum(axis=1) * (area.sum() + 1) + area[:, left].sum(axis=1)
        chosen.append(int(gain.argmax()))
        left &= ~shows[chosen[-1]]
    filled = np.flatnonzero(gray.any(axis=tuple(other for other in range(3) if other != axis)))
    inner = filled if len(filled) else np.arange(extent)
    grid = np.linspace(inner[0], inner[-1], 4 * count + 2)[1:-1].round().astype(int)
    while len(chosen) < min(count, extent):
        free = [int(place) for place in grid if place not in chosen]
        free = free or [place for place in range(extent) if place not in chosen]
        chosen.append(
            max(free, key=lambda place: min((abs(place - c) for c in chosen), default=0))
            if chosen
            else free[len(free) // 2]
        )
    return sorted(chosen)


def stack_rows(rows: Sequence[Sequence[Rgb]]) -> Rgb:
    """Panels on black: each row centered, rows below each other."""
    return _stack(rows)[0]


def encode(rgb: Rgb, form: Literal["PNG", "WEBP"]) -> bytes:
    """The picture as a file: PNG (256 colors, which is all that gray and outlines need) or WebP."""
    buffer = io.BytesIO()
    picture = Image.fromarray(rgb)
    if form == "PNG":
        picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "WEBP", quality=82, method=4)
    return buffer.getvalue()


@cache
def font(size: int) -> Any:
    """The font that matplotlib ships, so that pictures look alike everywhere."""
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    return ImageFont.truetype(str(path), size)


def panel(
    display: Display,
    labels: NDArray[np.int32],
    plane: Plane,
    at: int,
    *,
    px_per_mm: float = 1.6,
    colors: Mapping[int, str] = UNLABELED,
    numbers: Mapping[int, str] = UNLABELED,
) -> tuple[Rgb, dict[int, tuple[int, int, int, int]]]:
    """One slice with outlines, and the box of each lesion in it: (left, top, right, bottom).

    The picture is (height, width, 3) uint8, with the patient's right on the left and the
    position in mm at the lower left.

    Args:
        labels: on the display's grid; 0 is not outlined.
        at: index of the slice.
        colors: by label; a label without one is white.
        numbers: texts beside lesions, by label.
    """
    axis = AXIS[plane]
    spacing = [mm for other, mm in enumerate(display.grid.spacing_mm) if other != axis]
    gray = upright(np.take(display.gray, at, axis=axis))
    shown = upright(np.take(labels, at, axis=axis))
    width, height = (
        max(round(size * mm * px_per_mm), 1)
        for size, mm in zip(gray.shape[::-1], spacing, strict=True)
    )
    large = np.asarray(
        Image.fromarray(gray).resize((width, height), Image.Resampling.BICUBIC), dtype=np.uint8
    )
    rgb = np.repeat(large[..., None], 3, axis=2)
    placed = _outline(rgb, shown, colors, (height, width))
    picture = Image.fromarray(rgb)
    draw = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for label, text in numbers.items():
        if label in placed:
            fill = colors.get(label, "#ffffff")
            _write_beside(draw, placed[label], text, fill, taken, (width, height))
    center = (np.array(display.gray.shape) - 1) / 2
    center[axis] = at
    caption = f"{WORLD[axis]} {display.grid.world_mm(center[None])[0][axis]:.0f}"
    small = font(12)
    draw.text((4, height - 4), caption, fill="#c9ced6", font=small, anchor="ls")
    if plane != "sagittal":
        draw.text((4, height // 2), "R", fill="#c9ced6", font=small, anchor="lm")
        draw.text((width - 4, height // 2), "L", fill="#c9ced6", font=small, anchor="rm")
    return np.asarray(picture), placed


def upright(slab: NDArray[Any]) -> NDArray[Any]:
    """A slice of a RAS array as rows and columns: top of the picture first, right on the left.

    Sagittal slices look to the left: the front of the head is on the left.
    """
    rows = slab.T[::-1]
    return np.ascontiguousarray(rows[:, ::-1])


def _outline(
    rgb: Rgb, shown: NDArray[np.int32], colors: Mapping[int, str], size: tuple[int, int]
) -> dict[int, tuple[int, int, int, int]]:
    """Draw a line around each lesion, in place; boxes (left, top, right, bottom) by label.

    The line runs just outside the lesion, so that the lesion itself stays visible.
    """
    height, width = size
    down, right = height / shown.shape[0], width / shown.shape[1]
    thick = 1 if width < 250 else 2
    boxes: dict[int, tuple[int, int, int, int]] = {}
    for label, box in enumerate(ndimage.find_objects(shown), start=1):
        if box is None:
            continue
        mask = np.pad(shown[box] == label, 2).astype(np.uint8) * 255
        top, left = round((box[0].start - 2) * down), round((box[1].start - 2) * right)
        target = max(round(mask.shape[1] * right), 1), max(round(mask.shape[0] * down), 1)
        large = np.asarray(Image.fromarray(mask).resize(target, Image.Resampling.BILINEAR)) > 110
        border = ndimage.binary_dilation(large, iterations=thick) & ~large
        y, x = np.nonzero(border)
        y, x = y + top, x + left
        on = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        color = colors.get(label, "#ffffff")
        rgb[y[on], x[on]] = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
        if on.any():
            boxes[label] = (int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    return boxes


def _write_beside(
    draw: Any,
    box: tuple[int, int, int, int],
    text: str,
    color: str,
    taken: list[tuple[float, float, float, float]],
    size: tuple[int, int],
) -> None:
    """Write a number next to a lesion, where no other number stands if there is such a place."""
    left, top, right, bottom = box
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    spots = (
        (right + 2, middle_y, "lm"),
        (left - 2, middle_y, "rm"),
        (middle_x, top - 1, "mb"),
        (middle_x, bottom + 1, "mt"),
        (right + 1, top, "lb"),
        (left - 1, top, "rb"),
        (right + 1, bottom, "lt"),
        (left - 1, bottom, "rt"),
    )
    face = font(13)

    def cost(spot: tuple[float, float, str]) -> float:
        at = draw.textbbox(spot[:2], text, font=face, anchor=spot[2])
        outside = (
            max(-at[0], 0) + max(-at[1], 0) + max(at[2] - size[0], 0) + max(at[3] - size[1], 0)
        )
        overlap = sum(
            max(min(at[2], other[2]) - max(at[0], other[0]), 0)
            * max(min(at[3], other[3]) - max(at[1], other[1]), 0)
            for other in taken
        )
        return float(outside * 20 + overlap)

    x, y, anchor = min(spots, key=cost)
    draw.text(
        (x, y), text, fill=color, font=face, anchor=anchor, stroke_width=2, stroke_fill="#000"
    )
    taken.append(draw.textbbox((x, y), text, font=face, anchor=anchor))


def _best_panels(labels: NDArray[np.int32], panels: Sequence[tuple[Plane, int]]) -> dict[int, int]:
    """By label, the number of the panel that shows most of it; axial ones win over the others."""
    best: dict[int, tuple[bool, int, int]] = {}
    for number, (plane, at) in enumerate(panels):
        found, area = np.unique(labels.take(at, axis=AXIS[plane]), return_counts=True)
        for label, size in zip(found.tolist(), area.tolist(), strict=True):
            rank = (plane == "axial", size, -number)
            if label != 0 and rank > best.get(label, (False, 0, 0)):
                best[label] = rank
    return {label: -rank[2] for label, rank in sorted(best.items())}


def _stack(rows: Sequence[Sequence[Rgb]], gap: int = 4) -> tuple[Rgb, list[tuple[int, int]]]:
    """The same with the (x, y) of each panel's upper left corner, in order."""
    widths = [sum(tile.shape[1] + gap for tile in row) for row in rows]
    heights = [max(tile.shape[0] for tile in row) + gap for row in rows]
    whole = np.zeros((sum(heights), max(widths), 3), dtype=np.uint8)
    corners = []
    top = 0
    for row, width, height in zip(rows, widths, heights, strict=True):
        left = (whole.shape[1] - width) // 2
        for tile in row:
            y = top + (height - gap - tile.shape[0]) // 2
            whole[y : y + tile.shape[0], left : left + tile.shape[1]] = tile
            corners.append((left, y))
            left += tile.shape[1] + gap
        top += height
    return whole, corners
