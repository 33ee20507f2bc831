"""A head as a DICOM series."""

import dicom_series
import numpy as np
from dicom_series import pydicom
from heads import SPACING_MM


def write_series(folder, head, *, patient="P1", date="20200304", number=3, **tags):
    """The series in a folder; the head's axes run to the right, to the front and up."""
    pixels = np.rint(head[::-1, ::-1]).astype(np.uint16).transpose(2, 1, 0)
    about = {
        f"{level}InstanceUID": pydicom.uid.generate_uid(
            entropy_srcs=[patient, date, str(number), level]
        )
        for level in ("Study", "Series")
    }
    about |= {"StudyDate": date, "SeriesDate": date, "AcquisitionDate": date}
    about |= {"SliceThickness": SPACING_MM, "SpacingBetweenSlices": SPACING_MM}
    return dicom_series.write_series(
        folder,
        number=number,
        pixels=pixels,
        positions=np.arange(len(pixels)) * SPACING_MM,
        along=(np.array([1.0, 0, 0]), np.array([0, 1.0, 0])),
        patient=patient,
        origin=(-80.0, -96.0, -72.0),
        **{"PixelSpacing": [SPACING_MM, SPACING_MM], **about, **tags},
    )
