"""Voxel sizes that spare the interpolation where they can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.io.nifti import read_volume
from lesionwise.preprocess.geometry import Resample, respaced
from lesionwise.preprocess.resampling import ResampleNearInteger, ResizeVolume
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def study(array, spacing, labels=None):
    where = Grid(array.shape, np.diag([*spacing, 1.0]))
    labels = {} if labels is None else {"lesions": Volume(labels, where)}
    return Study("01", (Visit({"flair": Volume(array, where)}, labels),))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (0.45, 0.9),  # the document's example
        (0.5, 1.0),
        (0.3, 0.9),
        (1.0, 1.0),
        (1.1, 1.1),
        (0.95, 0.95),
        (3.0, 1.0),
        (2.2, 1.1),
        (0.72, 1.0),  # 0.72 and 1.44 are too far
        (1.5, 1.0),  # 0.75 and 1.5 are too far
        (0.8896, 1.0),  # just outside the tolerance
        (0.89, 0.89),  # just within
    ],
)
def test_spacings_by_hand(old, new):
    assert ResampleNearInteger().spacing_for(old) == pytest.approx(new)


@given(st.floats(0.05, 12.0))
def test_a_whole_factor_or_the_target(old):
    step = ResampleNearInteger()
    new = step.spacing_for(old)
    factor = max(new / old, old / new)
    whole = abs(factor - round(factor)) < 1e-9
    assert new == 1.0 or (whole and abs(new - 1) <= 0.11 + 1e-6)


def test_whole_multiples_keep_their_spacing_exactly():
    step = ResampleNearInteger()
    # seven voxels of 0.45: the rest is half a new voxel and makes one; six leave none
    for voxels, wanted in ((7, 4), (6, 3)):
        grid = step.grid_for(Grid((voxels, 5, 4), np.diag([0.45, 1.0, 3.0, 1.0])))
        assert grid.shape == (wanted, 5, 12)
        np.testing.assert_allclose(grid.spacing_mm, [0.9, 1, 1])
        # the first face stays: half a voxel before the first center
        np.testing.assert_allclose(grid.affine[:3, 3], [0.225, 0, -1.0])


def test_pairs_of_voxels_are_averaged_and_labels_stay_labels():
    array = np.array([0, 0, 10, 10, 40, 40], np.float32).reshape(6, 1, 1)
    labels = np.array([0, 0, 1, 1, 2, 2], np.int32).reshape(6, 1, 1)
    after = ResampleNearInteger()(study(array, (0.5, 1.0, 1.0), labels)).visits[0]
    assert after.scans["flair"].array.shape == (3, 1, 1)
    assert after.scans["flair"].array.dtype == np.float32
    # smoothed first, so neighbors have a share; the middle keeps its order
    assert (np.diff(after.scans["flair"].array.ravel()) > 0).all()
    assert after.labels["lesions"].array.ravel().tolist() == [0, 1, 2]
    assert after.labels["lesions"].array.dtype == np.int32


def test_near_voxels_are_left_alone():
    before = study(
        np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32), (1, 0.9, 1.1)
    )
    after = ResampleNearInteger()(before)
    assert after.visits[0].scans["flair"].array is before.visits[0].scans["flair"].array


@pytest.mark.parametrize("spacing", [0.5, 0.6, 0.8])
def test_isotropic_voxels_of_the_rows(spacing):
    # B17 and B23, B12, B4
    old = Grid((40, 44, 20), np.diag([0.72, 0.72, 3.0, 1.0]))
    new = respaced(old, spacing)
    assert np.abs(np.array(new.spacing_mm) / spacing - 1).max() < 0.02
    np.testing.assert_allclose(
        np.array(new.shape) * new.spacing_mm, np.array(old.shape) * old.spacing_mm
    )
    small = study(np.ones((8, 9, 4), np.float32), (0.72, 0.72, 3.0))
    np.testing.assert_allclose(Resample(spacing)(small).visits[0].scans["flair"].array, 1)


def test_a_real_scan_keeps_its_values_and_its_place(shared):
    path = shared("data/sub-openlong12/ses-01/anat/sub-openlong12_ses-01_FLAIR.nii.gz")
    raw = read_volume(path)
    before = Study("openlong12", (Visit({"flair": raw}),))
    after = ResampleNearInteger()(before).visits[0].scans["flair"]
    assert after.grid.spacing_mm[2] == pytest.approx(raw.grid.spacing_mm[2] / 3)
    np.testing.assert_allclose(after.grid.spacing_mm[:2], 1, atol=0.01)
    assert after.array.mean() == pytest.approx(raw.array.mean(), rel=0.01)
    centers = [
        volume.grid.world_mm((np.array([volume.grid.shape]) - 1) / 2) for volume in (raw, after)
    ]
    np.testing.assert_allclose(centers[0], centers[1], atol=1e-3)


@pytest.mark.parametrize("wrong", [{"target_mm": 0}, {"tolerance_mm": -1}, {"tolerance_mm": 1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="target must be positive"):
        ResampleNearInteger(**wrong)


def test_a_volume_gets_so_many_voxels_between_the_same_faces():
    image = np.random.default_rng(0).random((6, 8, 5)).astype(np.float32)
    labels = np.zeros((6, 8, 5), dtype=np.int32)
    labels[2:4, 4:6, 2:4] = 7
    before = study(image, (1.0, 0.5, 3.0), labels)
    after = ResizeVolume((12, 16, 10))(before)
    old, new = before.followup.scans["flair"].grid, after.followup.scans["flair"].grid
    assert new.shape == (12, 16, 10)
    assert new.spacing_mm == pytest.approx((0.5, 0.25, 1.5))
    for corner in (np.full((1, 3), -0.5), np.array([old.shape]) - 0.5):
        scaled = (corner + 0.5) * np.array(new.shape) / np.array(old.shape) - 0.5
        np.testing.assert_allclose(new.world_mm(scaled), old.world_mm(corner), atol=1e-9)
    found = after.followup.labels["lesions"]
    assert set(np.unique(found.array)) == {0, 7}
    assert found.array.astype(bool).sum() == 8 * labels.astype(bool).sum()


def test_a_volume_without_voxels_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        ResizeVolume((0, 4, 4))(study(np.ones((4, 4, 4), np.float32), (1.0, 1.0, 1.0)))
