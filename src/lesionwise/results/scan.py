"""The results of one scan: what is written, and how it is read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypedDict

import pandas as pd

from lesionwise.instances.components import DEFAULT_CONNECTIVITY
from lesionwise.io.checked import inside, reading
from lesionwise.io.files import write_bytes, write_json
from lesionwise.io.names import Entities
from lesionwise.io.nifti import read_mask, read_volume, write_volume
from lesionwise.io.record import FileRecord, damage, file_records
from lesionwise.results.keys import Generator, check_labels, generated_by, read_keys
from lesionwise.results.lesion_set import LesionSet, read_lesions, volume_ml, write_lesions
from lesionwise.results.names import TRUTH, ScanFiles, beside
from lesionwise.results.provenance import provenance, sidecar_of, stated_volume_ml, total_seconds
from lesionwise.results.quality import QualityEntry, QualityNote, worst
from lesionwise.results.words import session_name, subject_name
from lesionwise.types import Grid, Volume


class Recorded(Protocol):
    """A record of results that names its files."""

    @property
    def files(self) -> dict[str, FileRecord]: ...


class Stage(TypedDict):
    """A picture of the scan after one preprocessing step; the path is below the output folder."""

    Step: str
    Picture: str
    Black: float
    White: float
    Outlined: bool


@dataclass(frozen=True)
class ScanRecord:
    """What the sidecar of a scan's lesion mask says.

    Attributes:
        sources: the image that was read.
        input: what the user named: the same file, or the folder of a DICOM series.
        recipe, source, model_hash, departures: what found the lesions; source is the citation.
        model: what that model is: its recipe, the settings that differ from it, its training.
        threshold: the mask is probability > threshold, without what ``min_peak`` drops.
        methods: instance separation methods, the main one first.
        mask_volume_ml, brain_volume_ml: of the mask and the brain mask; None in folders written
            before.
        quality: notes on the scan.
        warnings: what the user should know before believing the result.
        seconds: wall time by stage.
        stages: pictures of the preprocessing.
        settings: all that decides the results.
        versions: of what decides the numbers.
        files: size and hash of each result, by its path below the output folder.
        summary: a row of numbers in folders written before; not written any more.
    """

    sources: tuple[str, ...]
    methods: tuple[str, ...]
    input: str = ""
    generated_by: Generator = field(default_factory=generated_by)
    recipe: str = ""
    source: str = ""
    model_hash: str = ""
    departures: tuple[str, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)
    type: str = "Lesion"
    threshold: float | None = None
    mask_volume_ml: float | None = None
    brain_volume_ml: float | None = None
    quality: tuple[QualityEntry, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float | None] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sources or not self.methods:
            raise ValueError("a scan's record needs a source and a separation method")
        check_labels(self.methods)

    @staticmethod
    def read(files: ScanFiles) -> ScanRecord:
        """From the sidecar.

        Raises:
            InputError: If it is missing or malformed.
        """
        return read_keys(files.sidecar, ScanRecord)

    @property
    def notes(self) -> tuple[QualityNote, ...]:
        return tuple(QualityNote.read(entry) for entry in self.quality)

    @property
    def input_path(self) -> str:
        """What the user named; in folders written before, the image that was read."""
        return self.input or self.sources[0]


@dataclass(frozen=True, eq=False)
class ScanResult:
    """All results of one scan.

    Attributes:
        scan: entities of the scan.
        record: what made them; ``files`` is filled when they are written.
        probability: float32 in [0, 1].
        mask, brain: bool.
        lesions: by separation method, the main one first.
        known: lesions of the truth, where they are known.
        pictures: WebP, as many as the record has stages.
    """

    scan: Entities
    record: ScanRecord
    probability: Volume
    mask: Volume
    brain: Volume
    lesions: Mapping[str, LesionSet]
    known: LesionSet | None = None
    pictures: tuple[bytes, ...] = ()

    def write(
        self, root: Path, *, grid: Grid | None = None, further: Sequence[Path] = ()
    ) -> ScanRecord:
        """Write images, tables and pictures, and last the mask's sidecar.

        Args:
            root: the output folder.
            grid: of the scan's file, whose order of axes the images take.
            further: results of the scan that were written before, such as DICOM segmentations;
                the record names them too.

        Returns:
            The record as it is written, with sizes and hashes.

        Raises:
            InputError: If the folder or the disk does not take a file.
        """
        files = ScanFiles(root, self.scan)
        made = provenance(self.record)
        written = [*further, files.probability, files.brain, files.mask]
        write_volume(files.probability, self.probability, grid=grid)
        write_json(beside(files.probability, ".json"), made)
        write_volume(files.brain, self.brain, grid=grid)
        write_json(beside(files.brain, ".json"), {**made, "Type": "Brain"})
        for method, lesions in self.lesions.items():
            about = {
                **made,
                "Method": method,
                "Connectivity": DEFAULT_CONNECTIVITY,
                "SizeFilter": self.record.settings.get("filters"),
            }
            written += write_lesions(files.instances(method), lesions, about, grid)
        if self.known is not None:
            about = {
                "Sources": list(self.record.sources),
                "Description": "known lesions, as they were given",
            }
            written += write_lesions(files.instances(TRUTH), self.known, about, grid)
        write_volume(files.mask, self.mask, grid=grid)
        for stage, picture in zip(self.record.stages, self.pictures, strict=True):
            path = root / stage["Picture"]
            write_bytes(path, picture)
            written.append(path)
        record = replace(
            self.record,
            methods=tuple(self.lesions),
            mask_volume_ml=volume_ml(self.mask),
            brain_volume_ml=volume_ml(self.brain),
            files=file_records(root, written),
        )
        write_json(files.sidecar, sidecar_of(record))
        return record

    @staticmethod
    def read(root: Path, scan: Entities) -> ScanResult:
        """All of it again, images as the package holds them (axes near RAS).

        Raises:
            InputError: If a file is missing or malformed.
        """
        files = ScanFiles(root, scan)
        record = ScanRecord.read(files)
        known = files.instances(TRUTH)
        return ScanResult(
            scan,
            record,
            read_volume(files.probability),
            read_mask(files.mask),
            read_mask(files.brain),
            {name: read_lesions(files, name) for name in record.methods},
            read_lesions(files, TRUTH) if known.is_file() else None,
            tuple(read_picture(root, stage) for stage in record.stages),
        )


def damaged(root: Path, record: Recorded, *, read: bool = True) -> str:
    """Why results are not what was written; empty where they are.

    Results written before files were recorded count as damaged where ``read`` is asked for.

    Args:
        read: compare hashes; without it sizes alone.

    Raises:
        InputError: If a name in the record leads out of the folder.

    Example:
        >>> _ = Path("mask.txt").write_text("abc")
        >>> files = file_records(Path("."), [Path("mask.txt")])
        >>> record = ScanRecord(("flair.nii.gz",), ("cc",), files=files)
        >>> damaged(Path("."), record)
        ''
        >>> Path("mask.txt").unlink()
        >>> damaged(Path("."), record)
        'mask.txt: is missing'
    """
    if not record.files:
        return f"{root}: results without hashes" if read else ""
    return damage(root, record.files, read=read)


def read_picture(root: Path, stage: Stage) -> bytes:
    """The picture of a stage.

    Raises:
        InputError: If its name leads out of the folder, or it cannot be read.

    Example:
        >>> _ = Path("brain.webp").write_bytes(b"RIFF")
        >>> stage = Stage(
        ...     Step="brain", Picture="brain.webp", Black=0.0, White=1.0, Outlined=True
        ... )
        >>> read_picture(Path("."), stage)
        b'RIFF'
    """
    path = inside(root, stage["Picture"])
    with reading(path):
        return path.read_bytes()


def scan_row(
    files: ScanFiles, record: ScanRecord, tables: Mapping[str, pd.DataFrame], page: str = ""
) -> dict[str, Any]:
    """The row of ``scans.tsv``: counts and volume are those of the tables of lesions.

    Args:
        tables: of lesions, by method; the first of ``record.methods`` is the main one.
        page: that shows the scan; its own if empty.

    Example:
        >>> record = ScanRecord(("flair.nii.gz",), ("cc",), brain_volume_ml=1200.0)
        >>> tables = {"cc": pd.DataFrame({"label": [1, 2], "volume_mm3": [5000.0, 7000.0]})}
        >>> row = scan_row(ScanFiles(Path("out"), Entities(sub="01")), record, tables)
        >>> row["lesions"], row["volume_ml"], row["lesion_load_percent"]
        (2, 12.0, 1.0)
    """
    main = tables[record.methods[0]]
    reasons = [reason for note in record.notes for reason in note.reasons]
    volume_ml = float(main["volume_mm3"].sum()) / 1000
    return {
        "subject": subject_name(files.scan.sub),
        "session": session_name(files.scan.ses),
        "scan": files.name,
        "quality": worst(note.grade for note in record.notes),
        "lesions": len(main),
        "volume_ml": round(volume_ml, 3),
        "mask_volume_ml": stated_volume_ml(record),
        "brain_volume_ml": record.brain_volume_ml,
        "lesion_load_percent": lesion_load_percent(volume_ml, record.brain_volume_ml),
        **{
            f"lesions_{name}": len(tables[name]) if name in tables else None
            for name in ("cc", "acls", "offsets")
        },
        "seconds": total_seconds(record),
        "quality_reasons": "; ".join(reasons) or None,
        "source": record.input_path,
        "page": page or files.page,
    }


def lesion_load_percent(volume_ml: float, brain_ml: float | None) -> float | None:
    """Lesion volume of brain volume, in percent; None where the brain is unknown or empty.

    Example:
        >>> lesion_load_percent(12.0, 1200.0)
        1.0
    """
    return round(100 * volume_ml / brain_ml, 3) if brain_ml else None


def identified(table: pd.DataFrame, files: ScanFiles, record: ScanRecord) -> pd.DataFrame:
    """Rows of lesions with the columns that say which scan they are of.

    Example:
        >>> files = ScanFiles(Path("out"), Entities(sub="01", ses="M12"))
        >>> record = ScanRecord(("flair.nii.gz",), ("cc",))
        >>> table = identified(pd.DataFrame({"label": [1]}), files, record)
        >>> table[["label", "subject", "session", "scan"]].values.tolist()
        [[1, 'sub-01', 'ses-M12', 'sub-01_ses-M12']]
    """
    return table.assign(
        subject=subject_name(files.scan.sub),
        session=session_name(files.scan.ses),
        scan=files.name,
        source=record.input_path,
    )
