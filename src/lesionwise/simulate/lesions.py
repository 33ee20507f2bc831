"""Lesions in a head: where they lie, what shape they have, how they come, change and go.

A *unit* is one lesion with a score field of its own: the signed distance (mm, positive
inside) to its surface as it would be at volume 0, so that "score > level" gives the unit at
any size, nested in every larger one. Units that touch share a border where their depths
below the surface are equal. A unit keeps its label through all visits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lesionwise.instances.table import lesion_table
from lesionwise.simulate.anatomy import PLACES, Anatomy
from lesionwise.simulate.fields import Float, smooth_field
from lesionwise.simulate.statistics import lesion_statistics
from lesionwise.types import BoolArray, Grid

Box = tuple[slice, slice, slice]
STABLE, ENLARGING, SHRINKING, NEW, DISAPPEARED = (
    "stable",
    "enlarging",
    "shrinking",
    "new",
    "disappeared",
)


@dataclass(frozen=True, eq=False)
class Unit:
    """One lesion.

    Attributes:
        label: its number in every instance map.
        group: units placed to touch each other share it.
        place: one of `PLACES`, as placed.
        box: where ``score`` lies on the head grid.
        score: (i, j, k) float32, larger is nearer to the center; -inf where it may not grow.
        volumes_mm3: intended volume at each visit, 0 where it is absent.
        brightness: contrast to white matter, 1 = the scan's usual.
    """

    label: int
    group: int
    place: str
    box: Box
    score: Float
    volumes_mm3: tuple[float, ...]
    brightness: float

    def level(self, visit: int) -> float:
        """The score at its surface, so that the voxels above it have the volume of the visit.

        Voxels that share the score of the surface stay outside.
        """
        volume = self.volumes_mm3[visit]
        if volume <= 0:
            return np.inf
        inside = np.sort(self.score[np.isfinite(self.score)])[::-1]
        rank = min(round(volume), len(inside)) - 1
        after = min(rank + 1, len(inside) - 1)
        return float(inside[rank] + inside[after]) / 2 if after > rank else float(inside[rank])


@dataclass(frozen=True, eq=False)
class LesionLayer:
    """The lesions of one visit on the head grid.

    Attributes:
        labels: (I, J, K) int32, each voxel's unit, 0 outside.
        owner: int32, ``labels`` and up to 1.5 mm beyond: which unit is nearest.
        fraction: float32, how much of each voxel is lesion; > 0.5 exactly where labels > 0.
        contrast: float32, brightness of the unit nearby.
    """

    labels: NDArray[np.int32]
    owner: NDArray[np.int32]
    fraction: Float
    contrast: Float


@dataclass(frozen=True)
class LesionSettings:
    """How patients' lesions are drawn; sizes and counts come from `lesion_statistics`.

    Attributes:
        load: multiplies the number of components (and of confluent groups); 0 leaves none, any
            other load at least three.
        max_components: upper bound of a patient's components.
        new_rate, gone_rate: share of components that appear or vanish from visit to visit.
        changing_rate: share of units that grow or shrink, each, from visit to visit.
        group_units: range of the units placed in one confluent group.
    """

    load: float = 1.0
    max_components: int = 300
    new_rate: float = 0.06
    gone_rate: float = 0.04
    changing_rate: float = 0.12
    group_units: tuple[int, int] = (2, 6)


def draw(rng: np.random.Generator, levels: Sequence[float], quantiles: Sequence[float]) -> float:
    """A draw from a distribution given by quantiles, interpolated on a log scale.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sizes_mm3 = [draw(rng, [0.0, 0.5, 1.0], [3, 20, 500]) for _ in range(50)]
        >>> 3 <= min(sizes_mm3) and max(sizes_mm3) <= 500
        True
    """
    u = rng.random()
    return float(np.exp(np.interp(u, levels, np.log(quantiles))))


def place_lesions(
    rng: np.random.Generator,
    anatomy: Anatomy,
    visits: int = 1,
    settings: LesionSettings | None = None,
) -> list[Unit]:
    """Draw a patient's lesions and their fate over the visits.

    Confluent groups are placed first, largest first, then single lesions, each kept two
    voxels away from everything placed before. Where a place is full, lesions are left out.

    Example:
        >>> units = place_lesions(np.random.default_rng(0), anatomy, visits=2)  # doctest: +SKIP
        >>> len(units[0].volumes_mm3)  # doctest: +SKIP
        2
    """
    settings = settings or LesionSettings()
    placer = _LesionPlacer(rng, anatomy)
    units: list[Unit] = []
    for group, (place, volumes) in enumerate(_plan(rng, settings), start=1):
        fates = draw_fates(rng, len(volumes), visits, settings)
        brightness = float(np.clip(rng.normal(1.0, 0.22), 0.45, 1.6))
        found = placer.place_component(place, volumes, fates)
        for box, score, sizes in found:
            own = float(np.clip(brightness + rng.normal(0, 0.1), 0.4, 1.7))
            units.append(Unit(len(units) + 1, group, place, box, score, sizes, own))
    return units


def _plan(rng: np.random.Generator, settings: LesionSettings) -> list[tuple[str, list[float]]]:
    """Place and unit volumes (mm3) of each component of a patient, large ones first."""
    s = lesion_statistics()
    if settings.load == 0:
        return []
    levels = s["levels"]
    count = rng.lognormal(s["log_components"]["mean"], s["log_components"]["sd"])
    count = float(np.clip(count * settings.load, 3, settings.max_components))
    rate = np.exp(s["groups"]["intercept"] + s["groups"]["slope"] * np.log(count))
    low, high = settings.group_units
    plan: list[tuple[str, list[float]]] = []
    for _ in range(rng.poisson(rate)):
        n = int(np.clip(round(draw(rng, levels, s["units_per_group"])), low, high))
        law = s["log_unit_volume"]
        mean = rng.normal(law["mean"] + law["slope"] * np.log(n), law["sd"])
        volumes = np.exp(rng.normal(mean - 0.18, 0.6, n)).clip(30, 6000)
        plan.append((_place(rng, "confluent"), [float(v) for v in volumes]))
    keep = [i for i, level in enumerate(levels) if level <= 0.98]
    top = levels[keep[-1]]
    for _ in range(max(round(count) - len(plan), 1)):
        volume = draw(
            rng,
            [*(levels[i] / top * 0.985 for i in keep), 1.0],
            [*(s["single_volume_mm3"][i] for i in keep), 900.0],
        )
        plan.append((_place(rng, "single"), [volume]))
    return sorted(plan, key=lambda item: -sum(item[1]))


def _place(rng: np.random.Generator, kind: str) -> str:
    shares = lesion_statistics()["places"][kind]
    weights = np.array([shares[place] for place in PLACES])
    return str(rng.choice(PLACES, p=weights / weights.sum()))


def draw_fates(
    rng: np.random.Generator, units: int, visits: int, settings: LesionSettings
) -> NDArray[np.float64]:
    """(units, visits) factors on the volume; 0 = absent. At least one visit is present.

    Example:
        >>> settings = LesionSettings(new_rate=1.0, gone_rate=0.0, changing_rate=0.0)
        >>> draw_fates(np.random.default_rng(0), units=1, visits=2, settings=settings).tolist()
        [[0.0, 1.0]]
    """
    factors = np.ones((units, visits))
    if visits == 1:
        return factors
    fate = rng.random()
    turn = int(rng.integers(1, visits))
    alone = rng.random() < 0.5  # one unit of a group comes or goes, or all of it
    which = slice(0, units) if units == 1 or not alone else slice(units - 1, units)
    if fate < settings.new_rate:
        factors[which, :turn] = 0
    elif fate < settings.new_rate + settings.gone_rate:
        factors[which, turn:] = 0
    for unit in range(units):
        change = rng.random()
        grow = rng.uniform(1.35, 2.4)
        if change < settings.changing_rate:
            factors[unit, turn:] *= grow
        elif change < 2 * settings.changing_rate:
            factors[unit, turn:] /= grow
    return factors


class _LesionPlacer:
    """Where lesions may still be placed; each placed lesion takes its room."""

    def __init__(self, rng: np.random.Generator, anatomy: Anatomy) -> None:
        self.rng = rng
        self.anatomy = anatomy
        white, gray = anatomy.white, anatomy.gray
        cortical = (gray > 0.5) & ~anatomy.infratentorial & (anatomy.deep_gray < 0.3)
        tissue = (white + gray) > 0.75
        # Lesions reach a little into cortex, freely into nuclei and infratentorial gray.
        self.reluctance = np.where(white > 0.6, 0, np.where(cortical, 1.2, 0.4)).astype(np.float32)
        self.allowed = tissue & anatomy.brain
        self.shape = white.shape
        self.taken = np.zeros(self.shape, dtype=bool)
        x, _, z = anatomy.template_mm
        core = (white > 0.8) & self.allowed
        below = anatomy.infratentorial
        callosum = (np.abs(x) < 4) & ~below
        wall = anatomy.ventricle_mm
        near = (wall < 3.5) & ~callosum
        border = anatomy.cortex_mm < 3.0
        zones = {
            "periventricular": core & ~below & near,
            "juxtacortical": core & ~below & border & ~near & (wall > 6),
            "deep white matter": core & ~below & ~border & (wall > 5) & ~callosum & (z > -15),
            "infratentorial": below & self.allowed & (white + gray > 0.9) & (z > -62),
        }
        self.candidates = {
            name: np.argwhere(zone)[:: 1 + zone.sum() // 60000] for name, zone in zones.items()
        }

    def place_component(
        self, place: str, volumes: list[float], fates: NDArray[np.float64]
    ) -> list[tuple[Box, Float, tuple[float, ...]]]:
        """Units of one component, or nothing where no room was found in 20 attempts."""
        candidates = self.candidates[place]
        if not len(candidates):
            return []
        peak = [v * f.max() for v, f in zip(volumes, fates, strict=True)]
        for _ in range(20):
            center = candidates[self.rng.integers(len(candidates))]
            if self.taken[tuple(center)]:
                continue
            found = self._attempt(place, center, peak)
            if found is not None:
                break
        else:
            return []
        out = []
        for (box, score, mask), volume, factors in zip(found, volumes, fates, strict=True):
            # the mask at its largest visit, and two voxels around it, are closed to others
            wide = tuple(slice(max(s.start - 2, 0), s.stop + 2) for s in box)
            pad = [(s.start - w.start, w.stop - s.stop) for s, w in zip(box, wide, strict=True)]
            cover = ndimage.binary_dilation(
                np.pad(mask, pad), ndimage.generate_binary_structure(3, 2), iterations=2
            )
            self.taken[wide] |= cover[tuple(slice(0, n) for n in self.taken[wide].shape)]
            out.append((box, score, tuple(float(volume * f) for f in factors)))
        return out

    def _attempt(
        self, place: str, center: NDArray[np.intp], volumes: list[float]
    ) -> list[tuple[Box, Float, BoolArray]] | None:
        """All units of a component around a center; None where one does not fit."""
        grown: list[tuple[Box, Float, BoolArray]] = []
        axis = self._axis(place, center)
        for index, volume in enumerate(volumes):
            for _ in range(8):
                if index == 0:
                    at = center
                else:
                    next_to = self._beside(grown, volume)
                    if next_to is None:
                        return None
                    at = next_to
                unit = self._unit(place, at, axis, volume)
                if unit is not None:
                    break
            else:
                return None
            grown.append(unit)
        return grown

    def _axis(self, place: str, center: NDArray[np.intp]) -> NDArray[np.float64]:
        """Direction of a lesion's long axis: away from the ventricle, along the cortex, or any."""
        box = tuple(slice(max(c - 2, 0), c + 3) for c in center)
        field = {
            "periventricular": self.anatomy.ventricle_mm,
            "juxtacortical": self.anatomy.cortex_mm,
        }.get(place)
        random = self.rng.standard_normal(3)
        if field is None:
            return np.asarray(random / np.linalg.norm(random))
        slope = np.array([g.mean() for g in np.gradient(field[box])])
        slope /= np.linalg.norm(slope) + 1e-6
        if place == "juxtacortical":
            slope = np.cross(slope, random)
        out = slope + 0.25 * random / np.linalg.norm(random)
        return np.asarray(out / np.linalg.norm(out))

    def _beside(
        self, grown: list[tuple[Box, Float, BoolArray]], volume: float
    ) -> NDArray[np.intp] | None:
        """A center from which a unit of this volume touches one that is there already."""
        box, _, mask = grown[int(self.rng.integers(len(grown)))]
        inside = np.argwhere(mask)
        origin = np.array([s.start for s in box])
        middle = inside.mean(axis=0)
        radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
        edge = inside[self.rng.integers(len(inside))]
        way = edge - middle
        norm = np.linalg.norm(way)
        if norm < 1:
            return None
        edge = inside[np.argmax(inside @ (way / norm))]
        at = np.rint(edge + origin + way / norm * radius * self.rng.uniform(0.5, 0.85)).astype(int)
        if np.any(at < 4) or np.any(at >= np.array(self.shape) - 4):
            return None
        wall = self.anatomy.ventricle_mm[tuple(at)]
        if not self.allowed[tuple(at)] or wall < 0 or self.reluctance[tuple(at)] > 0.5:
            return None
        return np.asarray(at)

    def _unit(
        self, place: str, center: NDArray[np.intp], axis: NDArray[np.float64], volume: float
    ) -> tuple[Box, Float, BoolArray] | None:
        rng = self.rng
        radius = (3 * volume / (4 * np.pi)) ** (1 / 3)
        longer = rng.uniform(1.2, 2.2) if place == "periventricular" else rng.uniform(1.0, 1.7)
        reach = int(np.ceil(1.9 * radius * longer ** (2 / 3) + 3))
        start = np.maximum(center - reach, 0)
        stop = np.minimum(center + reach + 1, self.shape)
        box: Box = (
            slice(int(start[0]), int(stop[0])),
            slice(int(start[1]), int(stop[1])),
            slice(int(start[2]), int(stop[2])),
        )
        shape = tuple(stop - start)
        if not self.allowed[tuple(center)]:
            return None
        shift = rng.uniform(-0.5, 0.5, 3)
        offset = [
            (np.arange(a, b) - c - d).astype(np.float32)
            for a, b, c, d in zip(start, stop, center, shift, strict=True)
        ]
        i, j, k = np.meshgrid(*offset, indexing="ij", sparse=True)
        along = i * axis[0] + j * axis[1] + k * axis[2]
        square = i * i + j * j + k * k
        stretched = np.sqrt((square - along**2) * longer ** (2 / 3) + along**2 * longer ** (-4 / 3))
        rough = smooth_field(rng, shape, max(2.0, 0.9 * radius))
        fine = smooth_field(rng, shape, 2.5)
        score = radius - stretched + 0.3 * radius * rough + 0.25 * min(radius, 4) * fine
        score = score - self.reluctance[box] * (0.8 + 0.2 * radius)
        score = np.where(self.allowed[box] & ~self.taken[box], score, -np.inf)
        score = score.astype(np.float32)
        finite = np.isfinite(score)
        if finite.sum() < 1.3 * volume + 1:
            return None
        own = _connected_to_best(score, round(volume))
        if own is None:
            return None
        score = np.where(own.reachable, score, -np.inf).astype(np.float32)
        return box, score, own.mask


@dataclass(frozen=True, eq=False)
class _Part:
    mask: BoolArray
    reachable: BoolArray


def _connected_to_best(score: Float, volume: int) -> _Part | None:
    """The ``volume`` best voxels in one piece: other pieces are closed until it is single."""
    score = score.copy()
    for _ in range(6):
        finite = np.isfinite(score)
        if finite.sum() < volume:
            return None
        level = np.partition(score[finite], -volume)[-volume]
        mask = score >= level
        parts = cc3d.connected_components(mask, connectivity=6)
        if parts.max() == 1:
            return _Part(mask, finite)
        main = parts[np.unravel_index(np.argmax(score), score.shape)]
        score[(parts > 0) & (parts != main)] = -np.inf
    return None


def paint(
    units: Sequence[Unit], visit: int, shape: tuple[int, ...], edge_per_mm: float = 0.9
) -> LesionLayer:
    """Put the units of one visit onto the head grid.

    ``edge_per_mm`` is how fast the lesion fraction falls across the surface.

    A voxel inside several units goes to the one whose surface lies furthest away, and to
    the lower label where that is equal. A piece of a unit that another unit cuts off goes
    to that other unit, so that every label is one 26-connected piece.

    Example:
        >>> away = np.linalg.norm(np.indices((9, 9, 9)) - 4, axis=0)
        >>> box = (slice(0, 9), slice(0, 9), slice(0, 9))
        >>> unit = Unit(1, 1, "deep white matter", box, -away.astype(np.float32), (7.0, 27.0), 1.0)
        >>> [int((paint([unit], visit, (9, 9, 9)).labels == 1).sum()) for visit in (0, 1)]
        [7, 27]
    """
    owner = np.zeros(shape, dtype=np.int32)
    best = np.full(shape, -np.inf, dtype=np.float32)
    contrast = np.ones(shape, dtype=np.float32)
    for unit in units:
        level = unit.level(visit)
        if not np.isfinite(level):
            continue
        depth = unit.score - level
        here = best[unit.box]
        wins = depth > np.maximum(here, -1.5)
        here[wins] = depth[wins]
        owner[unit.box][wins] = unit.label
        contrast[unit.box][wins] = unit.brightness
    labels = np.where(best > 0, owner, 0)
    _give_away_fragments(labels)
    owner = np.where(labels > 0, labels, owner)
    fraction = np.clip(0.5 + edge_per_mm * best, 0, 1).astype(np.float32)
    fraction = np.where(labels > 0, np.maximum(fraction, 0.501), np.minimum(fraction, 0.499))
    return LesionLayer(labels, owner, fraction.astype(np.float32), contrast)


def _give_away_fragments(labels: NDArray[np.int32]) -> None:
    """Give pieces cut off from the largest piece of their label to a touching label, in place."""
    pieces = cc3d.connected_components(labels, connectivity=26)
    sizes = np.bincount(pieces.ravel())
    first = np.zeros(len(sizes), dtype=np.int64)
    flat = np.flatnonzero(pieces.ravel())
    first[pieces.ravel()[flat[::-1]]] = flat[::-1]
    owner = labels.ravel()[first]
    largest: dict[int, int] = {}
    for piece in range(1, len(sizes)):
        label = int(owner[piece])
        if label not in largest or sizes[piece] > sizes[largest[label]]:
            largest[label] = piece
    boxes = lesion_table(pieces, Grid(pieces.shape, np.eye(4))).boxes(margin_vox=1)
    for piece in range(1, len(sizes)):
        if largest[int(owner[piece])] == piece:
            continue
        box = boxes[piece - 1]
        inside = pieces[box] == piece
        around = ndimage.binary_dilation(inside, np.ones((3, 3, 3))) & ~inside
        others = labels[box][around & (labels[box] > 0)]
        labels[box][inside] = np.bincount(others).argmax() if len(others) else 0


def describe(
    units: Sequence[Unit],
    labels: NDArray[np.integer[Any]],
    place: Callable[[NDArray[np.intp]], str],
) -> dict[int, dict[str, Any]]:
    """By label: volume in voxels, place, and the 26-connected component it is in.

    Example:
        >>> away = np.linalg.norm(np.indices((9, 9, 9)) - 4, axis=0)
        >>> box = (slice(0, 9), slice(0, 9), slice(0, 9))
        >>> unit = Unit(1, 1, "deep white matter", box, -away.astype(np.float32), (7.0,), 1.0)
        >>> labels = paint([unit], 0, (9, 9, 9)).labels
        >>> describe([unit], labels, lambda voxels: "deep white matter")
        {1: {'voxels': 7, 'place': 'deep white matter', 'group': 1, 'planted_group': 1}}
    """
    groups = cc3d.connected_components(labels > 0, connectivity=26)
    known = {unit.label: unit for unit in units}
    out: dict[int, dict[str, Any]] = {}
    table = lesion_table(labels, Grid(labels.shape, np.eye(4)))
    for label, box in zip(table.label.tolist(), table.boxes(), strict=True):
        index = np.argwhere(labels[box] == label) + [s.start for s in box]
        out[label] = {
            "voxels": len(index),
            "place": place(index),
            "group": int(groups[tuple(index[0])]),
            "planted_group": known[label].group if label in known else 0,
        }
    return out
