"""The command ``segment``: lesions of one or many FLAIR scans."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import lesionwise
from lesionwise.instances.components import DEFAULT_CONNECTIVITY
from lesionwise.instances.describe import describe_lesions
from lesionwise.io.bids import (
    Entities,
    FoundScan,
    derivative_path,
    dseg_table,
    find_scans,
    write_dataset_description,
)
from lesionwise.io.files import (
    atomic_path,
    check_writable,
    read_json,
    read_table,
    write_json,
    write_table,
)
from lesionwise.io.nifti import read_grid, read_mask, read_volume, write_volume
from lesionwise.io.space import on_grid
from lesionwise.report.folder import write_scan_page
from lesionwise.report.page import QualityNote
from lesionwise.run.find import FindOptions, Found, find_lesions
from lesionwise.run.gate import named_as_typed, scan_note
from lesionwise.run.locations import add_locations
from lesionwise.run.pages import page_of, versions, write_index
from lesionwise.run.predict import LoadedModel, load_model
from lesionwise.types import InputError, Instances, Progress, Study, Visit, Volume, silent

if TYPE_CHECKING:
    from lesionwise.io.dicom_series import Series

LESION_COLUMNS = (
    "subject", "session", "method", "label", "volume_mm3", "center_x_mm", "center_y_mm",
    "center_z_mm", "extent_i_mm", "extent_j_mm", "extent_k_mm", "voxels", "mean_intensity",
    "confidence", "confluent_group", "location",
)  # fmt: skip
SUMMARY_COLUMNS = (
    "subject",
    "session",
    "quality",
    "lesions",
    "volume_ml",
    "cc",
    "acls",
    "offsets",
    "seconds",
    "quality_reasons",
    "page",
)


@dataclass(frozen=True, eq=False)
class Segmented:
    """What ``segment`` made.

    Attributes:
        summary: one row per scan that went well: lesions and volume by the main way, lesions by
            each other way that was computed.
        failures: by file, why it gave nothing.
        page: the page to open.
        quality: how fit each scan is, one note per scan that went well.
    """

    summary: pd.DataFrame
    failures: dict[str, str]
    page: Path
    quality: tuple[QualityNote, ...] = ()


def segment(
    scans: Sequence[Path],
    output: Path,
    *,
    model: str | Path | LoadedModel = "conflunet",
    options: FindOptions = FindOptions(also=("offsets", "acls", "cc")),  # noqa: B008  (frozen)
    brain_mask: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    series: str | None = None,
    dicom_seg: bool | None = None,
    progress: Progress = silent,
) -> Segmented:
    """Find and separate the lesions of FLAIR scans and write them as BIDS derivatives.

    Beside each other, under ``sub-…/[ses-…/]anat/`` and on the scan's own grid: lesion
    probability, mask, an instance map with its table for each way of telling lesions apart,
    and the brain mask; each image with a sidecar that says what made it. ``lesions.tsv`` holds
    every lesion of every scan, ``scans.tsv`` a row per scan with its grade and the reasons,
    ``failures.tsv`` the scans that gave nothing. A scan from DICOM files also gets mask and
    instances as DICOM segmentations.

    A scan whose sidecar stands and names the same file, model and settings is not done again.

    Args:
        scans: NIfTI files, folders of them, BIDS data sets.
        model: a shipped model's name, a run folder, or a model that is loaded.
        brain_mask: on the scan's grid; for a single scan.
        overwrite: do scans again that are done.
        series: part of the description of the DICOM series that is meant.
        dicom_seg: write DICOM segmentations; None writes them where the scan came from DICOM.

    Raises:
        InputError: For settings that cannot hold, and when a single scan is at fault; among
            several scans the fault is listed and the others go on.
    """
    found = find_scans(scans)
    if brain_mask is not None and len(found) > 1:
        raise InputError(
            f"{brain_mask}: a brain mask goes with one scan, but {len(found)} are given"
        )
    if dicom_seg:
        for scan in found:
            if scan.kind != "dicom":
                raise InputError(f"{scan.path}: a DICOM segmentation needs a DICOM series")
    check_writable(output)
    loaded = load_model(model, device=device)
    failures: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    tables, notes = [], []
    for done, scan in enumerate(found):
        name = scan.entities.pairs()
        title = " ".join(f"{key}-{value}" for key, value in name.items())

        def told(stage: str, done: int = done, title: str = title) -> None:
            progress(f"{title}: {stage}", done, len(found))

        try:
            opened = open_scan(scan, output, series)
            kept = None if dicom_seg is False else opened[1]
            row, table, note = _one(
                opened[0], output, loaded, options, brain_mask, overwrite, kept, told
            )
        except InputError as fault:
            if len(found) == 1:
                raise
            failures[str(scan.path)] = str(fault)
            continue
        if not rows:
            write_dataset_description(output, "lesionwise segment")
        rows.append(row)
        tables.append(table)
        notes.append(note)
    if tables:
        write_table(output / "lesions.tsv", pd.concat(tables, ignore_index=True), LESION_COLUMNS)
    _write_failures(output, failures)
    summary = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    write_table(output / "scans.tsv", summary)
    progress("page", len(found), len(found))
    page = write_index(output, summary, failures, loaded)
    if len(rows) == 1 and not failures:
        page = output / rows[0]["page"]
    shown = summary.drop(columns=["quality_reasons", "page"])
    return Segmented(shown, failures, page, tuple(notes))


def open_scan(
    scan: FoundScan, output: Path, description: str | None = None
) -> tuple[FoundScan, Series | None]:
    """The scan as a NIfTI file, and the DICOM series it came from, if any.

    A series is converted, and the conversion is kept beside the results with what its header
    says about the sequence; nothing that tells who the patient is.

    Args:
        description: part of the description of the series that is meant.

    Raises:
        InputError: If the folder holds no FLAIR series, several, or an incomplete one.
    """
    if scan.kind == "nifti":
        return scan, None
    from lesionwise.io.dicom import choose_series, convert_series, find_series

    path = derivative_path(output, scan.entities, "FLAIR", space="")
    series = choose_series(find_series(scan.path), description=description)
    convert_series(series, path)
    times = {"EchoTime": series.echo_ms, "InversionTime": series.inversion_ms}
    about = {name: time / 1000 for name, time in times.items() if time is not None}
    write_json(path.with_name(path.name.replace(".nii.gz", ".json")), {"Modality": "MR", **about})
    return replace(scan, path=path, kind="nifti"), series


def as_nifti(scan: FoundScan, output: Path) -> FoundScan:
    """The scan itself, or for a DICOM series its conversion, which is kept beside the results.

    Raises:
        InputError: As for ``open_scan``.
    """
    return open_scan(scan, output)[0]


def read_scan(path: Path, subject: str, session: str = "", scan: str = "flair") -> Study:
    """A study of one visit with one scan."""
    return Study(subject, (Visit({scan: read_volume(path)}, session=session),))


def _one(
    scan: FoundScan,
    output: Path,
    model: LoadedModel,
    options: FindOptions,
    brain_mask: Path | None,
    overwrite: bool,
    series: Series | None,
    told: Callable[[str], None],
) -> tuple[dict[str, Any], pd.DataFrame, QualityNote]:
    settings = settings_of(scan.path, model, options, brain_mask)
    settings["dicom_seg"] = series is not None
    sidecar = derivative_path(output, scan.entities, "mask", ".json", label="L")
    if not overwrite and sidecar.exists():
        before = read_json(sidecar)
        if before.get("Settings") == settings:
            if not page_of(output, scan).exists():
                write_scan_page(output, scan.entities)
            table = _lesion_table(output, scan.entities, before["Methods"])
            return before["Summary"], table, QualityNote.read(before["Quality"][0])
    told("read")
    study = read_scan(scan.path, scan.subject, scan.session, model.recipe.scans[0])
    if brain_mask is not None:
        study = _with_brain(study, brain_mask, model.recipe.scans[0])
    with named_as_typed(scan, model.recipe.scans[0]):
        found = find_lesions(study, model, options, told)
    told("quality")
    note = scan_note(scan, found.visit, found.brain, model.recipe.scans[0])
    told("write")
    row, table = write_found(found, output, scan, model, settings, note=note, series=series)
    return row, table, note


def write_found(
    found: Found,
    output: Path,
    scan: FoundScan,
    model: LoadedModel,
    settings: Mapping[str, Any],
    *,
    page: bool = True,
    note: QualityNote | None = None,
    series: Series | None = None,
    known: Instances | None = None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Write the results of one scan, the mask's sidecar last, and then its page, if asked.

    Args:
        note: how fit the scan is; judged here if not given.
        series: the DICOM series that the scan came from; then mask and main instances are
            written as DICOM segmentations too.
        known: lesions of the truth on the scan's grid, kept beside the others as ``seg-truth``.
    """
    if note is None:
        note = scan_note(scan, found.visit, found.brain, model.recipe.scans[0])
    grid = read_grid(scan.path)
    made = {
        "Sources": [str(scan.path)],
        "GeneratedBy": {"Name": "lesionwise", "Version": lesionwise.__version__},
        "Recipe": model.name,
        "Source": model.recipe.source,
        "ModelHash": model.sha256,
        "Departures": list(model.recipe.departures),
    }

    def path(suffix: str, extension: str = ".nii.gz", **stated: str) -> Path:
        return derivative_path(output, scan.entities, suffix, extension, **stated)

    write_volume(path("probseg", label="L"), found.probability, grid=grid)
    write_json(path("probseg", ".json", label="L"), made)
    write_volume(path("mask", desc="brain"), found.brain, grid=grid)
    write_json(path("mask", ".json", desc="brain"), {**made, "Type": "Brain"})
    image = next(iter(found.visit.scans.values())).array
    measured = {
        name: describe_lesions(instances, image, found.probability.array)
        for name, instances in found.instances.items()
    }
    if known is not None:
        measured["truth"] = describe_lesions(known, image).drop(columns="confidence")
    found, measured = add_locations(found, measured, known)
    if known is not None:
        write_volume(path("dseg", seg="truth"), Volume(known.labels, known.grid), grid=grid)
        truth = measured["truth"]
        named = dseg_table(truth["label"]).join(truth.drop(columns="label"))
        write_table(path("dseg", ".tsv", seg="truth"), named)
        about = {"Sources": [str(scan.path)], "Description": "known lesions, as they were given"}
        write_json(path("dseg", ".json", seg="truth"), about)
    tables, counts = [], {}
    for name, instances in found.instances.items():
        table = measured[name]
        counts[name] = len(table)
        write_volume(path("dseg", seg=name), Volume(instances.labels, instances.grid), grid=grid)
        named = dseg_table(table["label"]).join(table.drop(columns="label"))
        write_table(path("dseg", ".tsv", seg=name), named)
        write_json(
            path("dseg", ".json", seg=name),
            {
                **made,
                "Method": name,
                "Connectivity": DEFAULT_CONNECTIVITY,
                "SizeFilter": settings["filters"],
            },
        )
        tables.append(table.assign(method=name))
    write_volume(path("mask", label="L"), found.mask, grid=grid)
    main, instances = found.main
    if series is not None:
        labels = Volume(instances.labels, instances.grid)
        write_dicom(path("mask", ".dcm", label="L"), found.mask, series, model.name)
        write_dicom(path("dseg", ".dcm", seg=main), labels, series, f"{model.name} {main}")
    lesions = pd.concat(tables, ignore_index=True)
    lesions = lesions.assign(subject=scan.subject, session=scan.session or None)
    summary = {
        "subject": scan.subject,
        "session": scan.session or None,
        "quality": note.grade,
        "lesions": counts[main],
        "volume_ml": float(found.mask.array.sum() * found.mask.grid.voxel_volume_mm3 / 1000),
        **{name: counts.get(name) for name in ("cc", "acls", "offsets")},
        "seconds": round(sum(found.seconds.values()), 1),
        "quality_reasons": "; ".join(note.reasons) or None,
        "page": page_of(output, scan).name,
    }
    write_json(
        path("mask", ".json", label="L"),
        {
            **made,
            "Type": "Lesion",
            "Threshold": found.threshold,
            "Methods": list(found.instances),
            "Quality": [note.written()],
            "Warnings": list(found.warnings),
            "Seconds": {stage: round(time, 2) for stage, time in found.seconds.items()},
            "Stages": _write_stages(output, scan, found),
            "Settings": settings,
            "Summary": summary,
            "Versions": versions(),
        },
    )
    if page:
        write_scan_page(output, scan.entities)
    return summary, lesions[list(LESION_COLUMNS)]


def _write_stages(output: Path, scan: FoundScan, found: Found) -> list[dict[str, Any]]:
    """A picture after each preprocessing step, in ``figures`` beside ``anat``; what they show."""
    written = []
    for number, stage in enumerate(found.stages):
        path = derivative_path(output, scan.entities, "FLAIR", ".webp", desc=f"step{number}")
        path = path.parent.with_name("figures") / path.name
        with atomic_path(path) as temporary:
            temporary.write_bytes(stage.webp())
        written.append(
            {
                "Step": stage.step,
                "Picture": path.relative_to(output).as_posix(),
                "Black": float(f"{stage.window[0]:.4g}"),
                "White": float(f"{stage.window[1]:.4g}"),
                "Outlined": stage.brain is not None,
            }
        )
    return written


def write_dicom(path: Path, volume: Volume, series: Series, method: str) -> None:
    """Write a mask or instances as a DICOM segmentation of the series they were found on."""
    from lesionwise.io.dicom_seg import write_segmentation

    write_segmentation(path, volume, series, method=method)


def settings_of(
    path: Path, model: LoadedModel, options: FindOptions, brain_mask: Path | None
) -> dict[str, Any]:
    """All that decides the results of one scan, as it reads back from JSON."""
    settings = asdict(options)
    settings["also"] = list(options.also)
    for given in filter(None, (path, brain_mask)):
        if given.is_dir() or (given.exists() and not given.is_file()):
            raise InputError(f"{given}: not a file")
    try:
        settings["scan"] = hashlib.sha256(path.read_bytes()).hexdigest()
        settings["brain_mask"] = (
            hashlib.sha256(brain_mask.read_bytes()).hexdigest() if brain_mask else None
        )
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: no such file") from error
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
    settings["model"] = model.sha256
    settings["recipe"] = model.name
    settings["filters"] = [repr(step) for step in model.recipe.refine]
    settings["version"] = lesionwise.__version__
    settings["machine"] = platform.machine()
    return settings


def _with_brain(study: Study, path: Path, scan: str) -> Study:
    visit = study.followup
    brain = on_grid(read_mask(path), visit.scans[scan].grid, name=str(path))
    if not brain.array.any():
        raise InputError(f"{path}: the brain mask is empty")
    return Study(study.subject, (Visit(visit.scans, visit.labels, brain, visit.session),))


def _lesion_table(output: Path, entities: Entities, methods: Sequence[str]) -> pd.DataFrame:
    tables = []
    for name in methods:
        table = read_table(derivative_path(output, entities, "dseg", ".tsv", seg=name))
        table = table.rename(columns={"index": "label"})
        tables.append(table.assign(method=name))
    lesions = pd.concat(tables, ignore_index=True)
    lesions = lesions.assign(subject=entities.sub, session=entities.ses or None)
    return lesions.reindex(columns=list(LESION_COLUMNS))


def _write_failures(output: Path, failures: Mapping[str, str]) -> None:
    path = output / "failures.tsv"
    if failures:
        write_table(path, [{"file": name, "fault": fault} for name, fault in failures.items()])
    else:
        path.unlink(missing_ok=True)
