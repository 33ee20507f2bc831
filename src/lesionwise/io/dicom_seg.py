"""Lesions as DICOM segmentation objects. Needs the extra ``dicom``."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lesionwise import __version__
from lesionwise.io.dicom import RAS_FROM_LPS, on_series, slice_files
from lesionwise.io.dicom_series import Series, module
from lesionwise.io.files import atomic_path
from lesionwise.types import Grid, InputError, Volume

MAX_SEGMENTS = 65535

_KEPT = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "PositionReferenceIndicator", "Modality",
    "ImageType", "InstanceNumber", "Rows", "Columns", "NumberOfFrames", "PixelSpacing",
    "SliceThickness", "SpacingBetweenSlices", "ImageOrientationPatient", "ImagePositionPatient",
    "DimensionOrganizationSequence", "DimensionIndexSequence", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""All that is taken from the headers of a series while the patient's identity is left out."""

_LEFT_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def write_segmentation(
    path: str | Path,
    volume: Volume,
    series: Series,
    *,
    method: str = "",
    kind: Literal["binary", "labelmap"] = "binary",
    keep_identity: bool = False,
) -> None:
    """Write a mask or an instance map as a DICOM segmentation of the series it was made from.

    Every label becomes one segment, in ascending order and named after it; a mask has one. A map
    without lesions keeps one empty segment. Slices without lesions are left out, as the standard
    advises.

    Args:
        volume: (I, J, K) bool, or integer with labels above 0, on the voxels of the series in any
            axis order.
        method: what made it, named in the file.
        kind: ``binary`` is read by every viewer; ``labelmap`` came into the standard in 2024 and
            is written ten times as fast where there are hundreds of lesions.
        keep_identity: copy who the patient is, when the study was made and who asked for it, as
            an archive needs to file the object. By default these fields are left empty, and
            only the identifiers of study, series and images tie the object to its source.

    Raises:
        InputError: If the volume lies on other voxels, has more than 65535 labels, cannot be
            written, or the extra is not installed.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> from lesionwise.io.dicom import read_series
        >>> image = module("pydicom").dcmread(get_testdata_file("MR_small.dcm"))
        >>> for k in range(3):
        ...     image.InstanceNumber, image.ImagePositionPatient = k, [0, 0, 5 * k]
        ...     image.SOPInstanceUID = f"1.2.{k}"
        ...     image.save_as(f"{k}.dcm")
        ...
        >>> scan, series = read_series(".")
        >>> write_segmentation("lesions.dcm", Volume(scan.array > 1000, scan.grid), series)
        >>> module("pydicom").dcmread("lesions.dcm").Modality
        'SEG'
    """
    path = Path(path)
    volume = on_series(volume, series, str(path))
    labels = [int(label) for label in np.unique(volume.array) if label]
    if len(labels) > MAX_SEGMENTS or min(labels, default=1) < 0:
        raise InputError(f"{path}: {len(labels)} labels do not fit a DICOM segmentation")
    segments = np.searchsorted([0, *labels], volume.array).astype(np.uint16)
    is_mask = volume.array.dtype.kind == "b"
    names = ["lesions"] if is_mask or not labels else [f"lesion {label}" for label in labels]
    frames = segments.transpose(2, 1, 0)
    content = _dataset(series, frames, names, volume.grid, method, kind, keep_identity)
    with atomic_path(path) as temporary:
        content.save_as(temporary)


def _dataset(
    series: Series,
    frames: NDArray[np.uint16],
    names: list[str],
    grid: Grid,
    method: str,
    kind: str,
    keep_identity: bool,
) -> Any:
    pydicom, highdicom = module("pydicom"), module("highdicom")
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in slice_files(series)]
    if not keep_identity:
        sources = [_without_identity(source) for source in sources]
    for source in sources:
        if "ImagePositionPatient" in source:  # scanners state this distance wrongly at times
            source.SpacingBetweenSlices = f"{grid.spacing_mm[2]:.10g}"
    codes = module("pydicom.sr.codedict").codes
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"lesionwise {method}".strip(),
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
    )
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_id=name,
            tracking_uid=_uid(pydicom, series.uid, name),
            anatomic_regions=[codes.SCT.Brain],
        )
        for number, name in enumerate(names, start=1)
    ]
    digest = hashlib.sha256(frames.tobytes() + f"{method} {kind}".encode()).hexdigest()
    multiframe = len(sources) == 1
    pixels: Any = frames
    if multiframe:
        affine = RAS_FROM_LPS @ grid.affine @ np.eye(4)[:, [2, 1, 0, 3]]
        pixels = highdicom.Volume(
            frames, affine, "PATIENT", str(sources[0].get("FrameOfReferenceUID", "")) or None
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=pixels,
            segmentation_type=kind.upper(),
            segment_descriptions=described,
            series_instance_uid=_uid(pydicom, series.uid, method, "series"),
            series_number=series.number + 1000,
            sop_instance_uid=_uid(pydicom, series.uid, digest),
            instance_number=1,
            manufacturer="lesionwise",
            manufacturer_model_name="lesionwise",
            software_versions=__version__,
            device_serial_number="0",
            content_label="LESIONS",
            content_description="lesions of the brain",
            content_creator_name="lesionwise",
            omit_empty_frames=bool(frames.any()),
        )


def _uid(pydicom: Any, *parts: str) -> str:
    return str(pydicom.uid.generate_uid(entropy_srcs=["lesionwise", *parts]))


def _without_identity(source: Any) -> Any:
    """A header that holds geometry and identifiers of images, and no word on the patient."""
    kept = module("pydicom").Dataset()
    kept.file_meta = source.file_meta
    for tag in _KEPT:
        if tag in source:
            kept[tag] = source[tag]
    for tag in _LEFT_EMPTY:
        setattr(kept, tag, "")
    return kept
