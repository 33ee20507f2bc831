"""The command ``segment``: lesions of one or many FLAIR scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import lesionwise
from lesionwise import defaults
from lesionwise.instances.describe import describe_lesions
from lesionwise.instances.limits import check_limits
from lesionwise.io.bids import FoundScan, select_scans
from lesionwise.io.files import write_json
from lesionwise.io.nifti import read_grid, read_mask, read_volume
from lesionwise.io.record import sha256, versions
from lesionwise.io.scans import left_out_rows
from lesionwise.io.space import on_grid
from lesionwise.report.folder import write_index, write_scan_page
from lesionwise.results.folder import (
    check_folder_settings,
    check_input,
    check_output,
    claim,
    remove_superseded,
    source_of,
    write_folder,
)
from lesionwise.results.lesion_set import LesionSet
from lesionwise.results.names import TRUTH, ScanFiles, beside, scan_title
from lesionwise.results.quality import QualityNote
from lesionwise.results.scan import ScanRecord, ScanResult, damaged
from lesionwise.run.contrasts import NONE, further_scans, with_scans
from lesionwise.run.find_lesions import FindOptions, VisitResult, find_lesions
from lesionwise.run.load_model import LoadedModel, load_model
from lesionwise.run.locations import add_locations
from lesionwise.run.models import facts_of
from lesionwise.run.quality_checks import named_as_typed, scan_note
from lesionwise.types import (
    InputError,
    Instances,
    OnStage,
    Progress,
    Study,
    Visit,
    Volume,
    no_progress,
    stage_ignored,
    stages_of,
)

if TYPE_CHECKING:
    from lesionwise.io.dicom_series import Series

HIDDEN = ("quality_reasons", "source", "page", "brain_volume_ml")
"""Columns of ``scans.tsv`` that are too wide for a terminal."""


@dataclass(frozen=True, eq=False)
class SegmentResult:
    """What ``segment`` made.

    Attributes:
        summary: one row per scan that went well: lesions that passed the size filters and their
            volume by the main separation method, the volume of the mask, lesions by each other
            method that was computed.
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
    pattern: str = "",
    model: str | Path | LoadedModel = defaults.MODEL,
    options: FindOptions = FindOptions(also=defaults.SEPARATIONS),  # noqa: B008  (frozen)
    brain_mask: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    series: str | None = None,
    dicom_seg: bool | None = None,
    further: Mapping[str, Path] = NONE,
    progress: Progress = no_progress,
) -> SegmentResult:
    """Find and separate the lesions of FLAIR scans and write them as BIDS derivatives.

    Writes, under ``sub-…/[ses-…/]anat/`` and on the scan's own grid: lesion probability, mask, an
    instance map with its table for each separation method, and the brain mask; each image with a
    sidecar that says what made it. ``lesions.tsv`` holds every lesion of every scan in the folder
    by the main method (``lesions_seg-….tsv`` by the others), ``scans.tsv`` a row per scan with
    its grade and the reasons, ``failures.tsv`` what gave nothing or was left out, and why. All
    columns are described in a JSON file beside each table. A scan from DICOM files also gets mask
    and instances as DICOM segmentations.

    Later calls, also at the same time in other processes, add to the same tables. Skips scans
    whose results are there, whole, and of the same file, model and settings.

    Args:
        scans: NIfTI files, folders of them, BIDS data sets.
        pattern: which files of a folder are scans, as for ``select_scans``.
        model: a shipped model's name, a run folder, or a model that is loaded.
        brain_mask: on the scan's grid; for a single scan.
        overwrite: do scans again that are done.
        series: part of the description of the DICOM series that is meant.
        dicom_seg: write DICOM segmentations; None writes them where the scan came from DICOM.
        further: files of the other scans that a model of several takes, by name (``t1w``), for a
            single scan; otherwise they are the files beside it with that contrast in their name.

    Raises:
        InputError: If the folder is not one for results (``results.folder.check_output``), was
            begun with other settings, for settings that cannot hold, and for an error in a
            single scan; among several scans the error is listed and the others continue.
    """
    selection = select_scans(scans, pattern=pattern)
    found = selection.scans
    if further and len(found) > 1:
        raise InputError(f"--scan needs a single scan, but {len(found)} are given")
    if brain_mask is not None and len(found) > 1:
        raise InputError(
            f"{brain_mask}: a brain mask needs a single scan, but {len(found)} are given"
        )
    if dicom_seg:
        for scan in found:
            if scan.kind != "dicom":
                raise InputError(f"{scan.path}: a DICOM segmentation needs a DICOM series")
    _check_limits(options)
    check_output(output, scans)
    loaded = load_model(model, device=device)
    names = [ScanFiles(output, scan.entities).name for scan in found]
    # Scans that are made again may differ from before; all others must agree with this call.
    check_folder_settings(output, model_settings(loaded, options), names if overwrite else ())
    left_out = left_out_rows(selection.left_out)
    inputs = [*(scan.path for scan in found), *map(Path, left_out)]
    failures: dict[str, str] = {}
    done: list[str] = []
    notes: list[QualityNote] = []
    for number, scan in enumerate(found):
        on_progress = stages_of(scan_title(scan.entities), number, len(found), progress)
        try:
            record = _one(
                scan,
                output,
                loaded,
                options,
                brain_mask,
                overwrite,
                series,
                dicom_seg,
                further,
                on_progress,
            )
        except InputError as error:
            failures[str(scan.path)] = str(error)
            if len(found) > 1:
                continue
            # Nothing was made, but the folder lists the failure of this call too.
            write_tables(output, inputs, {**left_out, **failures})
            raise
        done.append(names[number])
        notes += record.notes
    progress("page", len(found), len(found))
    tables = write_tables(output, inputs, {**left_out, **failures})
    return segment_result(output, tables, done, failures, notes, single=len(found) == 1)


def _check_limits(options: FindOptions) -> None:
    """Refuse limits that no scan could be done with, before the first one is begun."""
    check_limits(most=1, threshold=options.threshold, min_peak=options.min_peak)
    check_limits(min_volume_mm3=options.min_volume_mm3, min_extent_mm=options.min_extent_mm)


def segment_result(
    output: Path,
    tables: pd.DataFrame,
    names: Sequence[str],
    failures: dict[str, str],
    notes: Sequence[QualityNote],
    *,
    single: bool,
) -> SegmentResult:
    """What a call made, from the rows of ``scans.tsv``; the page is the scan's own of a single one.

    Args:
        names: of the scans that went well.
    """
    summary = tables[tables["scan"].isin(names)].reset_index(drop=True)
    own = str(summary["page"][0]) if single and len(summary) == 1 else "index.html"
    return SegmentResult(shown_summary(summary), failures, output / own, tuple(notes))


def shown_summary(scans: pd.DataFrame) -> pd.DataFrame:
    """Rows of ``scans.tsv`` for a terminal.

    The name of the scan is left out where subject and session say it all, and the volume of the
    mask where it is that of the lesions.
    """
    hidden = [*HIDDEN]
    plain = scans["subject"] + scans["session"].map(lambda s: f"_{s}", na_action="ignore").fillna(
        ""
    )
    if (scans["scan"] == plain).all():
        hidden.append("scan")
    apart = (scans["mask_volume_ml"].astype(float) - scans["volume_ml"].astype(float)).abs()
    if not (apart > 0.0005).any():
        hidden.append("mask_volume_ml")
    return scans.drop(columns=[name for name in hidden if name in scans])


def write_tables(output: Path, inputs: Sequence[Path], failures: Mapping[str, str]) -> pd.DataFrame:
    """Write the folder's tables and its page over all scans; the rows of ``scans.tsv``."""
    command = "lesionwise segment"
    return write_folder(
        output, command, inputs, failures, lambda tables: write_index(output, tables)
    ).scans


def series_of(scan: FoundScan, description: str | None = None) -> Series | None:
    """The DICOM series that is the scan; None where the scan is a NIfTI file.

    Args:
        description: part of the description of the series that is meant.

    Raises:
        InputError: If the scan is at fault, or the folder holds no FLAIR series or several.
    """
    if scan.error:
        raise InputError(scan.error)
    if scan.kind == "nifti":
        return None
    from lesionwise.io.dicom import choose_series, find_series

    return choose_series(find_series(scan.path), description=description)


def as_nifti(scan: FoundScan, output: Path, series: Series | None) -> FoundScan:
    """The scan as a NIfTI file.

    A series is converted, and the conversion is kept beside the results with what its header
    says about the sequence; nothing that tells who the patient is.

    Args:
        series: from ``series_of``.

    Raises:
        InputError: If the series is incomplete or cannot be converted.
    """
    if series is None:
        return scan
    from lesionwise.io.dicom import convert_series, series_grid

    series_grid(series)  # a fault shows before anything is written
    path = ScanFiles(output, scan.entities).converted
    claim(output, "lesionwise segment")
    convert_series(series, path)
    times = {"EchoTime": series.echo_ms, "InversionTime": series.inversion_ms}
    about = {name: time / 1000 for name, time in times.items() if time is not None}
    write_json(beside(path, ".json"), {"Modality": "MR", **about})
    return replace(scan, path=path, kind="nifti")


@dataclass(frozen=True, eq=False)
class OpenedScan:
    """A scan that may be worked on, and all that decides its results.

    Attributes:
        scan: as a NIfTI file.
        source: what the user named, as ``results.folder.source_of`` writes it.
        series: the DICOM series that gets segmentations of its own; None if none does.
        further: files of the other scans that the model takes, by name.
        settings: all that decides the results, as JSON holds it.
        done: the record of results that are there, whole and made with the same settings.
    """

    scan: FoundScan
    source: str
    series: Series | None
    further: Mapping[str, Path]
    settings: Mapping[str, Any]
    done: ScanRecord | None


def open_scan(
    scan: FoundScan,
    output: Path,
    model: LoadedModel,
    options: FindOptions,
    *,
    description: str | None = None,
    dicom_seg: bool | None = None,
    brain_mask: Path | None = None,
    further: Mapping[str, Path] = NONE,
    lesions: Path | None = None,
) -> OpenedScan:
    """Open a scan, convert it where it is a DICOM series, and look for finished results of it.

    A page that is missing beside finished results is written again.

    Args:
        description, dicom_seg, brain_mask, further: as ``segment`` takes them.
        lesions: the map of another tool that stands for a model.

    Raises:
        InputError: As for ``series_of`` and ``as_nifti``; if results of another input have this
            name, which is refused before anything is converted; if a further scan is missing.
    """
    files, source = ScanFiles(output, scan.entities), source_of(scan.path)
    if scan.kind == "dicom":  # its conversion would already overwrite another's
        check_input(files, source)
    origin = series_of(scan, description)
    opened = as_nifti(scan, output, origin)
    series = None if dicom_seg is False else origin
    settings = settings_of(opened.path, model, options, brain_mask)
    settings["dicom_seg"] = series is not None
    if lesions is not None:
        settings["lesions"] = sha256(lesions)
    others = further_scans(opened.path, model.recipe.scans, further)
    if others:
        settings["further_scans"] = {name: sha256(path) for name, path in others.items()}
    check_input(files, source, settings["scan"])
    done = _whole(files, settings)
    if done is not None and not (output / files.page).exists():
        write_scan_page(output, scan.entities)
    return OpenedScan(opened, source, series, others, settings, done)


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
    description: str | None,
    dicom_seg: bool | None,
    further: Mapping[str, Path],
    on_progress: OnStage,
) -> ScanRecord:
    """The record of one scan, whose results are written unless they are there already."""
    opened = open_scan(
        scan,
        output,
        model,
        options,
        description=description,
        dicom_seg=dicom_seg,
        brain_mask=brain_mask,
        further=further,
    )
    if opened.done is not None and not overwrite:
        return opened.done
    on_progress("read")
    channel = model.recipe.scans[0]
    study = read_scan(opened.scan.path, scan.subject, scan.session, channel)
    study = with_scans(study, opened.further)
    if brain_mask is not None:
        study = _with_brain(study, brain_mask, channel)
    return find_and_write(study, scan, opened, output, model, options, on_progress)


def find_and_write(
    study: Study,
    named: FoundScan,
    opened: OpenedScan,
    output: Path,
    model: LoadedModel,
    options: FindOptions,
    on_progress: OnStage = stage_ignored,
) -> ScanRecord:
    """Find the lesions of an opened scan and write its results; their record.

    Args:
        study: of the scan and what the model takes beside it.
        named: the scan as the user typed it, which errors name.
        opened: from ``open_scan``.

    Raises:
        InputError: If the scan cannot be used, or the disk takes no results.
    """
    with named_as_typed(named, model.recipe.scans[0]):
        found = find_lesions(study, model, options, on_progress, beside=True)
    return write_found(
        found,
        output,
        opened.scan,
        model,
        opened.settings,
        source=opened.source,
        series=opened.series,
        on_progress=on_progress,
    )


def _whole(files: ScanFiles, settings: Mapping[str, Any]) -> ScanRecord | None:
    """The record of results that are there, whole and made with the same settings."""
    if not files.sidecar.exists():
        return None
    try:
        record = ScanRecord.read(files)
        same = record.settings == dict(settings)
        return record if same and not damaged(files.root, record) else None
    except InputError:
        return None


def write_found(
    found: VisitResult,
    output: Path,
    scan: FoundScan,
    model: LoadedModel,
    settings: Mapping[str, Any],
    *,
    source: str,
    page: bool = True,
    note: QualityNote | None = None,
    series: Series | None = None,
    known: Instances | None = None,
    on_progress: OnStage = stage_ignored,
) -> ScanRecord:
    """Write the results of one scan, the mask's sidecar last, and then its page, if asked.

    Args:
        source: what the user named, as ``results.folder.source_of`` writes it.
        note: how fit the scan is; judged here if not given.
        series: the DICOM series that the scan came from; then mask and main instances are
            written as DICOM segmentations too.
        known: lesions of the truth on the scan's grid, kept beside the others as ``seg-truth``.
        on_progress: called at each stage.
    """
    if note is None:
        on_progress("quality")
        note = scan_note(
            scan, found.visit, found.brain, model.recipe.scans[0], found.measured_quality()
        )
    files = ScanFiles(output, scan.entities)
    image = next(iter(found.visit.scans.values())).array
    measured = {
        name: describe_lesions(instances, image, found.probability.array)
        for name, instances in found.instances.items()
    }
    if known is not None:
        measured[TRUTH] = describe_lesions(known, image).drop(columns="confidence")
    on_progress("location")
    found, measured = add_locations(found, measured, known)
    on_progress("write")
    record = ScanRecord(
        sources=(source_of(scan.path),),
        input=source,
        methods=tuple(found.instances),
        recipe=model.name,
        source=str(model.recipe.citation),
        model_hash=model.sha256,
        departures=tuple(model.recipe.departures),
        model=facts_of(model).summary(),
        threshold=found.threshold,
        quality=(note.written(),),
        warnings=found.warnings,
        seconds={stage: round(time, 2) for stage, time in found.seconds.items()},
        stages=tuple(
            {
                "Step": stage.step,
                "Picture": files.stage(number).relative_to(output).as_posix(),
                "Black": float(f"{stage.window[0]:.4g}"),
                "White": float(f"{stage.window[1]:.4g}"),
                "Outlined": stage.brain is not None,
            }
            for number, stage in enumerate(found.stages)
        ),
        settings=dict(settings),
        versions=versions(),
    )
    result = ScanResult(
        scan.entities,
        record,
        found.probability,
        found.mask,
        found.brain,
        {name: LesionSet(lesions, measured[name]) for name, lesions in found.instances.items()},
        None if known is None else LesionSet(known, measured[TRUTH]),
        tuple(stage.webp() for stage in found.stages),
    )
    further = []
    if series is not None:
        main, instances = found.main
        labels = Volume(instances.labels, instances.grid)
        further = [beside(files.mask, ".dcm"), beside(files.instances(main), ".dcm")]
        write_dicom(further[0], found.mask, series, model.name)
        write_dicom(further[1], labels, series, f"{model.name} {main}")
    claim(output, "lesionwise segment")
    before = _record_before(files)
    record = result.write(output, grid=read_grid(scan.path), further=further)
    if before is not None:
        remove_superseded(output, before.files, record.files)
    if page:
        on_progress("page")
        write_scan_page(output, scan.entities)
    return record


def _record_before(files: ScanFiles) -> ScanRecord | None:
    """The record of results that are about to be replaced; None where there are none."""
    try:
        return ScanRecord.read(files)
    except InputError:
        return None


def write_dicom(path: Path, volume: Volume, series: Series, method: str) -> None:
    """Write a mask or instances as a DICOM segmentation of the series they were found on."""
    from lesionwise.io.dicom_seg import write_segmentation

    write_segmentation(path, volume, series, method=method)


def model_settings(model: LoadedModel, options: FindOptions) -> dict[str, Any]:
    """All that decides the results of every scan of a folder, as it reads back from JSON."""
    settings = asdict(options)
    settings["also"] = list(options.also)
    settings["recipe"] = model.name
    settings["model"] = model.sha256
    settings["filters"] = [repr(step) for step in model.recipe.refine]
    settings["version"] = lesionwise.__version__
    return settings


def settings_of(
    path: Path, model: LoadedModel, options: FindOptions, brain_mask: Path | None
) -> dict[str, Any]:
    """All that decides the results of one scan, as it reads back from JSON."""
    settings = model_settings(model, options)
    settings["scan"] = sha256(path)
    settings["brain_mask"] = sha256(brain_mask) if brain_mask else None
    return settings


def _with_brain(study: Study, path: Path, scan: str) -> Study:
    visit = study.followup
    brain = on_grid(read_mask(path), visit.scans[scan].grid, name=str(path))
    if not brain.array.any():
        raise InputError(f"{path}: the brain mask is empty")
    return Study(study.subject, (Visit(visit.scans, visit.labels, brain, visit.session),))
