import io

import numpy as np
import pytest
from PIL import Image

from lesionwise.report.overlay import BOTH, FALSE, MISSED, overlay_png
from lesionwise.types import Grid, Instances, Volume

GRID = Grid((12, 10, 6), np.diag([1.0, 1.0, 2.0, 1.0]))


def _lesion(*columns: int) -> Instances:
    labels = np.zeros(GRID.shape, dtype=np.int32)
    for column in columns:
        labels[column, 4:7, 3] = 1
    return Instances(labels, GRID)


def _picture(image: Volume | None = None) -> np.ndarray:
    png = overlay_png(_lesion(4, 5), _lesion(5, 6), image, slices=1, height_px=100)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def _columns_of(rgb: np.ndarray, color: tuple[int, int, int]) -> float:
    return float(np.nonzero((rgb == color).all(axis=2))[1].mean())


def test_the_patients_right_is_on_the_left() -> None:
    rgb = _picture()
    # i runs to the patient's left in RAS, reversed: column 4 lies further right than 6
    assert _columns_of(rgb, FALSE) < _columns_of(rgb, BOTH) < _columns_of(rgb, MISSED)


def test_a_scan_stands_alone_and_below_it_with_both_sides() -> None:
    image = Volume(np.linspace(1, 100, 720).reshape(GRID.shape).astype(np.float32), GRID)
    rgb = _picture(image)
    assert rgb.shape[0] == 2 * 100 + 4
    alone, over = rgb[:100], rgb[104:]
    assert (alone[..., 0] == alone[..., 1]).all()
    assert (over == BOTH).all(axis=2).any()
    untouched = (over[..., 0] == over[..., 1]) & (over[..., 1] == over[..., 2])
    assert (over[untouched] == alone[untouched]).all()


def test_a_scan_on_another_grid_is_refused() -> None:
    other = Volume(np.ones((3, 3, 3)), Grid((3, 3, 3), np.eye(4)))
    with pytest.raises(ValueError, match="grid"):
        overlay_png(_lesion(4), _lesion(4), other)
