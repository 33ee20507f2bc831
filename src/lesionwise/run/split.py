"""The command ``split``: lesions from any other tool's mask or probability map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

import lesionwise
from lesionwise.instances.components import DEFAULT_CONNECTIVITY, ConnectedComponents
from lesionwise.instances.confluent import Acls
from lesionwise.instances.describe import describe_lesions
from lesionwise.instances.filters import DropSmall
from lesionwise.io.files import check_writable, write_json, write_table
from lesionwise.io.nifti import read_grid, read_map, write_volume
from lesionwise.types import InputError, LesionMaps, Progress, ToInstances, Volume, silent


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
    method: Literal["acls", "cc", "offsets"] = "acls",
    threshold: float = 0.5,
    connectivity: int | None = None,
    min_volume_mm3: float = 14.0,
    min_extent_mm: float = 3.0,
    progress: Progress = silent,
) -> SplitResult:
    """Tell the lesions of masks or probability maps apart and write instance maps.

    Needs no torch. For each map ``NAME.nii.gz`` it writes ``NAME_seg-<method>_dseg.nii.gz`` on
    the map's own grid, a ``.tsv`` with one row per lesion and a ``.json`` that says what made it,
    and ``lesions.tsv`` for all maps together. Names that BIDS ends with ``_mask`` or ``_probseg``
    lose that ending.

    Args:
        maps: masks (0 and one other value) or probabilities in [0, 1].
        method: ``acls`` or ``cc``; ``offsets`` needs a network's maps and is refused.
        threshold: lesion is probability > threshold; a mask is taken as it is.
        connectivity: 6, 18 or 26; None takes the project's default.
        min_volume_mm3, min_extent_mm: smaller lesions are dropped; 0 keeps them.

    Raises:
        InputError: For settings that cannot hold, and when there is one map and it is at fault;
            with several maps, faults are listed and the others go on.
    """
    if method == "offsets":
        raise InputError("--method offsets: needs the offsets of a network; use acls or cc")
    if connectivity not in (None, 6, 18, 26):
        raise InputError(f"--connectivity {connectivity}: must be 6, 18 or 26")
    neighbors = connectivity or DEFAULT_CONNECTIVITY
    separate: ToInstances = (
        Acls(connectivity=neighbors) if method == "acls" else ConnectedComponents(neighbors)
    )
    drop_small = DropSmall(min_volume_mm3=min_volume_mm3, min_extent_mm=min_extent_mm)
    check_writable(output)
    summary, tables, written = [], [], []
    failures: dict[str, str] = {}
    names: dict[str, Path] = {}
    for done, path in enumerate(maps):
        progress(path.name, done, len(maps))
        name = _stem(path)
        try:
            if name in names:
                raise InputError(f"{path}: its results would overwrite those of {names[name]}")
            names[name] = path
            volume, kind = read_map(path)
            mask = volume.array > (0 if kind == "mask" else threshold)
            found = LesionMaps(volume.array.astype(np.float32), volume.grid)
            every = separate(found, mask)
            lesions = drop_small(every)
            target = output / f"{name}_seg-{method}_dseg.nii.gz"
            write_volume(target, Volume(lesions.labels, lesions.grid), grid=read_grid(path))
            probability = None if kind == "mask" else volume.array
            table = describe_lesions(lesions, probability=probability)
            write_table(_beside(target, ".tsv"), table)
            write_json(
                _beside(target, ".json"),
                {
                    "Sources": [path.name],
                    "GeneratedBy": {"Name": "lesionwise split", "Version": lesionwise.__version__},
                    "Input": kind,
                    "Method": repr(separate),
                    "Threshold": None if kind == "mask" else threshold,
                    "Connectivity": neighbors,
                    "SizeFilter": repr(drop_small),
                },
            )
        except InputError as fault:
            if len(maps) == 1:
                raise
            failures[str(path)] = str(fault)
            continue
        tables.append(table.assign(map=name))
        written.append(target)
        summary.append(
            {
                "map": name,
                "kind": kind,
                "lesions, any size": len(np.unique(every.labels[every.labels > 0])),
                "lesions": len(table),
                "volume_mm3": float(table["volume_mm3"].sum()),
            }
        )
    if tables:
        both = pd.concat(tables, ignore_index=True)
        write_table(output / "lesions.tsv", both[["map", *both.columns.drop("map")]])
    if failures:
        rows = [{"file": name, "fault": fault} for name, fault in failures.items()]
        write_table(output / "failures.tsv", rows)
    columns = ["map", "kind", "lesions, any size", "lesions", "volume_mm3"]
    return SplitResult(pd.DataFrame(summary, columns=columns), failures, tuple(written))


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return name.removesuffix("_mask").removesuffix("_probseg")


def _beside(image: Path, suffix: str) -> Path:
    return image.with_name(image.name.removesuffix(".nii.gz") + suffix)
