"""The template: its maps, and scans registered to it."""

import edt
import numpy as np
import pytest

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.template import (
    BORDER_MM,
    RegisterToTemplate,
    _widened,
    nearest_rigid,
    template_maps,
    template_matrix,
)
from lesionwise.types import InputError, Study, Visit, Volume


def movement(degrees=7.0, shift_mm=(5.0, -8.0, 6.0), scale=1.0):
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = turn @ np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = shift_mm
    return matrix


def flair_of_the_template(true):
    """The template's brain as a stripped FLAIR that lies where ``true`` (template to scan) says."""
    maps = template_maps()
    contrast = 90 * maps.white.array + 110 * maps.gray.array + 20 * maps.fluid.array
    grid = respaced(maps.t1.grid, (2.0, 2.0, 3.0))
    inverse = np.linalg.inv(true)
    scan = resample_to(Volume(contrast, maps.t1.grid), grid, order=1, world=inverse)
    brain = resample_to(maps.brain, grid, order=0, world=inverse)
    noise = np.random.default_rng(0).normal(0, 2, grid.shape)
    array = np.where(brain.array, np.maximum(scan.array + noise, 1), 0).astype(np.float32)
    return Volume(array, grid), brain


def error_mm(found, true):
    maps = template_maps()
    points = maps.t1.grid.world_mm(np.argwhere(maps.brain.array)[::997])
    return np.linalg.norm(points @ (found - true)[:3, :3].T + (found - true)[:3, 3], axis=1)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_maps_share_one_grid_and_the_brain_is_made_of_tissue_and_fluid():
    maps = template_maps()
    for volume in (maps.gray, maps.white, maps.fluid, maps.brain, maps.ventricles):
        assert volume.grid.matches(maps.t1.grid)
    total = (maps.gray.array + maps.white.array + maps.fluid.array)[maps.brain.array]
    assert total.min() > 0.99
    assert not maps.fluid.array[~maps.brain.array].any()


def test_ventricles_are_two_of_about_one_size_and_hold_no_white_matter():
    maps = template_maps()
    x = maps.ventricles.grid.world_mm(np.argwhere(maps.ventricles.array))[:, 0]
    left, right = (x < 0).sum(), (x > 0).sum()
    assert 5_000 < left < 20_000
    assert 0.8 < left / right < 1.25
    assert maps.white.array[maps.ventricles.array].mean() < 0.2


def test_the_nearest_turn_to_a_rigid_matrix_is_itself():
    true = movement()
    np.testing.assert_allclose(nearest_rigid(true, np.array([3.0, 4, 5])), true, atol=1e-12)


def test_the_nearest_turn_drops_the_scale_and_keeps_the_center():
    center = np.array([1.0, -20, 10])
    matrix = movement(scale=0.8)
    found = nearest_rigid(matrix, center)
    np.testing.assert_allclose(found[:3, :3], movement()[:3, :3], atol=1e-12)
    np.testing.assert_allclose(
        found[:3, :3] @ center + found[:3, 3], matrix[:3, :3] @ center + matrix[:3, 3], atol=1e-12
    )


def test_a_known_affine_movement_is_found_in_flair_contrast():
    true = movement(scale=0.92)
    scan, brain = flair_of_the_template(true)
    found = template_matrix(scan, brain)
    assert np.median(error_mm(found, true)) < 0.5
    turn = template_matrix(scan, brain, model="rigid")[:3, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)


def test_an_empty_brain_mask_is_refused_by_name():
    scan, brain = flair_of_the_template(np.eye(4))
    empty = Volume(np.zeros_like(brain.array), brain.grid)
    with pytest.raises(InputError, match=r"^07 flair: the brain mask is empty"):
        template_matrix(scan, empty, name="07 flair")


def test_step_brings_visits_labels_and_changes_onto_the_template_and_notes_the_way_back():
    true = (movement(), movement(-5, (3, 2, -4)))
    visits = []
    for session, world in zip(("M00", "M12"), true, strict=True):
        scan, brain = flair_of_the_template(world)
        visits.append(Visit({"flair": scan}, {"lesions": brain}, brain, session))
    study = Study("07", tuple(visits), {"new": visits[1].brain})
    after = RegisterToTemplate("rigid")(study)
    maps = template_maps()
    for visit, world in zip(after.visits, true, strict=True):
        assert visit.scans["flair"].grid.matches(maps.t1.grid)
        assert dice(visit.brain.array, maps.brain.array) > 0.97
        assert dice(visit.labels["lesions"].array, maps.brain.array) > 0.97
        assert np.median(error_mm(visit.to_native, world)) < 0.7
    assert dice(after.changes["new"].array, maps.brain.array) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["openlong01", "openlong12"])
def test_two_real_visits_come_to_lie_alike(shared, common_to_raw, supplied_mask, subject):
    found = []
    for session in ("01", "02"):
        name = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_FLAIR.nii.gz"
        scan = read_volume(shared(f"data/{name}"))
        brain = Volume(supplied_mask(subject, session, scan.grid), scan.grid)
        found.append(template_matrix(scan, brain))
        laid = resample_to(
            template_maps().brain, scan.grid, order=0, world=np.linalg.inv(found[-1])
        )
        assert dice(laid.array, brain.array) > 0.94
    between = common_to_raw(subject, "02") @ np.linalg.inv(common_to_raw(subject, "01"))
    assert np.median(error_mm(found[1], between @ found[0])) < 1.0


def test_the_maps_are_those_that_nilearn_gives():
    from nilearn import datasets

    maps = template_maps()
    for ours, load in (
        (maps.t1, datasets.load_mni152_template),
        (maps.gray, datasets.load_mni152_gm_template),
        (maps.white, datasets.load_mni152_wm_template),
        (maps.brain, datasets.load_mni152_brain_mask),
    ):
        theirs = load(resolution=1)
        assert np.array_equal(ours.array, np.asarray(theirs.dataobj).astype(ours.array.dtype))
        assert np.array_equal(ours.grid.affine, theirs.affine)


def test_ventricles_lie_deeper_than_20_mm_and_the_border_is_6_mm_wide():
    maps = template_maps()
    brain, ventricles = maps.brain.array, maps.ventricles.array
    depth_mm = edt.edt(brain.astype(np.uint8))
    assert depth_mm[ventricles].min() > 20
    assert 5_000 < ventricles.sum() < 40_000
    outside_mm = edt.edt((~brain).astype(np.uint8))
    np.testing.assert_array_equal(_widened(brain), outside_mm <= BORDER_MM)
