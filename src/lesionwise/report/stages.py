"""What each preprocessing step made of a scan, and how visits came to lie on each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.preprocess.geometry import resample_to
from lesionwise.report.pictures import Rgb, encode, stack_rows, upright
from lesionwise.types import BoolArray, FloatArray, Grid, Matrix, Visit, Volume

PX_MM = 0.8
AROUND_MM = 18.0
"""DisplayedVisit around the brain's box: skull and scalp, not the face."""
ABOVE_MM = 8.0
"""The axial slice lies so far above the brain's middle, where the ventricles are."""
OUTLINE = (230, 159, 0)
LONGEST_VALUE = 60

Panels = tuple[Grid, Grid]
"""Grids of one axial and one coronal slice: (I, J, 1) and (I, 1, K)."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A scan after one step, in two slices that are the same for all stages of a visit.

    Attributes:
        step: the step as Python writes it, without values that are its defaults; ``as read``.
        slices: axial and coronal, 2D float32, NaN where the scan does not reach.
        brain: mask in the same slices, where the step changed nothing but the mask.
        window: values shown as black and white.
    """

    step: str
    slices: tuple[FloatArray, FloatArray]
    brain: tuple[BoolArray, BoolArray] | None
    window: tuple[float, float]

    def webp(self) -> bytes:
        """The slices side by side, patient's right on the left, the mask outlined."""
        low, high = self.window
        panels = []
        for number, values in enumerate(self.slices):
            gray = np.clip((values - low) * (255 / max(high - low, 1e-12)), 0, 255)
            rgb = np.repeat(np.nan_to_num(gray).astype(np.uint8)[..., None], 3, axis=2)
            if self.brain is not None:
                inside = self.brain[number]
                rgb[ndimage.binary_dilation(inside) & ~inside] = OUTLINE
            panels.append(rgb)
        return encode(stack_rows([panels]), "WEBP")


class Stages:
    """Follows one scan of a visit through preprocessing.

    Volumes of stages before the brain is known are kept until it is, since it says what the slices
    show; of the others only the slices are.

    Args:
        visit: as read.
        scan: its name; the first scan is shown where a step leaves none of that name.
    """

    def __init__(self, visit: Visit, scan: str) -> None:
        self._scan = scan
        self._grid = _scan_of(visit, scan).grid
        self._waiting: list[tuple[str, Visit, bool]] = []
        self._panels: Panels | None = None
        self._inside: tuple[BoolArray, ...] = ()
        self._found: list[Stage] = []
        self._last = visit
        self._keep("as read", visit, False)

    def add(self, step: object, visit: Visit) -> None:
        """What a step made of the visit; nothing is noted where scan and brain are as before."""
        before, self._last = self._last, visit
        same_scan = _scan_of(visit, self._scan) is _scan_of(before, self._scan)
        if same_scan and visit.brain is before.brain:
            return
        self._keep(step_text(step), visit, same_scan)

    def all(self) -> tuple[Stage, ...]:
        """Every stage in order, ``as read`` first."""
        if self._panels is None:
            scan = _scan_of(self._last, self._scan)
            bright = Volume(scan.array > scan.array.mean(), scan.grid)
            self._show(bright, self._last.to_native)
        return tuple(self._found)

    def _keep(self, text: str, visit: Visit, outlined: bool) -> None:
        self._waiting.append((text, visit, outlined))
        if self._panels is not None:
            self._draw()
        elif visit.brain is not None and visit.brain.array.any():
            self._show(visit.brain, visit.to_native)

    def _show(self, brain: Volume, to_native: Matrix) -> None:
        self._panels = panels_around(brain, to_native, self._grid)
        self._inside = tuple(_slices(brain, self._panels, to_native, order=0))
        self._draw()

    def _draw(self) -> None:
        assert self._panels is not None
        for text, visit, outlined in self._waiting:
            scan = _scan_of(visit, self._scan)
            axial, coronal = _slices(scan, self._panels, visit.to_native, order=1)
            brain = None
            if outlined and visit.brain is not None:
                a, c = _slices(visit.brain, self._panels, visit.to_native, order=0)
                brain = (a.astype(bool), c.astype(bool))
            window = _window([axial, coronal], self._inside)
            self._found.append(Stage(text, (axial, coronal), brain, window))
        self._waiting = []


def step_text(step: object) -> str:
    """A step as a recipe writes it: its name, and the values that are not its defaults."""
    name = type(step).__name__
    if not dataclasses.is_dataclass(step):
        return getattr(step, "__name__", name)
    stated = []
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or value != default:
            text = repr(value)
            stated.append(f"{field.name}={text if len(text) <= LONGEST_VALUE else '…'}")
    return f"{name}({', '.join(stated)})"


def panels_around(brain: Volume, to_native: Matrix, grid: Grid) -> Panels:
    """Slices through the brain along the axes of ``grid``, in the world of the visit as read.

    Args:
        brain: mask, not empty.
        to_native: world mm of the mask to world mm as read.
    """
    axes = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    points = brain.grid.world_mm(np.argwhere(brain.array)) @ to_native[:3, :3].T + to_native[:3, 3]
    along = points @ np.linalg.inv(axes).T
    low, high = along.min(axis=0) - AROUND_MM, along.max(axis=0) + AROUND_MM
    middle = along.mean(axis=0)
    middle[2] += ABOVE_MM
    found = []
    for across in (2, 1):
        start, shape = low.copy(), np.ceil((high - low) / PX_MM).astype(int)
        start[across], shape[across] = middle[across], 1
        affine = np.eye(4)
        affine[:3, :3] = axes * PX_MM
        affine[:3, 3] = axes @ start
        i, j, k = (int(n) for n in shape)
        found.append(Grid((i, j, k), affine))
    return found[0], found[1]


def overlaid(first: Volume, brain: Volume, later: Volume, world: Matrix) -> bytes:
    """Two visits in one picture (WebP): the first red, the later cyan, gray where they agree.

    Args:
        first, brain: scan and mask of the first visit.
        later: scan of the later visit.
        world: world mm of the first visit to world mm of the later one; the identity shows them as
            the scanners placed them.
    """
    panels = panels_around(brain, np.eye(4), first.grid)
    inside = list(_slices(brain, panels, np.eye(4), order=0))
    red = [*_slices(first, panels, np.eye(4), order=1)]
    laid = np.asarray(np.linalg.inv(world), dtype=np.float64)
    cyan = [*_slices(later, panels, laid, order=1)]
    return encode(stack_rows([_mixed(red, cyan, inside)]), "WEBP")


def _mixed(
    red: list[FloatArray], cyan: list[FloatArray], inside: Sequence[NDArray[Any]]
) -> list[Rgb]:
    def gray(panels: list[FloatArray]) -> list[NDArray[np.uint8]]:
        low, high = _window(panels, inside)
        scaled = (np.clip((p - low) * (255 / max(high - low, 1e-12)), 0, 255) for p in panels)
        return [np.nan_to_num(each).astype(np.uint8) for each in scaled]

    return [np.stack([a, b, b], axis=2) for a, b in zip(gray(red), gray(cyan), strict=True)]


def moved_by(brain: Volume, world: Matrix) -> tuple[float, float]:
    """Degrees and mm of a rigid movement: its turn, and the shift of the brain's middle."""
    turn = world[:3, :3]
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    middle = brain.grid.world_mm(np.argwhere(brain.array).mean(axis=0)[None])[0]
    shift = turn @ middle + world[:3, 3] - middle
    return float(angle), float(np.linalg.norm(shift))


def _slices(
    volume: Volume, panels: Panels, to_native: Matrix, *, order: Any
) -> tuple[NDArray[Any], ...]:
    """The volume in both panels as pictures: rows downward, patient's right on the left."""
    to_now = np.asarray(np.linalg.inv(to_native), dtype=np.float64)
    fill = np.nan if order else 0.0
    out = []
    for grid in panels:
        laid = resample_to(volume, grid, order=order, world=to_now, fill=fill, antialias=False)
        axial = grid.shape[2] == 1
        out.append(upright(laid.array[:, :, 0] if axial else laid.array[:, 0, :]))
    return tuple(out)


def _window(panels: Sequence[FloatArray], inside: Sequence[NDArray[Any]]) -> tuple[float, float]:
    values = np.concatenate([p[m.astype(bool)] for p, m in zip(panels, inside, strict=True)])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.8)))
    return (low, high) if high > low else (low, low + 1.0)


def _scan_of(visit: Visit, name: str) -> Volume:
    return visit.scans[name] if name in visit.scans else next(iter(visit.scans.values()))
