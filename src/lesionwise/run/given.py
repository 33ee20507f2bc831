"""Lesions of other tools, taken through the same path as those of the models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lesionwise import defaults
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, ConnectedComponents
from lesionwise.instances.filters import DropSmall
from lesionwise.io.bids import FoundScan, find_scans
from lesionwise.io.nifti import read_map
from lesionwise.io.record import OTHER_FOLDER
from lesionwise.methods.given import GivenLesions, JoinToBrain
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.recipe import Citation, Recipe
from lesionwise.results.folder import check_folder_settings, check_output
from lesionwise.results.names import ScanFiles, scan_title
from lesionwise.results.quality import QualityNote
from lesionwise.run.find_lesions import FindOptions
from lesionwise.run.images import match_images
from lesionwise.run.load_model import LoadedModel
from lesionwise.run.pairing import label_cases, named_differently
from lesionwise.run.segment import (
    SegmentResult,
    find_and_write,
    model_settings,
    open_scan,
    read_scan,
    segment_result,
    write_tables,
)
from lesionwise.run.split import maps_below, maps_of
from lesionwise.types import InputError, Progress, RunContext, no_progress, stages_of

GIVEN = "given lesions"
"""What the results of other tools' masks name in the place of a model."""


def given_model(
    path: Path,
    *,
    threshold: float = defaults.THRESHOLD,
    connectivity: int | None = None,
    min_volume_mm3: float = defaults.MIN_VOLUME_MM3,
    min_extent_mm: float = defaults.MIN_EXTENT_MM,
) -> LoadedModel:
    """A model that finds what a mask or probability map says.

    Its recipe extracts the brain, for registration and locations; lesions outside of it count as
    brain. Lesions are connected components of the map.

    Args:
        path: NIfTI on the voxels of the scan.
        threshold: lesion is probability > threshold; a mask is taken as it is.
        connectivity: 6, 18 or 26; None takes the project's default.
        min_volume_mm3, min_extent_mm: smaller lesions are dropped; 0 keeps them.

    Raises:
        InputError: If the file is missing or no map.
    """
    read_map(path)  # an error shows before anything is computed
    return _model_of(path, threshold, connectivity, min_volume_mm3, min_extent_mm)


def _model_of(
    path: Path,
    threshold: float,
    connectivity: int | None,
    min_volume_mm3: float,
    min_extent_mm: float,
) -> LoadedModel:
    given = GivenLesions(path)
    neighbors = connectivity or DEFAULT_CONNECTIVITY
    name = GIVEN if neighbors == DEFAULT_CONNECTIVITY else f"{GIVEN}, {neighbors} neighbors"
    recipe = Recipe(
        citation=Citation(title=GIVEN),
        scans=("flair",),
        preprocess=(ExtractBrain(), JoinToBrain(given, threshold)),
        method=given,
        to_instances=ConnectedComponents(neighbors),
        threshold=threshold,
        refine=(DropSmall(min_volume_mm3=min_volume_mm3, min_extent_mm=min_extent_mm),),
    )
    described = {"recipe": GIVEN, "overrides": []}
    return LoadedModel(recipe, given.load(RunContext(path.parent)), name, "", described)


def given_models(
    paths: Sequence[Path], scans: Sequence[Path], threshold: float | None = None
) -> list[LoadedModel]:
    """A model for each scan, from one map each.

    Args:
        threshold: as for ``given_model``; None takes the project's default.

    Raises:
        InputError: If there is not one map for each scan, one cannot be read, or names state
            different subjects or sessions.
    """
    if len(paths) != len(scans):
        raise InputError(f"--lesions: {len(paths)} given for {len(scans)} scans; give one for each")
    for path, scan in zip(paths, scans, strict=True):
        check_names(path, scan)
    cut = defaults.THRESHOLD if threshold is None else threshold
    return [given_model(path, threshold=cut) for path in paths]


def check_names(path: Path, scan: Path) -> None:
    """Refuse a map whose name states another subject or session than that of its scan."""
    if named_differently(path, scan):
        raise InputError(
            f"{path}: by their names, this map and its scan {scan} belong to different visits; "
            "give maps in the order of the scans"
        )


def maps_on_scans(
    maps: Sequence[Path], scans: Sequence[Path], output: Path | None = None
) -> tuple[list[tuple[Path, FoundScan]], dict[str, str]]:
    """Each map with its scan, and the error of each map without one.

    Files are taken in their order. A folder of maps and a folder of scans are paired by the
    names of the files, as ``evaluate`` pairs them; scans without a map are left out.

    Args:
        output: where results of this call go; maps in it and other results are not searched
            (``run.split.maps_below``).

    Raises:
        InputError: If the numbers of files differ, their names state different subjects or
            sessions, or nothing of two folders pairs.
    """
    found = find_scans(scans)
    folders = len(maps) == len(scans) == 1 and maps[0].is_dir() and scans[0].is_dir()
    if not folders or any(scan.kind == "dicom" for scan in found):
        files = maps_of(maps, output)
        if len(files) != len(found):
            raise InputError(f"--scan: {len(found)} scans for {len(files)} maps; give one for each")
        for path, scan in zip(files, found, strict=True):
            check_names(path, scan.path)
        return list(zip(files, found, strict=True)), {}
    cases, errors = label_cases(maps[0], maps_below(maps[0], output))
    by_path = {scan.path: scan for scan in found}
    matched = match_images(list(by_path), cases, maps[0])
    pairs: dict[Path, Path] = {}
    for case, path in cases.items():
        image = matched.get(case)
        if image is None:
            errors[str(path)] = f"{path}: no scan in {scans[0]} is named like it"
        elif image in pairs:
            errors[str(path)] = f"{path}: {pairs[image].name} is a map of the same scan"
        else:
            pairs[image] = path
    if not pairs:
        raise InputError(f"{maps[0]}: no map in it is named like a scan in {scans[0]}")
    return [(path, by_path[image]) for image, path in pairs.items()], errors


def split_on_scans(
    maps: Sequence[Path],
    scans: Sequence[Path],
    output: Path,
    *,
    method: Literal["acls", "cc"] = "acls",
    threshold: float = defaults.THRESHOLD,
    connectivity: int | None = None,
    min_volume_mm3: float = defaults.MIN_VOLUME_MM3,
    min_extent_mm: float = defaults.MIN_EXTENT_MM,
    extract_brain: bool = True,
    progress: Progress = no_progress,
) -> SegmentResult:
    """Separate the lesions of other tools' maps and show them on their scans.

    Writes what ``segment`` writes: mask, instances, tables with locations and intensities, and a
    page a scan.

    Args:
        maps: masks or probability maps, one for each scan, in the order of ``scans``; or a folder.
        scans: FLAIR scans on whose voxels the maps lie; or a folder (``maps_on_scans``).
        extract_brain: off for scans that hold nothing but brain.

    Raises:
        InputError: As for ``run.segment.segment``; also where the numbers differ or a map does
            not lie on the voxels of its scan.
    """
    pairs, failures = maps_on_scans(maps, scans, output)
    # A failure is that of a map; the scans are named for folders that were begun before.
    inputs = [*(place for path, scan in pairs for place in (path, scan.path)), *map(Path, failures)]
    also: Literal["acls", "cc"] = "cc" if method == "acls" else "acls"
    options = FindOptions(
        instances=method, also=(also,), threshold=threshold, extract_brain=extract_brain
    )
    check_output(output, [*scans, *maps])
    limits = (threshold, connectivity, min_volume_mm3, min_extent_mm)
    like_all = _model_of(pairs[0][0], *limits)
    check_folder_settings(output, model_settings(like_all, options), remedy=OTHER_FOLDER)
    done: list[str] = []
    notes: list[QualityNote] = []
    for number, (path, scan) in enumerate(pairs):
        on_progress = stages_of(scan_title(scan.entities), number, len(pairs), progress)
        try:
            read_map(path)  # an error shows before the scan is opened
            model = _model_of(path, *limits)
            opened = open_scan(scan, output, model, options, lesions=path)
            record = opened.done
            if record is None:
                on_progress("read")
                study = read_scan(opened.scan.path, scan.subject, scan.session)
                record = find_and_write(study, scan, opened, output, model, options, on_progress)
        except InputError as error:
            failures[str(path)] = str(error)
            if len(pairs) > 1:
                continue
            # Nothing was made, but the folder lists the failure of this call too.
            write_tables(output, inputs, failures)
            raise
        done.append(ScanFiles(output, scan.entities).name)
        notes += record.notes
    tables = write_tables(output, inputs, failures)
    return segment_result(output, tables, done, failures, notes, single=len(pairs) == 1)
