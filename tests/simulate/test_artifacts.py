"""Faults put into a scan."""

import numpy as np

from lesionwise.simulate.artifacts import spoiled
from lesionwise.types import Grid, Volume


def block():
    array = np.zeros((6, 9, 10), np.uint16)
    array[2:4, 1:3, :] = 90
    return Volume(array, Grid(array.shape, np.diag([1.0, 2, 3, 1])))


def test_nothing_asked_leaves_the_scan():
    assert np.array_equal(spoiled(block(), 0).array, block().array)


def test_a_ghost_is_a_copy_a_third_of_the_picture_away():
    values = spoiled(block(), 0, ghost=0.1).array
    assert np.allclose(values[2, :, 0], [0, 81, 81, 0, 9, 9, 0, 0, 0])


def test_noise_is_a_share_of_the_head():
    values = spoiled(block(), 1, noise=0.1).array
    assert np.isclose(values[block().array > 0].std(), 9, rtol=0.2)
    assert np.array_equal(values, spoiled(block(), 1, noise=0.1).array)


def test_slices_above_are_left_out():
    short = spoiled(block(), 0, keep=0.65)
    assert short.array.shape == (6, 9, 6)
    assert np.array_equal(short.grid.affine, block().grid.affine)
    assert spoiled(block(), 0, keep=0.0).array.shape[2] == 1
