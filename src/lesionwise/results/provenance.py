"""What the record of a mask says about its making, the same for one scan and for two visits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from lesionwise.results.keys import Generator, to_keys


class MaskRecord(Protocol):
    """What the sidecar of a mask says: a ``ScanRecord`` or a ``PairRecord``."""

    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def generated_by(self) -> Generator: ...
    @property
    def recipe(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def model_hash(self) -> str: ...
    @property
    def departures(self) -> tuple[str, ...]: ...
    @property
    def mask_volume_ml(self) -> float | None: ...
    @property
    def seconds(self) -> Mapping[str, float | None]: ...
    @property
    def summary(self) -> Mapping[str, Any]: ...


def provenance(record: MaskRecord) -> dict[str, Any]:
    """What the sidecars of all images of a result have in common.

    Example:
        >>> from lesionwise.results.scan import ScanRecord
        >>> record = ScanRecord(("flair.nii.gz",), ("cc",), recipe="unet-cc", model_hash="ba78")
        >>> about = provenance(record)
        >>> about["Sources"], about["Recipe"], about["ModelHash"]
        (['flair.nii.gz'], 'unet-cc', 'ba78')
    """
    return {
        "Sources": list(record.sources),
        "GeneratedBy": record.generated_by,
        "Recipe": record.recipe,
        "Source": record.source,
        "ModelHash": record.model_hash,
        "Departures": list(record.departures),
    }


def sidecar_of(record: MaskRecord) -> dict[str, Any]:
    """The keys of a record as they are written.

    Example:
        >>> from lesionwise.results.scan import ScanRecord
        >>> keys = sidecar_of(ScanRecord(("flair.nii.gz",), ("cc",), threshold=0.5))
        >>> keys["Methods"], keys["Threshold"]
        (('cc',), 0.5)
    """
    keys = to_keys(record)
    del keys["Summary"]  # of earlier versions
    return keys


def stated_volume_ml(record: MaskRecord) -> float | None:
    """Volume of the mask by its record, also in folders written before; None if unknown.

    Example:
        >>> from lesionwise.results.scan import ScanRecord
        >>> stated_volume_ml(ScanRecord(("flair.nii.gz",), ("cc",), mask_volume_ml=4.2))
        4.2
    """
    before = record.summary.get("volume_ml")
    if record.mask_volume_ml is None and isinstance(before, int | float):
        return float(before)
    return record.mask_volume_ml


def total_seconds(record: MaskRecord) -> float:
    """Wall time of all stages, to a tenth of a second.

    Example:
        >>> from lesionwise.results.scan import ScanRecord
        >>> seconds = {"read": 0.5, "find lesions": 2.25, "write": None}
        >>> total_seconds(ScanRecord(("flair.nii.gz",), ("cc",), seconds=seconds))
        2.8
    """
    return round(sum(time for time in record.seconds.values() if time is not None), 1)
