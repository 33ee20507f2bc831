"""Small classic MR series with all that a scanner writes into their headers."""

import numpy as np
import pydicom

SLICES, ROWS, COLUMNS = 6, 16, 12
PIXELS = np.random.default_rng(0).integers(0, 900, (SLICES, ROWS, COLUMNS)).astype(np.uint16)
STEP_MM = 3.0


def directions(tilt=0.2):
    """Row and column directions of an oblique transverse scan, in LPS."""
    return np.array([1.0, 0, 0]), np.array([0, np.cos(tilt), np.sin(tilt)])


def write_series(
    folder,
    description="t2 FLAIR tra",
    number=3,
    pixels=PIXELS,
    positions=None,
    along=None,
    patient="SECRET",
    origin=(-40.0, -30.0, 12.0),
    **tags,
):
    """A classic MR series: one file a slice, named against the order of the slices.

    Args:
        pixels: slices of rows of columns.
        positions: of the slices along their normal, in mm from ``origin`` (LPS).
        along: directions of a row and of a column.
        tags: further ones, or others in the place of those that are set here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    along_i, along_j = along or directions()
    normal = np.cross(along_i, along_j)
    positions = np.arange(len(pixels)) * STEP_MM if positions is None else positions
    series_uid = tags.get("SeriesInstanceUID") or pydicom.uid.generate_uid(
        entropy_srcs=["series", str(number), patient]
    )
    for index, (image, position) in enumerate(zip(pixels, positions, strict=True)):
        uid = pydicom.uid.generate_uid(entropy_srcs=[series_uid, str(index)])
        header = pydicom.Dataset()
        header.SOPClassUID = pydicom.uid.MRImageStorage
        header.SOPInstanceUID = uid
        header.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["study", patient])
        header.SeriesInstanceUID = series_uid
        header.FrameOfReferenceUID = pydicom.uid.generate_uid(entropy_srcs=["frame", patient])
        header.Modality = "MR"
        header.Manufacturer = "SIEMENS"
        header.PatientName = f"{patient}^Name"
        header.PatientID = f"{patient}-47110815"
        header.PatientBirthDate = "19600102"
        header.PatientSex = "F"
        header.PatientComments = f"{patient} comment"
        header.InstitutionName = f"{patient} hospital"
        header.ReferringPhysicianName = f"{patient}^Doctor"
        header.StudyDescription = f"{patient} study"
        header.AccessionNumber = f"{patient[:8]}77"
        header.StudyDate = header.SeriesDate = header.AcquisitionDate = "20200304"
        header.StudyTime = header.AcquisitionTime = "101112"
        header.StudyID = "1"
        header.SeriesDescription = description
        header.SeriesNumber = number
        header.InstanceNumber = index + 1
        header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        header.ScanningSequence = "IR"
        header.SequenceVariant = "SK"
        header.MRAcquisitionType = "2D"
        header.RepetitionTime, header.EchoTime, header.InversionTime = 9000, 100, 2500
        header.EchoNumbers = 1
        header.SliceThickness = header.SpacingBetweenSlices = STEP_MM
        header.PixelSpacing = [0.9, 0.8]
        header.ImageOrientationPatient = [f"{v:.10g}" for v in (*along_i, *along_j)]
        place = np.array(origin) + position * normal
        header.ImagePositionPatient = [f"{v:.10g}" for v in place]
        header.Rows, header.Columns = image.shape
        header.SamplesPerPixel = 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
        header.PixelRepresentation = 0
        for name, value in tags.items():
            setattr(header, name, value)
        header.PixelData = image.astype(np.uint16).tobytes()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.file_meta.MediaStorageSOPInstanceUID = uid
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        name = f"S{number}_{len(pixels) - index:03d}.dcm"
        header.save_as(folder / name, enforce_file_format=True)
    return folder
