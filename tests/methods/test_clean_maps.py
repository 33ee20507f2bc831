from dataclasses import dataclass, replace

import numpy as np
import pytest

from lesionwise.methods.clean_maps import (
    CleanMaps,
    DropBorderPatches,
    DropSmallPatches,
    DropThinPatches,
)
from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import Grid, LesionMaps, RunContext, Study, Visit, Volume


def maps(probability, spacing_mm=(1.0, 1.0, 1.0)):
    return LesionMaps(probability, Grid(probability.shape, np.diag([*spacing_mm, 1.0])))


def block(*shape, height=0.6):
    array = np.zeros((12, 12, 40), dtype=np.float32)
    array[tuple(slice(2, 2 + n) for n in shape)] = height
    return array


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((3, 3, 3), True),  # 27 voxels, axis 2√5 · √(8/12) = 3.65
        ((2, 3, 5), True),  # 30 voxels, axis 2√5 · √(3/12) = 2.24
        ((2, 3, 4), False),  # 24 voxels
        ((1, 3, 20), False),  # 60 voxels, but flat
    ],
)
def test_thin_and_small_patches_are_dropped(shape, kept):
    probability = block(*shape)
    tidied = DropThinPatches()(maps(probability))
    np.testing.assert_array_equal(tidied.probability, probability * kept)


@pytest.mark.parametrize("step", [DropThinPatches(), DropSmallPatches(4.0)])
def test_an_empty_map_stays_empty(step):
    assert not step(maps(np.zeros((3, 3, 3), np.float32))).probability.any()


@pytest.mark.parametrize("step", [DropThinPatches(), DropSmallPatches(4.0, patch_above=0.1)])
def test_outside_patches_the_probability_stays(step):
    probability = block(3, 3, 3)
    probability[10, 10, 30] = 0.05
    np.testing.assert_array_equal(step(maps(probability)).probability, probability)


@pytest.mark.parametrize(
    "step",
    [
        DropThinPatches(min_axis_vox=0.0, min_vox=4, patch_above=0.5),
        DropSmallPatches(3.0),
    ],
)
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5])
def test_a_lesion_keeps_its_volume_on_a_grid_between_the_voxels(step, shift):
    apart = np.indices((12, 12, 12)) - np.array([5, 5, 5]).reshape(3, 1, 1, 1)
    lesion = np.exp(-(apart**2).sum(axis=0) / 2).astype(np.float32)
    speck = np.zeros_like(lesion)
    speck[10, 10, 10] = 0.9
    affine = np.eye(4)
    affine[:3, 3] = shift
    between = Grid(lesion.shape, affine)
    tidied = step(maps(lesion + speck)).probability

    def mask(probability):
        return resample_to(Volume(probability, maps(lesion).grid), between, order=1).array > 0.5

    assert mask(lesion).any()
    np.testing.assert_array_equal(mask(tidied), mask(lesion))


@pytest.mark.parametrize(
    ("spacing_mm", "voxels", "kept"),
    [
        ((1.0, 1.0, 1.0), 4, False),  # exactly 4 mm³
        ((1.0, 1.0, 1.0), 5, True),
        ((1.0, 0.5, 0.5), 16, False),
        ((1.0, 0.5, 0.5), 17, True),
        ((1.0, 1.0, 3.0), 2, True),
    ],
)
def test_patches_larger_than_the_volume_stay(spacing_mm, voxels, kept):
    probability = block(1, 1, voxels)
    tidied = DropSmallPatches(4.0)(maps(probability, spacing_mm)).probability
    np.testing.assert_array_equal(tidied, probability * kept)


def test_a_patch_is_what_exceeds_the_threshold():
    low, high = block(1, 1, 3, height=0.2), block(1, 1, 3, height=0.21)
    step = DropSmallPatches(4.0, patch_above=0.2)
    np.testing.assert_array_equal(step(maps(low)).probability, low)
    assert not step(maps(high)).probability.any()


def test_corners_join_a_patch_of_26_neighbors():
    probability = np.zeros((4, 4, 4), np.float32)
    probability[[0, 1, 2], [0, 1, 2], [0, 1, 2]] = probability[0, 0, 1] = probability[0, 0, 2] = 1
    assert DropSmallPatches(4.0, connectivity=26)(maps(probability)).probability.sum() == 5
    assert not DropSmallPatches(4.0, connectivity=6)(maps(probability)).probability.any()


def test_other_maps_and_the_grid_stay():
    heatmap = np.ones((12, 12, 40), np.float32)
    grid = Grid(heatmap.shape, np.eye(4))
    tidied = DropSmallPatches(4.0)(LesionMaps(block(1, 1, 1), grid, heatmap))
    assert tidied.grid is grid
    assert tidied.center_heatmap is heatmap


def two_blocks():
    """A brain with one lesion in its middle and one that touches its outermost layer."""
    brain = np.zeros((12, 12, 12), dtype=bool)
    brain[1:11, 1:11, 1:11] = True
    probability = np.zeros(brain.shape, dtype=np.float32)
    probability[5:7, 5:7, 5:7] = 0.9
    probability[1:3, 4:6, 8:10] = 0.8
    probability[9, 9, 2] = 0.3
    return brain, probability


def test_a_patch_at_the_border_of_the_brain_is_dropped_whole():
    brain, probability = two_blocks()
    found = DropBorderPatches()(maps(probability), brain).probability
    assert not found[1:3, 4:6, 8:10].any()
    probability[1:3, 4:6, 8:10] = 0
    np.testing.assert_array_equal(found, probability)


@pytest.mark.parametrize(("depth", "kept"), [(1, True), (2, False)])
def test_how_deep_the_border_reaches(depth, kept):
    brain, probability = two_blocks()
    probability[1:3, 4:6, 8:10] = 0
    probability[2:4, 4:6, 6:8] = 0.8  # one layer below the border
    found = DropBorderPatches(depth_vox=depth)(maps(probability), brain).probability
    assert (found[2, 4, 6] > 0) == kept


def test_without_a_brain_no_border_is_known():
    _, probability = two_blocks()
    given = maps(probability)
    assert DropBorderPatches()(given, None) is given


def test_a_tidied_method_tidies_what_its_method_predicts(tmp_path):
    brain, probability = two_blocks()
    grid = Grid(brain.shape, np.eye(4))
    study = Study("a", (Visit({"flair": Volume(probability, grid)}, brain=Volume(brain, grid)),))
    method = CleanMaps(Scan(), border=DropBorderPatches(), cleanup=(DropSmallPatches(7.0),))
    assert method.members() == (Scan(),)
    assert method.uses_validation
    found = method.load(RunContext(tmp_path))(study).probability
    assert (found > 0.5).sum() == 8
    found = replace(method, cleanup=(DropSmallPatches(8.0),)).load(RunContext(tmp_path))(study)
    assert not (found.probability > 0.5).any()


@dataclass(frozen=True)
class Scan:
    """A method that takes the scan for the probability."""

    uses_validation = True

    def members(self):
        return ()

    def fit(self, data, run):
        """Nothing to learn."""

    def load(self, run):
        return lambda study: LesionMaps(
            study.followup.scans["flair"].array, study.followup.scans["flair"].grid
        )
