"""A whole patient: one head, its lesions through time, a scan of every visit, and the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionwise.simulate.anatomy import Anatomy, HeadSettings, Zones, compose, make_head, place_of
from lesionwise.simulate.caps import caps_layer, draw_caps
from lesionwise.simulate.lesions import (
    LesionLayer,
    LesionSettings,
    Unit,
    describe,
    paint,
    place_lesions,
)
from lesionwise.simulate.masks import place_mask
from lesionwise.simulate.scanner import (
    Scan,
    Style,
    acquire,
    contrast_image,
    draw_contrast,
    draw_protocol,
    moved,
)
from lesionwise.simulate.shells import CLINICAL_SHELLS
from lesionwise.simulate.tissue_heads import AlignedMap, compose_tissue, make_tissue_head
from lesionwise.types import Study, Visit, Volume

STATES = ("new", "enlarging", "shrinking", "disappeared")


@dataclass(frozen=True, eq=False)
class Patient:
    """A simulated study and its lesions as rows.

    Attributes:
        study: with scan ``flair`` (uint16) per visit, the brain, and labels ``lesions``
            (uint8, exactly where instances > 0), ``instances`` (int32, a lesion keeps its label
            through all visits) and ``tissue`` (uint8: 0 outside, 1 fluid, 2 gray, 3 white matter,
            4 lesion), all on the visit's own grid. With two or more visits, ``changes`` between
            the first and the last on the last one's grid, uint8: ``new`` and ``disappeared`` hold
            whole lesions, ``enlarging`` and ``shrinking`` the voxels won or lost by lesions that
            are in both; ``disappeared`` and ``shrinking`` lie where the lesion was.
        lesions: per visit, one row per lesion that has voxels in that visit's scan: index,
            volume_mm3 (on the scan's grid), location, confluent_group (0 for a lesion that
            touches no other), units_in_group, change (since the visit before; "" at the first).
        disappeared: per visit, the labels of the visit before that are absent now.
    """

    study: Study
    lesions: tuple[tuple[Mapping[str, Any], ...], ...]
    disappeared: tuple[tuple[int, ...], ...]


def simulate_patient(
    seed: int,
    visits: int = 1,
    *,
    style: Style = "realistic",
    lesion_load: float = 1.0,
    spacing_mm: tuple[float, float, float] | None = None,
    with_skull: bool = True,
    registered: bool = False,
    lesion_change: float = 1.0,
    new_scanner: bool = False,
    lesion_mask: Volume | None = None,
    tissue_map: AlignedMap | None = None,
    with_caps: bool = False,
    subject: str | None = None,
) -> Patient:
    """A patient whose truth is known to the voxel.

    Args:
        seed: decides everything; the same seed and arguments give the same study.
        visits: one, two or more.
        style: ``realistic``; ``randomized`` contrasts far around FLAIR, for training; or
            ``clinical`` heads: bright fat and marrow of any thickness, slices of 3 to 8 mm along
            any axis, cut fields of view, strong bias, motion, some without a face.
        lesion_load: multiplies the number of lesions; 0 leaves none.
        spacing_mm: voxel size; drawn where it is not given (half the patients 1 mm in 3D,
            the others slices of 1.2 to 5 mm).
        with_skull: False leaves nothing outside the brain.
        registered: all visits share one grid and position; else the patient lies
            differently each time.
        lesion_change: multiplies how often lesions appear, vanish, grow and shrink between
            visits; 0 is a stable patient.
        new_scanner: every visit has a contrast of its own, and unless ``registered`` a
            protocol (voxels, blur, coil, noise) of its own.
        lesion_mask: real lesions to place instead of drawn ones, on an MNI152 grid of about
            1 mm; ``lesion_load`` is then without effect, and the instances are derived from
            the mask's shape (`split_at_maxima`).
        tissue_map: a real tissue map (`read_aligned_map`) to make the head from instead of the
            template's; its own lesions become white matter.
        with_caps: caps and bands around the ventricles, as bright as lesions may be and no lesions
            (`simulate.caps`).
        subject: its name; by default made from the seed.

    Raises:
        ValueError: If a patient would have no visit.

    Example:
        >>> patient = simulate_patient(seed=1, visits=2, lesion_load=0.2)  # doctest: +SKIP
        >>> len(patient.study.visits), len(patient.lesions)  # doctest: +SKIP
        (2, 2)
    """
    if visits < 1:
        raise ValueError(f"a patient has at least one visit, got {visits}")
    streams = np.random.SeedSequence(seed).spawn(5)
    body, growth, machine, chance, normal = (np.random.default_rng(s) for s in streams)
    at_visit = _aging_head(body, _HEADS[style], tissue_map)
    first = at_visit(0.0)
    usual = LesionSettings()
    settings = LesionSettings(
        load=lesion_load,
        new_rate=usual.new_rate * lesion_change,
        gone_rate=usual.gone_rate * lesion_change,
        changing_rate=usual.changing_rate * lesion_change,
    )
    if lesion_mask is None:
        units = place_lesions(growth, first, visits, settings)
    else:
        units = place_mask(growth, first, lesion_mask, visits, settings)
    contrast = draw_contrast(machine, style)
    protocol = draw_protocol(machine, style, spacing_mm)
    texture_seed = int(machine.integers(2**31))
    drawn_caps, caps_seed = draw_caps(normal), int(normal.integers(2**31))
    edge_per_mm = float(machine.uniform(0.35, 0.9))
    atrophy = np.concatenate([[0.0], np.cumsum(body.uniform(0.03, 0.25, visits - 1))])

    scans: list[Scan] = []
    painted: list[LesionLayer] = []
    anatomies: list[Anatomy] = []
    for visit in range(visits):
        anatomy = first if visit == 0 else at_visit(float(atrophy[visit]))
        lesions = paint(units, visit, first.white.shape, edge_per_mm)
        if visit and new_scanner:
            contrast = draw_contrast(machine, style)
            protocol = protocol if registered else draw_protocol(machine, style, spacing_mm)
        caps = None
        if with_caps:
            layer = caps_layer(anatomy, drawn_caps, np.random.default_rng(caps_seed))
            caps = drawn_caps.brightness * layer
        image = contrast_image(anatomy, lesions, contrast, texture_seed, with_skull, caps)
        now = protocol if visit == 0 or registered else moved(machine, protocol)
        if visit and registered:
            now = replace(now, noise=now.noise * float(machine.uniform(0.8, 1.25)))
        scans.append(acquire(image, anatomy, lesions, now, chance, not with_skull))
        painted.append(lesions)
        anatomies.append(anatomy)
    return _assemble(subject or f"sim{seed:04d}", scans, painted, anatomies, units)


def _aging_head(
    rng: np.random.Generator, settings: HeadSettings, tissue_map: AlignedMap | None
) -> Callable[[float], Anatomy]:
    """A new head, as a function of how far its ventricle walls have moved, in mm."""
    if tissue_map is None:
        return partial(compose, make_head(rng, settings))
    return partial(compose_tissue, make_tissue_head(rng, tissue_map, settings))


_HEADS: Mapping[Style, HeadSettings] = {
    "realistic": HeadSettings(),
    "randomized": HeadSettings(fine_mm=1.4, coarse_mm=2.6),
    "clinical": HeadSettings(shells=CLINICAL_SHELLS),
}


def _assemble(
    subject: str,
    scans: list[Scan],
    painted: list[LesionLayer],
    anatomies: list[Anatomy],
    units: list[Unit],
) -> Patient:
    visits, tables, disappeared = [], [], []
    top = max((unit.label for unit in units), default=0)
    # volumes on the 1 mm head grid decide what changed: scans of thick slices round them
    volumes = [np.bincount(p.labels.ravel(), minlength=top + 1) for p in painted]
    for number, scan in enumerate(scans):
        labels = {
            "lesions": Volume((scan.labels > 0).astype(np.uint8), scan.grid),
            "instances": Volume(scan.labels, scan.grid),
            "tissue": Volume(scan.tissue, scan.grid),
        }
        visits.append(
            Visit(
                scans={"flair": Volume(scan.image, scan.grid)},
                labels=labels,
                brain=Volume(scan.brain, scan.grid),
                session=f"{number + 1:02d}",
            )
        )
        zones = Zones(
            anatomies[number].ventricle_mm,
            anatomies[number].cortex_mm,
            anatomies[number].infratentorial,
        )
        states = (
            [state(a, b) for a, b in zip(volumes[number - 1], volumes[number], strict=True)]
            if number
            else [""] * (top + 1)
        )
        tables.append(_rows(scan, painted[number], zones, units, states))
        disappeared.append(
            tuple(label for label in range(1, top + 1) if states[label] == "disappeared")
        )
    changes = _changes(scans, painted, volumes) if len(scans) > 1 else {}
    return Patient(Study(subject, tuple(visits), changes), tuple(tables), tuple(disappeared))


def state(before_mm3: float, after_mm3: float) -> str:
    """The state of a lesion: one of `STATES`, "stable", or "" where it is in neither visit.

    Enlarging and shrinking mean that its volume changed by more than a tenth.

    Example:
        >>> state(0.0, 30.0), state(30.0, 60.0), state(30.0, 31.0), state(30.0, 0.0)
        ('new', 'enlarging', 'stable', 'disappeared')
    """
    if before_mm3 == 0 or after_mm3 == 0:
        return "" if before_mm3 == after_mm3 else ("new" if before_mm3 == 0 else "disappeared")
    if after_mm3 > 1.1 * before_mm3:
        return "enlarging"
    return "shrinking" if after_mm3 < before_mm3 / 1.1 else "stable"


def _rows(
    scan: Scan, painted: LesionLayer, zones: Zones, units: list[Unit], states: list[str]
) -> tuple[Mapping[str, Any], ...]:
    places = {
        label: row["place"]
        for label, row in describe(units, painted.labels, lambda v: place_of(zones, v)).items()
    }
    by_label = {unit.label: unit for unit in units}
    found = describe(units, scan.labels, lambda voxels: "")
    members: dict[int, int] = {}
    for row in found.values():
        members[row["group"]] = members.get(row["group"], 0) + 1
    return tuple(
        {
            "index": label,
            "name": f"lesion-{label}",
            "volume_mm3": round(row["voxels"] * scan.grid.voxel_volume_mm3, 2),
            "location": places.get(label, by_label[label].place),
            "confluent_group": row["group"] if members[row["group"]] > 1 else 0,
            "units_in_group": members[row["group"]],
            "change": states[label],
        }
        for label, row in sorted(found.items())
    )


def _changes(
    scans: list[Scan], painted: list[LesionLayer], volumes: list[NDArray[np.intp]]
) -> dict[str, Volume]:
    """Change maps between the first and the last visit on the last visit's grid."""
    from lesionwise.simulate.scanner import resample_labels

    last = scans[-1]
    before = resample_labels(painted[0].labels, last.grid)
    after: NDArray[np.int32] = last.labels
    names = [state(a, b) for a, b in zip(volumes[0], volumes[-1], strict=True)]
    names[0] = ""
    fate = np.array([STATES.index(n) + 1 if n in STATES else 0 for n in names], dtype=np.uint8)
    old, new = fate[before], fate[after]
    maps = {
        "new": new == 1,
        "enlarging": (new == 2) & (before != after),
        "shrinking": (old == 3) & (before != after),
        "disappeared": old == 4,
    }
    return {name: Volume(m.astype(np.uint8), last.grid) for name, m in maps.items()}
