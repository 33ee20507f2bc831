"""Whole heads laid rigidly onto the template."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.change.candidates import mutual_information
from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.brain import head_template, lay_head
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.template import nearest_rigid, template_maps
from lesionwise.preprocess.template_registration import RegisterHeadToTemplate, rigid_head_matrix
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def movement(degrees=7.0, shift_mm=(5.0, -8.0, 6.0), scale=(1.0, 1.0, 1.0)):
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = turn @ np.diag([*scale, 1.0])
    matrix[:3, 3] = shift_mm
    return matrix


def head_at(true, seed=0):
    """The template's head with another contrast, where ``true`` (template to scan) says."""
    head, brain, _ = head_template()
    contrast = np.where(head.array > 0.02, 100 + 60 * np.sin(4 * head.array), 5)
    grid = respaced(head.grid, (3.0, 3.0, 4.0))
    inverse = np.linalg.inv(true)
    scan = resample_to(Volume(contrast.astype(np.float32), head.grid), grid, order=1, world=inverse)
    noise = np.random.default_rng(seed).normal(0, 3, grid.shape)
    mask = resample_to(brain, grid, order=1, world=inverse).array > 0.5
    return Volume((scan.array + noise).astype(np.float32), grid), Volume(mask, grid)


def error_mm(found, true):
    maps = template_maps()
    points = maps.t1.grid.world_mm(np.argwhere(maps.brain.array)[::997])
    return np.linalg.norm(points @ (found - true)[:3, :3].T + (found - true)[:3, 3], axis=1)


def test_a_known_rigid_movement_of_a_head_is_found():
    true = movement()
    found = rigid_head_matrix(head_at(true)[0])
    assert np.median(error_mm(found, true)) < 1.5


def agreement(scan, matrix):
    head, _, compared = head_template()
    moved = resample_to(scan, head.grid, order=1, world=matrix)
    inside = compared.array > 0.5
    return mutual_information(head.array[inside], moved.array[inside])


def test_six_parameters_are_searched_and_sizes_stay():
    """Document 004, line 75: "a 6-degree-of-freedom (6 DOF) rigid registration". The rigid part of
    an affine registration is where it starts, and on a head of another shape not the best."""
    scan, _ = head_at(movement(scale=(0.9, 1.02, 0.85)))
    found = rigid_head_matrix(scan)
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1)
    head, brain, _ = head_template()
    center = head.grid.world_mm(np.argwhere(brain.array > 0.5).mean(axis=0)[None])[0]
    polar = nearest_rigid(lay_head(scan, "scan"), center)
    assert agreement(scan, found) > agreement(scan, polar)


def test_a_smaller_head_is_not_pulled_into_a_corner():
    true = movement(scale=(0.9, 0.9, 0.9))
    found = rigid_head_matrix(head_at(true)[0])
    middle = template_maps().t1.grid.world_mm(
        np.argwhere(template_maps().brain.array).mean(axis=0)[None]
    )[0]
    shift = (found - true)[:3, :3] @ middle + (found - true)[:3, 3]
    assert np.linalg.norm(shift) < 8


def pair():
    true = (movement(), movement(-5, (3, 2, -4)))
    visits = []
    for seed, world in enumerate(true):
        scan, brain = head_at(world, seed)
        visits.append(Visit({"flair": scan}, {"lesions": brain}, session=f"M{12 * seed:02d}"))
    return Study("07", tuple(visits), {"new": visits[1].labels["lesions"]}), true


@pytest.fixture(scope="module")
def moved():
    study, true = pair()
    return RegisterHeadToTemplate()(study), true


def test_both_visits_with_labels_and_changes_lie_on_the_template(moved):
    after, true = moved
    maps = template_maps()
    for visit, world in zip(after.visits, true, strict=True):
        assert visit.scans["flair"].grid.matches(maps.t1.grid)
        assert np.median(error_mm(visit.to_native, world)) < 1.5
        lesions = visit.labels["lesions"].array
        both = 2 * (lesions & maps.brain.array).sum() / (lesions.sum() + maps.brain.array.sum())
        assert both > 0.93
    np.testing.assert_array_equal(
        after.changes["new"].array, after.followup.labels["lesions"].array
    )


def test_the_skull_is_still_there(moved):
    """Document 004, line 140: registered first, "to take advantage of the skull"."""
    after, _ = moved
    outside = ~after.baseline.labels["lesions"].array.astype(bool)
    assert after.baseline.brain is None
    assert (after.baseline.scans["flair"].array[outside] > 80).mean() > 0.1


def test_a_brain_mask_plays_no_part(moved):
    study, _ = pair()
    wrong = Volume(
        np.zeros(study.baseline.scans["flair"].grid.shape, bool), study.baseline.scans["flair"].grid
    )
    wrong.array[:8, :8, :8] = True
    masked = replace(study, visits=tuple(replace(v, brain=wrong) for v in study.visits))
    after = RegisterHeadToTemplate()(masked)
    for one, other in zip(after.visits, moved[0].visits, strict=True):
        np.testing.assert_array_equal(one.to_native, other.to_native)
        assert one.brain is not None


def test_what_is_no_head_is_refused_by_name():
    noise = np.random.default_rng(0).normal(100, 10, (40, 40, 40)).astype(np.float32)
    scan = Volume(noise, Grid(noise.shape, np.diag([4.0, 4.0, 4.0, 1.0])))
    with pytest.raises(InputError, match=r"^07 flair: "):
        RegisterHeadToTemplate()(Study("07", (Visit({"flair": scan}),)))


@pytest.mark.slow
def test_two_real_heads_come_to_lie_alike(shared, common_to_raw):
    found = []
    for session in ("01", "02"):
        name = f"sub-openlong12/ses-{session}/anat/sub-openlong12_ses-{session}_FLAIR.nii.gz"
        found.append(rigid_head_matrix(read_volume(shared(f"data/{name}"))))
    between = common_to_raw("openlong12", "02") @ np.linalg.inv(common_to_raw("openlong12", "01"))
    assert np.median(error_mm(found[1], between @ found[0])) < 4.0
