"""B1 against document 002, by line, and at work on pairs made by hand."""

import dataclasses

import numpy as np
import pytest

from lesionwise.recipes.bsi_lightgbm import RECIPE
from lesionwise.types import Grid, RunContext, Study, TrainingData, Visit, Volume

SHAPE = (24, 24, 20)
GRID = Grid(SHAPE, np.eye(4))


def step(name):
    (only,) = [each for each in RECIPE.preprocess if type(each).__name__ == name]
    return only


def test_scans_reach_mni_space_and_are_corrected_in_order_before_they_are_subtracted():
    """Lines 99 to 107: MNI space, N4, denoising, multiple time-point bias correction, then "the
    subtraction between the two images". Z-scores belong to the trees (line 124), so no step
    makes them."""
    names = [type(each).__name__ for each in RECIPE.preprocess]
    order = ["RegisterToTemplate", "N4", "Denoise", "DifferentialBias"]
    assert [name for name in names if name in order] == order
    assert not any("ZScore" in name for name in names)


def test_n4_has_the_documents_settings():
    """Line 101: convergence 0.0001, FWHM 0.05, 1000 iterations."""
    n4 = step("N4")
    assert (n4.tolerance, n4.fwhm, n4.iterations) == (1e-4, 0.05, 1000)


def test_the_prior_masks_are_the_documents():
    """Lines 104 to 107: one SD above the mean brain, ventricles eroded twice, the MNI brain
    eroded once."""
    names = [type(each).__name__ for each in RECIPE.preprocess]
    propose = RECIPE.method.propose
    assert propose.bright_std == 1
    assert "LabelVentricles" in names
    assert propose.ventricle_erosions == 2
    assert "LabelTemplateBrain" in names
    assert propose.brain_erosions == 1


def test_clusters_are_the_documents():
    """Lines 108 to 111: they survive one erosion, are bigger than 5 voxels, and lie one SD above
    the mean difference."""
    propose = RECIPE.method.propose
    assert propose.cluster_erosions == 1
    assert propose.min_vox == 5 + 1
    assert propose.min_difference_std == 1


def test_the_trees_have_21_features_and_stop_early_by_nested_cross_validation():
    """Lines 127 to 134: 3 × 7 features, 5-fold nested cross-validation, 50 rounds."""
    study = pair("a", 0, (12, 12, 12))
    features = RECIPE.method.describe(study, RECIPE.method.propose(study))
    assert len(features.names) == 3 * 7
    assert RECIPE.method.decide.patience == 50
    assert RECIPE.method.decide.folds == 5


def test_patches_are_dropped_before_the_map_is_binarized():
    """Lines 149 to 152: minor axis below 2 voxels or fewer than 27; then a threshold of 20 %."""
    cleanup = RECIPE.method.cleanup
    assert cleanup.min_axis_vox == 2
    assert cleanup.min_vox == 27
    assert RECIPE.threshold == 0.2
    assert cleanup.patch_above <= RECIPE.threshold


def test_it_finds_new_lesions_in_two_flair_scans():
    """Lines 74 and 115; the score is that of line 158."""
    assert (RECIPE.scans, RECIPE.visits, RECIPE.task) == (("flair",), 2, "new")
    assert RECIPE.reported["dsc"] == 0.557


def test_what_the_trees_do_otherwise_is_said():
    """Departures: a least sum of Hessians of 1, and at most 100,000 voxels of a study."""
    said = " ".join(RECIPE.departures)
    assert RECIPE.method.decide.min_hessian_per_leaf == 1
    assert "sum of Hessians of 1" in said
    assert RECIPE.method.decide.rows_per_study == 100_000
    assert "100,000" in said


def study_of(subject, before, after, new):
    everywhere = Volume(np.ones(SHAPE, dtype=bool), GRID)
    nowhere = Volume(np.zeros(SHAPE, dtype=bool), GRID)
    labels = {"template_brain": everywhere, "ventricles": nowhere}
    visits = tuple(
        Visit({"flair": Volume(a.astype(np.float32), GRID)}, labels, everywhere)
        for a in (before, after)
    )
    return Study(subject, visits, {"new": Volume(new, GRID)})


def pair(subject, seed, corner):
    rng = np.random.default_rng(seed)
    before, after = rng.normal(0, 0.5, (2, *SHAPE)).astype(np.float32)
    old = (slice(3, 7), slice(3, 8), slice(3, 7))
    before[old] += 4
    after[old] += 4
    new = np.zeros(SHAPE, dtype=np.uint8)
    new[tuple(slice(n, n + 5) for n in corner)] = 1
    after[new > 0] += 2.5
    return study_of(subject, before, after, new)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """Its own settings, with fewer trees."""
    decide = dataclasses.replace(RECIPE.method.decide, max_trees=40)
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
