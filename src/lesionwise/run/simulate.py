"""``lesionwise simulate``: a BIDS data set of patients whose truth is known to the voxel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise import __version__
from lesionwise.io.bids import dseg_table, write_dataset_description
from lesionwise.io.files import check_writable, read_json, write_json, write_table
from lesionwise.io.names import Entities, derivative_path
from lesionwise.io.nifti import write_volume
from lesionwise.simulate.masks import find_masks, read_lesion_mask
from lesionwise.simulate.patient import Patient, simulate_patient
from lesionwise.simulate.scanner import Style
from lesionwise.types import Grid, InputError, Progress, Volume, silent

TISSUES = ("fluid", "gray matter", "white matter", "lesion")
LESION_COLUMNS = (
    "index", "name", "abbreviation", "color", "mapping", "volume_mm3", "location",
    "confluent_group", "units_in_group", "change",
)  # fmt: skip


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
    workers: int = 1,
    progress: Progress = silent,
) -> Path:
    """Write simulated patients as a BIDS data set, with their truth in ``derivatives/truth``.

    A patient that is there already, made with the same settings, is not made again; so an
    interrupted call goes on where it stopped, and more patients can be added.

    Args:
        output: the data set's folder; created where it is missing.
        patients: how many. Patient n (from 1) has the seed ``1000000 * seed + n``.
        visits: of each patient.
        style, with_skull, registered, lesion_load, lesion_change, new_scanner, spacing_mm: see
            `simulate_patient`.
        lesion_masks: a folder of real lesion masks on the MNI152 grid; patients then carry
            these lesions in turn instead of drawn ones.
        exclude_masks: subjects (without ``sub-``) whose masks are not used.
        workers: processes; each needs about 3 GB.
        progress: told of each finished patient.

    Returns:
        The folder.

    Raises:
        InputError: If nothing can be written there, if the folder holds another data set, or
            if there are no masks.
    """
    if patients < 1 or visits < 1:
        raise InputError(f"{output}: at least one patient and one visit are needed")
    output = check_writable(output)
    masks = find_masks(lesion_masks, exclude_masks) if lesion_masks else []
    orders = [
        _Order(
            subject=f"sim{number:04d}",
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
        )
        for number in range(1, patients + 1)
    ]
    _write_frame(output, orders, real_lesions=bool(masks))
    waiting = [order for order in orders if not _is_done(output, order)]
    done = patients - len(waiting)
    progress("simulate", done, patients)
    for _ in _run(output, waiting, workers):
        done += 1
        progress("simulate", done, patients)
    return output


def _run(output: Path, orders: list[_Order], workers: int) -> Iterator[None]:
    if workers < 2 or len(orders) < 2:
        for order in orders:
            _write_patient(output, order)
            yield
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), _one_thread) as pool:
        waiting = [pool.submit(_write_patient, output, order) for order in orders]
        for finished in as_completed(waiting):
            finished.result()
            yield


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _record_path(output: Path, subject: str) -> Path:
    name = f"sub-{subject}_desc-simulation.json"
    return output / "derivatives" / "truth" / f"sub-{subject}" / name


def _record(order: _Order) -> dict[str, Any]:
    record = asdict(order)
    record["lesion_mask"] = Path(order.lesion_mask).name  # the file's place is not the truth's
    record["spacing_mm"] = list(order.spacing_mm) if order.spacing_mm else None
    return record


def _is_done(output: Path, order: _Order) -> bool:
    path = _record_path(output, order.subject)
    return path.exists() and read_json(path) == _record(order)


def _write_frame(output: Path, orders: list[_Order], real_lesions: bool) -> None:
    """The files every BIDS data set has."""
    description = output / "dataset_description.json"
    name = "Simulated patients with multiple sclerosis"
    if description.exists() and read_json(description).get("Name") != name:
        raise InputError(f"{output}: holds another data set; choose an empty folder")
    license_text = "CC0"
    if real_lesions:
        license_text = "that of the lesion masks whose shapes were planted; credit their authors"
    write_dataset_description(
        output,
        name,
        derivative=False,
        License=license_text,
        Acknowledgements="Anatomy after the ICBM 2009a symmetric template, as nilearn ships it",
    )
    write_dataset_description(output / "derivatives" / "truth", "Truth of simulated patients")
    write_table(
        output / "participants.tsv",
        [
            {
                "participant_id": f"sub-{order.subject}",
                "seed": order.seed,
                "style": order.style,
                "visits": order.visits,
                "lesions_from": Path(order.lesion_mask).name or "drawn",
            }
            for order in orders
        ],
    )


def _write_patient(output: Path, order: _Order) -> None:
    mask = read_lesion_mask(Path(order.lesion_mask)) if order.lesion_mask else None
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
        subject=order.subject,
    )
    truth = output / "derivatives" / "truth"
    # Half the files lie as most scanners write them: to the left and to the back.
    flip = order.seed % 2 == 1
    for number, visit in enumerate(patient.study.visits):
        source = Entities(sub=order.subject, ses=visit.session, suffix="FLAIR", extension=".nii.gz")
        scan = output / f"sub-{order.subject}" / f"ses-{visit.session}" / "anat" / source.name
        write_volume(scan, _stored(visit.scans["flair"], flip))
        write_json(scan.with_name(scan.name.replace(".nii.gz", ".json")), _scan_sidecar(order))

        def path(suffix: str, source: Entities = source, **stated: str) -> Path:
            return derivative_path(truth, source, suffix, **stated)

        write_volume(path("mask", label="L"), _stored(visit.labels["lesions"], flip))
        instances = path("dseg", seg="truth")
        write_volume(instances, _stored(visit.labels["instances"], flip))
        _write_lesions(instances, patient, number)
        if visit.brain is not None:
            write_volume(path("mask", desc="brain"), _stored(visit.brain, flip))
        tissue = path("dseg")
        write_volume(tissue, _stored(visit.labels["tissue"], flip))
        names = [{"index": i, "name": tissue_name} for i, tissue_name in enumerate(TISSUES, 1)]
        write_table(_beside(tissue, ".tsv"), names)
        if number == len(patient.study.visits) - 1:
            for name, volume in patient.study.changes.items():
                write_volume(path("mask", desc=name), _stored(volume, flip))
    write_json(_record_path(output, order.subject), _record(order))


def _write_lesions(instances: Path, patient: Patient, visit: int) -> None:
    rows = patient.lesions[visit]
    known = dseg_table(row["index"] for row in rows).set_index("index")
    table: list[Mapping[str, Any]] = [{**known.loc[row["index"]].to_dict(), **row} for row in rows]
    write_table(_beside(instances, ".tsv"), table, LESION_COLUMNS)
    write_json(_beside(instances, ".json"), {"GoneSinceTheVisitBefore": patient.gone[visit]})


def _scan_sidecar(order: _Order) -> dict[str, Any]:
    return {
        "Modality": "MR",
        "SeriesDescription": "simulated FLAIR",
        "Seed": order.seed,
        "Style": order.style,
        "Version": order.version,
    }


def _beside(path: Path, extension: str) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + extension)


def _stored(volume: Volume, flip: bool) -> Volume:
    if not flip:
        return volume
    i, j, _ = volume.grid.shape
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:2, 3] = i - 1, j - 1
    grid = Grid(volume.grid.shape, volume.grid.affine @ turn)
    return Volume(np.ascontiguousarray(volume.array[::-1, ::-1]), grid)
