"""A BIDS data set, file by file."""

import nibabel
import numpy as np


def begin(root):
    """The folder as a data set without subjects."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "t", "BIDSVersion": "1.10.0"}')
    return root


def save_visit(root, subject, session, volumes, affine=None):
    """Write one visit's arrays under the ends of their names, such as ``desc-brain_mask``.

    ``session`` "" leaves the session out; masks (bool) are written as uint8.
    """
    stem = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    folder = root / f"sub-{subject}" / (f"ses-{session}" if session else "") / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in volumes.items():
        array = array.astype(np.uint8) if array.dtype == bool else array
        image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
        nibabel.save(image, folder / f"{stem}_{name}.nii.gz")
