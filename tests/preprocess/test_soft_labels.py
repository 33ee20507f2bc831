"""Labels as fractions."""

import numpy as np
import pytest

from lesionwise.instances.reference import hard_labels, reference_of
from lesionwise.preprocess.geometry import CropToCenter, Resample
from lesionwise.preprocess.registration import move_visits
from lesionwise.preprocess.resampling import ResampleNearInteger
from lesionwise.preprocess.slices import ResizeSlices
from lesionwise.preprocess.soft_labels import SoftLabels
from lesionwise.types import Grid, Study, Visit, Volume

GRID = Grid((6, 6, 6), np.diag([1.0, 1.0, 2.0, 1.0]))
TURNED = np.eye(4)
TURNED[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]


def study():
    new = np.zeros(GRID.shape, dtype=np.int32)
    new[2:4, 2:4, 2:4] = 3
    scan = Volume(np.arange(216, dtype=np.float32).reshape(GRID.shape), GRID)
    return Study("a", (Visit({"flair": scan}),) * 2, {"new": Volume(new, GRID)})


def test_labels_become_fractions_of_0_and_1():
    soft = SoftLabels()(study()).changes["new"].array
    assert soft.dtype == np.float32
    assert set(np.unique(soft)) == {0.0, 1.0}
    assert soft.sum() == 8


def test_a_study_without_the_map_and_other_maps_pass_unchanged():
    alone = Study("a", study().visits)
    assert SoftLabels()(alone).changes == {}
    gone = Study("a", study().visits, {"gone": study().changes["new"]})
    assert SoftLabels()(gone).changes["gone"].array.dtype == np.int32


def test_resampling_keeps_the_share_of_the_lesion_at_its_border():
    finer = Resample(0.5)(SoftLabels()(study()))
    soft = finer.changes["new"]
    assert soft.grid.shape == (12, 12, 24)
    between = np.unique(soft.array)
    assert ((between > 0) & (between < 1)).any()
    volume = soft.array.sum() * soft.grid.voxel_volume_mm3
    np.testing.assert_allclose(volume, 8 * GRID.voxel_volume_mm3, rtol=1e-5)


@pytest.mark.parametrize(
    "move",
    [
        Resample(0.7),
        ResampleNearInteger(target_mm=0.7, tolerance_mm=0.01),
        ResizeSlices((9, 9)),
        lambda s: move_visits(s, (TURNED, TURNED), lambda _: GRID, GRID),
    ],
)
def test_every_step_that_resamples_interpolates_fractions_and_no_labels(move):
    soft = move(SoftLabels()(study())).changes["new"].array
    assert soft.dtype == np.float32
    assert ((soft > 0.01) & (soft < 0.99)).any()
    hard = move(study()).changes["new"].array
    assert hard.dtype == np.int32
    assert set(np.unique(hard)) <= {0, 3}


def test_whole_labels_still_go_by_nearest_neighbor():
    finer = Resample(0.5)(study()).changes["new"].array
    assert finer.dtype == np.int32
    assert set(np.unique(finer)) == {0, 3}


def test_a_reference_of_fractions_is_read_as_it_is_and_cut_into_lesions():
    soft = Resample(0.5)(SoftLabels()(study()))
    found = reference_of(soft, "new")
    assert found.dtype == np.float32
    labels = hard_labels(found)
    assert labels.max() == 1
    np.testing.assert_array_equal(labels > 0, found >= 0.5)


def test_two_lesions_of_fractions_are_told_apart():
    soft = np.zeros((5, 3, 3), np.float32)
    soft[0], soft[2], soft[4] = 0.6, 0.4, 0.5
    assert hard_labels(soft).max() == 2


def test_a_volume_is_cut_to_its_middle_and_keeps_its_world():
    cut = CropToCenter((3, 10, 4))(study())
    scan = cut.followup.scans["flair"]
    assert scan.grid.shape == (3, 6, 4)
    np.testing.assert_array_equal(scan.array, study().followup.scans["flair"].array[1:4, :, 1:5])
    np.testing.assert_allclose(scan.grid.world_mm([0, 0, 0]), GRID.world_mm([1, 0, 1]))
    assert cut.changes["new"].grid.matches(scan.grid)
