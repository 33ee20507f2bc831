"""``lesionwise simulate``: a BIDS data set of patients whose truth is known to the voxel."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise import __version__
from lesionwise.io.bids import write_dataset_description
from lesionwise.io.checked import read_checked
from lesionwise.io.files import check_writable, read_json, write_json, write_table
from lesionwise.io.nifti import write_volume
from lesionwise.io.record import check_same_settings
from lesionwise.processes import map_processes
from lesionwise.results.names import DESCRIPTION, PARTICIPANTS, beside
from lesionwise.results.simulated import (
    NAME,
    TRUTH_NAME,
    SimulatedVisit,
    check_simulated_output,
    record_of,
    truth_of,
)
from lesionwise.simulate.masks import find_masks, read_lesion_mask
from lesionwise.simulate.patient import simulate_patient
from lesionwise.simulate.raters import simulated_raters
from lesionwise.simulate.scanner import Style
from lesionwise.simulate.tissue_heads import read_aligned_map
from lesionwise.simulate.tissue_maps import find_tissue_maps, read_tissue_map
from lesionwise.types import Grid, InputError, Progress, Volume, no_progress

SPACINGS_MM = (0.2, 50.0)
"""Edges of voxels that can be simulated, from and to."""
TISSUES = ("fluid", "gray matter", "white matter", "lesion")


@dataclass(frozen=True)
class _Order:
    """All that decides one patient; recorded beside its truth."""

    subject: str
    seed: int
    visits: int
    style: Style
    with_skull: bool
    registered: bool
    lesion_load: float
    lesion_change: float
    new_scanner: bool
    spacing_mm: tuple[float, float, float] | None
    lesion_mask: str
    version: str
    raters: int = 0
    tissue_map: str = ""
    caps: bool = False


def simulate(
    output: Path,
    patients: int,
    visits: int = 2,
    seed: int = 0,
    *,
    style: Style = "realistic",
    with_skull: bool = True,
    registered: bool = False,
    lesion_load: float = 1.0,
    lesion_change: float = 1.0,
    new_scanner: bool = False,
    spacing_mm: tuple[float, float, float] | None = None,
    lesion_masks: Path | None = None,
    exclude_masks: tuple[str, ...] = (),
    tissue_maps: Path | None = None,
    exclude_tissue_maps: tuple[str, ...] = (),
    caps: bool = False,
    raters: int = 0,
    workers: int = 1,
    progress: Progress = no_progress,
) -> Path:
    """Write simulated patients as a BIDS data set, with their truth in ``derivatives/truth``.

    A patient that is there already, made with the same settings, is not made again; so an
    interrupted call continues where it stopped, and more patients can be added.

    Args:
        output: the data set's folder; created where it is missing.
        patients: how many. Patient n (from 1) has the seed ``1000000 * seed + n``.
        visits: of each patient.
        style, with_skull, registered, lesion_load, lesion_change, new_scanner, spacing_mm: see
            `simulate_patient`.
        lesion_masks: a folder of real lesion masks on the MNI152 grid; patients then carry
            these lesions in turn instead of drawn ones.
        exclude_masks: subjects (without ``sub-``) whose masks are not used.
        tissue_maps: a folder of real tissue maps (``*_dseg.nii.gz`` with a table of their labels,
            see `read_tissue_map`), on any grid; heads are then made from these in turn, beginning
            with one that the seed decides, instead of the template.
        exclude_tissue_maps: subjects (without ``sub-``) whose tissue maps are not used.
        caps: bright caps and bands around the ventricles, which are no lesions (`simulate.caps`).
        raters: so many masks of the last visit's new lesions beside the truth, each drawn by a
            rater who over-segments, under-segments or misses small ones (`simulate.raters`).
        workers: processes; each needs about 3 GB.
        progress: called with each finished patient.

    Returns:
        The folder.

    Raises:
        InputError: If nothing can be written there, if the folder holds another data set or one of
            the patients made with other settings, if a number is out of range, or if there are no
            masks or tissue maps, or one of them cannot be used.
    """
    if patients < 1 or visits < 1:
        raise InputError(f"{output}: at least one patient and one visit are needed")
    _check_numbers(seed, lesion_load, lesion_change, spacing_mm)
    output = check_writable(output)
    masks = find_masks(lesion_masks, exclude_masks) if lesion_masks else []
    maps = find_tissue_maps(tissue_maps, exclude_tissue_maps) if tissue_maps else []
    orders = [
        _Order(
            subject=f"sim{number:04d}",
            # A patient's seed depends on its number alone, so more patients can be added later.
            seed=1_000_000 * seed + number,
            visits=visits,
            style=style,
            with_skull=with_skull,
            registered=registered,
            lesion_load=lesion_load,
            lesion_change=lesion_change,
            new_scanner=new_scanner,
            spacing_mm=spacing_mm,
            lesion_mask=str(masks[(number - 1) % len(masks)]) if masks else "",
            version=__version__,
            raters=raters,
            tissue_map=str(maps[(seed + number - 1) % len(maps)]) if maps else "",
            caps=caps,
        )
        for number in range(1, patients + 1)
    ]
    for path in sorted({order.tissue_map for order in orders if order.tissue_map}):
        read_tissue_map(Path(path))  # a map that cannot be used is told before anything is written
    for order in orders:
        _check_same(output, order)
    _write_frame(output, orders)
    waiting = [order for order in orders if not _is_done(output, order)]
    done = patients - len(waiting)
    progress("simulate", done, patients)
    map_processes(
        partial(_write_patient, output),
        waiting,
        workers,
        lambda ended: progress("simulate", done + ended, patients),
    )
    return output


def _record(order: _Order) -> dict[str, Any]:
    record = asdict(order)
    record["lesion_mask"] = Path(order.lesion_mask).name  # the file's place is not the truth's
    record["tissue_map"] = Path(order.tissue_map).name
    for later in ("raters", "tissue_map", "caps"):  # absent where not used, as they once were
        if not record[later]:
            del record[later]
    record["spacing_mm"] = list(order.spacing_mm) if order.spacing_mm else None
    return record


def _check_numbers(
    seed: int,
    lesion_load: float,
    lesion_change: float,
    spacing_mm: tuple[float, float, float] | None,
) -> None:
    if seed < 0:
        raise InputError(f"the seed must be 0 or more, not {seed}")
    for name, factor in (("lesion load", lesion_load), ("lesion change", lesion_change)):
        if not 0 <= factor < math.inf:
            raise InputError(f"the {name} must be 0 or more, not {factor:g}")
    low, high = SPACINGS_MM
    for edge in spacing_mm or ():
        if not low <= edge <= high:
            raise InputError(f"voxels must be between {low:g} and {high:g} mm, not {edge:g}")


def _check_same(output: Path, order: _Order) -> None:
    """Refuse to make a patient again with other settings: visits of two heads would be mixed."""
    before = _recorded(output, order)
    if before is not None:
        check_same_settings(before, _record(order), output / f"sub-{order.subject}")


def _is_done(output: Path, order: _Order) -> bool:
    return _recorded(output, order) == _record(order)


def _recorded(output: Path, order: _Order) -> dict[str, Any] | None:
    """What a patient that is there was made with; None where none is, or its record is damaged."""
    path = record_of(output, order.subject)
    try:
        return read_checked(path, dict[str, Any]) if path.exists() else None
    except InputError:
        return None


@dataclass(frozen=True)
class _Patient:
    """What the record of a patient says of where it comes from."""

    seed: int
    style: str
    visits: int
    lesion_mask: str = ""
    tissue_map: str = ""


def _patients(output: Path, orders: list[_Order]) -> dict[str, _Patient]:
    """All patients of the folder, by subject: those of this call and those of earlier ones."""
    found = {}
    for folder in output.glob("sub-*"):
        subject = folder.name.removeprefix("sub-")
        try:
            found[subject] = read_checked(record_of(output, subject), _Patient)
        except InputError:
            continue  # not finished, or damaged
    for order in orders:
        mask, tissue_map = Path(order.lesion_mask).name, Path(order.tissue_map).name
        found[order.subject] = _Patient(order.seed, order.style, order.visits, mask, tissue_map)
    return dict(sorted(found.items()))


def _write_frame(output: Path, orders: list[_Order]) -> None:
    """The files every BIDS data set has."""
    description = output / DESCRIPTION
    stated = read_json(description) if description.exists() else None
    check_simulated_output(output, stated.get("Name", "") if isinstance(stated, dict) else stated)
    patients = _patients(output, orders)
    real = [
        what
        for what, used in (
            ("lesion masks", any(patient.lesion_mask for patient in patients.values())),
            ("tissue maps", any(patient.tissue_map for patient in patients.values())),
        )
        if used
    ]
    license_text = "CC0"
    if real:
        license_text = (
            f"that of the {' and '.join(real)} whose shapes were used; credit their authors"
        )
    write_dataset_description(
        output,
        NAME,
        derivative=False,
        License=license_text,
        Acknowledgements="Anatomy after the ICBM 2009a symmetric template, as nilearn ships it",
    )
    write_dataset_description(truth_of(output), TRUTH_NAME)
    anatomy = any(patient.tissue_map for patient in patients.values())
    write_table(
        output / PARTICIPANTS,
        [
            {
                "participant_id": f"sub-{subject}",
                "seed": patient.seed,
                "style": patient.style,
                "visits": patient.visits,
                "lesions_from": patient.lesion_mask or "drawn",
                **({"anatomy_from": patient.tissue_map or "template"} if anatomy else {}),
            }
            for subject, patient in patients.items()
        ],
    )


def _write_patient(output: Path, order: _Order) -> None:
    mask = read_lesion_mask(Path(order.lesion_mask)) if order.lesion_mask else None
    tissue_map = read_aligned_map(Path(order.tissue_map)) if order.tissue_map else None
    patient = simulate_patient(
        order.seed,
        order.visits,
        style=order.style,
        lesion_load=order.lesion_load,
        lesion_change=order.lesion_change,
        new_scanner=order.new_scanner,
        spacing_mm=order.spacing_mm,
        with_skull=order.with_skull,
        registered=order.registered,
        lesion_mask=mask,
        tissue_map=tissue_map,
        with_caps=order.caps,
        subject=order.subject,
    )
    # Half the files lie as most scanners write them: to the left and to the back.
    flip = order.seed % 2 == 1
    for number, visit in enumerate(patient.study.visits):
        files = SimulatedVisit(output, order.subject, visit.session)
        write_volume(files.scan, _stored(visit.scans["flair"], flip))
        write_json(beside(files.scan, ".json"), _scan_sidecar(order))
        write_volume(files.mask, _stored(visit.labels["lesions"], flip))
        write_volume(files.instances, _stored(visit.labels["instances"], flip))
        files.write_lesions(patient.lesions[number], patient.disappeared[number])
        if visit.brain is not None:
            write_volume(files.brain, _stored(visit.brain, flip))
        write_volume(files.tissue, _stored(visit.labels["tissue"], flip))
        names = [{"index": i, "name": tissue_name} for i, tissue_name in enumerate(TISSUES, 1)]
        write_table(beside(files.tissue, ".tsv"), names)
        if number == len(patient.study.visits) - 1:
            for state, volume in patient.study.changes.items():
                write_volume(files.change(state), _stored(volume, flip))
            new = patient.study.changes.get("new")
            if new is not None:
                drawn = simulated_raters(new, order.raters, order.seed)
                for rater, volume in enumerate(drawn, start=1):
                    write_volume(files.change(f"newrater{rater}"), _stored(volume, flip))
    write_json(record_of(output, order.subject), _record(order))


def _scan_sidecar(order: _Order) -> dict[str, Any]:
    return {
        "Modality": "MR",
        "SeriesDescription": "simulated FLAIR",
        "Seed": order.seed,
        "Style": order.style,
        "Version": order.version,
    }


def _stored(volume: Volume, flip: bool) -> Volume:
    if not flip:
        return volume
    i, j, _ = volume.grid.shape
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:2, 3] = i - 1, j - 1
    grid = Grid(volume.grid.shape, volume.grid.affine @ turn)
    return Volume(np.ascontiguousarray(volume.array[::-1, ::-1]), grid)
