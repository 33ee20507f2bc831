"""The supplied brain masks and transforms of the real scans, on the scans' own grids."""

from collections.abc import Callable

import numpy as np
import pytest

from lesionwise.io.nifti import read_mask
from lesionwise.preprocess.geometry import resample_to


@pytest.fixture(scope="session")
def common_to_raw(shared) -> Callable[[str, str], np.ndarray]:
    """World matrix (RAS mm) of a visit: common space of the subject to its raw FLAIR."""

    def find(subject, session):
        folder = f"data/derivatives/coregistered/sub-{subject}/ses-{session}/anat"
        name = f"sub-{subject}_ses-{session}_from-FLAIR_to-common_mode-image_xfm.txt"
        lines = shared(f"{folder}/{name}").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        numbers = np.array(fields["Parameters"].split(), dtype=float)
        center = np.array(fields["FixedParameters"].split(), dtype=float)
        matrix = np.eye(4)
        matrix[:3, :3] = numbers[:9].reshape(3, 3)
        matrix[:3, 3] = numbers[9:] + center - matrix[:3, :3] @ center
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world is LPS
        return flip @ matrix @ flip

    return find


@pytest.fixture(scope="session")
def supplied_mask(shared, common_to_raw) -> Callable[..., np.ndarray]:
    """Brain mask of a visit on the grid of its raw scan, bool."""

    def find(subject, session, grid):
        folder = f"data/derivatives/coregistered/sub-{subject}/anat"
        mask = read_mask(shared(f"{folder}/sub-{subject}_space-common_desc-brain_mask.nii.gz"))
        inverse = np.linalg.inv(common_to_raw(subject, session))
        return resample_to(mask, grid, order=0, world=inverse).array.astype(bool)

    return find
