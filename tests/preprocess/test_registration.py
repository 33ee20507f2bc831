"""Registration: known movements found again, and visits brought together."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.registration import (
    LEVELS_MM,
    RegisterToFirst,
    RegisterToLast,
    register,
    register_visits,
    rigid,
)
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def head(spacing=(2.0, 2.0, 2.0), shape=(80, 96, 80)):
    """An ellipsoid with a textured inside: enough structure to register, no symmetry."""
    affine_ = np.diag([*spacing, 1.0])
    affine_[:3, 3] = -(np.array(shape) - 1) / 2 * spacing
    grid = Grid(shape, affine_)
    x, y, z = grid.world_mm(np.indices(shape).reshape(3, -1).T).T.reshape(3, *shape)
    inside = (x / 65) ** 2 + (y / 82) ** 2 + (z / 62) ** 2 < 1
    texture = np.sin(x / 11) * np.cos(y / 13 + 1) + np.sin(z / 9 + x / 25) + y / 90
    array = np.where(inside, 100 + 25 * texture, 0).astype(np.float32)
    return Volume(array, grid), Volume(inside, grid)


def movement(degrees, shift_mm):
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [
        [np.cos(angle / 2), -np.sin(angle / 2)],
        [np.sin(angle / 2), np.cos(angle / 2)],
    ]
    matrix = turn @ tilt
    matrix[:3, 3] = shift_mm
    return matrix


def error_mm(found, true, mask):
    points = mask.grid.world_mm(np.argwhere(mask.array)[::97])
    apart = points @ (found - true)[:3, :3].T + (found - true)[:3, 3]
    return np.linalg.norm(apart, axis=1)


@pytest.mark.parametrize(("degrees", "shift_mm"), [(6, (4, -7, 5)), (20, (30, 25, -40))])
def test_rigid_finds_a_known_movement(degrees, shift_mm):
    fixed, brain = head()
    true = movement(degrees, shift_mm)
    moved = resample_to(fixed, fixed.grid, order=1, world=np.linalg.inv(true))
    found = rigid(fixed, moved, fixed_mask=brain)
    assert np.median(error_mm(found, true, brain)) < 0.3
    turn = found[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)


def test_a_head_turned_far_by_its_header_is_found():
    smooth, brain = head((4.0, 4.0, 4.0), (40, 48, 40))
    noise = np.random.default_rng(0).normal(0, 1, smooth.array.shape)
    texture = ndimage.gaussian_filter(noise, 1.2)
    array = np.where(brain.array, 100 + 150 * texture, 0).astype(np.float32)
    fixed = Volume(array, smooth.grid)
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (60, 0, 0), degrees=True).as_matrix()
    turned, turned_brain = (
        Volume(v.array, Grid(v.grid.shape, turn @ v.grid.affine)) for v in (fixed, brain)
    )
    found = rigid(fixed, turned, fixed_mask=brain, moving_mask=turned_brain)
    assert np.median(error_mm(found, turn, brain)) < 1


def test_rigid_works_across_inverted_contrast_and_thick_slices():
    fixed, brain = head()
    true = movement(5, (3, 4, -6))
    thick, _ = head((1.5, 1.5, 4.0), (110, 128, 40))
    other = resample_to(fixed, thick.grid, order=1, world=np.linalg.inv(true)).array
    inverted = Volume(np.where(other > 20, 260 - other, 0).astype(np.float32), thick.grid)
    assert np.median(error_mm(rigid(fixed, inverted, fixed_mask=brain), true, brain)) < 0.5


def test_affine_finds_a_scaling():
    fixed, brain = head()
    true = movement(4, (3, -2, 5)) @ np.diag([1.06, 0.95, 1.03, 1.0])
    moved = resample_to(fixed, fixed.grid, order=1, world=np.linalg.inv(true))
    found, _ = register(fixed, moved, brain, None, (), LEVELS_MM, "affine")
    assert np.median(error_mm(found, true, brain)) < 0.5


def test_same_input_same_matrix():
    fixed, brain = head()
    moved = resample_to(fixed, fixed.grid, order=1, world=movement(3, (2, 2, 2)))
    np.testing.assert_array_equal(
        rigid(fixed, moved, fixed_mask=brain), rigid(fixed, moved, fixed_mask=brain)
    )


def test_step_moves_scans_labels_and_brain_onto_the_first_grid():
    fixed, brain = head()
    true = movement(5, (6, -4, 3))
    inverse = np.linalg.inv(true)
    moved = resample_to(fixed, fixed.grid, order=1, world=inverse)
    moved_brain = resample_to(brain, fixed.grid, order=0, world=inverse)
    study = Study(
        "01",
        (
            Visit({"flair": fixed}, {}, brain, "M00"),
            Visit({"flair": moved}, {"lesions": moved_brain}, moved_brain, "M12"),
        ),
    )
    matrices = register_visits(study)
    np.testing.assert_array_equal(matrices[0], np.eye(4))
    after = RegisterToFirst()(study).visits[1]
    assert after.scans["flair"].grid.matches(fixed.grid)
    assert after.brain is not None
    for mask in (after.brain, after.labels["lesions"]):
        overlap = 2 * (mask.array & brain.array).sum() / (mask.array.sum() + brain.array.sum())
        assert overlap > 0.98


def test_the_last_visit_stays_and_the_first_comes_to_it():
    fixed, brain = head()
    true = movement(5, (6, -4, 3))
    inverse = np.linalg.inv(true)
    moved = resample_to(fixed, fixed.grid, order=1, world=inverse)
    moved_brain = resample_to(brain, fixed.grid, order=0, world=inverse)
    study = Study(
        "01",
        (
            Visit({"flair": fixed}, {"lesions": brain}, brain, "M00"),
            Visit({"flair": moved}, {}, moved_brain, "M12"),
        ),
        {"new": moved_brain},
    )
    after = RegisterToLast("affine")(study)
    assert after.visits[1] is study.visits[1]
    assert after.changes is study.changes
    first = after.visits[0]
    for mask in (first.brain, first.labels["lesions"]):
        both = (mask.array & moved_brain.array).sum()
        assert 2 * both / (mask.array.sum() + moved_brain.array.sum()) > 0.98
    assert np.median(error_mm(first.to_native, inverse, moved_brain)) < 0.3


def test_one_visit_passes_unchanged():
    fixed, _ = head()
    study = Study("01", (Visit({"flair": fixed}),))
    assert RegisterToFirst()(study) is study
    assert RegisterToLast()(study) is study


def test_constant_scans_and_missing_partners_are_refused():
    fixed, _ = head()
    flat = Volume(np.zeros_like(fixed.array), fixed.grid)
    with pytest.raises(InputError, match="moving scan: every voxel has the same value"):
        rigid(fixed, flat)
    study = Study("01", (Visit({"flair": fixed}), Visit({"t1w": fixed})))
    with pytest.raises(InputError, match="no scan in common"):
        register_visits(study)


@pytest.mark.parametrize("subject", ["openlong01", "openlong12"])
def test_real_pairs_agree_with_the_supplied_transforms(
    shared, common_to_raw, supplied_mask, subject
):
    first, second = (
        read_volume(shared(f"data/sub-{subject}/ses-{n}/anat/sub-{subject}_ses-{n}_FLAIR.nii.gz"))
        for n in ("01", "02")
    )
    brain = Volume(supplied_mask(subject, "01", first.grid), first.grid)
    true = common_to_raw(subject, "02") @ np.linalg.inv(common_to_raw(subject, "01"))
    assert np.median(error_mm(rigid(first, second, fixed_mask=brain), true, brain)) < 0.5
