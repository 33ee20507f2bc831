import numpy as np
import pytest

from lesionwise.report.display import MARGIN_MM, SHELL_MM, prepare
from lesionwise.types import Grid, Instances, Volume


def _volume(array: np.ndarray, affine: np.ndarray | None = None) -> Volume:
    return Volume(array, Grid(array.shape, np.eye(4) if affine is None else affine))


def test_crops_to_the_brain_and_a_margin() -> None:
    image = np.zeros((60, 60, 60), dtype=np.float32)
    image[20:30, 25:40, 30:32] = 5
    shown = prepare(_volume(image), {}, _volume(image > 0))
    margin = round(MARGIN_MM)
    assert shown.gray.shape == (10 + 2 * margin, 15 + 2 * margin, 2 + 2 * margin)
    corner = shown.grid.world_mm(np.array([[0, 0, 0]]))[0]
    assert corner.tolist() == [20 - margin, 25 - margin, 30 - margin]


def test_a_lesion_outside_the_brain_mask_is_kept() -> None:
    image = np.ones((40, 40, 40), dtype=np.float32)
    brain = np.zeros(image.shape, dtype=bool)
    brain[10:20, 10:20, 10:20] = True
    labels = np.zeros(image.shape, dtype=np.int32)
    labels[36, 36, 36] = 4
    shown = prepare(_volume(image), {"cc": Instances(labels, _volume(image).grid)}, _volume(brain))
    assert (shown.labels["cc"] == 4).sum() == 1


def test_every_voxel_keeps_its_place_in_any_orientation() -> None:
    rng = np.random.default_rng(2)
    affine = np.array([[0, -2.0, 0, 7], [0, 0, 1.5, -3], [-1.0, 0, 0, 11], [0, 0, 0, 1]])
    labels = np.zeros((12, 10, 8), dtype=np.int32)
    labels[3, 4, 5] = 9
    image = _volume(rng.random(labels.shape).astype(np.float32) + 1, affine)
    shown = prepare(image, {"cc": Instances(labels, image.grid)}, None)
    place = shown.grid.world_mm(np.argwhere(shown.labels["cc"] == 9))
    assert np.allclose(place, image.grid.world_mm(np.array([[3, 4, 5]])))
    assert (np.diag(shown.grid.affine)[:3] > 0).all()


def test_gray_levels_span_black_to_white_within_the_brain() -> None:
    image = np.linspace(100, 900, 8000, dtype=np.float32).reshape(20, 20, 20)
    shown = prepare(_volume(image), {}, _volume(np.ones(image.shape, dtype=bool)))
    assert shown.gray.min() == 0
    assert shown.gray.max() == 255


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_is_shown_without_fault(value: float) -> None:
    shown = prepare(_volume(np.full((5, 5, 5), value, dtype=np.float32)), {}, None)
    assert shown.gray.shape == (5, 5, 5)


def test_values_that_are_not_finite_are_black() -> None:
    image = np.full((6, 6, 6), 10, dtype=np.float32)
    image[0], image[1, 0, 0], image[2, 0, 0] = 20, np.nan, np.inf
    shown = prepare(_volume(image), {}, None)
    assert shown.gray[1, 0, 0] == 0
    assert shown.gray[2, 0, 0] == 0


def test_lesions_on_another_grid_are_refused() -> None:
    image = _volume(np.ones((4, 4, 4), dtype=np.float32))
    other = Instances(np.zeros((4, 4, 5), dtype=np.int32), Grid((4, 4, 5), np.eye(4)))
    with pytest.raises(ValueError, match="cc does not lie on the grid"):
        prepare(image, {"cc": other}, None)


def test_what_lies_far_from_the_brain_is_black() -> None:
    image = np.full((40, 40, 40), 50, dtype=np.float32)
    image[:, :, 20:] = 60
    brain = np.zeros(image.shape, dtype=bool)
    brain[10:30, 10:30, 10:30] = True
    shown = prepare(_volume(image), {}, _volume(brain))
    assert shown.gray[6 + 10, 6 + 10, 6 + 19 + int(SHELL_MM)] > 0
    assert shown.gray[6 + 10, 6 + 10, 6 + 20 + int(SHELL_MM)] == 0
