"""How much of a lesion voxels of other sizes show, by hand."""

import numpy as np
import pytest

from lesionwise.change.partial_volume import Acquisition, relative_visibility, visible_fraction
from lesionwise.types import Grid

COMMON = Grid((20, 20, 30), np.eye(4))
FINE = Acquisition(COMMON, np.eye(4))


def thick(start_mm: float = 2.5, slice_mm: float = 6.0) -> Acquisition:
    """Slices along k whose first is centered at ``start_mm``."""
    affine = np.diag([1.0, 1.0, slice_mm, 1.0])
    affine[2, 3] = start_mm
    return Acquisition(Grid((20, 20, int(30 / slice_mm)), affine), np.eye(4))


def plate(low: int, high: int) -> np.ndarray:
    """A plate through the whole field of view, of slices ``low`` to ``high`` - 1."""
    index = np.argwhere(np.ones((20, 20, high - low), dtype=bool))
    return index + np.array([0, 0, low])


def test_equal_voxels_show_a_lesion_whole() -> None:
    assert visible_fraction(plate(4, 9), COMMON, FINE) == pytest.approx(1)


def test_a_plate_of_half_a_slice_shows_half_its_contrast_at_the_center_of_the_slice() -> None:
    # slice 1 is centered at 8.5 mm and reaches from voxel 6 to voxel 11
    shown = visible_fraction(plate(8, 10), COMMON, thick())
    assert shown == pytest.approx(2 / 6 * (1 - 0.5 / 6), abs=0.01)


def test_a_plate_on_the_border_of_two_slices_shows_half_as_much() -> None:
    assert visible_fraction(plate(10, 14), COMMON, thick()) == pytest.approx(2 / 6, abs=0.01)


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_what_is_shown_does_not_depend_on_where_the_grid_begins(shift: int) -> None:
    # three of six millimeters, centered: samples of the slice lie halfway between voxels
    shown = visible_fraction(plate(7 + shift, 10 + shift), COMMON, thick(2.0 + shift))
    assert shown == pytest.approx(visible_fraction(plate(7, 10), COMMON, thick(2.0)))
    assert shown == pytest.approx(0.44, abs=0.01)


def test_what_lies_outside_the_field_of_view_is_not_shown() -> None:
    low = thick()
    cut = Acquisition(Grid((20, 20, 2), low.scan.affine), np.eye(4))
    assert visible_fraction(plate(20, 24), COMMON, cut) == 0


def test_the_world_matrix_places_the_lesion() -> None:
    shift = np.eye(4)
    shift[2, 3] = 3.0
    there = Acquisition(thick().scan, shift)
    assert visible_fraction(plate(5, 9), COMMON, there) == pytest.approx(
        visible_fraction(plate(8, 12), COMMON, thick())
    )


def test_an_oblique_field_of_view_shows_a_large_lesion_whole() -> None:
    turn = np.eye(4)
    angle = np.deg2rad(20)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = Grid((60, 60, 60), turn @ np.diag([0.5, 0.5, 0.5, 1.0]))
    ball = np.argwhere(((np.indices((20, 20, 30)) - 10) ** 2).sum(axis=0) < 16)
    inside = Acquisition(grid, np.eye(4))
    assert visible_fraction(ball, COMMON, inside) > 0.85


def test_alike_acquisitions_see_alike_and_finer_ones_never_count_as_more() -> None:
    index = plate(10, 14)
    assert relative_visibility(index, COMMON, thick(), thick()) == 1
    assert relative_visibility(index, COMMON, thick(), FINE) == 1
    assert relative_visibility(index, COMMON, FINE, thick()) < 0.5
