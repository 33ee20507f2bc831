"""DICOM segmentations read back by highdicom, to compare them with what was written."""

import re
import warnings
from pathlib import Path

import highdicom
import numpy as np

from lesionwise.io.dicom import RAS_FROM_LPS
from lesionwise.io.space import on_grid
from lesionwise.types import Grid, Volume


def read_segmentation(path: Path, grid: Grid) -> Volume:
    """A segmentation on a grid: (I, J, K) int32, 0 where no segment is.

    Segments that ``write_segmentation`` named after a label get that label, all others their
    number. Slices that the file leaves out are 0.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = highdicom.seg.segread(path)
        found = content.get_volume(combine_segments=True, rescale_fractional=False)
        names = {
            number: str(content.get_segment_description(number).segment_label)
            for number in content.segment_numbers
        }
    labels = np.zeros(max(names) + 1, dtype=np.int32)
    for number, name in names.items():
        label = re.fullmatch(r"lesion ([0-9]{1,9})", name)
        labels[number] = int(label[1]) if label else number
    array = labels[np.asarray(found.array).transpose(2, 1, 0)]
    affine = RAS_FROM_LPS @ np.asarray(found.affine) @ np.eye(4)[:, [2, 1, 0, 3]]
    return on_whole_grid(array, Grid(array.shape, affine), grid)


def on_whole_grid(array: np.ndarray, part: Grid, grid: Grid) -> Volume:
    """The array, which covers some slices of the grid, on all of it."""
    to_part = np.linalg.inv(part.affine) @ grid.affine
    corners = np.array([[0, 0, 0], np.array(grid.shape) - 1])
    ends = np.rint(corners @ to_part[:3, :3].T + to_part[:3, 3]).astype(int)
    low, high = np.minimum(ends.min(axis=0), 0), np.maximum(ends.max(axis=0) + 1, part.shape)
    affine = part.affine.copy()
    affine[:3, 3] = part.world_mm(low[None])[0]
    whole = np.zeros(high - low, dtype=np.int32)
    whole[tuple(slice(-a, -a + n) for a, n in zip(low, part.shape, strict=True))] = array
    return on_grid(Volume(whole, Grid(whole.shape, affine)), grid, "segmentation", 0.05)
