"""The command ``predict`` for models that look at two visits: new lesions of each pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

import lesionwise
from lesionwise.instances.components import DEFAULT_CONNECTIVITY
from lesionwise.instances.describe import describe_lesions
from lesionwise.io.bids import (
    FoundScan,
    derivative_path,
    dseg_table,
    find_scans,
    write_dataset_description,
)
from lesionwise.io.files import check_writable, read_json, read_table, write_json, write_table
from lesionwise.io.nifti import read_grid, read_volume, write_volume
from lesionwise.report.folder import write_pair_page
from lesionwise.run.find import FindOptions, Found, find_lesions
from lesionwise.run.gate import check_order
from lesionwise.run.locations import add_locations
from lesionwise.run.predict import LoadedModel, load_model, sha256_of
from lesionwise.run.segment import as_nifti
from lesionwise.types import InputError, Progress, Study, Visit, Volume, silent

PAIR_COLUMNS = ("subject", "baseline", "followup", "lesions", "volume_ml", "seconds", "page")


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


def find_pairs(paths: Sequence[Path]) -> list[ScanPair]:
    """Every two visits of a patient that follow each other.

    Scans are grouped by the subject their names state. Two files whose names do not state a
    session are one patient's baseline and follow-up, in the order given.

    Raises:
        InputError: If no patient has two visits.
    """
    scans = find_scans(paths)
    if len(scans) == 2 and not all(scan.session for scan in scans):
        first, last = (
            replace(scan, entities=replace(scan.entities, sub=scans[0].subject, ses=f"{n:02d}"))
            for n, scan in enumerate(scans, start=1)
        )
        return [ScanPair(first, last)]
    by_subject: dict[str, list[FoundScan]] = {}
    for scan in scans:
        by_subject.setdefault(scan.subject, []).append(scan)
    pairs = [
        ScanPair(before, after)
        for visits in by_subject.values()
        for before, after in pairwise(visits)
    ]
    if not pairs:
        raise InputError(f"{paths[0]}: no patient with two visits; this model compares two")
    return pairs


def predict_pairs(
    scans: Sequence[Path],
    output: Path,
    *,
    model: str | Path | LoadedModel,
    options: FindOptions = FindOptions(),  # noqa: B008  (frozen)
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = silent,
) -> PredictedPairs:
    """New lesions of every pair of visits that follow each other, by a two-visit model.

    Under the follow-up's name (the baseline's where the recipe returns results on its grid):
    ``desc-new`` probability, mask and instances with their table, each with a sidecar, and a
    page. ``new_lesions.tsv`` holds every new lesion, ``pairs.tsv`` a row per pair,
    ``failures.tsv`` the pairs that gave nothing. A pair whose sidecar stands and names the same
    files, model and settings is not done again.

    Raises:
        InputError: If no patient has two visits, and when a single pair is at fault; among
            several the fault is listed and the others go on.
    """
    pairs = find_pairs(scans)
    check_writable(output)
    loaded = model if isinstance(model, LoadedModel) else load_model(model, device=device)
    failures: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    for done, pair in enumerate(pairs):

        def told(stage: str, done: int = done, pair: ScanPair = pair) -> None:
            progress(f"{pair.title}: {stage}", done, len(pairs))

        try:
            row, table = predict_pair(pair, output, loaded, options, overwrite, told)
        except InputError as fault:
            if len(pairs) == 1:
                raise
            failures[pair.title] = str(fault)
            continue
        if not rows:
            write_dataset_description(output, "lesionwise predict")
        rows.append(row)
        tables.append(table)
    progress("write", len(pairs), len(pairs))
    if tables:
        write_table(output / "new_lesions.tsv", pd.concat(tables, ignore_index=True))
    failed = output / "failures.tsv"
    if failures:
        write_table(failed, [{"pair": name, "fault": fault} for name, fault in failures.items()])
    else:
        failed.unlink(missing_ok=True)
    summary = pd.DataFrame(rows, columns=list(PAIR_COLUMNS))
    write_table(output / "pairs.tsv", summary)
    pages = tuple(output / row["page"] for row in rows)
    return PredictedPairs(summary.drop(columns="page"), failures, pages)


def predict_pair(
    pair: ScanPair,
    output: Path,
    model: LoadedModel,
    options: FindOptions = FindOptions(),  # noqa: B008  (frozen)
    overwrite: bool = False,
    told: Callable[[str], None] = lambda stage: None,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """A row and a table of the new lesions of one pair, whose maps are written."""
    check_order((pair.baseline, pair.followup))
    pair = ScanPair(as_nifti(pair.baseline, output), as_nifti(pair.followup, output))
    target = pair.baseline if model.recipe.output.grid == "baseline" else pair.followup
    settings = _settings(pair, model, options)
    sidecar = derivative_path(output, target.entities, "mask", ".json", desc="new")
    if not overwrite and sidecar.exists():
        before = read_json(sidecar)
        if before.get("Settings") == settings:
            table = derivative_path(
                output, target.entities, "dseg", ".tsv", desc="new", seg=before["Method"]
            )
            known = read_table(table).rename(columns={"index": "label"})
            return before["Summary"], _identified(known, pair)
    told("read")
    found = find_lesions(read_pair(pair, model), model, options, told)
    told("write")
    return _write(found, pair, target, output, model, settings)


def read_pair(pair: ScanPair, model: LoadedModel) -> Study:
    """The study of a pair, with the one scan per visit that the model takes."""
    name = model.recipe.scans[0]
    visits = tuple(
        Visit({name: read_volume(scan.path)}, session=scan.session)
        for scan in (pair.baseline, pair.followup)
    )
    return Study(pair.followup.subject, visits)


def _write(
    found: Found,
    pair: ScanPair,
    target: FoundScan,
    output: Path,
    model: LoadedModel,
    settings: dict[str, Any],
) -> tuple[dict[str, Any], pd.DataFrame]:
    prepared = model.recipe.output.grid == "prepared"
    grid = found.mask.grid if prepared else read_grid(target.path)
    sources = [str(pair.baseline.path), str(pair.followup.path)]
    made = {
        "Sources": sources,
        "GeneratedBy": {"Name": "lesionwise predict", "Version": lesionwise.__version__},
        "Recipe": model.name,
        "Source": model.recipe.source,
        "ModelHash": model.sha256,
        "Departures": list(model.recipe.departures),
    }

    def path(suffix: str, extension: str = ".nii.gz", **stated: str) -> Path:
        return derivative_path(output, target.entities, suffix, extension, desc="new", **stated)

    method, instances = found.main
    write_volume(path("probseg"), found.probability, grid=grid)
    write_json(path("probseg", ".json"), made)
    image = next(iter(found.visit.scans.values())).array
    tables = {method: describe_lesions(instances, image, found.probability.array)}
    found, tables = add_locations(found, tables)
    table = tables[method]
    write_volume(path("dseg", seg=method), Volume(instances.labels, instances.grid), grid=grid)
    named = dseg_table(table["label"]).join(table.drop(columns="label"))
    write_table(path("dseg", ".tsv", seg=method), named)
    filters = {"Method": method, "Connectivity": DEFAULT_CONNECTIVITY}
    write_json(path("dseg", ".json", seg=method), made | filters)
    write_volume(path("mask"), found.mask, grid=grid)
    volume_ml = float(found.mask.array.sum() * found.mask.grid.voxel_volume_mm3 / 1000)
    name = f"sub-{target.subject}_ses-{pair.baseline.session}_ses-{pair.followup.session}_new"
    shown = target.path
    if prepared:
        shown = path(next(iter(found.visit.scans)).upper())
        write_volume(shown, next(iter(found.visit.scans.values())))
    write_volume(path("mask", label="brain"), found.brain, grid=grid)
    summary = {
        "subject": target.subject,
        "baseline": pair.baseline.session,
        "followup": pair.followup.session,
        "lesions": len(table),
        "volume_ml": volume_ml,
        "seconds": round(sum(found.seconds.values()), 1),
        "page": f"{name}.html",
    }
    write_json(
        path("mask", ".json"),
        {
            **made,
            "Type": "Lesion",
            "Threshold": found.threshold,
            "Method": method,
            "Seconds": {stage: round(time, 2) for stage, time in found.seconds.items()},
            "Settings": settings,
            "Shown": str(shown),
            "Warnings": list(found.warnings),
            "Summary": summary,
        },
    )
    write_pair_page(output, target.entities)
    return summary, _identified(table, pair)


def _identified(table: pd.DataFrame, pair: ScanPair) -> pd.DataFrame:
    rows = table.drop(columns=["name", "abbreviation", "color", "mapping"], errors="ignore")
    rows.insert(0, "subject", pair.followup.subject)
    rows.insert(1, "baseline", pair.baseline.session)
    rows.insert(2, "followup", pair.followup.session)
    return rows


def _settings(pair: ScanPair, model: LoadedModel, options: FindOptions) -> dict[str, Any]:
    """All that decides the results of one pair, as it reads back from JSON."""
    settings = asdict(options)
    settings["also"] = list(options.also)
    settings["scans"] = [sha256_of(scan.path) for scan in (pair.baseline, pair.followup)]
    settings["model"] = model.sha256
    settings["recipe"] = model.name
    settings["version"] = lesionwise.__version__
    return settings
