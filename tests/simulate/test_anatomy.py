import numpy as np
import pytest

from lesionwise.simulate.anatomy import Zones, compose, head_grid, make_head, place_of
from lesionwise.simulate.shells import AIR, BONE, FLUID


@pytest.fixture(scope="module")
def head():
    return make_head(np.random.default_rng(4))


@pytest.fixture(scope="module")
def anatomy(head):
    return compose(head)


def test_fractions_sum_to_one_in_the_brain_and_to_zero_outside(anatomy):
    total = anatomy.white + anatomy.gray + anatomy.fluid
    np.testing.assert_allclose(total[anatomy.brain], 1, atol=1e-5)
    assert anatomy.fluid[~anatomy.brain].max() == 0


def test_fractions_lie_between_zero_and_one(anatomy):
    for part in (anatomy.white, anatomy.gray, anatomy.fluid, anatomy.ventricles):
        assert part.min() >= -1e-6
        assert part.max() <= 1 + 1e-6


def test_volumes_are_those_of_a_head(anatomy):
    """In ml; wide bounds around what is measured in adults."""
    assert 1150 < anatomy.brain.sum() / 1000 < 1900
    assert 8 < anatomy.ventricles.sum() / 1000 < 120
    assert 350 < anatomy.white.sum() / 1000 < 750
    assert 450 < anatomy.gray.sum() / 1000 < 950
    assert 90 < anatomy.infratentorial.sum() / 1000 < 260


def test_atrophy_widens_ventricles_and_thins_the_cortex(head, anatomy):
    later = compose(head, atrophy_mm=0.3)
    assert later.ventricles.sum() > 1.02 * anatomy.ventricles.sum()
    assert later.gray.sum() < anatomy.gray.sum()
    assert (later.ventricles - anatomy.ventricles).min() > -1e-5


def test_a_skull_lies_between_brain_and_air(anatomy):
    """Walking up from the top of the brain: fluid, bone and soft tissue, then air."""
    i, j = (n // 2 for n in anatomy.brain.shape[:2])
    column = np.flatnonzero(anatomy.brain[i + 25, j])
    above = anatomy.shells[i + 25, j, column[-1] + 1 :]
    assert BONE in above
    first_air = int(np.argmax(above == AIR))
    assert 6 < first_air < 40
    assert (above[first_air:] == AIR).all()
    assert not (above[:first_air] == AIR).any()


def test_nothing_but_brain_and_fluid_where_the_brain_is(anatomy):
    assert (anatomy.shells[anatomy.brain] == FLUID).all()


def test_the_grid_is_one_millimeter_and_upright():
    np.testing.assert_array_equal(head_grid().affine[:3, :3], np.eye(3))


@pytest.mark.parametrize(
    ("wall_mm", "cortex_mm", "below", "place"),
    [
        (1.0, 9.0, False, "periventricular"),
        (1.0, 1.0, False, "periventricular"),
        (9.0, 1.0, False, "juxtacortical"),
        (9.0, 9.0, False, "deep white matter"),
        (1.0, 1.0, True, "infratentorial"),
    ],
)
def test_positions(wall_mm, cortex_mm, below, place):
    full = np.ones((3, 3, 3), dtype=np.float32)
    zones = Zones(wall_mm * full, cortex_mm * full, below * full > 0)
    assert place_of(zones, np.array([[1, 1, 1], [1, 1, 2]])) == place


@pytest.mark.slow
def test_same_seed_same_head(anatomy):
    again = compose(make_head(np.random.default_rng(4)))
    np.testing.assert_array_equal(again.gray, anatomy.gray)
    np.testing.assert_array_equal(again.shells, anatomy.shells)
