"""Real tissue maps: files of labels, read by what their table says the labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lesionwise.io.bids import subject_files
from lesionwise.io.files import read_table
from lesionwise.io.nifti import read_labels
from lesionwise.types import InputError, Volume

FLUID, GRAY, WHITE, LESION = 1, 2, 3, 4
"""Labels of a tissue map, 0 outside of the brain."""

_LABELS = {
    0: ("bg", "background"),
    FLUID: ("csf", "cerebrospinal fluid", "fluid"),
    GRAY: (
        "gm", "cgm", "scgm", "gray matter", "grey matter", "cortical gray matter",
        "cortical grey matter", "subcortical gray matter", "subcortical grey matter",
    ),
    WHITE: ("wm", "white matter"),
    LESION: ("l", "lesion"),
}  # fmt: skip
"""What tables call each label: abbreviations and names of the BIDS table, and plain names."""


def find_tissue_maps(folder: Path, exclude: tuple[str, ...] = ()) -> list[Path]:
    """Tissue maps below a folder, in the order of names.

    Args:
        folder: of a BIDS derivative with ``*_dseg.nii.gz`` files; instance maps (``seg-…``) are
            left out. Or one file.
        exclude: subjects (without ``sub-``) to leave out.

    Raises:
        InputError: If there is none.

    Example:
        >>> for subject in ("01", "02"):
        ...     Path(f"sub-{subject}_dseg.nii.gz").touch()
        ...
        >>> [path.name for path in find_tissue_maps(Path("."), exclude=("02",))]
        ['sub-01_dseg.nii.gz']
    """
    found = [
        path
        for path in subject_files(folder, "*_dseg.nii.gz", exclude)
        if path == folder or "_seg-" not in path.name
    ]
    if not found:
        raise InputError(f"{folder}: no tissue maps (*_dseg.nii.gz) in it")
    return found


def read_tissue_map(path: Path) -> Volume:
    """A tissue map, uint8: 0 outside, 1 fluid, 2 gray matter, 3 white matter, 4 lesion.

    What its labels mean comes from the table beside it (``…_dseg.tsv``) or from ``dseg.tsv`` in one
    of the folders above it: columns ``index`` and ``name`` or ``abbreviation``, as BIDS has them.

    Raises:
        InputError: If it cannot be read, if no table tells what its labels mean, or as for
            `tissue_classes`.

    Example:
        >>> from lesionwise.io.nifti import write_volume
        >>> from lesionwise.types import Grid
        >>> labels = np.full((2, 2, 2), 2, dtype=np.uint8)
        >>> labels[0] = 1
        >>> write_volume("a_dseg.nii.gz", Volume(labels, Grid((2, 2, 2), np.eye(4))))
        >>> _ = Path("dseg.tsv").write_text("index\\tname\\n1\\tgray matter\\n2\\twhite matter\\n")
        >>> np.unique(read_tissue_map(Path("a_dseg.nii.gz")).array).tolist()
        [2, 3]
    """
    labels = read_labels(path)
    return tissue_classes(labels, _names_beside(path), name=str(path))


def tissue_classes(labels: Volume, names: Mapping[int, str], *, name: str = "map") -> Volume:
    """The map with labels 0 outside, 1 fluid, 2 gray matter, 3 white matter, 4 lesion; uint8.

    Args:
        labels: any integers.
        names: what each label above 0 means: an abbreviation (CSF, GM, WM, L) or a name.
        name: of the map, for messages.

    Raises:
        InputError: If a label has no meaning or one that is no tissue, or if no gray or no white
            matter is left.

    Example:
        >>> from lesionwise.types import Grid
        >>> labels = Volume(np.array([[[0, 10, 20]]]), Grid((1, 1, 3), np.eye(4)))
        >>> tissue_classes(labels, {10: "WM", 20: "GM"}).array.tolist()
        [[[0, 3, 2]]]
    """
    out = np.zeros(labels.array.shape, dtype=np.uint8)
    for label in np.unique(labels.array).tolist():
        if label == 0:
            continue
        if label not in names:
            raise InputError(f"{name}: no name is known for label {label}")
        meaning = [tissue for tissue, words in _LABELS.items() if names[label].lower() in words]
        if not meaning:
            raise InputError(
                f"{name}: label {label} is {names[label]!r}; known are CSF, GM, WM and lesion"
            )
        out[labels.array == label] = meaning[0]
    for tissue, word in ((GRAY, "gray"), (WHITE, "white")):
        if not (out == tissue).any():
            raise InputError(f"{name}: no {word} matter in it")
    return Volume(out, labels.grid)


def _names_beside(path: Path) -> dict[int, str]:
    own = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")
    above = [folder / "dseg.tsv" for folder in path.absolute().parents]
    for table in (own, *above):
        if table.is_file():
            break
    else:
        raise InputError(f"{path}: no dseg.tsv beside or above it tells what its labels mean")
    rows = read_table(table)
    column = next((c for c in ("abbreviation", "name") if c in rows), "")
    if "index" not in rows or not column:
        raise InputError(f"{table}: the columns index and name are needed")
    # a row counts by its abbreviation where that is a known one, else by its name
    known = {word for words in _LABELS.values() for word in words}
    names: dict[int, str] = {}
    for row in rows.to_dict("records"):
        words = [str(row[c]) for c in ("abbreviation", "name") if c in rows]
        try:
            index = int(str(row["index"]))
        except ValueError:
            raise InputError(f"{table}: {row['index']!r} is no index of a label") from None
        names[index] = next((word for word in words if word.lower() in known), words[-1])
    return names
