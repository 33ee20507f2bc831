"""A head as a DICOM series: one file a slice."""

import numpy as np
import pydicom
from heads import SPACING_MM


def write_series(folder, head, *, patient="P1", date="20200304", number=3, **tags):
    """The series in a folder; the head's axes run to the right, to the front and up."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.rint(head[::-1, ::-1]).astype(np.uint16).transpose(2, 1, 0)

    def uid(*parts):
        return pydicom.uid.generate_uid(entropy_srcs=[patient, date, str(number), *parts])

    for index, image in enumerate(pixels):
        header = pydicom.Dataset()
        header.SOPClassUID = pydicom.uid.MRImageStorage
        header.SOPInstanceUID = uid("image", str(index))
        header.StudyInstanceUID = uid("study")
        header.SeriesInstanceUID = uid("series")
        header.FrameOfReferenceUID = uid("frame")
        header.Modality, header.Manufacturer = "MR", "SIEMENS"
        header.PatientName = header.PatientID = patient
        header.PatientBirthDate, header.PatientSex = "19600102", "F"
        header.StudyDate = header.SeriesDate = header.AcquisitionDate = date
        header.StudyTime = header.AcquisitionTime = "101112"
        header.AccessionNumber = header.StudyID = "1"
        header.ReferringPhysicianName = ""
        header.SeriesDescription, header.SeriesNumber = "t2 FLAIR tra", number
        header.InstanceNumber = index + 1
        header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
        header.ScanningSequence, header.SequenceVariant = "IR", "SK"
        header.MRAcquisitionType = "2D"
        header.RepetitionTime, header.EchoTime, header.InversionTime = 9000, 100, 2500
        header.EchoNumbers = 1
        header.SliceThickness = header.SpacingBetweenSlices = SPACING_MM
        header.PixelSpacing = [SPACING_MM, SPACING_MM]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient = [-80, -96, -72 + SPACING_MM * index]
        header.Rows, header.Columns = image.shape
        header.SamplesPerPixel = 1
        header.PhotometricInterpretation = "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
        header.PixelRepresentation = 0
        for name, value in tags.items():
            setattr(header, name, value)
        header.PixelData = image.tobytes()
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.save_as(folder / f"{number}-{index:03d}.dcm", enforce_file_format=True)
    return folder
