"""The command ``predict`` for models that look at two visits: new lesions of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

import lesionwise
from lesionwise.instances.describe import describe_lesions
from lesionwise.io.bids import Entities, FoundScan, select_scans
from lesionwise.io.nifti import header_notes, read_grid, read_volume
from lesionwise.io.record import check_settings, sha256, versions
from lesionwise.io.scans import left_out_rows
from lesionwise.io.visit_order import order_unless_named
from lesionwise.report.folder import write_pair_page
from lesionwise.results.folder import (
    REMEDY,
    check_output,
    claim,
    remove_superseded,
    source_of,
    write_pairs,
)
from lesionwise.results.lesion_set import LesionSet
from lesionwise.results.names import COMPARISON, PairFiles, finished_pairs, pair_page, scan_name
from lesionwise.results.pair import PairRecord, PairResult
from lesionwise.results.scan import damaged
from lesionwise.run.contrasts import further_scans
from lesionwise.run.find_lesions import FindOptions, VisitResult, find_lesions
from lesionwise.run.load_model import LoadedModel, load_model
from lesionwise.run.locations import add_locations
from lesionwise.run.models import facts_of
from lesionwise.run.quality_checks import check_one_patient, check_order, named_as_typed
from lesionwise.run.segment import as_nifti, series_of
from lesionwise.types import (
    InputError,
    OnStage,
    Progress,
    Study,
    Visit,
    no_progress,
    stage_ignored,
    stages_of,
)

PER_PAIR = ("scans", "further_scans")
"""Settings that differ from pair to pair of one folder."""


@dataclass(frozen=True)
class ScanPair:
    """Two visits of one patient."""

    baseline: FoundScan
    followup: FoundScan

    @property
    def title(self) -> str:
        """``sub-01 ses-01 to ses-02``."""
        return (
            f"sub-{self.followup.subject} ses-{self.baseline.session} "
            f"to ses-{self.followup.session}"
        )


@dataclass(frozen=True, eq=False)
class PredictedPairs:
    """What ``predict_pairs`` made.

    Attributes:
        summary: one row per pair that went well: new lesions and their volume.
        failures: by pair, why it gave nothing.
        pages: of the pairs, in order.
    """

    summary: pd.DataFrame
    failures: dict[str, str]
    pages: tuple[Path, ...]


@dataclass(frozen=True)
class PairSelection:
    """What was found in the files and folders that a user named.

    Attributes:
        pairs: of visits that follow each other.
        left_out: scans and folders that are in no pair, and why, one phrase each.
    """

    pairs: tuple[ScanPair, ...]
    left_out: Mapping[str, str]


def select_pairs(paths: Sequence[Path]) -> PairSelection:
    """Every two visits of a patient that follow each other.

    Scans are grouped by the subject their names state. Visits that are found in a BIDS data set
    come in time order (``io.visit_order``); those that are named one by one stay as they are.
    Where a session has several scans, those with the same further entities (``acq-3D``) are paired,
    never two of one session. Two files whose names do not state a session are one patient's
    baseline and follow-up, in the order given.

    Raises:
        InputError: If no patient has two visits.
    """
    selection = select_scans(paths)
    scans = selection.scans
    if len(scans) == 2 and not all(scan.session for scan in scans):
        first, last = (
            replace(scan, entities=replace(scan.entities, sub=scans[0].subject, ses=f"{n:02d}"))
            for n, scan in enumerate(scans, start=1)
        )
        return PairSelection((ScanPair(first, last),), selection.left_out)
    left_out = dict(selection.left_out)
    by_subject: dict[str, list[FoundScan]] = {}
    for scan in scans:
        if scan.error:
            left_out[str(scan.path)] = scan.error.removeprefix(f"{scan.path}: ")
        else:
            by_subject.setdefault(scan.subject, []).append(scan)
    pairs: list[ScanPair] = []
    for visits in by_subject.values():
        try:
            ordered = order_unless_named(visits, paths)
        except InputError as error:
            left_out |= {str(scan.path): str(error) for scan in visits}
            continue
        found = [ScanPair(*two) for alike in _alike(ordered) for two in pairwise(alike)]
        paired = {scan.path for pair in found for scan in (pair.baseline, pair.followup)}
        alone = [scan.path for scan in visits if scan.path not in paired]
        left_out |= {str(path): "no second visit to pair it with" for path in alone}
        pairs += found
    if not pairs:
        reasons = "; ".join(f"{path}: {why}" for path, why in list(left_out.items())[:2])
        raise InputError(
            f"{paths[0]}: no patient with two visits; this model compares two ({reasons})"
        )
    return PairSelection(tuple(pairs), left_out)


def _alike(scans: Sequence[FoundScan]) -> list[list[FoundScan]]:
    """The scans of a patient, one of each session; several such lists where sessions have more."""
    sessions = [scan.session for scan in scans]
    if len(set(sessions)) == len(sessions):
        return [list(scans)]
    kinds: dict[Entities, list[FoundScan]] = {}
    for scan in scans:
        kind = replace(scan.entities, ses="", suffix="", extension="")
        kinds.setdefault(kind, []).append(scan)
    return list(kinds.values())


def predict_pairs(
    scans: Sequence[Path],
    output: Path,
    *,
    model: str | Path | LoadedModel,
    options: FindOptions = FindOptions(),  # noqa: B008  (frozen)
    device: str = "auto",
    overwrite: bool = False,
    same_patient: bool = False,
    progress: Progress = no_progress,
) -> PredictedPairs:
    """New lesions of every pair of visits that follow each other, by a two-visit model.

    Writes under the follow-up's name (the baseline's where the recipe returns results on its
    grid): ``desc-new`` probability, mask and instances with their table, each with a sidecar, and
    a page. ``new_lesions.tsv`` holds every new lesion, ``pairs.tsv`` a row per pair,
    ``failures.tsv`` the pairs that gave nothing and the scans that were left out; later calls add
    to them. Skips pairs whose results are there, whole, and of the same files, model and settings.

    Args:
        same_patient: the visits are of one patient although their headers say otherwise.

    Raises:
        InputError: If the folder is not one for results, was begun with other settings, or holds
            a comparison, if no patient has two visits, and for an error in a single pair; among
            several the error is listed and the others continue.
    """
    selection = select_pairs(scans)
    pairs = selection.pairs
    check_output(output, scans)
    if (output / COMPARISON).exists():
        raise InputError(f"{output}: holds a comparison; choose another output folder")
    loaded = model if isinstance(model, LoadedModel) else load_model(model, device=device)
    wanted = {k: v for k, v in _settings((), loaded, options).items() if k not in PER_PAIR}
    _check_folder_settings(output, wanted, pairs if overwrite else ())
    failures: dict[str, str] = {}
    done: list[str] = []
    for number, pair in enumerate(pairs):
        on_progress = stages_of(pair.title, number, len(pairs), progress)
        try:
            files, record = predict_pair(
                pair, output, loaded, options, overwrite, same_patient, on_progress
            )
        except InputError as error:
            failures[pair.title] = str(error)
            if len(pairs) > 1:
                continue
            _write_tables(output, selection, failures)
            raise
        done.append(pair_page(files.scan, record.baseline, record.followup))
    progress("write", len(pairs), len(pairs))
    table = _write_tables(output, selection, failures)
    summary = table[table["page"].isin(done)].reset_index(drop=True)
    pages = tuple(output / page for page in done)
    shown = summary.drop(columns=["scan", "warnings", "source", "page"], errors="ignore")
    return PredictedPairs(shown, failures, pages)


def _write_tables(
    output: Path, selection: PairSelection, failures: Mapping[str, str]
) -> pd.DataFrame:
    """The tables of the folder; files left out are among the failures."""
    left_out = left_out_rows(selection.left_out)
    scans = [scan.path for pair in selection.pairs for scan in (pair.baseline, pair.followup)]
    return write_pairs(
        output,
        "lesionwise predict",
        [*scans, *map(Path, left_out)],
        {**left_out, **failures},
        titles=[pair.title for pair in selection.pairs],
    )[0]


def _check_folder_settings(
    output: Path, wanted: Mapping[str, Any], again: Sequence[ScanPair]
) -> None:
    """Refuse other settings than those that the pairs of a folder were done with."""
    names = {scan_name(scan.entities) for pair in again for scan in (pair.baseline, pair.followup)}
    for scan in finished_pairs(output):
        if scan_name(scan) not in names:
            try:
                before = PairRecord.read(PairFiles(output, scan)).settings
            except InputError:
                continue
            check_settings(before, wanted, output, REMEDY)
            return


def predict_pair(
    pair: ScanPair,
    output: Path,
    model: LoadedModel,
    options: FindOptions = FindOptions(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    same_patient: bool = False,
    on_progress: OnStage = stage_ignored,
) -> tuple[PairFiles, PairRecord]:
    """The new lesions of one pair, written unless they are there; where, and the record.

    Raises:
        InputError: If the visits are named in the wrong order or of different patients, a scan
            cannot be used, or results of other inputs have this name.
    """
    visits = (pair.baseline, pair.followup)
    series = [series_of(scan) for scan in visits]
    if not same_patient:
        check_one_patient(visits, series)
    check_order(visits, series)
    inputs = tuple(source_of(scan.path) for scan in (pair.baseline, pair.followup))
    target = pair.baseline if model.recipe.output.grid == "baseline" else pair.followup
    files = PairFiles(output, target.entities)
    before = _before(files)
    if before is not None and pair.followup.kind == "dicom":
        _check_inputs(files, before, inputs, ())
    given = pair
    pair = ScanPair(
        *(as_nifti(*each) for each in zip(visits, (output, output), series, strict=True))
    )
    scans = pair_files(pair, model)
    settings = _settings(scans, model, options)
    if before is not None:
        _check_inputs(files, before, inputs, settings["scans"])
        if not overwrite and before.settings == settings and not damaged(output, before):
            if not (output / pair_page(files.scan, before.baseline, before.followup)).exists():
                write_pair_page(output, files.scan)
            return files, before
    on_progress("read")
    channel = model.recipe.scans[0]
    with named_as_typed(given.baseline, channel), named_as_typed(given.followup, channel):
        study = _study(pair, scans)
        found = find_lesions(study, model, options, on_progress)
    on_progress("write")
    record = _write(found, pair, files, output, model, settings, inputs)
    if before is not None:
        remove_superseded(output, _written(files, before), _written(files, record))
    write_pair_page(output, files.scan)
    return files, record


def _written(files: PairFiles, record: PairRecord) -> list[str]:
    """Names of all that the record's call wrote, and of the page."""
    return [*record.files, pair_page(files.scan, record.baseline, record.followup)]


def _before(files: PairFiles) -> PairRecord | None:
    if not files.sidecar.exists():
        return None
    try:
        return PairRecord.read(files)
    except InputError:
        return None  # damaged, so it is written again


def _check_inputs(
    files: PairFiles, before: PairRecord, inputs: Sequence[str], hashes: Sequence[str]
) -> None:
    """Refuse to write over the results of other inputs."""
    known = [source_of(Path(text)) for text in before.input_paths]
    if known != list(inputs) and (not hashes or before.settings.get("scans") != list(hashes)):
        raise InputError(
            f"{inputs[-1]}: {files.root} holds the results of {before.input_paths[-1]} as "
            f"{scan_name(files.scan)}; choose another output folder"
        )


def pair_files(pair: ScanPair, model: LoadedModel) -> tuple[dict[str, Path], ...]:
    """The files of each visit that the model takes, by the name of the scan and in its order.

    The first one's file is named, the others lie beside it with their contrast in their names.

    Raises:
        InputError: If one is missing.
    """
    wanted = model.recipe.scans
    return tuple(
        {wanted[0]: scan.path, **further_scans(scan.path, wanted)}
        for scan in (pair.baseline, pair.followup)
    )


def read_pair(pair: ScanPair, model: LoadedModel) -> Study:
    """The study of a pair, with the scans of each visit that the model takes (``pair_files``)."""
    return _study(pair, pair_files(pair, model))


def _study(pair: ScanPair, files: Sequence[Mapping[str, Path]]) -> Study:
    visits = tuple(
        Visit({name: read_volume(path) for name, path in own.items()}, session=scan.session)
        for scan, own in zip((pair.baseline, pair.followup), files, strict=True)
    )
    return Study(pair.followup.subject, visits)


def _write(
    found: VisitResult,
    pair: ScanPair,
    files: PairFiles,
    output: Path,
    model: LoadedModel,
    settings: dict[str, Any],
    inputs: tuple[str, ...],
) -> PairRecord:
    prepared = model.recipe.output.grid == "prepared"
    target = pair.baseline if model.recipe.output.grid == "baseline" else pair.followup
    method, instances = found.main
    channel, scan = next(iter(found.visit.scans.items()))
    tables = {method: describe_lesions(instances, scan.array, found.probability.array)}
    found, tables = add_locations(found, tables)
    record = PairRecord(
        sources=(source_of(pair.baseline.path), source_of(pair.followup.path)),
        inputs=inputs,
        method=method,
        shown=source_of(target.path),
        baseline=pair.baseline.session,
        followup=pair.followup.session,
        recipe=model.name,
        source=str(model.recipe.citation),
        model_hash=model.sha256,
        departures=tuple(model.recipe.departures),
        model=facts_of(model).summary(),
        threshold=found.threshold,
        warnings=(*found.warnings, *_header_warnings(pair)),
        seconds={stage: round(time, 2) for stage, time in found.seconds.items()},
        settings=settings,
        versions=versions(),
    )
    result = PairResult(
        files.scan,
        record,
        found.probability,
        found.mask,
        found.brain,
        LesionSet(instances, tables[method]),
        (channel, scan) if prepared else None,
    )
    claim(output, "lesionwise predict")
    return result.write(output, grid=None if prepared else read_grid(target.path))


def _header_warnings(pair: ScanPair) -> tuple[str, ...]:
    """What a reader should know of the headers of the two scans."""
    return tuple(
        f"{scan.path.name}: {note}"
        for scan in (pair.baseline, pair.followup)
        for note in header_notes(scan.path)
    )


def _settings(
    files: Sequence[Mapping[str, Path]], model: LoadedModel, options: FindOptions
) -> dict[str, Any]:
    """All that decides the results of one pair, as it reads back from JSON.

    Args:
        files: of each visit, from ``pair_files``.
    """
    settings = asdict(options)
    settings["also"] = list(options.also)
    settings["recipe"] = model.name
    settings["model"] = model.sha256
    hashes = [{name: sha256(path) for name, path in own.items()} for own in files]
    first = model.recipe.scans[0]
    settings["scans"] = [own.pop(first) for own in hashes]
    if any(hashes):
        settings["further_scans"] = hashes
    settings["version"] = lesionwise.__version__
    return settings
