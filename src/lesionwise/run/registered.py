"""Follow-ups as they were registered: image, subtraction and transform, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lesionwise.change.evidence import match_scale
from lesionwise.change.subtraction import subtraction
from lesionwise.io.bids import FoundScan
from lesionwise.io.files import write_json, write_text
from lesionwise.io.nifti import read_grid, write_volume
from lesionwise.preprocess.geometry import resample_to
from lesionwise.results.folder import source_of
from lesionwise.results.names import ScanFiles, beside
from lesionwise.types import InputError, Matrix, Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From the axes of NIfTI (right, front, up) to those of ITK (left, back, up), and back."""
MIN_TISSUE_VOX = 100


def write_registered(
    output: Path,
    scans: Sequence[FoundScan],
    images: Sequence[Volume],
    brains: Sequence[Volume],
    to_visit: Sequence[Matrix],
) -> list[Path]:
    """Write every follow-up on the baseline scan's voxels, what it shows more, and its transform.

    Under each follow-up's name: ``…_space-baseline_FLAIR.nii.gz`` (linear interpolation),
    ``…_space-baseline_desc-subtraction_FLAIR.nii.gz`` (follow-up minus baseline, the baseline on
    the follow-up's intensity scale, 0 outside of either brain) and
    ``…_from-orig_to-baseline_mode-image_xfm.txt`` (ITK).

    Args:
        scans: of all visits, the baseline first.
        images, brains: as read, each on its own grid.
        to_visit: world mm of the baseline to world mm of each visit.

    Returns:
        The files.

    Raises:
        InputError: If both brains share too little to bring the scans to one intensity scale.
    """
    base, inside = images[0], brains[0]
    grid = read_grid(scans[0].path)
    written: list[Path] = []
    for scan, image, brain, world in zip(
        scans[1:], images[1:], brains[1:], to_visit[1:], strict=True
    ):
        moved = resample_to(image, base.grid, order=1, world=world)
        there = resample_to(brain, base.grid, order=0, world=world).array != 0
        shared = (inside.array != 0) & there
        if int(shared.sum()) < MIN_TISSUE_VOX:
            raise InputError(f"{scan.path}: shares no brain with {scans[0].path.name}")
        baseline = np.asarray(base.array, dtype=np.float32)
        matched = match_scale(baseline, moved.array, shared)
        change = np.where(shared, subtraction(matched, moved.array), np.float32(0))
        files = ScanFiles(output, scan.entities)
        paths = (
            files.path("FLAIR", space="baseline"),
            files.path("FLAIR", space="baseline", desc="subtraction"),
        )
        about = {"Sources": [source_of(scans[0].path), source_of(scan.path)]}
        for path, array in zip(paths, (moved.array, change), strict=True):
            write_volume(path, Volume(array, base.grid), grid=grid)
            write_json(beside(path, ".json"), about)
        transform = paths[0].with_name(f"{files.name}_from-orig_to-baseline_mode-image_xfm.txt")
        write_text(transform, itk_affine(world))
        written += [*paths, transform]
    return written


def itk_affine(world: Matrix) -> str:
    """A transform as ITK, ANTs and SimpleITK read it: points of the output to those of the input.

    Args:
        world: (4, 4), world mm of the fixed image to world mm of the moving one, in NIfTI's axes.

    Example:
        >>> print(itk_affine(np.eye(4)).splitlines()[3])
        Parameters: 1 0 0 0 1 0 0 0 1 0 0 0
    """
    moved = LPS @ world @ LPS
    numbers = [*moved[:3, :3].reshape(-1), *moved[:3, 3]]
    text = " ".join(f"{number + 0.0:.12g}" for number in numbers)
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {text}\nFixedParameters: 0 0 0\n"
    )
