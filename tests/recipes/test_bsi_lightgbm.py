"""B1 against its row of SYSTEMS.md (002, line 41), and at work on pairs made by hand."""

import dataclasses

import numpy as np
import pytest

from lesionwise.recipes.bsi_lightgbm import RECIPE
from lesionwise.types import Grid, RunContext, Study, TrainingData, Visit, Volume

SHAPE = (24, 24, 20)
GRID = Grid(SHAPE, np.eye(4))


def step(name):
    (found,) = [each for each in RECIPE.preprocess if type(each).__name__ == name]
    return found


def test_the_scans_are_put_into_mni_space_and_corrected_in_order():
    names = [type(each).__name__ for each in RECIPE.preprocess]
    order = ["RegisterToTemplate", "N4", "Denoise", "DifferentialBias", "ZScore"]
    assert [name for name in names if name in order] == order


def test_n4_has_the_rows_settings():
    n4 = step("N4")
    assert (n4.tolerance, n4.fwhm, n4.iterations) == (1e-4, 0.05, 1000)


def test_the_prior_masks_and_clusters_are_the_rows():
    propose = RECIPE.method.propose
    assert propose.bright_sd == 1
    assert propose.ventricle_erosions == 2
    assert propose.brain_erosions == 1
    assert propose.cluster_erosions == 1
    assert propose.more_than_vox == 5
    assert propose.above_sd == 1


def test_the_trees_stop_early_by_nested_cross_validation():
    assert RECIPE.method.decide.patience == 50
    assert RECIPE.method.decide.folds == 5


def test_patches_are_dropped_before_the_map_is_binarized():
    tidy = RECIPE.method.tidy
    assert tidy.min_axis_vox == 2
    assert tidy.min_vox == 27
    assert RECIPE.threshold == 0.2
    assert tidy.patch_above <= RECIPE.threshold


def test_it_finds_new_lesions_in_two_flair_scans():
    assert (RECIPE.scans, RECIPE.visits, RECIPE.finds) == (("flair",), 2, "new")
    assert RECIPE.reported["dsc"] == 0.557


def pair(subject, seed, corner):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(0, 0.5, (2, *SHAPE)).astype(np.float32)
    old = (slice(3, 7), slice(3, 8), slice(3, 7))
    before[old] += 4
    after[old] += 4
    new = np.zeros(SHAPE, dtype=np.uint8)
    new[tuple(slice(n, n + 5) for n in corner)] = 1
    after[new > 0] += 2.5
    brain = Volume(np.ones(SHAPE, dtype=bool), GRID)
    visits = tuple(Visit({"flair": Volume(a, GRID)}, brain=brain) for a in (before, after))
    return Study(subject, visits, {"new": Volume(new, GRID)})


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """Its own settings, with fewer trees."""
    decide = dataclasses.replace(RECIPE.method.decide, most_trees=40)
    method = dataclasses.replace(RECIPE.method, decide=decide)
    run = RunContext(tmp_path_factory.mktemp("run"))
    corners = [(12, 12, 12), (14, 4, 8), (6, 14, 10)]
    data = [pair(f"s{n}", n, corner) for n, corner in enumerate(corners)]
    method.fit(TrainingData(data), run)
    return method.load(run)


def dice(maps, study):
    found, new = maps.probability > RECIPE.threshold, study.changes["new"].array > 0
    return 2 * (found & new).sum() / (found.sum() + new.sum())


def test_it_overfits_its_training_pairs(predictor):
    study = pair("s0", 0, (12, 12, 12))
    assert dice(predictor(study), study) >= 0.9


def test_it_finds_a_new_lesion_it_has_not_seen(predictor):
    study = pair("z", 9, (15, 13, 5))
    assert dice(predictor(study), study) >= 0.8


def test_the_old_lesion_is_not_found(predictor):
    maps = predictor(pair("z", 9, (15, 13, 5)))
    assert maps.probability[3:7, 3:8, 3:7].max() <= RECIPE.threshold
