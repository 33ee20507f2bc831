"""New lesions of two visits by a model that looks at both: what is written, and read again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise.instances.components import DEFAULT_CONNECTIVITY
from lesionwise.io.checked import printable
from lesionwise.io.files import write_json
from lesionwise.io.names import Entities
from lesionwise.io.nifti import read_mask, read_volume, write_volume
from lesionwise.io.record import FileRecord, file_records
from lesionwise.results.keys import Generator, check_labels, generated_by, read_keys
from lesionwise.results.lesion_set import (
    LesionSet,
    read_lesion_table,
    read_lesions,
    volume_ml,
    write_lesions,
)
from lesionwise.results.names import PairFiles, beside, pair_page, scan_name
from lesionwise.results.provenance import provenance, sidecar_of, stated_volume_ml, total_seconds
from lesionwise.results.words import session_name, subject_name
from lesionwise.types import Grid, InputError, Volume


@dataclass(frozen=True)
class PairRecord:
    """What the sidecar of a mask of new lesions says.

    Attributes:
        sources: the images that were read, baseline and follow-up.
        inputs: what the user named for them.
        method: instance separation method.
        baseline, followup: sessions, without ``ses-``.
        shown: the image that a page shows; the follow-up, or a prepared copy among the results.
        mask_volume_ml: of the mask; None in folders written before.
        summary: a row of numbers in folders written before; not written any more.

        The others are those of a scan's record.
    """

    sources: tuple[str, ...]
    method: str
    shown: str
    inputs: tuple[str, ...] = ()
    baseline: str = ""
    followup: str = ""
    generated_by: Generator = field(default_factory=lambda: generated_by("lesionwise predict"))
    recipe: str = ""
    source: str = ""
    model_hash: str = ""
    departures: tuple[str, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)
    type: str = "Lesion"
    threshold: float | None = None
    mask_volume_ml: float | None = None
    warnings: tuple[str, ...] = ()
    seconds: dict[str, float | None] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.sources) != 2:
            raise ValueError("a pair has two sources")
        check_labels((self.method, self.baseline, self.followup))

    @staticmethod
    def read(files: PairFiles) -> PairRecord:
        """From the sidecar.

        Raises:
            InputError: If it is missing or malformed.
        """
        record = read_keys(files.sidecar, PairRecord)
        if record.baseline or record.followup:
            return record
        before = {name: str(record.summary.get(name) or "") for name in ("baseline", "followup")}
        try:
            return replace(record, baseline=before["baseline"], followup=before["followup"])
        except ValueError as error:
            raise InputError(f"{files.sidecar}: {printable(error)}") from error

    @property
    def input_paths(self) -> tuple[str, ...]:
        return self.inputs or self.sources


@dataclass(frozen=True, eq=False)
class PairResult:
    """New lesions of two visits.

    Attributes:
        scan: entities of the scan that the results lie on.
        record: what made them.
        probability: float32 in [0, 1].
        mask, brain: bool.
        lesions: new lesions.
        prepared: name and image of the prepared scan, where the results lie on its grid.
    """

    scan: Entities
    record: PairRecord
    probability: Volume
    mask: Volume
    brain: Volume
    lesions: LesionSet
    prepared: tuple[str, Volume] | None = None

    def write(self, root: Path, *, grid: Grid | None = None) -> PairRecord:
        """Write images and tables, and last the mask's sidecar.

        Args:
            root: the output folder.
            grid: of the file whose order of axes the images take.

        Raises:
            InputError: If the folder or the disk does not take a file.
        """
        files = PairFiles(root, self.scan)
        record, made = self.record, provenance(self.record)
        written = [files.probability, files.mask, files.brain]
        write_volume(files.probability, self.probability, grid=grid)
        write_json(beside(files.probability, ".json"), made)
        about = {**made, "Method": record.method, "Connectivity": DEFAULT_CONNECTIVITY}
        written += write_lesions(files.instances(record.method), self.lesions, about, grid)
        write_volume(files.mask, self.mask, grid=grid)
        write_volume(files.brain, self.brain, grid=grid)
        if self.prepared is not None:
            channel, image = self.prepared
            write_volume(files.shown(channel), image)
            written.append(files.shown(channel))
            record = replace(record, shown=files.shown(channel).relative_to(root).as_posix())
        record = replace(
            record, mask_volume_ml=volume_ml(self.mask), files=file_records(root, written)
        )
        write_json(files.sidecar, sidecar_of(record))
        return record

    @staticmethod
    def read(root: Path, scan: Entities) -> PairResult:
        """All of it again, images as the package holds them; no prepared scan.

        Raises:
            InputError: If a file is missing or malformed.
        """
        files = PairFiles(root, scan)
        record = PairRecord.read(files)
        return PairResult(
            scan,
            record,
            read_volume(files.probability),
            read_mask(files.mask),
            read_mask(files.brain),
            read_lesions(files, record.method),
        )


def pair_row(files: PairFiles, record: PairRecord, table: pd.DataFrame) -> dict[str, Any]:
    """The row of ``pairs.tsv``: counts and volume are those of the table of new lesions.

    Example:
        >>> scan = Entities(sub="01", ses="M12")
        >>> record = PairRecord(("M00.nii.gz", "M12.nii.gz"), "cc", "M12.nii.gz")
        >>> table = pd.DataFrame({"label": [1, 2], "volume_mm3": [20.0, 30.0]})
        >>> row = pair_row(PairFiles(Path("out"), scan), record, table)
        >>> row["lesions"], row["volume_ml"]
        (2, 0.05)
    """
    return {
        **_named(files, record),
        "lesions": len(table),
        "volume_ml": round(float(table["volume_mm3"].sum()) / 1000, 3),
        "mask_volume_ml": stated_volume_ml(record),
        "seconds": total_seconds(record),
        "warnings": "; ".join(record.warnings) or None,
        "source": " ".join(record.input_paths),
        "page": pair_page(files.scan, record.baseline, record.followup),
    }


def new_lesions(files: PairFiles, record: PairRecord) -> pd.DataFrame:
    """The rows of ``new_lesions.tsv`` of one pair.

    Raises:
        InputError: If the table is missing or malformed.

    Example:
        >>> from lesionwise.io.files import write_table
        >>> files = PairFiles(Path("out"), Entities(sub="01", ses="M12"))
        >>> write_table(beside(files.instances("cc"), ".tsv"), [{"index": 1, "volume_mm3": 20.5}])
        >>> record = PairRecord(("M00.nii.gz", "M12.nii.gz"), "cc", "M12.nii.gz")
        >>> new_lesions(files, record)[["subject", "volume_mm3", "source"]].values.tolist()
        [['sub-01', 20.5, 'M12.nii.gz']]
    """
    table = read_lesion_table(files, record.method)
    names = {**_named(files, record), "method": record.method}
    return table.assign(**names, source=record.input_paths[-1])


def _named(files: PairFiles, record: PairRecord) -> Mapping[str, Any]:
    return {
        "subject": subject_name(files.scan.sub),
        "baseline": session_name(record.baseline),
        "followup": session_name(record.followup),
        "scan": scan_name(files.scan),
    }
