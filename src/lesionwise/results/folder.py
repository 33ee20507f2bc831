"""A whole output folder: whose it is, and its tables made again from all sidecars."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import pandas as pd

from lesionwise.defaults import Separation
from lesionwise.io.bids import write_dataset_description
from lesionwise.io.checked import encodable, inside, reading
from lesionwise.io.dataset import is_ours
from lesionwise.io.files import check_writable
from lesionwise.io.names import Entities
from lesionwise.io.record import (
    FAILURES,
    STATE,
    check_settings,
    note_failures,
    noted_failures,
    write_failures,
)
from lesionwise.results.columns import (
    LESION_COLUMNS,
    NEW_LESION_COLUMNS,
    PAIR_COLUMNS,
    SCAN_COLUMNS,
    Column,
    write_described,
)
from lesionwise.results.comparison import ComparisonRecord, read_tracks, with_states
from lesionwise.results.lesion_set import read_lesion_table
from lesionwise.results.names import (
    COMPARISON,
    DESCRIPTION,
    INDEX,
    LESIONS,
    LINKS,
    NEW_LESIONS,
    PAIRS,
    SCANS,
    SCORES,
    TRACKS,
    VISITS,
    PairFiles,
    ScanFiles,
    beside,
    finished_pairs,
    finished_scans,
    lesions_by,
    scan_name,
)
from lesionwise.results.pair import PairRecord, new_lesions, pair_row
from lesionwise.results.scan import ScanRecord, damaged, identified, scan_row
from lesionwise.types import InputError

T = TypeVar("T")

TABLES = (
    SCANS, LESIONS, FAILURES, INDEX, COMPARISON, VISITS, TRACKS, LINKS, SCORES, PAIRS, NEW_LESIONS,
)  # fmt: skip
"""What a results folder holds beside the folders of subjects."""

PER_SCAN = ("scan", "scans", "brain_mask", "dicom_seg", "machine")
"""Settings that may differ from scan to scan of one folder."""

ATTEMPTS = 50
"""How often tables are made again because results came meanwhile."""

REMEDY = "choose another output folder, or say --overwrite to do all of its scans again"


def check_output(
    output: Path, inputs: Iterable[Path] = (), *, files: Sequence[str] = TABLES
) -> Path:
    """The folder, if results may be written there.

    It may be missing, empty, hold results of this package, or other files that results do not
    touch.

    Args:
        inputs: what the call reads: files, folders, data sets.
        files: names that would be written.

    Raises:
        InputError: If it is one of the inputs, lies in the folder of a subject of theirs (also of a
            file that is named), holds a data set or files of the same names that this package did
            not write, holds the results of ``cohort``, or takes no files.

    Example:
        >>> check_output(Path("results")).name
        'results'
        >>> Path("data/sub-01").mkdir(parents=True)
        >>> check_output(Path("data"), [Path("data")])
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: data: results would be among the scans; choose another \
folder, such as derivatives/lesionwise
    """
    check_writable(output)
    place = output.resolve()
    if any(_among_scans(place, given) for given in inputs):
        raise InputError(
            f"{output}: results would be among the scans; choose another folder, "
            "such as derivatives/lesionwise"
        )
    if (output / "cohort.json").is_file():
        raise InputError(f"{output}: holds the results of cohort; choose another output folder")
    if not output.is_dir() or is_ours(output):
        return output
    if (output / DESCRIPTION).exists():
        raise InputError(
            f"{output}: holds a data set that lesionwise did not write; choose "
            "another folder, such as derivatives/lesionwise"
        )
    names = sorted(path.name for path in output.iterdir())
    for name in names:
        if name in files or (name.startswith("sub-") and (output / name).is_dir()):
            raise InputError(
                f"{output / name}: exists already and was not written by lesionwise; "
                "choose another output folder"
            )
    return output


def _among_scans(place: Path, given: Path) -> bool:
    """Whether a folder is one that is read, or lies in the folder of a subject of a data set."""
    if given.is_dir():
        root = given.resolve()
        below = place.relative_to(root).parts if place.is_relative_to(root) else ()
        return place == root or (bool(below) and below[0].startswith(("sub-", "ses-", "anat")))
    named = [p for p in Path(os.path.abspath(given)).parents if given.name.startswith(f"{p.name}_")]
    subjects = [folder.resolve() for folder in named if folder.name.startswith("sub-")]
    return any(place.is_relative_to(folder) for folder in subjects)


def check_own_folder(
    output: Path, inputs: Iterable[Path] = (), *, mark: str = "", files: Sequence[str] = ()
) -> Path:
    """The folder, if a command that keeps a folder to itself may write there.

    Args:
        inputs: folders that the call reads.
        mark: a file that the command leaves in its folder: where it is, the folder is its own.
        files: further names that it writes.

    Raises:
        InputError: If it is one of the inputs, holds files of these names that the command did not
            write, or takes no files.

    Example:
        >>> Path("out").mkdir()
        >>> Path("out/scores.tsv").touch()
        >>> check_own_folder(Path("out"), mark="evaluation.json", files=["scores.tsv"])
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: out/scores.tsv: exists already and was not written by this \
command; choose another output folder
        >>> Path("out/evaluation.json").touch()
        >>> check_own_folder(Path("out"), mark="evaluation.json", files=["scores.tsv"]).name
        'out'
    """
    check_writable(output)
    for given in inputs:
        if given.is_dir() and given.resolve() == output.resolve():
            raise InputError(
                f"{output}: results would be among the input files; choose another output folder"
            )
    if not mark or (output / mark).exists():
        return output
    for name in files:
        if (output / name).exists():
            raise InputError(
                f"{output / name}: exists already and was not written by this command; "
                "choose another output folder"
            )
    return output


def claim(output: Path, command: str) -> None:
    """Say whose the folder is, before the first result is written into it.

    Example:
        >>> claim(Path("results"), "lesionwise segment")
        >>> [path.name for path in Path("results").iterdir()], is_ours(Path("results"))
        (['dataset_description.json'], True)
    """
    if not is_ours(output):
        write_dataset_description(output, command)


def source_of(path: Path) -> str:
    """A path as results name it: absolute, links kept, bytes that are no text as escapes.

    Example:
        >>> source_of(Path("data/../flair.nii.gz")) == (Path.cwd() / "flair.nii.gz").as_posix()
        True
    """
    return encodable(Path(os.path.abspath(path)).as_posix())


def check_input(files: ScanFiles, source: str, digest: str = "") -> None:
    """Refuse to write over the results of another input.

    Args:
        files: of the scan.
        source: what the user named, as ``source_of`` writes it.
        digest: hash of the image; results of an image of the same content may be replaced,
            wherever it lay.

    Raises:
        InputError: If results of another input have this name, or it is too long for a file.

    Example:
        >>> from lesionwise.io.files import write_json
        >>> from lesionwise.results.provenance import sidecar_of
        >>> files = ScanFiles(Path("out"), Entities(sub="01"))
        >>> write_json(files.sidecar, sidecar_of(ScanRecord(("/a/flair.nii.gz",), ("cc",))))
        >>> check_input(files, "/a/flair.nii.gz")  # the same input
        >>> check_input(files, "/b/flair.nii.gz")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: /b/flair.nii.gz: out holds the results of /a/flair.nii.gz as \
sub-01; choose another output folder
    """
    with reading(files.sidecar):  # the name may be too long for the disk
        if not files.sidecar.exists():
            return
    try:
        before = ScanRecord.read(files)
    except InputError:
        return  # damaged, so it is written again
    known = before.settings.get("scan")
    if source_of(Path(before.input_path)) != source and (not digest or known != digest):
        raise InputError(
            f"{source}: {files.root} holds the results of {before.input_path} as {files.name}; "
            "choose another output folder"
        )


def check_folder_settings(
    root: Path,
    settings: Mapping[str, Any],
    besides: Iterable[str] = (),
    remedy: str = REMEDY,
) -> None:
    """Refuse other settings than those that the scans of a folder were done with.

    Args:
        settings: as JSON holds them.
        besides: names of scans that do not count, since they are done again.
        remedy: what the user can do.

    Raises:
        InputError: If a setting differs; the message names it.

    Example:
        >>> from lesionwise.io.files import write_json
        >>> from lesionwise.results.provenance import sidecar_of
        >>> record = ScanRecord(("flair.nii.gz",), ("cc",), settings={"threshold": 0.5})
        >>> write_json(ScanFiles(Path("out"), Entities(sub="01")).sidecar, sidecar_of(record))
        >>> check_folder_settings(Path("out"), {"threshold": 0.3}, remedy="choose another folder")
        Traceback (most recent call last):
        ...
        lesionwise.types.InputError: out: was begun with threshold 0.5, now it is 0.3; choose \
another folder
    """
    wanted = {name: value for name, value in settings.items() if name not in PER_SCAN}
    passed = set(besides)
    for scan in finished_scans(root):
        if scan_name(scan) not in passed:
            try:
                before = ScanRecord.read(ScanFiles(root, scan)).settings
            except InputError:
                continue
            check_settings(before, wanted, root, remedy)
            return


@dataclass(frozen=True, eq=False)
class FolderTables:
    """The tables of a folder.

    Attributes:
        scans: rows of ``scans.tsv``.
        lesions: rows of lesions by separation method; those of the main one come first.
        main: the main method; empty where no scan is done.
        failures: the error by what it concerns.
        records: of each scan that is done, by its name.
    """

    scans: pd.DataFrame
    lesions: Mapping[str, pd.DataFrame]
    main: str
    failures: Mapping[str, str]
    records: Mapping[str, ScanRecord] = field(default_factory=dict)


def read_folder(root: Path, place: Path | None = None, subject: str = "") -> FolderTables:
    """The tables of a folder, from the sidecars and tables of its scans.

    Scans whose files are missing or cut off give no rows and are among the failures.

    Args:
        root: holds the folders of subjects.
        place: holds the comparison, if there is one; None is ``root``.
        subject: the only one, without ``sub-``; all if empty.

    Raises:
        InputError: If the comparison is damaged.

    Example:
        >>> import numpy as np
        >>> from lesionwise.results.lesion_set import LesionSet
        >>> from lesionwise.results.scan import ScanResult
        >>> from lesionwise.types import Grid, Instances, Volume
        >>> labels = np.zeros((4, 4, 4), dtype=np.int32)
        >>> labels[1:3, 1:3, 1:3] = 1
        >>> grid = Grid((4, 4, 4), np.eye(4))
        >>> lesions = LesionSet(
        ...     Instances(labels, grid), pd.DataFrame({"label": [1], "volume_mm3": [8.0]})
        ... )
        >>> record, mask = ScanRecord(("flair.nii.gz",), ("cc",)), Volume(labels > 0, grid)
        >>> probability = Volume(labels.astype(np.float32), grid)
        >>> result = ScanResult(
        ...     Entities(sub="01"), record, probability, mask, mask, {"cc": lesions}
        ... )
        >>> _ = result.write(Path("out"))
        >>> read_folder(Path("out")).scans[["subject", "lesions", "volume_ml"]].values.tolist()
        [['sub-01', 1, 0.008]]
    """
    place = place or root
    compared: tuple[str, ...] = ()
    tracks = None
    if (place / COMPARISON).exists():
        comparison = ComparisonRecord.read(place)
        compared = comparison.sources
        tracks = read_tracks(place)
    rows: list[dict[str, Any]] = []
    tables: dict[str, list[pd.DataFrame]] = {}
    failures = noted_failures(root)
    records = {}
    for scan in finished_scans(root, subject):
        files = ScanFiles(root, scan)
        try:
            record = ScanRecord.read(files)
            reason = damaged(root, record, read=False)
            if reason:
                raise InputError(reason)
            lesions = {method: read_lesion_table(files, method) for method in record.methods}
        except InputError as error:
            failures[files.name] = f"damaged results, to be made again: {error}"
            continue
        in_comparison = record.sources[0] in compared
        rows.append(scan_row(files, record, lesions, page=INDEX if in_comparison else ""))
        records[files.name] = record
        for method, table in lesions.items():
            listed = identified(table, files, record).assign(method=method)
            if in_comparison and tracks is not None and method == record.methods[0]:
                listed = with_states(listed, tracks)
            tables.setdefault(method, []).append(listed)
    main = next(iter(records.values())).methods[0] if records else ""
    lesions_of = {method: _joined(parts, LESION_COLUMNS) for method, parts in tables.items()}
    return FolderTables(_frame(rows, SCAN_COLUMNS), lesions_of, main, failures, records)


def write_folder(
    root: Path,
    command: str,
    inputs: Sequence[Path] = (),
    failures: Mapping[str, str] | None = None,
    write_index: Callable[[FolderTables], Path] | None = None,
) -> FolderTables:
    """Make all tables of a folder again, so that they hold what every call left there.

    Calls in other processes may do the same at the same time: what comes meanwhile is seen, and
    the tables are made once more.

    Args:
        command: for ``dataset_description.json``.
        inputs: what this call was given, and
        failures: what of it gave nothing (``io.record.note_failures``).
        write_index: writes the page over all scans.

    Raises:
        InputError: If the folder or the disk does not take a file.

    Example:
        >>> failures = {"flair.nii.gz": "the file is empty"}
        >>> tables = write_folder(
        ...     Path("out"), "lesionwise segment", [Path("flair.nii.gz")], failures
        ... )
        >>> len(tables.scans), dict(tables.failures)
        (0, {'flair.nii.gz': 'the file is empty'})
        >>> Path("out/failures.tsv").read_text().splitlines()
        ['file\\terror', 'flair.nii.gz\\tthe file is empty']
    """
    write_dataset_description(root, command)
    note_failures(root, [source_of(path) for path in inputs], failures or {})
    return until_settled(root, lambda: _write_tables(root, write_index))


def _write_tables(root: Path, write_index: Callable[[FolderTables], Path] | None) -> FolderTables:
    tables = read_folder(root)
    write_described(root / SCANS, tables.scans, SCAN_COLUMNS)
    if not tables.lesions:
        write_described(root / LESIONS, [], LESION_COLUMNS)
    for method, lesions in tables.lesions.items():
        name = LESIONS if method == tables.main else lesions_by(method)
        write_described(root / name, lesions, LESION_COLUMNS)
    remove_other_tables(root, [name for name in tables.lesions if name != tables.main])
    write_failures(root, tables.failures)
    if write_index is not None and not (root / COMPARISON).exists():
        write_index(tables)
    return tables


def remove_other_tables(root: Path, methods: Iterable[str]) -> None:
    """Remove tables of lesions by separation methods that no scan of a folder has any more.

    Args:
        methods: those that have a table beside the one of the main method.

    Raises:
        InputError: If a table cannot be removed.

    Example:
        >>> for method in ("cc", "acls"):
        ...     Path(lesions_by(method)).touch()
        ...
        >>> remove_other_tables(Path("."), ["acls"])
        >>> [path.name for path in Path(".").iterdir()]
        ['lesions_seg-acls.tsv']
    """
    for method in {*get_args(Separation)} - {*methods}:
        table = root / lesions_by(method)
        _remove([table, beside(table, ".json")])


def remove_superseded(root: Path, before: Iterable[str], now: Iterable[str]) -> None:
    """Remove what an earlier call wrote of a scan or pair and the call that did it again did not.

    Args:
        before, now: names of files in the folder, as records hold them. A map goes with its
            sidecar.

    Raises:
        InputError: If a name leads out of the folder, or a file cannot be removed.

    Example:
        >>> for name in ("cc_dseg.nii.gz", "cc_dseg.json", "mask.nii.gz", "mask.json"):
        ...     Path(name).touch()
        ...
        >>> remove_superseded(Path("."), ["cc_dseg.nii.gz", "mask.nii.gz"], ["mask.nii.gz"])
        >>> sorted(path.name for path in Path(".").iterdir())
        ['mask.json', 'mask.nii.gz']
    """
    stale = [inside(root, name) for name in sorted({*before} - {*now})]
    maps = [path for path in stale if path.name.endswith(".nii.gz")]
    _remove([*stale, *(beside(path, ".json") for path in maps)])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be removed ({error.strerror})") from error


def write_pairs(
    root: Path,
    command: str,
    inputs: Sequence[Path] = (),
    failures: Mapping[str, str] | None = None,
    *,
    titles: Sequence[str] = (),
) -> tuple[pd.DataFrame, Mapping[str, str]]:
    """The same for pairs of visits: ``pairs.tsv``, ``new_lesions.tsv``, ``failures.tsv``.

    Args:
        titles: of the pairs that this call was given; their failures stand under these names.

    Returns:
        The rows of ``pairs.tsv``, and the error of what gave nothing.

    Raises:
        InputError: If the folder or the disk does not take a file.

    Example:
        >>> failures = {"sub-01": "only one visit"}
        >>> pairs, failures = write_pairs(Path("out"), "lesionwise predict", failures=failures)
        >>> len(pairs), failures
        (0, {'sub-01': 'only one visit'})
    """
    write_dataset_description(root, command)
    note_failures(root, [*map(source_of, inputs), *titles], failures or {})
    return until_settled(root, lambda: _write_pair_tables(root))


def _write_pair_tables(root: Path) -> tuple[pd.DataFrame, Mapping[str, str]]:
    rows, lesions = [], []
    failures = noted_failures(root)
    for scan in finished_pairs(root):
        files = PairFiles(root, scan)
        try:
            record = PairRecord.read(files)
            reason = damaged(root, record, read=False)
            if reason:
                raise InputError(reason)
            table = new_lesions(files, record)
            rows.append(pair_row(files, record, table))
        except InputError as error:
            failures[scan_name(scan)] = f"damaged results, to be made again: {error}"
            continue
        lesions.append(table)
    pairs = _frame(rows, PAIR_COLUMNS)
    write_described(root / PAIRS, pairs, PAIR_COLUMNS)
    write_described(root / NEW_LESIONS, _joined(lesions, NEW_LESION_COLUMNS), NEW_LESION_COLUMNS)
    write_failures(root, failures)
    return pairs, failures


def until_settled(root: Path, make: Callable[[], T], pattern: str = "sub-*/**/*.json") -> T:
    """Make tables until nothing has come while they were made.

    Whoever writes last has seen all sidecars: each process looks again after it wrote.

    Args:
        pattern: of the sidecars below ``root``.

    Example:
        >>> Path("sub-01").mkdir()
        >>> def make():
        ...     found = sorted(path.name for path in Path("sub-01").iterdir())
        ...     Path("sub-01/late.json").touch()  # as another process may do
        ...     return found
        ...
        >>> until_settled(Path("."), make)
        ['late.json']
    """
    for _ in range(ATTEMPTS):
        seen = _seen(root, pattern)
        made = make()
        if _seen(root, pattern) == seen:
            return made
    return made


def _seen(root: Path, pattern: str) -> dict[str, tuple[int, int]]:
    found = {}
    places = (*root.glob(pattern), *(root / STATE).glob("*.json"), root / COMPARISON)
    for path in places:
        try:
            status = path.stat()
        except OSError:
            continue
        found[path.as_posix()] = (status.st_mtime_ns, status.st_size)
    return found


def _frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    """The rows with the columns that they have, in order; all columns where there is no row."""
    table = pd.DataFrame(list(rows))
    known = [column.name for column in columns]
    return table[[n for n in known if n in table]] if rows else pd.DataFrame(columns=known)


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[Column]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    if not filled:
        known = [c.name for c in columns if not tables or c.name in tables[0]]
        return pd.DataFrame(columns=known)
    both = pd.concat(filled, ignore_index=True)
    return both[[column.name for column in columns if column.name in both]]


def compared_scans(root: Path, place: Path) -> list[Entities]:
    """The scans of a folder's comparison, in time order.

    Raises:
        InputError: If the comparison is damaged or one of its scans has no results.

    Example:
        >>> from lesionwise.io.files import write_json
        >>> from lesionwise.results.keys import to_keys
        >>> from lesionwise.results.provenance import sidecar_of
        >>> for ses in ("M00", "M12"):
        ...     files = ScanFiles(Path("out"), Entities(sub="01", ses=ses))
        ...     write_json(files.sidecar, sidecar_of(ScanRecord((f"{ses}.nii.gz",), ("cc",))))
        ...
        >>> unmoved = ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0))
        >>> record = ComparisonRecord(("M00.nii.gz", "M12.nii.gz"), (unmoved, unmoved))
        >>> write_json(Path("out") / COMPARISON, to_keys(record))
        >>> [scan.ses for scan in compared_scans(Path("out"), Path("out"))]
        ['M00', 'M12']
    """
    comparison = ComparisonRecord.read(place)
    subject = place.name.removeprefix("sub-") if place != root else ""
    by_source = {}
    for scan in finished_scans(root, subject):
        by_source[ScanRecord.read(ScanFiles(root, scan)).sources[0]] = scan
    missing = [source for source in comparison.sources if source not in by_source]
    if missing:
        raise InputError(f"{root}: holds no results of {missing[0]}")
    return [by_source[source] for source in comparison.sources]
