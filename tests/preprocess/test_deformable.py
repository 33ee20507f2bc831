"""Bending: known fields found again, and volumes read through them."""

import importlib.util
import sys

import numpy as np
import pytest
from scipy import ndimage

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.brain import brain_mask
from lesionwise.preprocess.deformable import DeformToLast, warp
from lesionwise.preprocess.geometry import label_order
from lesionwise.preprocess.registration import move_onto, register_visits
from lesionwise.types import Grid, InputError, Study, Visit, Volume

METHODS = [
    "bspline",
    pytest.param(
        "syn",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("ants") is None, reason="the extra ants is not installed"
        ),
    ),
]
SPACING = 4.0


def head(shape=(40, 46, 40)):
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * SPACING
    grid = Grid(shape, affine)
    x, y, z = grid.world_mm(np.indices(shape).reshape(3, -1).T).T.reshape(3, *shape)
    inside = (x / 65) ** 2 + (y / 80) ** 2 + (z / 62) ** 2 < 1
    texture = np.sin(x / 10) * np.cos(y / 12 + 1) + np.sin(z / 9 + x / 25) + y / 90
    return Volume(np.where(inside, 100 + 25 * texture, 0).astype(np.float32), grid), inside


def bump(grid, height_mm=6.0, width_mm=30.0):
    """A push to the right, strongest in the middle."""
    points = grid.world_mm(np.indices(grid.shape).reshape(3, -1).T)
    strength = height_mm * np.exp(-0.5 * (points**2).sum(axis=1) / width_mm**2)
    field = np.zeros((3, *grid.shape), np.float32)
    field[0] = strength.reshape(grid.shape)
    return field


def test_warp_reads_at_the_moved_place():
    array = np.zeros((8, 6, 5), np.float32)
    array[5, 3, 2] = 1
    grid = Grid(array.shape, np.diag([2.0, 2, 2, 1]))
    field = np.zeros((3, *grid.shape), np.float32)
    field[0] = 4.0  # two voxels along i
    world = np.eye(4)
    world[1, 3] = 2.0  # one voxel along j
    for order in (0, 1):
        out = warp(Volume(array, grid), grid, world, field, grid, order=order).array
        assert out[3, 2, 2] == 1
        assert out.sum() == 1


def test_warp_keeps_the_type_of_labels_and_fills_with_nothing():
    grid = Grid((4, 4, 4), np.eye(4))
    field = np.zeros((3, *grid.shape), np.float32)
    away = np.eye(4)
    away[0, 3] = 100
    for dtype in (bool, np.int32, np.uint8):
        labels = Volume(np.ones(grid.shape, dtype), grid)
        here = warp(labels, grid, np.eye(4), field, grid, order=0).array
        assert here.dtype == dtype
        assert here.all()
        assert not warp(labels, grid, away, field, grid, order=0).array.any()


@pytest.mark.parametrize("method", METHODS)
def test_a_known_bump_is_found(method):
    moving, inside = head()
    true = bump(moving.grid)
    fixed = warp(moving, moving.grid, np.eye(4), true, moving.grid, order=1)
    brain = Volume(inside, moving.grid)
    step = DeformToLast(method, working_mm=SPACING, iterations=(30, 15))
    field, grid = step.field(fixed, moving, np.eye(4), brain)
    middle = np.linalg.norm(grid.world_mm(np.indices(grid.shape).reshape(3, -1).T), axis=1) < 45
    middle = middle.reshape(grid.shape)
    rest = np.linalg.norm(field - bump(grid), axis=0)[middle]
    assert np.linalg.norm(bump(grid), axis=0)[middle].mean() > 3
    assert rest.mean() < 1.2


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_outside_the_brain_pulls_at_nothing_if_only_the_brain_counts(method):
    moving, inside = head()
    true = bump(moving.grid)
    fixed = warp(moving, moving.grid, np.eye(4), true, moving.grid, order=1)
    astray = warp(moving, moving.grid, np.eye(4), -true, moving.grid, order=1)
    distance = np.linalg.norm(
        moving.grid.world_mm(np.indices(inside.shape).reshape(3, -1).T), axis=1
    )
    near = distance.reshape(inside.shape) < 30
    fixed = Volume(np.where(near, fixed.array, astray.array), moving.grid)
    brain = Volume(near, moving.grid)
    rests = []
    for within_brain in (True, False):
        step = DeformToLast(
            method, working_mm=SPACING, iterations=(30, 15), within_brain=within_brain
        )
        field, grid = step.field(fixed, moving, np.eye(4), brain)
        middle = np.linalg.norm(grid.world_mm(np.indices(grid.shape).reshape(3, -1).T), axis=1) < 25
        middle = middle.reshape(grid.shape)
        rests.append(float(np.linalg.norm(field - bump(grid), axis=0)[middle].mean()))
    assert rests[0] < rests[1]


@pytest.mark.parametrize("method", METHODS)
def test_same_input_same_field(method):
    moving, _ = head((30, 34, 30))
    fixed = warp(moving, moving.grid, np.eye(4), bump(moving.grid), moving.grid, order=1)
    step = DeformToLast(method, working_mm=SPACING, iterations=(5,))
    one, other = (step.field(fixed, moving, np.eye(4))[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_step_bends_the_first_visit_and_leaves_the_last():
    moving, inside = head()
    true = bump(moving.grid)
    fixed = warp(moving, moving.grid, np.eye(4), true, moving.grid, order=1)
    brain = Volume(inside, moving.grid)
    bent = warp(brain, moving.grid, np.eye(4), true, moving.grid, order=0)
    study = Study(
        "01",
        (
            Visit({"flair": moving}, {"lesions": brain}, brain, "M00"),
            Visit({"flair": fixed}, {}, bent, "M12"),
        ),
        {"new": bent},
    )
    after = DeformToLast("bspline", "rigid", SPACING, (20, 10))(study)
    assert after.visits[1] is study.visits[1]
    assert after.changes is study.changes
    first = after.visits[0]
    linear = move_onto(study, register_visits(study, reference=-1), reference=-1).visits[0]

    middle = np.linalg.norm(
        fixed.grid.world_mm(np.indices(fixed.grid.shape).reshape(3, -1).T), axis=1
    ).reshape(fixed.grid.shape)

    def apart(visit):
        return np.abs(visit.scans["flair"].array - fixed.array)[middle < 45].mean()

    assert apart(first) < 0.6 * apart(linear)
    assert first.labels["lesions"].array.dtype == bool
    assert first.brain.grid.matches(fixed.grid)


def test_one_visit_passes_and_a_missing_package_is_named(monkeypatch):
    scan, _ = head((20, 20, 20))
    study = Study("01", (Visit({"flair": scan}),))
    assert DeformToLast()(study) is study
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(InputError, match="antspyx is missing"):
        DeformToLast("syn").field(scan, scan, np.eye(4))


@pytest.mark.slow
def test_a_real_pair_agrees_better_by_bspline_than_after_the_linear_map(shared):
    visits = []
    for session in ("01", "02"):
        name = f"sub-openlong12/ses-{session}/anat/sub-openlong12_ses-{session}_FLAIR.nii.gz"
        scan = read_volume(shared(f"data/{name}"))
        visits.append(Visit({"flair": scan}, {}, brain_mask(scan), session))
    study = Study("openlong12", tuple(visits))
    linear = move_onto(study, register_visits(study, reference=-1), reference=-1)
    bent = DeformToLast("bspline", "rigid", 3.0, (20, 10))(study)

    def agreement(pair):
        inside = pair.followup.brain.array
        a, b = (v.scans["flair"].array[inside] for v in pair.visits)
        return np.corrcoef(a, b)[0, 1]

    assert agreement(bent) > agreement(linear)


def test_cubic_warps_agree_with_the_cubic_interpolation_of_scipy():
    rng = np.random.default_rng(3)
    array = ndimage.gaussian_filter(rng.standard_normal((26, 25, 24)), 1.5).astype(np.float32)
    grid = Grid(array.shape, np.eye(4))
    field = np.zeros((3, *grid.shape), np.float32)
    field[0], field[2] = 0.3, -0.4
    out = warp(Volume(array, grid), grid, np.eye(4), field, grid, order=3).array
    at = np.indices(array.shape) + np.array([0.3, 0.0, -0.4])[:, None, None, None]
    wanted = ndimage.map_coordinates(array, at, order=3, mode="grid-constant")
    inner = np.s_[9:-9, 9:-9, 9:-9]  # where the border's own rule no longer reaches
    np.testing.assert_allclose(out[inner], wanted[inner], atol=1e-5)


def test_fractions_are_bent_linearly_and_labels_keep_their_type():
    grid = Grid((6, 6, 6), np.eye(4))
    soft = np.zeros(grid.shape, np.float32)
    soft[3] = 1
    field = np.zeros((3, *grid.shape), np.float32)
    field[0] = 0.5
    volume = Volume(soft, grid)
    bent = warp(volume, grid, np.eye(4), field, grid, order=label_order(volume)).array
    np.testing.assert_allclose(bent[2], 0.5)
    assert label_order(Volume(soft > 0, grid)) == 0
