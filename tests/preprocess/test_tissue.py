"""Tissue classes: by brightness, place and neighbors."""

import tempfile

import numpy as np
import pytest

from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.template import template_maps
from lesionwise.preprocess.tissue import ClassifyTissue, atropos, mixture
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def volume(array, spacing=(1.0, 1.0, 1.0)):
    return Volume(array, Grid(array.shape, np.diag([*spacing, 1.0])))


def bands(noise=3.0, n=24):
    """Fluid, gray and white one after the other along i, 20, 110 and 90 bright."""
    truth = np.repeat([1, 2, 3], n // 3)[:, None, None] * np.ones((1, n, n), int)
    values = np.array([0, 20.0, 110, 90])[truth]
    values = values + np.random.default_rng(0).normal(0, noise, values.shape)
    return values.astype(np.float32), truth


def flat_priors(shape, tilt=None, by=0.2):
    priors = np.full((3, *shape), 1 / 3, np.float32)
    if tilt is not None:
        for label in (1, 2, 3):
            priors[label - 1][tilt == label] += by
    return priors / priors.sum(axis=0)


def test_brightness_decides_where_the_place_says_little():
    values, truth = bands()
    found = mixture(
        volume(values), np.ones(values.shape, bool), flat_priors(truth.shape, truth), 15, 0
    )
    assert found.dtype == np.uint8
    assert (found == truth).mean() > 0.99


def test_neighbors_outvote_noise():
    values, truth = bands(noise=8.0)
    inside = np.ones(values.shape, bool)
    priors = flat_priors(truth.shape, truth)
    alone = (mixture(volume(values), inside, priors, 15, 0) == truth).mean()
    together = (mixture(volume(values), inside, priors, 15, 1.0) == truth).mean()
    assert together > alone
    assert together > 0.97


def test_a_lesion_takes_the_class_of_its_place():
    values, truth = bands()
    values[19:22, 8:12, 8:12] = 170  # in white matter, far brighter than gray
    found = mixture(
        volume(values), np.ones(values.shape, bool), flat_priors(truth.shape, truth), 15, 1.0
    )
    assert (found[19:22, 8:12, 8:12] == 3).all()


def test_outside_is_zero_and_the_same_input_gives_the_same_classes():
    values, truth = bands()
    inside = np.zeros(values.shape, bool)
    inside[:, 4:20, 4:20] = True
    priors = flat_priors(truth.shape, truth)
    found = mixture(volume(values), inside, priors, 5, 1.0)
    assert not found[~inside].any()
    assert (found[inside] > 0).all()
    np.testing.assert_array_equal(found, mixture(volume(values), inside, priors, 5, 1.0))


def test_step_labels_a_flair_of_the_template_that_lies_elsewhere():
    maps = template_maps()
    parts = np.stack([m.array for m in (maps.fluid, maps.gray, maps.white)])
    classes = np.where(maps.brain.array, parts.argmax(axis=0) + 1, 0)
    grid = respaced(maps.t1.grid, 3.0)
    world = np.diag([1.08, 1.05, 1.06, 1.0])
    world[:3, 3] = (4, -6, 5)
    truth = resample_to(Volume(classes, maps.t1.grid), grid, order=0, world=world).array
    brain = Volume(truth > 0, grid)
    noise = np.random.default_rng(0).normal(0, 3, grid.shape)
    array = np.array([0, 20.0, 115, 90])[truth] + np.where(truth > 0, noise, 0)
    scan = Volume(np.maximum(array, 0).astype(np.float32), grid)
    study = Study("01", (Visit({"flair": scan}, {"lesions": brain}, brain),))
    labels = ClassifyTissue()(study).visits[0].labels
    assert labels["lesions"] is brain
    found = labels["tissue"].array
    assert (found[truth == 0] == 0).all()
    for label in (1, 2, 3):
        one, other = found == label, truth == label
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.9


def test_missing_masks_and_constant_scans_are_refused():
    scan = volume(np.ones((6, 6, 6), np.float32))
    with pytest.raises(InputError, match=r"^07 flair: no brain mask"):
        ClassifyTissue()(Study("07", (Visit({"flair": scan}),)))
    brain = volume(np.ones((6, 6, 6), bool))
    with pytest.raises(InputError, match=r"^07 flair: every voxel of the brain"):
        ClassifyTissue()(Study("07", (Visit({"flair": scan}, {}, brain),)))


def test_atropos_tells_the_bands_apart_too_and_leaves_nothing_behind(tmp_path, monkeypatch):
    pytest.importorskip("ants", reason="the extra ants is not installed")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    values, truth = bands()
    inside = np.ones(values.shape, bool)
    inside[:, 0] = False
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scan = Volume(values, Grid(values.shape, affine))
    found = atropos(scan, inside, flat_priors(truth.shape, truth), 5, 0.5)
    assert found.dtype == np.uint8
    assert not found[~inside].any()
    assert (found[inside] == truth[inside]).mean() > 0.99
    assert not list(tmp_path.iterdir())
