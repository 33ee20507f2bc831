import io

import numpy as np
import pytest
from PIL import Image

from lesionwise.report.display import Display, prepare
from lesionwise.report.pictures import Picture, choose_slices, montage_of, panel
from lesionwise.types import Grid, Instances, Volume

GRID = Grid((40, 48, 36), np.eye(4))


def _image() -> Volume:
    index = np.indices(GRID.shape).reshape(3, -1).T
    center = (np.array(GRID.shape) - 1) / 2
    inside = ((((index - center) / center) ** 2).sum(axis=1) < 1).reshape(GRID.shape)
    return Volume(np.where(inside, 100, 0).astype(np.float32), GRID)


def _instances(*corners: tuple[int, int, int]) -> Instances:
    labels = np.zeros(GRID.shape, dtype=np.int32)
    for label, (i, j, k) in enumerate(corners, start=1):
        labels[i : i + 3, j : j + 3, k : k + 3] = label
    return Instances(labels, GRID)


def _display(*corners: tuple[int, int, int]) -> Display:
    return prepare(_image(), {"cc": _instances(*corners)}, None)


def montage(image: Volume, instances: Instances | None = None, **options) -> Picture:
    """A montage of an image and its lesions."""
    display = prepare(image, {} if instances is None else {"shown": instances}, None)
    return montage_of(display, "shown", **options)


def test_every_lesion_is_numbered_where_slices_suffice() -> None:
    instances = _instances((10, 20, 5), (20, 20, 12), (25, 30, 20), (12, 12, 28))
    picture = montage(_image(), instances, axial=5)
    assert picture.numbered == (1, 2, 3, 4)
    assert picture.missing == ()


def test_what_the_slices_leave_out_is_said() -> None:
    instances = _instances(*((20, 22, k) for k in range(2, 34, 4)))
    picture = montage(_image(), instances, axial=2, columns=2)
    assert len(picture.numbered) + len(picture.missing) == 8
    assert set(picture.numbered).isdisjoint(picture.missing)


def test_the_place_of_a_number_is_the_place_of_its_outline() -> None:
    picture = montage(_image(), _instances((10, 20, 15)), colors={1: "#ff0000"}, px_per_mm=3)
    red = (picture.rgb[..., 0] > 200) & (picture.rgb[..., 1] < 60)
    height, width = red.shape
    x, y = picture.places[1]
    near = red[
        round(y * height) - 12 : round(y * height) + 12,
        round(x * width) - 12 : round(x * width) + 12,
    ]
    assert near.any()


def test_the_patients_right_is_on_the_left() -> None:
    display = _display((2, 20, 15))  # low i: the patient's left
    low_i = panel(display, display.labels["cc"], "axial", 16, colors={1: "#ff0000"})[0]
    red = np.flatnonzero(((low_i[..., 0] > 200) & (low_i[..., 1] < 60)).any(axis=0))
    assert red.mean() > low_i.shape[1] / 2


def test_the_front_of_the_head_is_up_in_axial_slices() -> None:
    display = _display((20, 42, 15))
    front = panel(display, display.labels["cc"], "axial", 16, colors={1: "#ff0000"})[0]
    red = np.flatnonzero(((front[..., 0] > 200) & (front[..., 1] < 60)).any(axis=1))
    assert red.mean() < front.shape[0] / 2


def test_thick_slices_keep_their_proportions() -> None:
    grid = Grid((20, 24, 8), np.diag([1.0, 1.0, 4.0, 1.0]))
    display = prepare(Volume(np.ones(grid.shape, dtype=np.float32), grid), {}, None)
    none = np.zeros(grid.shape, dtype=np.int32)
    shown = panel(display, none, "coronal", 10, px_per_mm=2)[0]
    assert shown.shape[:2] == (8 * 4 * 2, 20 * 2)


def test_the_outline_leaves_the_lesion_visible() -> None:
    display = _display((18, 20, 15))
    plain = panel(display, np.zeros_like(display.labels["cc"]), "axial", 16, px_per_mm=4)[0]
    drawn = panel(display, display.labels["cc"], "axial", 16, px_per_mm=4, colors={1: "#ff0000"})[0]
    row, column = round((48 - 21.5) * 4), round((40 - 19.5) * 4)
    assert (drawn[row, column] == plain[row, column]).all()
    assert (drawn != plain).any()


def test_chosen_slices_show_the_most_lesions() -> None:
    display = _display((10, 20, 5), (20, 20, 5), (25, 30, 20))
    chosen = choose_slices(display.labels["cc"], display.gray, "axial", 2)
    assert any(5 <= at < 8 for at in chosen)
    assert any(20 <= at < 23 for at in chosen)


@pytest.mark.parametrize("count", [1, 4, 36])
def test_slices_without_lesions_are_spread(count: int) -> None:
    display = prepare(_image(), {}, None)
    none = np.zeros(GRID.shape, dtype=np.int32)
    chosen = choose_slices(none, display.gray, "axial", count)
    assert len(set(chosen)) == count
    assert chosen == sorted(chosen)


def test_no_lesions_and_an_empty_image_give_a_picture() -> None:
    empty = Volume(np.zeros(GRID.shape, dtype=np.float32), GRID)
    assert montage(empty).rgb.ndim == 3


def test_png_and_webp_open_as_pictures_of_the_same_size() -> None:
    picture = montage(_image(), _instances((10, 20, 15)), axial=2, columns=2)
    for data in (picture.png(), picture.webp()):
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.size == picture.rgb.shape[1::-1]


def test_the_same_input_gives_the_same_bytes() -> None:
    one, two = (montage(_image(), _instances((10, 20, 15)), axial=2) for _ in range(2))
    assert one.png() == two.png()
