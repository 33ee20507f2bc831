"""The halfway space: what a movement halved is, and visits that meet there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.halfway import RegisterToHalfway, common_grid, halfway
from lesionwise.types import Grid, Study, Visit, Volume


def movement(degrees, shift_mm):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    matrix[:3, 3] = shift_mm
    return matrix


def head():
    shape, spacing = (64, 72, 64), 2.5
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    grid = Grid(shape, affine)
    x, y, z = grid.world_mm(np.indices(shape).reshape(3, -1).T).T.reshape(3, *shape)
    inside = (x / 60) ** 2 + (y / 75) ** 2 + (z / 58) ** 2 < 1
    texture = np.sin(x / 11) * np.cos(y / 13 + 1) + np.sin(z / 9 + x / 25) + y / 90
    return Volume(np.where(inside, 100 + 25 * texture, 0).astype(np.float32), grid), inside


def test_half_of_a_turn_and_a_shift():
    first, last = halfway((np.eye(4), movement((0, 0, 30), (0, 0, 8))))
    np.testing.assert_allclose(last, movement((0, 0, 15), (0, 0, 4)), atol=1e-9)
    np.testing.assert_allclose(first, np.linalg.inv(last), atol=1e-9)


angles = st.tuples(*[st.floats(-40, 40)] * 3)
shifts = st.tuples(*[st.floats(-60, 60)] * 3)


@settings(max_examples=40, deadline=None)
@given(angles, shifts)
def test_the_two_halves_make_the_whole_and_are_rigid(degrees, shift_mm):
    whole = movement(degrees, shift_mm)
    first, last = halfway((np.eye(4), whole))
    np.testing.assert_allclose(last @ np.linalg.inv(first), whole, atol=1e-7)
    np.testing.assert_allclose(last @ last, whole, atol=1e-7)
    np.testing.assert_allclose(last[:3, :3] @ last[:3, :3].T, np.eye(3), atol=1e-9)


def test_visits_without_movement_keep_their_grid():
    grid = head()[0].grid
    found = common_grid([grid, grid], [np.eye(4), np.eye(4)])
    assert found.matches(grid)


def test_common_grid_is_turned_alike_to_both_covers_both_and_has_the_smaller_voxels():
    grid = head()[0].grid
    thin = Grid((64, 72, 80), np.diag([2.5, 2.5, 2.0, 1.0]))
    worlds = halfway((np.eye(4), movement((0, 0, 20), (4, 0, 0))))
    found = common_grid([grid, thin], worlds)
    np.testing.assert_allclose(found.spacing_mm, (2.5, 2.5, 2.0))
    for each, world in zip((grid, thin), worlds, strict=True):
        turn = (world @ found.affine)[:3, :3] / found.spacing_mm
        axes = each.affine[:3, :3] / each.spacing_mm
        apart = Rotation.from_matrix(axes.T @ turn).magnitude()
        assert np.rad2deg(apart) == pytest.approx(10, abs=1e-6)
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in each.shape])).reshape(3, -1).T
        mm = each.world_mm(corners)
        to_grid = np.linalg.inv(world @ found.affine)
        at = mm @ to_grid[:3, :3].T + to_grid[:3, 3]
        assert (at > -0.5).all()
        assert (at < np.array(found.shape) - 0.5).all()


def test_a_mirrored_axis_stays_mirrored():
    affine = np.diag([-2.0, 2.0, 2.0, 1.0])
    grid = Grid((10, 12, 14), affine)
    assert common_grid([grid, grid], [np.eye(4), np.eye(4)]).matches(grid)


def test_two_visits_meet_and_are_blurred_alike():
    fixed, inside = head()
    true = movement((4, 0, 6), (6, -4, 3))
    inverse = np.linalg.inv(true)
    rng = np.random.default_rng(0)
    moved = resample_to(fixed, fixed.grid, order=1, world=inverse)
    brain = Volume(inside, fixed.grid)
    moved_brain = resample_to(brain, fixed.grid, order=0, world=inverse)
    noisy = [v.array + rng.normal(0, 10, v.array.shape).astype(np.float32) for v in (fixed, moved)]
    study = Study(
        "01",
        (
            Visit({"flair": Volume(noisy[0], fixed.grid)}, {}, brain, "M00"),
            Visit({"flair": Volume(noisy[1], fixed.grid)}, {}, moved_brain, "M12"),
        ),
        {"new": moved_brain},
    )
    after = RegisterToHalfway()(study)
    first, last = after.visits
    assert first.scans["flair"].grid.matches(last.scans["flair"].grid)
    both = first.brain.array & last.brain.array
    assert both.sum() > 0.97 * last.brain.array.sum()
    assert (after.changes["new"].array == last.brain.array).all()
    np.testing.assert_allclose(last.to_native @ np.linalg.inv(first.to_native), true, atol=0.3)

    def noise(volume):
        rough = np.diff(volume.array, axis=0)[:-1][both[1:-1]]
        return float(np.median(np.abs(rough)))

    ratio = noise(first.scans["flair"]) / noise(last.scans["flair"])
    assert 0.93 < ratio < 1.07


def test_one_visit_passes_unchanged():
    study = Study("01", (Visit({"flair": head()[0]}),))
    assert RegisterToHalfway()(study) is study


@pytest.mark.slow
def test_a_real_pair_meets_half_way(shared, common_to_raw):
    subject = "openlong12"
    visits = []
    for session in ("01", "02"):
        name = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_FLAIR.nii.gz"
        visits.append(Visit({"flair": read_volume(shared(f"data/{name}"))}, session=session))
    first, last = RegisterToHalfway()(Study(subject, tuple(visits))).visits
    true = common_to_raw(subject, "02") @ np.linalg.inv(common_to_raw(subject, "01"))
    found = last.to_native @ np.linalg.inv(first.to_native)
    points = np.array([[0.0, 0, 0], [60, 0, 0], [0, 70, 0], [0, 0, 60], [-60, -70, -20]])
    points = points + visits[0].scans["flair"].grid.world_mm(np.array([[160, 160, 23]]))
    apart = points @ (found - true)[:3, :3].T + (found - true)[:3, 3]
    assert np.linalg.norm(apart, axis=1).max() < 1.0
    inside = (first.scans["flair"].array > 50) & (last.scans["flair"].array > 50)
    pair = first.scans["flair"].array[inside], last.scans["flair"].array[inside]
    assert np.corrcoef(*pair)[0, 1] > 0.85
