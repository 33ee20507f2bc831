"""Faults put into a scan."""

import numpy as np

from lesionwise.simulate.artifacts import degraded, without_face
from lesionwise.types import Grid, Volume


def block():
    array = np.zeros((6, 9, 10), np.uint16)
    array[2:4, 1:3, :] = 90
    return Volume(array, Grid(array.shape, np.diag([1.0, 2, 3, 1])))


def test_nothing_asked_leaves_the_scan():
    assert np.array_equal(degraded(block(), 0).array, block().array)


def test_a_ghost_is_a_copy_a_third_of_the_picture_away():
    values = degraded(block(), 0, ghost=0.1).array
    assert np.allclose(values[2, :, 0], [0, 81, 81, 0, 9, 9, 0, 0, 0])


def test_noise_is_a_share_of_the_head():
    values = degraded(block(), 1, noise=0.1).array
    assert np.isclose(values[block().array > 0].std(), 9, rtol=0.2)
    assert np.array_equal(values, degraded(block(), 1, noise=0.1).array)


def test_slices_above_are_left_out():
    short = degraded(block(), 0, keep=0.65)
    assert short.array.shape == (6, 9, 6)
    assert np.array_equal(short.grid.affine, block().grid.affine)
    assert degraded(block(), 0, keep=0.0).array.shape[2] == 1


def test_what_lies_far_in_front_of_the_brain_is_cut_off():
    scan = block()
    full = Volume(np.full((6, 9, 10), 7, np.uint16), scan.grid)
    brain = np.zeros((6, 9, 10), bool)
    brain[2:4, 2:4, 3:6] = True
    cut = without_face(full, brain, margin_mm=4.0).array
    # 4 mm are two voxels of 2 mm along j: up to index 5, also in lines beside the brain
    assert (cut[3, :6, 4] == 7).all()
    assert (cut[3, 6:, 4] == 0).all()
    assert (cut[0, 6:, 4] == 0).all()
    assert (cut[3, 6:, 0] == 0).all()  # below, where the nearest slice with brain says


def test_a_scan_without_brain_keeps_its_face():
    scan = block()
    kept = without_face(scan, np.zeros((6, 9, 10), bool), 8.0)
    assert np.array_equal(kept.array, scan.array)
