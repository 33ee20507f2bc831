"""Lesions of other tools' masks: what ``split`` writes, and its table made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise.io.files import file_system_errors, write_json, write_table
from lesionwise.io.names import natural
from lesionwise.io.nifti import write_volume
from lesionwise.io.record import (
    FileRecord,
    check_settings,
    damage,
    file_records,
    note_failures,
    noted_failures,
    write_failures,
)
from lesionwise.results.columns import (
    MEASURES,
    SOURCE,
    Column,
    read_typed,
    rounded,
    write_described,
)
from lesionwise.results.folder import check_output, source_of, until_settled
from lesionwise.results.keys import Generator, generated_by, read_keys, to_keys
from lesionwise.results.lesion_set import LesionSet
from lesionwise.results.names import FAILURES, LESIONS, beside
from lesionwise.types import Grid, InputError, Volume

MAKER = "lesionwise split"
ENDINGS = ("_mask", "_probseg")
"""Ends of BIDS names that results do not repeat."""

MAP_COLUMNS = (
    Column("map", "name of the map", text=True),
    Column("label", "value of the lesion in the instance map"),
    *MEASURES,
    SOURCE,
)
"""``lesions.tsv`` of ``split``: a row a lesion."""


@dataclass(frozen=True)
class MapRecord:
    """What the sidecar of an instance map of ``split`` says.

    Attributes:
        sources: the map that was read.
        input: mask or probability.
        method: instance separation method with its settings.
        threshold: lesion is probability > threshold; None for a mask.
        connectivity: 6, 18 or 26.
        size_filter: which lesions were dropped.
        settings: all that decides the results of every map of a folder, and ``map``, its hash.
        files: size and hash of each result, by its name.
    """

    sources: tuple[str, ...]
    input: str
    method: str
    connectivity: int
    size_filter: str
    threshold: float | None = None
    generated_by: Generator = field(default_factory=lambda: generated_by(MAKER))
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sources or self.generated_by["Name"] != MAKER:
            raise ValueError("not a record of split")


@dataclass(frozen=True)
class MapFiles:
    """Where the lesions of one map lie.

    Attributes:
        root: the output folder.
        name: of the map (``map_name``).
        method: acls or cc.
    """

    root: Path
    name: str
    method: str

    @property
    def instances(self) -> Path:
        return self.root / f"{self.name}_seg-{self.method}_dseg.nii.gz"

    @property
    def table(self) -> Path:
        return beside(self.instances, ".tsv")

    @property
    def sidecar(self) -> Path:
        """Written last: if it exists, the results of the map are complete."""
        return beside(self.instances, ".json")


def write_map(
    files: MapFiles, record: MapRecord, lesions: LesionSet, grid: Grid | None = None
) -> MapRecord:
    """Write an instance map, its table, and last its sidecar; the record as it is written.

    Args:
        grid: of the file whose order of axes the map takes.

    Example:
        >>> import numpy as np
        >>> from lesionwise.types import Instances
        >>> lesions = Instances(np.eye(4, dtype=np.int32)[None], Grid((1, 4, 4), np.eye(4)))
        >>> table = pd.DataFrame({"label": [1], "volume_mm3": [4.0]})
        >>> files = MapFiles(Path("out"), "sub-01", "cc")
        >>> record = MapRecord(("sub-01_mask.nii.gz",), "mask", "cc", 26, "none")
        >>> sorted(write_map(files, record, LesionSet(lesions, table)).files)
        ['sub-01_seg-cc_dseg.nii.gz', 'sub-01_seg-cc_dseg.tsv']
    """
    labels = Volume(lesions.instances.labels, lesions.instances.grid)
    write_volume(files.instances, labels, grid=grid)
    write_table(files.table, rounded(lesions.table, MAP_COLUMNS))
    record = replace(record, files=file_records(files.root, [files.instances, files.table]))
    write_json(files.sidecar, to_keys(record))
    return record


def read_map_record(sidecar: Path) -> MapRecord:
    """What a sidecar of ``split`` says.

    Raises:
        InputError: If it is missing, malformed, or another command's.

    Example:
        >>> record = MapRecord(("sub-01_mask.nii.gz",), "mask", "cc", 26, "none")
        >>> write_json("sub-01_seg-cc_dseg.json", to_keys(record))
        >>> read_map_record(Path("sub-01_seg-cc_dseg.json")).connectivity
        26
    """
    return read_keys(sidecar, MapRecord)


def map_records(root: Path) -> dict[Path, MapRecord]:
    """Every record of ``split`` in a folder, by sidecar, in natural order of names.

    Example:
        >>> for name in ("sub-10", "sub-2"):
        ...     record = MapRecord((f"{name}_mask.nii.gz",), "mask", "cc", 26, "none")
        ...     write_json(MapFiles(Path("."), name, "cc").sidecar, to_keys(record))
        ...
        >>> [record.sources[0] for record in map_records(Path(".")).values()]
        ['sub-2_mask.nii.gz', 'sub-10_mask.nii.gz']
    """
    found = {}
    for path in sorted(root.glob("*_dseg.json"), key=lambda path: natural(path.name)):
        try:
            found[path] = read_map_record(path)
        except InputError:
            continue  # another tool's, or damaged
    return found


def is_split_result(path: Path) -> bool:
    """Whether ``split`` wrote a map, as the sidecar beside it says.

    Example:
        >>> record = MapRecord(("sub-01_mask.nii.gz",), "mask", "cc", 26, "none")
        >>> files = MapFiles(Path("out"), "sub-01", "cc")
        >>> write_json(files.sidecar, to_keys(record))
        >>> is_split_result(files.instances), is_split_result(Path("out/sub-02_dseg.nii.gz"))
        (True, False)
    """
    if not path.name.endswith("_dseg.nii.gz"):
        return False
    try:
        read_map_record(path.with_name(path.name.removesuffix(".nii.gz") + ".json"))
    except InputError:
        return False  # none, another tool's, or damaged
    return True


def check_split_output(
    output: Path, settings: Mapping[str, Any], inputs: Sequence[Path] = ()
) -> None:
    """Pass where ``split`` may write into a folder with these settings.

    Args:
        inputs: files and folders that are read.

    Raises:
        InputError: If the folder is one of the inputs or lies in the folder of a subject of
            theirs, holds a table that ``split`` did not write, takes no files, or was begun with
            other settings.

    Example:
        >>> settings = {"connectivity": 26}
        >>> record = MapRecord(("mask.nii.gz",), "mask", "cc", 26, "none", settings=settings)
        >>> write_json(MapFiles(Path("out"), "sub-01", "cc").sidecar, to_keys(record))
        >>> check_split_output(Path("out"), {"connectivity": 6})
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: out: was begun with connectivity 26, now it is 6; choose \
another output folder
    """
    check_output(output, inputs, files=())
    known = map_records(output)
    foreign = [LESIONS] if not known else []
    if not noted_failures(output):
        foreign += [FAILURES] if not known else []
    for name in foreign:
        if (output / name).exists():
            raise InputError(
                f"{output / name}: exists already and was not written by split; "
                "choose another output folder"
            )
    for record in known.values():
        check_settings(record.settings, settings, output)
        return


def check_map_input(files: MapFiles, source: Path, digest: str) -> None:
    """Refuse to write over the results of another map.

    Args:
        digest: hash of the map; one of equal content may be replaced, wherever it lay.

    Raises:
        InputError: If there are results of another map with this name, or the file system takes
            no such name.

    Example:
        >>> files = MapFiles(Path("out"), "sub-01", "cc")
        >>> record = MapRecord(("/a/mask.nii.gz",), "mask", "cc", 26, "none")
        >>> write_json(files.sidecar, to_keys(record))
        >>> check_map_input(files, Path("/b/mask.nii.gz"), digest="ba78")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: /b/mask.nii.gz: out holds the results of /a/mask.nii.gz as \
sub-01; choose another output folder
    """
    with file_system_errors(files.sidecar):
        if not files.sidecar.exists():
            return
    try:
        before = read_map_record(files.sidecar)
    except InputError:
        return
    known = before.sources[0]
    alike = known in (source_of(source), source.name) or before.settings.get("map") == digest
    if not alike:
        raise InputError(
            f"{source}: {files.root} holds the results of {known} as {files.name}; "
            "choose another output folder"
        )


def write_map_tables(
    root: Path, inputs: Sequence[Path] = (), failures: Mapping[str, str] | None = None
) -> None:
    """Make ``lesions.tsv`` and ``failures.tsv`` again, so that they hold what every call left.

    Args:
        inputs: what this call was given, and
        failures: what of it gave nothing.

    Example:
        >>> write_map_tables(Path("."), [Path("mask.nii.gz")], {"mask.nii.gz": "the file is empty"})
        >>> Path("failures.tsv").read_text().splitlines()
        ['file\\terror', 'mask.nii.gz\\tthe file is empty']
    """
    note_failures(root, [source_of(path) for path in inputs], failures or {})
    until_settled(root, lambda: _write_tables(root), "*_dseg.json")


def _write_tables(root: Path) -> None:
    tables = []
    failures = noted_failures(root)
    for sidecar, record in map_records(root).items():
        name = sidecar.name.removesuffix("_dseg.json").rsplit("_seg-", 1)[0]
        try:
            reason = damage(root, record.files, read=False)
            if reason:
                raise InputError(reason)
            table = read_typed(beside(sidecar, ".tsv"))
        except InputError as error:
            failures[name] = f"damaged results, to be made again: {error}"
            continue
        tables.append(table.assign(map=name, source=record.sources[0]))
    filled = [table for table in tables if len(table)]
    if filled or tables:
        both = pd.concat(filled or tables, ignore_index=True)
        write_described(root / LESIONS, both, MAP_COLUMNS)
    write_failures(root, failures)
