"""Where in the brain a voxel lies."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.io.nifti import read_mask
from lesionwise.preprocess.distance_maps import DistanceMaps
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def study(brain, affine=None, array=None):
    where = Grid(brain.shape, np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    array = np.zeros(brain.shape, np.float32) if array is None else array
    return Study("01", (Visit({"flair": Volume(array, where)}, {}, Volume(brain, where), "M00"),))


def maps(study):
    scans = study.visits[0].scans
    return [scans[key].array for key in ("depth", "vertex_neck", "occiput_nose")]


def block():
    """5 x 5 x 5 voxels in 7 x 7 x 7: 1, 2 and 3 mm along the axes."""
    brain = np.zeros((7, 7, 7), bool)
    brain[1:6, 1:6, 1:6] = True
    return brain


def test_distances_by_hand():
    depth, down, forward = maps(DistanceMaps(unit="mm")(study(block())))
    # three voxels of 1 mm along i lead out of the middle
    assert depth[3, 3, 3] == 3
    assert depth[1, 3, 3] == 1
    assert depth[0, 0, 0] == 0
    # the top is at k = 5, the back at j = 1
    assert [down[3, 3, k] for k in (6, 5, 4, 1)] == [-3, 0, 3, 12]
    assert [forward[3, j, 3] for j in (0, 1, 2, 5)] == [-2, 0, 2, 8]


def test_shares_run_from_0_to_1_in_the_brain():
    for array in maps(DistanceMaps()(study(block()))):
        assert array.dtype == np.float32
        inside = array[block()]
        assert inside.max() == pytest.approx(1)
        assert 0 <= inside.min() < 0.5


def test_down_and_forward_are_the_worlds():
    # i points backward, j down, k to the right
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -1, -2, 3, 1
    _, down, forward = maps(DistanceMaps(unit="mm")(study(block(), affine)))
    assert [down[3, j, 3] for j in (1, 2, 5)] == [0, 2, 8]
    assert [forward[i, 3, 3] for i in (5, 4, 1)] == [0, 1, 4]


def test_a_cut_through_the_brain_is_no_surface():
    cut = block()[:, :, 3:]
    depth, _, _ = maps(DistanceMaps(unit="mm")(study(cut)))
    assert depth[3, 3, 0] == 3
    # a mask that fills the volume has no other surface than the faces
    depth, _, _ = maps(DistanceMaps(unit="mm")(study(np.ones((3, 3, 3), bool))))
    assert np.isfinite(depth).all()
    assert depth[1, 1, 1] == 2


def test_a_brain_of_one_voxel():
    brain = np.zeros((5, 5, 5), bool)
    brain[2, 2, 2] = True
    depth, down, forward = maps(DistanceMaps()(study(brain)))
    assert depth[2, 2, 2] == 1
    assert not down.any()
    assert not forward.any()


def test_missing_and_empty_brains_are_refused():
    with pytest.raises(InputError, match="01 M00 flair: the brain mask is empty"):
        DistanceMaps()(study(np.zeros((3, 3, 3), bool)))
    whole = study(block())
    visit = replace(whole.visits[0], brain=None)
    with pytest.raises(InputError, match="no brain mask"):
        DistanceMaps()(replace(whole, visits=(visit,)))
    with pytest.raises(InputError, match="01 M00 t1w: missing"):
        DistanceMaps(scan="t1w")(whole)


def test_brain_masks_of_integers_and_all_else():
    before = study(block().astype(np.uint8))
    after = DistanceMaps()(before)
    np.testing.assert_array_equal(maps(after)[0], maps(DistanceMaps()(study(block())))[0])
    assert after.visits[0].brain is before.visits[0].brain
    assert after.visits[0].scans["flair"] is before.visits[0].scans["flair"]
    assert after.visits[0].to_native is before.visits[0].to_native


def test_a_real_brain_is_deep_in_the_middle(shared):
    folder = "data/derivatives/coregistered/sub-openlong12/anat"
    mask = read_mask(shared(f"{folder}/sub-openlong12_space-common_desc-brain_mask.nii.gz"))
    whole = Study("x", (Visit({"flair": mask}, {}, mask),))
    depth, down, forward = maps(DistanceMaps(unit="mm")(whole))
    inside = mask.array.astype(bool)
    assert 20 < depth.max() < 70
    assert 90 < down[inside].max() < 190
    assert 130 < forward[inside].max() < 200
