"""The path from a study to lesions, whatever the network."""

from dataclasses import replace

import numpy as np
import pytest
from heads import bright_model, head

from lesionwise.preprocess.quality import scan_quality
from lesionwise.run import locations
from lesionwise.run.find_lesions import FindOptions, find_lesions
from lesionwise.types import Grid, InputError, LesionMaps, Study, Visit, Volume

OBLIQUE = np.array(
    [[1.9, 0.3, 0.1, -60], [-0.3, 1.9, 0.2, -90], [-0.1, -0.2, 2.0, -70], [0, 0, 0, 1]]
)


def study(image=None, affine=None):
    image = head() if image is None else image
    grid = Grid(image.shape, np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine)
    return Study("x", (Visit({"flair": Volume(image, grid)}),))


def test_results_lie_on_the_grid_of_the_scan():
    given = study(affine=OBLIQUE)
    found = find_lesions(given, bright_model())
    for result in (found.mask, found.probability, found.brain, *found.instances.values()):
        assert result.grid.matches(given.followup.scans["flair"].grid)


def test_every_lesion_is_found_once():
    found = find_lesions(study(), bright_model())
    assert found.main[0] == "offsets"
    assert len(np.unique(found.main[1].labels)) - 1 == 3


def test_every_mask_voxel_belongs_to_a_lesion_before_the_size_filters():
    options = FindOptions(also=("offsets", "acls", "cc"), min_volume_mm3=0, min_extent_mm=0)
    found = find_lesions(study(), bright_model(), options)
    assert found.mask.array.any()
    for name, instances in found.instances.items():
        assert np.array_equal(instances.labels > 0, found.mask.array), name


def test_size_filters_act_on_lesions_and_never_on_the_mask():
    options = FindOptions(min_volume_mm3=1e6)
    found = find_lesions(study(), bright_model(), options)
    assert not found.main[1].labels.any()
    assert found.mask.array.sum() == find_lesions(study(), bright_model()).mask.array.sum() > 0


@pytest.mark.parametrize("threads", ["1", "2"])
def test_landmarks_and_fitness_are_those_of_the_scan_and_the_brain_found(monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(locations, "find_landmarks", lambda scan, brain: (scan, brain))
    given = study()
    found = find_lesions(given, bright_model(), beside=True)
    plain = find_lesions(given, bright_model())
    scan, brain = found.landmarks.result()
    assert scan is given.followup.scans["flair"]
    assert np.array_equal(brain.array, found.brain.array)
    assert found.measured_quality() == scan_quality(scan, brain, flair=True)
    assert np.array_equal(found.main[1].labels, plain.main[1].labels)
    assert plain.landmarks is None
    assert plain.measured_quality() is None


def test_a_given_brain_mask_is_used_as_it_is():
    brain = head() > 0
    brain[:40] = False
    given = study()
    grid = given.followup.scans["flair"].grid
    visit = replace(given.followup, brain=Volume(brain, grid))
    found = find_lesions(replace(given, visits=(visit,)), bright_model())
    assert np.array_equal(found.brain.array, brain)
    assert not found.mask.array[:40].any()


def test_without_extraction_everything_but_0_is_brain():
    options = FindOptions(extract_brain=False)
    found = find_lesions(study(), bright_model(), options)
    assert np.array_equal(found.brain.array, head() != 0)


def test_offsets_are_refused_where_the_model_gives_none():
    def semantic(prepared):
        volume = prepared.followup.scans["flair"]
        return LesionMaps((volume.array > 3).astype(np.float32), volume.grid)

    model = replace(bright_model(), predictor=semantic)
    with pytest.raises(InputError, match="no offsets"):
        find_lesions(study(), model, FindOptions(instances="offsets"))
    found = find_lesions(study(), model, FindOptions(instances="cc", also=("offsets", "acls")))
    assert list(found.instances) == ["cc", "acls"]


def test_the_threshold_makes_the_mask():
    def half(prepared):
        volume = prepared.followup.scans["flair"]
        return LesionMaps((volume.array > 3) * np.float32(0.4), volume.grid)

    model = replace(bright_model(), predictor=half)
    cc = FindOptions(instances="cc")
    assert not find_lesions(study(), model, cc).mask.array.any()
    assert find_lesions(study(), model, replace(cc, threshold=0.3)).mask.array.any()


def test_the_union_of_two_brains_bounds_the_mask_where_the_recipe_masks_by_it():
    # 002:1588-1589 and 002:1858-1860: both scans are masked by the union of their brains
    from lesionwise.preprocess.brain_masks import MaskToBrain, SharedBrain
    from lesionwise.run.load_model import LoadedModel
    from lesionwise.run.recipes import find_recipe

    grid = Grid((12, 12, 12), np.eye(4))

    def brain(last):
        array = np.zeros(grid.shape, dtype=bool)
        array[2:last, 2:10, 2:10] = True
        return Volume(array, grid)

    def extract(pair):
        first, second = pair.visits
        visits = (replace(first, brain=brain(11)), replace(second, brain=brain(8)))
        return replace(pair, visits=visits)

    def everything(prepared):
        union = prepared.followup.brain
        return LesionMaps(union.array.astype(np.float32), union.grid)

    scan = Volume(np.random.default_rng(0).normal(100, 1, grid.shape).astype(np.float32), grid)
    pair = Study("x", (Visit({"flair": scan}, session="1"), Visit({"flair": scan}, session="2")))
    recipe = replace(find_recipe("iqda"), preprocess=(extract, SharedBrain("union"), MaskToBrain()))
    found = find_lesions(pair, LoadedModel(recipe, everything, "test", "", {}))
    assert int(found.mask.array.sum()) == 9 * 64
