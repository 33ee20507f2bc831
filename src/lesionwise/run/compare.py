"""The command ``compare``: the state of each lesion between visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionwise import defaults
from lesionwise.change.rules import STATES, TrackingRules
from lesionwise.change.tracking import Tracks, change_map
from lesionwise.instances.filters import DropSmall
from lesionwise.io.bids import FoundScan, find_scans, select_scans
from lesionwise.io.names import parse_name
from lesionwise.io.nifti import read_grid
from lesionwise.io.record import sha256
from lesionwise.io.scans import left_out_rows
from lesionwise.io.visit_order import order_unless_named
from lesionwise.metrics.case import Options, evaluate_case
from lesionwise.preprocess.alignment import Alignment, alignment_of
from lesionwise.preprocess.registration import rigid
from lesionwise.report.folder import write_comparison_page
from lesionwise.results.comparison import (
    ComparisonRecord,
    ComparisonResult,
    VisitChange,
    named_tracks,
)
from lesionwise.results.folder import (
    check_folder_settings,
    check_input,
    check_output,
    source_of,
    write_folder,
)
from lesionwise.results.lesion_set import read_lesion_table
from lesionwise.results.names import COMPARISON, ScanFiles, beside
from lesionwise.results.quality import QualityNote
from lesionwise.results.scan import ScanRecord, scan_row
from lesionwise.run.find_lesions import FindOptions, VisitResult, find_lesions
from lesionwise.run.follow import TrackingResult, VisitInput, covering_grid, follow
from lesionwise.run.given import given_models
from lesionwise.run.kept import keep, kept_until_done, read_kept
from lesionwise.run.load_model import LoadedModel, load_model
from lesionwise.run.predict_pairs import ScanPair, predict_pair
from lesionwise.run.quality_checks import (
    alignment_notes,
    change_notes,
    check_one_patient,
    check_order,
    named_as_typed,
    scan_note,
)
from lesionwise.run.registered import write_registered
from lesionwise.run.segment import (
    as_nifti,
    model_settings,
    read_scan,
    series_of,
    settings_of,
    shown_summary,
    write_dicom,
    write_found,
)
from lesionwise.types import (
    InputError,
    Instances,
    Matrix,
    Progress,
    Volume,
    no_progress,
    stages_of,
)

if TYPE_CHECKING:
    from lesionwise.io.dicom_series import Series

SHOWN = {
    "dsc": "DSC",
    "lesion_precision": "lesion precision",
    "lesion_recall": "lesion recall",
    "lesion_f1": "lesion F1",
    "clu_recall": "confluent-unit recall",
    "pq": "PQ",
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What ``compare`` made.

    Attributes:
        summary: one row per visit: lesions that passed the size filters, their volume, and how
            many of each state.
        tracks: every lesion through the visits; labels are those of the written instance maps.
        found: each visit's results, on its own grid.
        to_common: world mm of the first visit to world mm of each visit.
        scores: against the known lesions, a row a visit and way of telling lesions apart;
            None where nothing is known.
        page: the page to open.
        quality: how fit each scan is, then what changed between visits.
    """

    summary: pd.DataFrame
    tracks: Tracks
    found: tuple[VisitResult, ...]
    to_common: tuple[Matrix, ...]
    scores: pd.DataFrame | None
    page: Path
    quality: tuple[QualityNote, ...] = ()


def compare(
    visits: Sequence[Path],
    output: Path,
    *,
    model: str | Path | LoadedModel = defaults.MODEL,
    options: FindOptions = FindOptions(also=defaults.SEPARATIONS),  # noqa: B008  (frozen)
    rules: TrackingRules = TrackingRules(),  # noqa: B008  (frozen)
    new_lesions: str | Path | LoadedModel | None = None,
    lesions: Sequence[Path] = (),
    device: str = "auto",
    truth: Sequence[Instances] = (),
    series: str | None = None,
    dicom_seg: bool = True,
    also_judged: Sequence[QualityNote] = (),
    same_patient: bool = False,
    registered: bool = False,
    progress: Progress = no_progress,
) -> Comparison:
    """Find the lesions of each visit and follow them from the first visit to the last.

    Lesions are found on each scan by itself, as ``segment`` does. Later visits are registered
    rigidly to the first, and each visit's lesions are read at the voxels of the first visit's
    prepared grid (1 mm for the shipped model), where they are followed (``run.follow``). That grid
    is continued to where the brain of a later visit reaches beyond it. The scans
    themselves are asked whether what seems new, disappeared, larger or smaller has changed. A
    lesion that the map of a later visit shows below its threshold and that appeared since joins
    that visit's lesions and mask. Each later visit is held against the first after registration
    (``preprocess.alignment``); one that does not fit is graded poor.

    Writes, beside what ``segment`` writes for each visit: ``visits.tsv`` (a row a visit),
    ``tracks.tsv`` (every lesion at every visit, what it was and what it became), ``links.tsv``
    (the graph), under each follow-up a mask of new lesions and a map of states on its own grid,
    and a map of states on the common grid. A folder holds one comparison.

    What was found in each visit is kept in the folder until the comparison is written, so that
    the same call takes it up after an interruption.

    Args:
        visits: FLAIR scans in time order, two or more.
        rules: when a lesion counts as the same, new, enlarging …
        new_lesions: a model that looks at two visits at once; its new lesions between every two
            visits are written in the place of those that following found (``run.predict_pairs``).
        lesions: masks or probability maps of another tool, one for each visit and on the voxels of
            its scan; they are followed, and no model finds any.
        truth: known lesions of each visit on its scan's grid; scored and shown.
        series: part of the description of the DICOM series that is meant.
        dicom_seg: write DICOM segmentations of visits that came from DICOM.
        also_judged: further notes for the page.
        registered: also write each follow-up on the baseline's voxels, its subtraction and its
            transform (``run.registered``).
        same_patient: the visits are of one patient although their headers say otherwise.

    Raises:
        InputError: If the folder is not one for results, holds another comparison or was begun
            with other settings, if there are fewer than two scans, two of one session, names or
            headers say that they are of different subjects, names say that a later visit comes
            first, a scan cannot be used, visits do not overlap, or left and right are exchanged in
            one of them.
    """
    call = _checked_call(
        visits,
        output,
        model,
        options,
        new_lesions,
        lesions,
        device=device,
        series=series,
        same_patient=same_patient,
    )
    scans, channel = call.scans, call.model.recipe.scans[0]
    total = len(scans)
    with kept_until_done(output) as place:
        found = [_found(call, number, output, place, progress) for number in range(total)]
        to_common, alignments = _to_first(found, scans, progress)
        notes = [
            scan_note(scan, visit.visit, visit.brain, channel, visit.measured_quality())
            for scan, visit in zip(scans, found, strict=True)
        ]
        changed_notes = alignment_notes(scans, alignments) + change_notes(
            scans,
            [visit.visit for visit in found],
            [visit.brain for visit in found],
            notes,
            to_common,
            channel,
        )
        progress("follow lesions", total, total)
        inputs = [VisitInput(_image(v), v.brain, v.probability, v.main[1]) for v in found]
        first = found[0].prepared_grid
        common = covering_grid(inputs, to_common, first)
        followed = follow(inputs, to_common, common, rules, first)
        # Following may have found lesions below the threshold, which belong to the results too.
        found = [
            _with_lesions(visit, lesions)
            for visit, lesions in zip(found, followed.lesions, strict=True)
        ]
        maps: list[Path] = []
        if registered:
            progress("write registered scans", total, total)
            images, brains = [_image(visit) for visit in found], [visit.brain for visit in found]
            maps += write_registered(output, scans, images, brains, to_common)
        rows, written = _write_visits(
            call, output, found, followed, notes, truth, dicom_seg=dicom_seg, progress=progress
        )
        maps += written
        summary = pd.DataFrame(rows)
        if call.pair_model is not None:
            new = _new_lesions(call.pair_model, scans, output, same_patient, progress)
            summary[f"new by {call.pair_model.name}"] = [None, *new]  # nothing before the first
        scores = score_visits(found, truth) if truth else None
        tracks = followed.tracks
        named_rows, links = named_tracks(
            tracks.table, tracks.links, [scan.entities for scan in scans]
        )
        record = ComparisonRecord(
            sources=tuple(source_of(scan.path) for scan in scans),
            first_visit_to_visit_mm=tuple(_rows(matrix) for matrix in to_common),
            recipe=call.model.name,
            model_hash=call.model.sha256,
            departures=tuple(call.model.recipe.departures),
            options=asdict(call.options),
            tracking_rules=asdict(rules),
            found_by_following=followed.rescued,
            quality=tuple(note.written() for note in (*changed_notes, *also_judged)),
            seconds=tuple(dict(visit.seconds) for visit in found),
            truth=bool(truth),
        )
        entities = tuple(scan.entities for scan in scans)
        ComparisonResult(entities, record, summary, named_rows, links, scores).write(output, maps)
        left_out = left_out_rows(select_scans(visits).left_out)
        read = [*(scan.path for scan in call.named), *map(Path, left_out)]
        write_folder(output, "lesionwise compare", read, left_out)
        progress("page", total, total)
        page = write_comparison_page(output)
        quality = (*notes, *changed_notes, *also_judged)
        hidden = [name for name in summary if str(name).startswith("previous_")]
        shown = shown_summary(summary.drop(columns=hidden))
        return Comparison(shown, tracks, tuple(found), tuple(to_common), scores, page, quality)


@dataclass(frozen=True, eq=False)
class _Call:
    """What is compared and by what; the lists have an entry a visit.

    Attributes:
        named: scans as the user typed them.
        scans: the same as NIfTI files.
        series: the DICOM series that a scan came from.
        finders: the model itself or, where another tool found the lesions, what reads them.
        settings: what decides the results of a visit.
        model: as the results name it.
        pair_model: looks at two visits at once.
        options: those asked for; lesions of another tool have no offsets.
    """

    named: list[FoundScan]
    scans: list[FoundScan]
    series: list[Series | None]
    finders: list[LoadedModel]
    settings: list[dict[str, Any]]
    model: LoadedModel
    pair_model: LoadedModel | None
    options: FindOptions


def _checked_call(
    visits: Sequence[Path],
    output: Path,
    model: str | Path | LoadedModel,
    options: FindOptions,
    new_lesions: str | Path | LoadedModel | None,
    lesions: Sequence[Path],
    *,
    device: str,
    series: str | None,
    same_patient: bool,
) -> _Call:
    """Refuse all that may be refused, then convert series of DICOM into the output folder."""
    named = _scans(visits)
    check_output(output, visits)
    _check_comparison(output, named)
    for scan in named:
        if scan.kind == "dicom":  # its conversion would already overwrite another's
            check_input(ScanFiles(output, scan.entities), source_of(scan.path))
    of_scans = [series_of(scan, series) for scan in named]
    if not same_patient:
        check_one_patient(named, of_scans)
    check_order(named, of_scans)
    paths = [scan.path for scan in named]
    twice = [path for n, path in enumerate(lesions) if path in lesions[:n]]
    if twice:
        raise InputError(f"{twice[0]}: given twice, but each visit needs lesions of its own")
    given = given_models(lesions, paths, options.threshold) if lesions else []
    loaded = given[0] if given else load_model(model, device=device)
    if given:
        options = replace(options, also=tuple(way for way in options.also if way != "offsets"))
    pair_model = None if new_lesions is None else load_model(new_lesions, device=device)
    if pair_model is not None and pair_model.recipe.visits != 2:
        raise InputError(f"{pair_model.name}: this model takes one visit, not two")
    scans = [as_nifti(scan, output, one) for scan, one in zip(named, of_scans, strict=True)]
    _check_folder(output, named, scans, loaded, options)
    settings = [settings_of(scan.path, loaded, options, None) for scan in scans]
    for number, path in enumerate(lesions):
        settings[number]["lesions"] = sha256(path)
    finders = given or [loaded] * len(scans)
    return _Call(named, scans, of_scans, finders, settings, loaded, pair_model, options)


def _to_first(
    found: Sequence[VisitResult], scans: Sequence[FoundScan], progress: Progress
) -> tuple[list[Matrix], list[Alignment]]:
    """World mm of the first visit to that of each visit, and how well each later visit fits.

    Every visit goes to the first directly, not from visit to visit, so errors do not add up.
    """
    to_common: list[Matrix] = [np.eye(4)]
    alignments: list[Alignment] = []
    first, brain = _image(found[0]), found[0].brain
    for scan, visit in zip(scans[1:], found[1:], strict=True):
        stage = f"visit {scan.session}: register to {scans[0].session}"
        progress(stage, len(scans), len(scans))
        image = _image(visit)
        matrix = rigid(first, image, fixed_mask=brain, moving_mask=visit.brain)
        to_common.append(matrix)
        alignments.append(
            alignment_of(first, image, matrix, baseline_brain=brain, followup_brain=visit.brain)
        )
    return to_common, alignments


def _write_visits(
    call: _Call,
    output: Path,
    found: Sequence[VisitResult],
    followed: TrackingResult,
    notes: Sequence[QualityNote],
    truth: Sequence[Instances],
    *,
    dicom_seg: bool,
    progress: Progress,
) -> tuple[list[dict[str, object]], list[Path]]:
    """Write what was found at each visit, and what changed; rows of ``visits.tsv``, maps."""
    rows, maps = [], []
    total = len(found)
    for number, (scan, visit) in enumerate(zip(call.scans, found, strict=True)):
        origin = call.series[number] if dicom_seg else None
        record = write_found(
            visit,
            output,
            scan,
            call.model,
            {**call.settings[number], "dicom_seg": origin is not None},
            source=source_of(call.named[number].path),
            page=False,
            note=notes[number],
            series=origin,
            known=truth[number] if truth else None,
            on_progress=stages_of(f"visit {scan.session}", total, total, progress),
        )
        rows.append(_visit_row(ScanFiles(output, scan.entities), record, followed.tracks, number))
        if number:
            # With a model of new lesions, its mask takes the place of the one from the tracks.
            maps += _write_changes(
                output,
                scan,
                visit,
                followed.tracks,
                number,
                change_map(followed.shared, followed.tracks, number),
                mask=call.pair_model is None,
                series=origin,
            )
    return rows, maps


def _new_lesions(
    model: LoadedModel,
    scans: Sequence[FoundScan],
    output: Path,
    same_patient: bool,
    progress: Progress,
) -> list[int]:
    """Write the new lesions that a model of two visits finds; how many at each later visit."""
    counts = []
    for number, (before, after) in enumerate(pairwise(scans), start=1):
        progress(f"new lesions of visit {after.session}: {model.name}", number, len(scans))
        files, record = predict_pair(
            ScanPair(before, after), output, model, same_patient=same_patient
        )
        counts.append(len(read_lesion_table(files, record.method)))
    return counts


def _found(call: _Call, number: int, output: Path, place: Path, progress: Progress) -> VisitResult:
    """The lesions of a visit: those that a call found before it was interrupted, or found now."""
    typed, scan = call.named[number], call.scans[number]
    files, settings = ScanFiles(output, scan.entities), call.settings[number]
    channel = call.model.recipe.scans[0]
    on_progress = stages_of(f"visit {scan.session}", number, len(call.scans), progress)
    on_progress("read")
    study = read_scan(scan.path, scan.subject, scan.session, channel)
    with named_as_typed(typed, channel):
        before = read_kept(place, files, settings, study.followup)
        if before is not None:
            on_progress("found before")
            return before
        found = find_lesions(study, call.finders[number], call.options, on_progress, beside=True)
        if _image(found) is next(iter(study.followup.scans.values())):  # not on the prepared grid
            keep(place, files, settings, found)
        return found


def _rows(matrix: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _check_comparison(output: Path, scans: Sequence[FoundScan]) -> None:
    """Refuse a folder that holds a comparison of other scans."""
    if not (output / COMPARISON).exists():
        return
    try:
        before = ComparisonRecord.read(output).sources
    except InputError:
        return  # damaged, so it is made again
    known = {source_of(Path(source)) for source in before}
    converted = {ScanFiles(output, s.entities).converted for s in scans if s.kind == "dicom"}
    wanted = {source_of(scan.path) for scan in scans if scan.kind != "dicom"}
    if known != wanted | {source_of(path) for path in converted}:
        raise InputError(
            f"{output}: holds the comparison of {Path(before[0]).name} with others; "
            "choose another output folder"
        )


def _check_folder(
    output: Path,
    named: Sequence[FoundScan],
    scans: Sequence[FoundScan],
    model: LoadedModel,
    options: FindOptions,
) -> None:
    """Refuse to write over results of other inputs, or among results of other settings."""
    for given, scan in zip(named, scans, strict=True):
        digest = settings_of(scan.path, model, options, None)["scan"]
        check_input(ScanFiles(output, scan.entities), source_of(given.path), digest)
    remedy = "choose another output folder"
    check_folder_settings(output, model_settings(model, options), remedy=remedy)


def score_visits(found: Sequence[VisitResult], truth: Sequence[Instances]) -> pd.DataFrame:
    """Scores of each visit by each way of telling lesions apart.

    DSC is that of the unfiltered mask. Lesions count on both sides where they reach the default
    size limits.
    """
    small = DropSmall()
    options = Options(min_volume_mm3=small.min_volume_mm3, min_extent_mm=small.min_extent_mm)
    rows = []
    for visit, known in zip(found, truth, strict=True):
        mask = Instances(visit.mask.array.astype(np.int32), visit.mask.grid)
        dsc = evaluate_case(known, mask).values["dsc"]  # noqa: PD011
        for method, instances in visit.instances.items():
            values = evaluate_case(known, instances, options).values  # noqa: PD011
            row: dict[str, object] = {"visit": visit.visit.session, "lesions by": method}
            rows.append(row | {shown: values[key] for key, shown in SHOWN.items()} | {"DSC": dsc})
    return pd.DataFrame(rows)


def _scans(paths: Sequence[Path]) -> list[FoundScan]:
    scans = order_unless_named(find_scans(paths), paths)
    if len(paths) > len(scans) == 1:
        raise InputError(f"{scans[0].path}: given twice, but each visit needs a scan of its own")
    if len(scans) < 2:
        raise InputError("compare: two or more scans are needed, baseline first")
    sessions = [scan.session for scan in scans]
    stated = [scan for scan in scans if scan.session or parse_name(scan.path) is not None]
    subjects = {_subject(scan) for scan in stated}
    if len(subjects) > 1:
        names = ", ".join(f"sub-{subject}" for subject in sorted(subjects))
        raise InputError(f"compare: the scans are of different subjects ({names})")
    if all(sessions):
        for number, session in enumerate(sessions):
            if session in sessions[:number]:
                first = scans[sessions.index(session)].path.name
                raise InputError(
                    f"{scans[number].path}: of the same session as {first}; give one scan per visit"
                )
        return scans
    return [
        replace(scan, entities=replace(scan.entities, sub=scans[0].subject, ses=f"{number:02d}"))
        for number, scan in enumerate(scans, start=1)
    ]


def _subject(scan: FoundScan) -> str:
    """As the file's name states it: two scans that would be named alike got names of their own."""
    entities = parse_name(scan.path)
    return scan.subject if entities is None else entities.sub


def _image(found: VisitResult) -> Volume:
    return next(iter(found.visit.scans.values()))


def _with_lesions(found: VisitResult, lesions: Instances) -> VisitResult:
    """What was found with the lesions that following added to the main ones and to the mask."""
    name, before = found.main
    if lesions is before:
        return found
    mask = Volume(found.mask.array | ((lesions.labels > 0) & (before.labels == 0)), lesions.grid)
    return replace(found, instances={**found.instances, name: lesions}, mask=mask)


def _write_changes(
    output: Path,
    scan: FoundScan,
    found: VisitResult,
    tracks: Tracks,
    visit: int,
    common: Volume,
    *,
    mask: bool,
    series: Series | None = None,
) -> list[Path]:
    """Write what changed at a later visit; the paths of the maps."""
    rows = tracks.table[(tracks.table["visit"] == visit) & (tracks.table["label"] > 0)]
    lesions = found.main[1]
    code = np.zeros(int(lesions.labels.max()) + 1, dtype=np.uint8)
    code[rows["label"].to_numpy()] = [STATES.index(state) + 1 for state in rows["state"]]
    states = code[lesions.labels]
    new = states == STATES.index("new") + 1
    files = ScanFiles(output, scan.entities)
    change = VisitChange(
        scan.entities,
        source_of(scan.path),
        Volume(states, lesions.grid),
        common,
        Volume(new, lesions.grid) if mask else None,
    )
    written = change.write(output, grid=read_grid(scan.path))
    if mask and series is not None:
        path = beside(files.new_mask, ".dcm")
        write_dicom(path, Volume(new, lesions.grid), series, "new lesions")
        written.append(path)
    return written


def _visit_row(
    files: ScanFiles, record: ScanRecord, tracks: Tracks, visit: int
) -> dict[str, object]:
    """The row of ``visits.tsv``."""
    tables = {method: read_lesion_table(files, method) for method in record.methods}
    row = scan_row(files, record, tables)
    kept = (
        *("subject", "session", "scan", "quality", "lesions", "volume_ml", "mask_volume_ml"),
        *("brain_volume_ml", "lesion_load_percent"),
    )
    counts, before = tracks.counts(), tracks.counts_before()
    states = [state for state in STATES if state != "baseline"]
    return {
        **{name: row[name] for name in kept},
        **{state: int(counts[state][visit]) for state in states},
        **{
            f"previous_{state}": int(before[state][visit]) if visit else 0
            for state in states
            if state != "new"
        },
        "quality_reasons": row["quality_reasons"],
        "source": row["source"],
    }
