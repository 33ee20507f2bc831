"""All of BIDS in one place, and what a data set of results has beside its images."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise import __version__
from lesionwise.io.dataset import BidsStudies, open_dataset, read_dataset
from lesionwise.io.files import write_json
from lesionwise.io.names import Entities, derivative_name, derivative_path, label_text, parse_name
from lesionwise.io.scans import FoundScan, ScanSelection, find_scans, select_scans
from lesionwise.io.tree import BidsFile
from lesionwise.types import InputError

__all__ = [
    "BidsFile",
    "BidsStudies",
    "Entities",
    "FoundScan",
    "ScanSelection",
    "derivative_name",
    "derivative_path",
    "dseg_table",
    "find_scans",
    "label_text",
    "open_dataset",
    "parse_name",
    "read_dataset",
    "select_scans",
    "subject_files",
    "write_dataset_description",
]

BIDS_VERSION = "1.10.0"
LESION_INDEX = 7
"""The lesion's index in the standard BIDS table of labels."""


def dseg_table(labels: Iterable[int]) -> pd.DataFrame:
    """The table beside an instance map: index, name, abbreviation, color, mapping.

    One row per label above 0, ascending; ``mapping`` is 7, the lesion of the standard BIDS table.
    Colors follow from the label alone, and neighbors in number lie far apart in hue.

    Example:
        >>> dseg_table([3]).to_dict("records")[0]["name"]
        'lesion 3'
    """
    rows = []
    for label in sorted({int(label) for label in labels} - {0}):
        hue = label * 0.618034 % 1
        red, green, blue = (round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.75, 0.95))
        color = f"#{red:02x}{green:02x}{blue:02x}"
        rows.append((label, f"lesion {label}", f"L{label}", color, LESION_INDEX))
    return pd.DataFrame(rows, columns=["index", "name", "abbreviation", "color", "mapping"])


def subject_files(folder: Path, pattern: str, exclude: tuple[str, ...] = ()) -> list[Path]:
    """Files below a folder whose names fit a pattern, in the order of paths; or the one file given.

    Args:
        exclude: subjects (without ``sub-``) to leave out.

    Raises:
        InputError: If there is no such file or folder.

    Example:
        >>> for subject in ("01", "02"):
        ...     Path(f"sub-{subject}_dseg.nii.gz").touch()
        ...
        >>> [path.name for path in subject_files(Path("."), "*_dseg.nii.gz", exclude=("02",))]
        ['sub-01_dseg.nii.gz']
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such file or folder")
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if path.name.split("_")[0].removeprefix("sub-") not in exclude
    ]


def write_dataset_description(
    root: str | Path, name: str, *, derivative: bool = True, **further: Any
) -> None:
    """Write ``dataset_description.json`` atomically, with this package and its version in it.

    Args:
        derivative: results of a tool; False for raw (here: simulated) scans.
        further: more BIDS fields, such as ``License`` or ``SourceDatasets``.

    Example:
        >>> write_dataset_description(".", "Lesions of my study")
        >>> sorted(path.name for path in Path(".").iterdir())
        ['dataset_description.json']
    """
    description = {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative" if derivative else "raw",
        "GeneratedBy": [{"Name": "lesionwise", "Version": __version__}],
    }
    write_json(Path(root) / "dataset_description.json", {**description, **further})
