"""The command ``compare``: what became of each lesion between visits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

import lesionwise
from lesionwise.change.rules import STATES, TrackingRules
from lesionwise.change.tracking import Tracks, change_map
from lesionwise.instances.filters import DropSmall
from lesionwise.io.bids import FoundScan, derivative_path, find_scans, write_dataset_description
from lesionwise.io.files import check_writable, write_json, write_table
from lesionwise.io.names import parse_name
from lesionwise.io.nifti import read_grid, write_volume
from lesionwise.metrics.case import Options, evaluate_case
from lesionwise.preprocess.registration import Matrix, rigid
from lesionwise.report.folder import write_comparison_page
from lesionwise.report.page import QualityNote
from lesionwise.run.find import FindOptions, Found, find_lesions
from lesionwise.run.follow import Seen, follow
from lesionwise.run.gate import (
    change_notes,
    check_one_patient,
    check_order,
    named_as_typed,
    scan_note,
)
from lesionwise.run.pairs import ScanPair, predict_pair
from lesionwise.run.predict import LoadedModel, load_model
from lesionwise.run.segment import open_scan, read_scan, settings_of, write_dicom, write_found
from lesionwise.types import InputError, Instances, Progress, Volume, silent

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
        summary: one row per visit: lesions, volume, and how many of each state.
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
    found: tuple[Found, ...]
    to_common: tuple[Matrix, ...]
    scores: pd.DataFrame | None
    page: Path
    quality: tuple[QualityNote, ...] = ()


def compare(
    visits: Sequence[Path],
    output: Path,
    *,
    model: str | Path | LoadedModel = "conflunet",
    options: FindOptions = FindOptions(also=("offsets", "acls", "cc")),  # noqa: B008  (frozen)
    rules: TrackingRules = TrackingRules(),  # noqa: B008  (frozen)
    new_lesions: str | Path | LoadedModel | None = None,
    device: str = "auto",
    truth: Sequence[Instances] = (),
    series: str | None = None,
    dicom_seg: bool = True,
    also_judged: Sequence[QualityNote] = (),
    progress: Progress = silent,
) -> Comparison:
    """Find the lesions of each visit and follow them from the first visit to the last.

    Lesions are found on each scan by itself, as ``segment`` does. Later visits are registered
    rigidly to the first, and each visit's lesions are read at the voxels of the first visit's
    prepared grid (1 mm for the shipped model), where they are followed (``run.follow``). The scans
    themselves are asked whether what seems new, gone, larger or smaller has changed. A lesion that
    the map of a later visit shows below its threshold and that came since joins that visit's
    lesions and mask.

    Writes, beside what ``segment`` writes for each visit: ``lineages.tsv`` (every lesion at every
    visit, what it was and what it became), ``links.tsv`` (the graph), under each follow-up a mask
    of new lesions and a map of states on its own grid, and a map of states on the common grid.

    Args:
        visits: FLAIR scans in time order, two or more.
        rules: when a lesion counts as the same, new, growing …
        new_lesions: a model that looks at two visits at once; its new lesions between every two
            visits are written in the place of those that following found (``run.pairs``).
        truth: known lesions of each visit on its scan's grid; scored and shown.
        series: part of the description of the DICOM series that is meant.
        dicom_seg: write DICOM segmentations of visits that came from DICOM.
        also_judged: further notes for the page.

    Raises:
        InputError: If there are fewer than two scans, two of one session, names or headers say
            that they are of different subjects, names say that a later visit comes first, a scan
            is at fault, or visits do not overlap.
    """
    named = _scans(visits)
    check_writable(output)
    opened = [open_scan(scan, output, series) for scan in named]
    scans = [scan for scan, _ in opened]
    check_one_patient(named, [one for _, one in opened])
    check_order(scans)
    loaded = load_model(model, device=device)
    pair_model = None if new_lesions is None else load_model(new_lesions, device=device)
    if pair_model is not None and pair_model.recipe.visits != 2:
        raise InputError(f"{pair_model.name}: this model looks at one visit, not at two")
    total = len(scans)
    found, tables = [], []
    for done, scan in enumerate(scans):

        def told(stage: str, done: int = done, name: str = scan.session) -> None:
            progress(f"visit {name}: {stage}", done, total)

        told("read")
        study = read_scan(scan.path, scan.subject, scan.session, loaded.recipe.scans[0])
        with named_as_typed(scan, loaded.recipe.scans[0]):
            found.append(find_lesions(study, loaded, options, told))
    to_common: list[Matrix] = [np.eye(4)]
    first = _image(found[0])
    for done, visit in enumerate(found[1:], start=1):
        progress(f"visit {scans[done].session}: register to {scans[0].session}", done, total)
        to_common.append(
            rigid(first, _image(visit), fixed_mask=found[0].brain, moving_mask=visit.brain)
        )
    channel = loaded.recipe.scans[0]
    notes = [
        scan_note(scan, visit.visit, visit.brain, channel)
        for scan, visit in zip(scans, found, strict=True)
    ]
    changed_notes = change_notes(
        scans,
        [visit.visit for visit in found],
        [visit.brain for visit in found],
        notes,
        to_common,
        channel,
        [one for _, one in opened],
    )
    progress("follow lesions", total, total)
    common = found[0].prepared_maps.grid
    followed = follow(
        [Seen(_image(v), v.brain, v.probability, v.main[1]) for v in found],
        to_common,
        common,
        rules,
    )
    tracks, shared = followed.tracks, followed.shared
    found = [
        _with_lesions(visit, lesions)
        for visit, lesions in zip(found, followed.lesions, strict=True)
    ]
    progress("write", total, total)
    write_dataset_description(output, "lesionwise compare")
    for number, (scan, visit) in enumerate(zip(scans, found, strict=True)):
        settings = settings_of(scan.path, loaded, options, None)
        origin = opened[number][1] if dicom_seg else None
        _, lesions = write_found(
            visit,
            output,
            scan,
            loaded,
            settings,
            page=False,
            note=notes[number],
            series=origin,
            known=truth[number] if truth else None,
        )
        tables.append(_with_states(lesions, visit.main[0], tracks, number))
        if number:
            changed = change_map(shared, tracks, number)
            _write_changes(
                output, scan, visit, tracks, number, changed, mask=pair_model is None, series=origin
            )
    both = pd.concat(tables, ignore_index=True)
    write_table(output / "lesions.tsv", both)
    names = [scan.session for scan in scans]
    lineages = tracks.lineages.assign(visit=[names[number] for number in tracks.lineages["visit"]])
    write_table(output / "lineages.tsv", lineages)
    write_table(output / "links.tsv", tracks.links)
    write_json(
        output / "compare.json",
        {
            "GeneratedBy": {"Name": "lesionwise compare", "Version": lesionwise.__version__},
            "Sources": [str(scan.path) for scan in scans],
            "Recipe": loaded.name,
            "ModelHash": loaded.sha256,
            "Departures": list(loaded.recipe.departures),
            "Options": asdict(options),
            "TrackingRules": asdict(rules),
            "FoundByFollowing": [list(labels) for labels in followed.late],
            "FirstVisitToVisitMm": [matrix.tolist() for matrix in to_common],
            "Quality": [note.written() for note in (*changed_notes, *also_judged)],
            "Seconds": [dict(visit.seconds) for visit in found],
            "Truth": bool(truth),
        },
    )
    summary = _summary(scans, found, tracks, notes)
    if pair_model is not None:
        rows = []
        for number, pair in enumerate(pairwise(scans), start=1):
            progress(f"new lesions of visit {pair[1].session}: {pair_model.name}", number, total)
            rows.append(predict_pair(ScanPair(*pair), output, pair_model)[0])
        summary[f"new by {pair_model.name}"] = [None, *(row["lesions"] for row in rows)]
    write_table(output / "visits.tsv", summary)
    scores = score_visits(found, truth) if truth else None
    if scores is not None:
        write_table(output / "scores.tsv", scores)
    quality = (*notes, *changed_notes, *also_judged)
    page = write_comparison_page(output)
    shown = summary.drop(columns="quality_reasons")
    return Comparison(shown, tracks, tuple(found), tuple(to_common), scores, page, quality)


def score_visits(found: Sequence[Found], truth: Sequence[Instances]) -> pd.DataFrame:
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
    scans = find_scans(paths)
    if len(paths) > len(scans) == 1:
        raise InputError(f"{scans[0].path}: named twice, but visits need a scan each")
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
                    f"{scans[number].path}: of the same session as {first}; name one scan a visit"
                )
        return scans
    return [
        replace(scan, entities=replace(scan.entities, sub=scans[0].subject, ses=f"{number:02d}"))
        for number, scan in enumerate(scans, start=1)
    ]


def _subject(scan: FoundScan) -> str:
    """As the file's name states it: two scans that would be named alike were told apart."""
    entities = parse_name(scan.path)
    return scan.subject if entities is None else entities.sub


def _image(found: Found) -> Volume:
    return next(iter(found.visit.scans.values()))


def _with_lesions(found: Found, lesions: Instances) -> Found:
    """What was found with the lesions that following added to the main ones and to the mask."""
    name, before = found.main
    if lesions is before:
        return found
    mask = Volume(found.mask.array | ((lesions.labels > 0) & (before.labels == 0)), lesions.grid)
    return replace(found, instances={**found.instances, name: lesions}, mask=mask)


def _with_states(lesions: pd.DataFrame, main: str, tracks: Tracks, visit: int) -> pd.DataFrame:
    rows = tracks.lineages[(tracks.lineages["visit"] == visit) & (tracks.lineages["label"] > 0)]
    of_label = rows.set_index("label")[["lineage", "state", "ambiguous"]].astype(object)
    joined = lesions.join(of_label, on="label")
    joined.loc[joined["method"] != main, list(of_label.columns)] = None
    return joined


def _write_changes(
    output: Path,
    scan: FoundScan,
    found: Found,
    tracks: Tracks,
    visit: int,
    common: Volume,
    *,
    mask: bool,
    series: Series | None = None,
) -> None:
    rows = tracks.lineages[(tracks.lineages["visit"] == visit) & (tracks.lineages["label"] > 0)]
    lesions = found.main[1]
    code = np.zeros(int(lesions.labels.max()) + 1, dtype=np.uint8)
    code[rows["label"].to_numpy()] = [STATES.index(state) + 1 for state in rows["state"]]
    states = code[lesions.labels]
    new = states == STATES.index("new") + 1
    grid = read_grid(scan.path)
    legend = {str(number): state for number, state in enumerate(STATES, start=1)}
    about = {"Sources": [str(scan.path)], "Labels": legend}

    def path(suffix: str, extension: str = ".nii.gz", **stated: str) -> Path:
        return derivative_path(output, scan.entities, suffix, extension, **stated)

    if mask:
        write_volume(path("mask", desc="new"), Volume(new, lesions.grid), grid=grid)
        if series is not None:
            new_lesions = Volume(new, lesions.grid)
            write_dicom(path("mask", ".dcm", desc="new"), new_lesions, series, "new lesions")
    write_volume(path("dseg", desc="change"), Volume(states, lesions.grid), grid=grid)
    write_json(path("dseg", ".json", desc="change"), about)
    write_volume(path("dseg", desc="change", space="baseline"), common)
    write_json(path("dseg", ".json", desc="change", space="baseline"), about)


def _summary(
    scans: Sequence[FoundScan],
    found: Sequence[Found],
    tracks: Tracks,
    notes: Sequence[QualityNote],
) -> pd.DataFrame:
    counts = tracks.counts()
    rows = []
    for number, (scan, visit) in enumerate(zip(scans, found, strict=True)):
        row: dict[str, object] = {
            "visit": scan.session,
            "quality": notes[number].grade,
            "lesions": len(np.unique(visit.main[1].labels)) - 1,
            "volume_ml": float(visit.mask.array.sum() * visit.mask.grid.voxel_volume_mm3 / 1000),
        }
        for state in STATES:
            if state != "baseline":
                row[state] = int(counts[state].get(number, 0))
        row["quality_reasons"] = "; ".join(notes[number].reasons) or None
        rows.append(row)
    return pd.DataFrame(rows)
