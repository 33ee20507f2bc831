"""Lesions by one separation method: an instance map with its table, written and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionwise.io.bids import dseg_table
from lesionwise.io.files import write_json, write_table
from lesionwise.io.nifti import read_labels, write_volume
from lesionwise.results.columns import LABEL_COLUMNS, read_typed, rounded
from lesionwise.results.names import PairFiles, ScanFiles, beside
from lesionwise.types import Grid, InputError, Instances, Volume


@dataclass(frozen=True, eq=False)
class LesionSet:
    """Lesions by one separation method.

    Attributes:
        instances: n lesions.
        table: n rows with label and the columns of ``columns.MEASURES``, by ascending label.
    """

    instances: Instances
    table: pd.DataFrame


def write_lesions(
    path: Path, lesions: LesionSet, about: Mapping[str, Any], grid: Grid | None
) -> list[Path]:
    """Write an instance map with its table and its sidecar; the paths of map and table.

    Example:
        >>> labels = np.zeros((4, 4, 4), dtype=np.int32)
        >>> labels[1:3, 1:3, 1:3] = 1
        >>> grid = Grid((4, 4, 4), np.eye(4))
        >>> table = pd.DataFrame({"label": [1], "volume_mm3": [8.0]})
        >>> lesions = LesionSet(Instances(labels, grid), table)
        >>> paths = write_lesions(Path("a_dseg.nii.gz"), lesions, {"Method": "cc"}, grid)
        >>> [path.name for path in paths]
        ['a_dseg.nii.gz', 'a_dseg.tsv']
    """
    write_volume(path, Volume(lesions.instances.labels, lesions.instances.grid), grid=grid)
    table = rounded(lesions.table, LABEL_COLUMNS).reset_index(drop=True)
    named = dseg_table(table["label"]).join(table.drop(columns="label"))
    write_table(beside(path, ".tsv"), named)
    write_json(beside(path, ".json"), about)
    return [path, beside(path, ".tsv")]


def read_lesions(files: ScanFiles | PairFiles, method: str) -> LesionSet:
    """The instances of a scan by one method, with their table.

    Raises:
        InputError: If a file is missing or malformed.

    Example:
        >>> from lesionwise.io.names import Entities
        >>> files = ScanFiles(Path("out"), Entities(sub="01"))
        >>> grid = Grid((4, 4, 4), np.eye(4))
        >>> labels = np.zeros((4, 4, 4), dtype=np.int32)
        >>> labels[1:3, 1:3, 1:3] = 1
        >>> lesions = LesionSet(
        ...     Instances(labels, grid), pd.DataFrame({"label": [1], "volume_mm3": [8.0]})
        ... )
        >>> _ = write_lesions(files.instances("cc"), lesions, {"Method": "cc"}, grid)
        >>> found = read_lesions(files, "cc")
        >>> found.table["label"].tolist(), int(found.instances.labels.sum())
        ([1], 8)
    """
    volume = read_labels(files.instances(method))
    labels = volume.array.astype(np.int32, copy=False)
    return LesionSet(Instances(labels, volume.grid), read_lesion_table(files, method))


def read_lesion_table(files: ScanFiles | PairFiles, method: str) -> pd.DataFrame:
    """A row a lesion: label and measures.

    Raises:
        InputError: If the file is missing or malformed.

    Example:
        >>> from lesionwise.io.names import Entities
        >>> files = ScanFiles(Path("out"), Entities(sub="01"))
        >>> table = beside(files.instances("cc"), ".tsv")
        >>> write_table(table, [{"index": 1, "volume_mm3": 8.5}, {"index": 2, "volume_mm3": 20.0}])
        >>> len(read_lesion_table(files, "cc"))
        2
    """
    path = beside(files.instances(method), ".tsv")
    table = read_typed(path).rename(columns={"index": "label"})
    table = table.loc[:, ~table.columns.duplicated()]
    if "label" not in table or "volume_mm3" not in table:
        raise InputError(f"{path}: lacks the columns index and volume_mm3")
    if table[["label", "volume_mm3"]].isna().any(axis=None):
        raise InputError(f"{path}: a lesion has no label or no volume")
    if not table["label"].between(1, 2**31 - 1).all():
        raise InputError(f"{path}: a label is not the number of a lesion")
    table["label"] = table["label"].astype(np.int64)
    return table.drop(columns=["name", "abbreviation", "color", "mapping"], errors="ignore")


def volume_ml(mask: Volume) -> float:
    """Volume of a mask in ml, to four places.

    Example:
        >>> volume_ml(Volume(np.ones((10, 10, 10), dtype=bool), Grid((10, 10, 10), np.eye(4))))
        1.0
    """
    return round(float((mask.array != 0).sum() * mask.grid.voxel_volume_mm3 / 1000), 4)
