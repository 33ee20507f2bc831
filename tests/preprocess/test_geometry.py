"""Geometry: where voxels go, and that results come back."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lesionwise.preprocess import geometry
from lesionwise.preprocess.geometry import (
    CropToBrain,
    CropToNonzero,
    PadTo,
    Resample,
    instances_to_grid,
    one_thread,
    resample_array_stack,
    resample_to,
    respaced,
)
from lesionwise.types import Grid, InputError, Instances, Study, Visit, Volume


def grid(shape, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


def oblique(shape, spacing=(1.0, 1.0, 1.0), degrees=20.0):
    angle = np.deg2rad(degrees)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing
    affine[:3, 3] = (-3, 4, 5)
    return Grid(shape, affine)


def faces_mm(where):
    corners = np.array([[-0.5] * 3, np.array(where.shape) - 0.5])
    return where.world_mm(corners)


def ramp(where):
    """An image that is linear in world mm, so that linear interpolation is exact."""
    index = np.indices(where.shape).reshape(3, -1).T
    values = where.world_mm(index) @ [1.0, -2.0, 3.0] + 7
    return Volume(values.reshape(where.shape).astype(np.float32), where)


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    old=st.tuples(*[st.floats(0.4, 5)] * 3),
    new=st.floats(0.5, 4),
)
def test_respaced_keeps_the_outer_faces(shape, old, new):
    before = oblique(shape, old)
    after = respaced(before, new)
    np.testing.assert_allclose(faces_mm(after), faces_mm(before), atol=1e-9)


def test_respaced_counts_voxels_by_hand():
    after = respaced(grid((10, 4, 1), (0.72, 3.0, 0.2)), 1.0)
    assert after.shape == (7, 12, 1)
    np.testing.assert_allclose(after.spacing_mm, (7.2 / 7, 1.0, 0.2))


def test_linear_values_between_two_voxels_by_hand():
    two = Volume(np.array([0.0, 4.0], np.float32).reshape(2, 1, 1), grid((2, 1, 1), (2, 1, 1)))
    out = resample_to(two, respaced(two.grid, 1.0), order=1)
    # new centers lie at -0.5, 0.5, 1.5, 2.5 mm; beyond the old centers values are continued
    np.testing.assert_allclose(out.array.ravel(), [0, 1, 3, 4], atol=1e-6)


@pytest.mark.parametrize("order", [1, 3])
def test_a_ramp_stays_a_ramp_inside(order):
    source = ramp(grid((20, 20, 20), (1.0, 1.5, 2.0)))
    target = grid((10, 12, 14), (0.7, 0.9, 1.1), (6, 8, 12))
    out = resample_to(source, target, order=order)
    # the cubic spline bends at the outer faces and forgets it inside
    tolerance = 1e-4 if order == 1 else 2e-2
    np.testing.assert_allclose(out.array, ramp(target).array, atol=tolerance, rtol=0)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_parallel_and_oblique_paths_agree(order):
    generator = np.random.default_rng(0)
    source = Volume(generator.random((13, 9, 11), dtype=np.float32), grid((13, 9, 11), (1, 2, 1.5)))
    target = grid((9, 12, 8), (1.1, 1.1, 1.1), (2.03, 2.07, 3.01))
    tilted = target.affine.copy()
    tilted[0, 1] += 2e-3  # more than rounding, too little to change a value visibly
    straight = resample_to(source, target, order=order, antialias=False)
    other = resample_to(source, Grid(target.shape, tilted), order=order, antialias=False)
    near = np.isclose(straight.array, other.array, atol=0.05)
    # nearest neighbor flips where a center lies on the face between two voxels
    assert near.mean() > (0.97 if order == 0 else 0.999)


@pytest.mark.parametrize("angle", [0.0, 20.0])
@pytest.mark.parametrize("order", [0, 1, 3])
def test_outside_the_source_is_fill(order, angle):
    source = Volume(np.ones((4, 4, 4), np.float32), grid((4, 4, 4)))
    target = oblique((3, 3, 3), degrees=angle)
    far = target.affine.copy()
    far[:3, 3] = (50, 0, 0)
    out = resample_to(source, Grid((3, 3, 3), far), order=order, fill=-5.0)
    assert (out.array == -5).all()


def test_world_matrix_points_from_target_to_source():
    source = np.zeros((8, 8, 8), np.float32)
    source[5, 3, 2] = 1
    shift = np.eye(4)
    shift[:3, 3] = (2, 0, 0)
    out = resample_to(Volume(source, grid((8, 8, 8))), grid((8, 8, 8)), order=1, world=shift)
    assert np.argwhere(out.array == 1).tolist() == [[3, 3, 2]]


def test_matching_grids_share_the_array():
    volume = Volume(np.zeros((3, 4, 5), np.float32), grid((3, 4, 5)))
    assert resample_to(volume, grid((3, 4, 5)), order=1).array is volume.array


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_labels_keep_type_and_values(dtype, angle):
    labels = np.zeros((6, 6, 6), dtype)
    labels[2:5, 2:5, 2:5] = 1
    out = resample_to(Volume(labels, grid((6, 6, 6))), oblique((7, 7, 7), degrees=angle), order=0)
    assert out.array.dtype == dtype
    assert set(np.unique(out.array)) <= {0, 1}


def test_smoothing_keeps_the_mean_when_an_axis_gets_coarser():
    stripes = np.zeros((64, 4, 4), np.float32)
    stripes[::2] = 1
    source = Volume(stripes, grid((64, 4, 4)))
    coarse = respaced(source.grid, (4.0, 1.0, 1.0))
    smooth = resample_to(source, coarse, order=1).array[2:-2]
    np.testing.assert_allclose(smooth, 0.5, atol=0.01)
    plain = resample_to(source, coarse, order=0).array
    assert set(np.unique(plain)) <= {0.0, 1.0}


def test_step_resamples_scans_labels_and_brain():
    where = grid((6, 6, 2), (1, 1, 3))
    brain = np.zeros((6, 6, 2), bool)
    brain[2:4] = True
    visit = Visit({"flair": ramp(where)}, {"lesions": Volume(brain, where)}, Volume(brain, where))
    out = Resample(1.0)(Study("01", (visit,))).visits[0]
    assert out.scans["flair"].grid.shape == (6, 6, 6)
    assert out.scans["flair"].array.dtype == np.float32
    assert out.brain is not None
    assert out.brain.array.dtype == bool
    assert out.brain.array.sum() == 2 * 6 * 6
    assert out.labels["lesions"].array.sum() == 2 * 6 * 6


def test_probability_comes_back_onto_the_native_grid():
    native = oblique((24, 20, 8), (0.8, 0.8, 3.0))
    centers = native.world_mm(np.indices(native.shape).reshape(3, -1).T)
    middle = native.world_mm(np.array([[11.5, 9.5, 3.5]]))
    blob = np.exp(-((centers - middle) ** 2).sum(axis=1) / (2 * 5**2)).reshape(native.shape)
    source = Volume(blob.astype(np.float32), native)
    prepared = resample_to(source, respaced(native, 1.0), order=1)
    back = resample_to(prepared, native, order=1)
    assert np.abs(back.array - blob).max() < 0.06


def test_stack_equals_its_parts():
    generator = np.random.default_rng(1)
    source, target = grid((5, 6, 7)), grid((9, 9, 9), (0.6, 0.6, 0.7))
    stack = generator.random((3, 5, 6, 7), dtype=np.float32)
    out = resample_array_stack(stack, source, target, order=1)
    for channel in range(3):
        alone = resample_to(Volume(stack[channel], source), target, order=1).array
        np.testing.assert_array_equal(out[channel], alone)


def study_with_box(where, box, sessions=("M00",)):
    visits = []
    for session in sessions:
        brain = np.zeros(where.shape, bool)
        brain[box] = True
        visits.append(Visit({"flair": ramp(where)}, {}, Volume(brain, where), session))
    return Study("01", tuple(visits))


def test_crop_to_brain_keeps_margin_and_world():
    where = grid((20, 20, 10), (1, 1, 2))
    study = study_with_box(where, np.s_[5:9, 6:8, 4:6])
    out = CropToBrain(margin_mm=3)(study).visits[0].scans["flair"]
    assert out.grid.shape == (4 + 6, 2 + 6, 2 + 4)  # 3 mm are 2 voxels of 2 mm
    np.testing.assert_array_equal(out.array, ramp(out.grid).array)


def test_crop_never_leaves_the_volume():
    where = grid((6, 6, 6))
    out = CropToBrain(margin_mm=50)(study_with_box(where, np.s_[2:3, 2:3, 2:3]))
    assert out.visits[0].scans["flair"].grid.shape == (6, 6, 6)


def test_visits_on_one_grid_share_the_joined_box():
    where = grid((20, 20, 20))
    one = study_with_box(where, np.s_[2:5, 8:9, 8:9]).visits[0]
    two = study_with_box(where, np.s_[10:14, 8:9, 8:9]).visits[0]
    change = {"new": Volume(np.zeros(where.shape, np.uint8), where)}
    out = CropToBrain(margin_mm=0)(Study("01", (one, two), change))
    shapes = {visit.scans["flair"].grid.shape for visit in out.visits}
    assert shapes == {(12, 1, 1)}
    assert out.changes["new"].grid.shape == (12, 1, 1)


def test_crop_cuts_a_scan_on_another_grid_to_the_same_place():
    where = grid((20, 20, 20))
    visit = study_with_box(where, np.s_[4:8, 4:8, 4:8]).visits[0]
    thick = ramp(grid((20, 20, 5), (1, 1, 4), (0, 0, 1.5)))
    visit = replace(visit, scans={**visit.scans, "t2w": thick})
    out = CropToBrain(margin_mm=0)(Study("01", (visit,))).visits[0]
    np.testing.assert_allclose(
        faces_mm(out.scans["t2w"].grid), faces_mm(out.scans["flair"].grid), atol=1e-9
    )


def test_crop_to_an_empty_brain_is_refused():
    study = study_with_box(grid((4, 4, 4)), np.s_[0:0])
    with pytest.raises(InputError, match="01 M00: the brain mask is empty"):
        CropToBrain()(study)


def test_crop_to_nonzero():
    array = np.zeros((5, 6, 7), np.float32)
    array[1:3, 2, 3:6] = 1
    study = Study("01", (Visit({"flair": Volume(array, grid((5, 6, 7)))}),))
    assert CropToNonzero()(study).visits[0].scans["flair"].grid.shape == (2, 1, 3)
    empty = Visit({"flair": Volume(np.zeros((2, 2, 2), np.float32), grid((2, 2, 2)))})
    with pytest.raises(InputError, match="zero"):
        CropToNonzero()(Study("01", (empty,)))


def test_pad_puts_the_odd_voxel_at_the_end():
    volume = ramp(grid((3, 4, 5)))
    out = PadTo((6, 4, 2))(Study("01", (Visit({"flair": volume}),))).visits[0].scans["flair"]
    assert out.grid.shape == (6, 4, 5)
    np.testing.assert_array_equal(out.array[1:4], volume.array)
    np.testing.assert_allclose(out.grid.world_mm(np.array([[1, 0, 0]])), [[0, 0, 0]])


def test_instances_take_labels_from_the_voxel_they_lie_in():
    labels = np.zeros((4, 1, 1), np.int32)
    labels[1], labels[2] = 7, 3
    target = respaced(grid((4, 1, 1)), (0.5, 1, 1))
    mask = np.zeros((8, 1, 1), bool)
    mask[2:6] = True
    out = instances_to_grid(Instances(labels, grid((4, 1, 1))), mask, target)
    assert out.labels.ravel().tolist() == [0, 0, 7, 7, 3, 3, 0, 0]


def test_voxels_without_a_label_take_the_nearest_in_mm_of_their_component():
    labels = np.zeros((7, 3, 1), np.int32)
    labels[0, 0], labels[6, 0] = 4, 9
    mask = np.zeros((7, 3, 1), bool)
    mask[:, 0] = True
    where = grid((7, 3, 1))
    out = instances_to_grid(Instances(labels, where), mask, where)
    # index 3 is as far from both: the lower label wins
    assert out.labels[:, 0, 0].tolist() == [4, 4, 4, 4, 9, 9, 9]


def test_nearest_is_measured_in_mm_not_voxels():
    labels = np.zeros((1, 3, 3), np.int32)
    labels[0, 0, 0], labels[0, 2, 2] = 1, 2
    mask = labels > 0
    mask[0, 2, 0] = mask[0, 1, 0] = mask[0, 2, 1] = True
    where = grid((1, 3, 3), (1, 1, 5))
    out = instances_to_grid(Instances(labels, where), mask, where)
    # voxel (2, 0) is 2 mm from label 1 and 10 mm from label 2
    assert out.labels[0, 2, 0] == 1


def test_a_component_without_any_label_becomes_a_new_lesion():
    labels = np.zeros((9, 1, 1), np.int32)
    labels[0] = 5
    mask = np.zeros((9, 1, 1), bool)
    mask[[0, 3, 4, 7]] = True
    where = grid((9, 1, 1))
    out = instances_to_grid(Instances(labels, where), mask, where)
    assert out.labels.ravel().tolist() == [5, 0, 0, 6, 6, 0, 0, 7, 0]


def test_an_empty_mask_gives_no_lesions():
    where = grid((2, 2, 2))
    out = instances_to_grid(
        Instances(np.ones((2, 2, 2), np.int32), where), np.zeros((2, 2, 2), bool), where
    )
    assert not out.labels.any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_union_of_the_lesions_is_the_mask_and_components_do_not_mix(seed):
    generator = np.random.default_rng(seed)
    source = grid((6, 7, 5), (1, 1, 2))
    labels = generator.integers(0, 4, source.shape).astype(np.int32)
    target = oblique((7, 6, 8), (0.9, 1.2, 1.0), degrees=10)
    mask = generator.random(target.shape) < 0.15
    out = instances_to_grid(Instances(labels, source), mask, target).labels
    np.testing.assert_array_equal(out > 0, mask)
    # a new lesion is exactly one component
    components, _ = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    new = [label for label in np.unique(out) if label > labels.max()]
    for label in new:
        inside = out == label
        np.testing.assert_array_equal(inside, components == components[inside][0])
    assert all(b == a + 1 for a, b in pairwise(new))


def test_itk_is_silent_on_its_classes_while_one_thread_computes():
    display = SimpleITK.ProcessObject.GetGlobalWarningDisplay
    before = display()
    with one_thread():
        with one_thread():
            assert not display()
        assert not display()
    assert display() == before


@pytest.mark.parametrize("small", [0, 10**9])
def test_how_an_array_lies_in_memory_changes_nothing(small, monkeypatch):
    monkeypatch.setattr(geometry, "SMALL_PRODUCT", small)
    array = np.random.default_rng(0).normal(size=(9, 12, 7)).astype(np.float32)
    grid = Grid(array.shape, np.diag([1.0, 0.8, 2.5, 1.0]))
    target = respaced(grid, (1.5, 1.5, 1.5))
    plain = resample_to(Volume(array, grid), target, order=1).array
    other = resample_to(Volume(np.asfortranarray(array), grid), target, order=1).array
    np.testing.assert_allclose(other, plain, atol=1e-6)
    assert plain.flags.c_contiguous
    assert other.flags.c_contiguous
    swapped = Volume(array.T, Grid(array.shape[::-1], np.diag([2.5, 0.8, 1.0, 1.0])))
    across = resample_to(swapped, respaced(swapped.grid, (1.5, 1.5, 1.5)), order=1).array
    np.testing.assert_allclose(across.T, plain, atol=1e-6)
