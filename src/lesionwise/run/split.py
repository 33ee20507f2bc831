"""The command ``split``: lesions from any other tool's mask or probability map."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import lesionwise
from lesionwise import defaults
from lesionwise.defaults import Separation
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, ConnectedComponents
from lesionwise.instances.confluent import Acls
from lesionwise.instances.describe import describe_lesions
from lesionwise.instances.filters import DropSmall
from lesionwise.io.dataset import is_ours
from lesionwise.io.nifti import read_grid, read_map
from lesionwise.io.record import sha256
from lesionwise.results.folder import source_of
from lesionwise.results.lesion_set import LesionSet
from lesionwise.results.split import (
    ENDINGS,
    MapFiles,
    MapRecord,
    check_map_input,
    check_split_output,
    is_split_result,
    write_map,
    write_map_tables,
)
from lesionwise.run.pairing import label_files, listed_files
from lesionwise.types import InputError, LesionMaps, Progress, ToInstances, no_progress


@dataclass(frozen=True, eq=False)
class SplitResult:
    """What was written, and one row per map.

    Attributes:
        summary: map, kind, lesions before the size filter, lesions, volume_mm3.
        failures: by file, why it gave nothing.
        written: the instance map of each map that went well.
    """

    summary: pd.DataFrame
    failures: dict[str, str]
    written: tuple[Path, ...]


def split(
    maps: Sequence[Path],
    output: Path,
    *,
    method: Separation = defaults.SPLIT_METHOD,
    threshold: float = defaults.THRESHOLD,
    connectivity: int | None = None,
    min_volume_mm3: float = defaults.MIN_VOLUME_MM3,
    min_extent_mm: float = defaults.MIN_EXTENT_MM,
    progress: Progress = no_progress,
) -> SplitResult:
    """Separate the lesions of masks or probability maps and write instance maps.

    Needs no torch. For each map ``NAME.nii.gz`` it writes ``NAME_seg-<method>_dseg.nii.gz`` on
    the map's own grid, a ``.tsv`` with one row per lesion and a ``.json`` that says what made it,
    and ``lesions.tsv`` for all maps of the folder together, to which later calls add. Names that
    BIDS ends with ``_mask`` or ``_probseg`` lose that ending.

    Args:
        maps: masks (0 and one other value) or probabilities in [0, 1]; of a folder, every NIfTI
            file below it that is no scan by its name and no result (``maps_below``).
        method: ``acls`` or ``cc``; ``offsets`` needs a network's maps and is refused.
        threshold: lesion is probability > threshold; a mask is taken as it is.
        connectivity: 6, 18 or 26; None takes the project's default.
        min_volume_mm3, min_extent_mm: smaller lesions are dropped; 0 keeps them.

    Raises:
        InputError: For settings that cannot hold or are not those that the folder was begun
            with, if the folder is one of those that are read or holds tables of something else,
            and for an error in a single map; among several, errors are listed in
            ``failures.tsv`` and the others continue.
    """
    given = maps
    maps = maps_of(given, output)
    if method == "offsets":
        raise InputError("--method offsets: needs the offsets of a network; use acls or cc")
    if connectivity not in (None, 6, 18, 26):
        raise InputError(f"--connectivity {connectivity}: must be 6, 18 or 26")
    neighbors = connectivity or DEFAULT_CONNECTIVITY
    separate: ToInstances = (
        Acls(connectivity=neighbors) if method == "acls" else ConnectedComponents(neighbors)
    )
    drop_small = DropSmall(min_volume_mm3=min_volume_mm3, min_extent_mm=min_extent_mm)
    settings = {
        "method": method,
        "threshold": threshold,
        "connectivity": neighbors,
        "min_volume_mm3": min_volume_mm3,
        "min_extent_mm": min_extent_mm,
        "version": lesionwise.__version__,
    }
    check_split_output(output, settings, given)
    summary, written = [], []
    failures: dict[str, str] = {}
    names: dict[str, Path] = {}
    for done, (path, name) in enumerate(zip(maps, map_names(maps), strict=True)):
        progress(path.name, done, len(maps))
        files = MapFiles(output, name, method)
        try:
            if files.name in names:
                raise InputError(
                    f"{path}: its results would overwrite those of {names[files.name]}"
                )
            names[files.name] = path
            digest = sha256(path)
            check_map_input(files, path, digest)
            volume, kind = read_map(path)
            mask = volume.array > (0 if kind == "mask" else threshold)
            found = LesionMaps(volume.array.astype(np.float32), volume.grid)
            # Before and after the size filter: the printed table has both counts.
            every = separate(found, mask)
            lesions = drop_small(every)
            probability = None if kind == "mask" else volume.array
            table = describe_lesions(lesions, probability=probability)
            record = MapRecord(
                sources=(source_of(path),),
                input=kind,
                method=repr(separate),
                connectivity=neighbors,
                size_filter=repr(drop_small),
                threshold=None if kind == "mask" else threshold,
                settings={**settings, "map": digest},
            )
            write_map(files, record, LesionSet(lesions, table), read_grid(path))
        except InputError as error:
            failures[str(path)] = str(error)
            if len(maps) > 1:
                continue
            # Nothing was made, but the folder lists the failure of this call too.
            write_map_tables(output, maps, failures)
            raise
        written.append(files.instances)
        summary.append(
            {
                "map": files.name,
                "kind": kind,
                "lesions, any size": len(np.unique(every.labels[every.labels > 0])),
                "lesions": len(table),
                "volume_mm3": round(float(table["volume_mm3"].sum()), 1),
            }
        )
    write_map_tables(output, maps, failures)
    columns = ["map", "kind", "lesions, any size", "lesions", "volume_mm3"]
    return SplitResult(pd.DataFrame(summary, columns=columns), failures, tuple(written))


def maps_of(paths: Sequence[Path], output: Path | None = None) -> list[Path]:
    """The files themselves, and of each folder those of ``maps_below`` that are no scans by name.

    Raises:
        InputError: If a folder holds none.
    """
    found: list[Path] = []
    for path in paths:
        found += label_files(maps_below(path, output)) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def maps_below(folder: Path, output: Path | None = None) -> list[Path]:
    """The NIfTI files below a folder that are no results of this package.

    Left out are the folder for the results and other results folders below the one that is named,
    maps that ``split`` wrote, and what ``run.pairing`` leaves out.

    Raises:
        InputError: If none is left.
    """
    own = None if output is None else os.path.realpath(output)
    places: dict[Path, bool] = {folder: False}

    def holds_results(place: Path) -> bool:
        if place not in places:
            places[place] = (
                holds_results(place.parent) or os.path.realpath(place) == own or is_ours(place)
            )
        return places[place]

    files = [
        file
        for file in listed_files(folder)
        if not holds_results(file.parent) and not is_split_result(file)
    ]
    if not files:
        raise InputError(f"{folder}: holds no map but results of lesionwise; name the files")
    return files


def map_name(path: Path) -> str:
    """The name of a map's results: its own, without extension and the endings of BIDS.

    Example:
        >>> map_name(Path("EXPERT_MASK.NII.GZ"))
        'EXPERT'
    """
    name = _stem(path)
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
    return name


def map_names(paths: Sequence[Path]) -> list[str]:
    """The names of several maps' results, in their order.

    Names that would be alike keep their whole stem, and where that does not tell them apart, the
    names of their folders stand in front.

    Example:
        >>> map_names([Path("anna/lesions.nii.gz"), Path("bert/lesions.nii.gz")])
        ['anna_lesions', 'bert_lesions']
    """
    names = [map_name(path) for path in paths]
    stems = [_stem(path) for path in paths]
    parents = [_plain(path.absolute().parent.name) for path in paths]
    folders = [[parent, stem] for parent, stem in zip(parents, stems, strict=True)]
    for better in (stems, ["_".join(filter(None, both)) for both in folders]):
        counts = Counter(names)
        names = [new if counts[old] > 1 else old for old, new in zip(names, better, strict=True)]
    return names


def _stem(path: Path) -> str:
    name = path.name
    for ending in (".gz", ".nii"):
        if name.lower().endswith(ending) and len(name) > len(ending):
            name = name[: -len(ending)]
    return _plain(name)


def _plain(name: str) -> str:
    """A name that a record can hold: signs that no file of another system has become ``%e9``."""
    return "".join(f"%{ord(sign) & 0xFF:02x}" if _is_odd(sign) else sign for sign in name)


def _is_odd(sign: str) -> bool:
    return sign in "\\:" or unicodedata.category(sign) in ("Cc", "Cs")
