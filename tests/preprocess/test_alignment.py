"""Visits that fit on each other, and the reasons why others do not."""

import numpy as np
import pytest
from scipy import ndimage

from lesionwise.preprocess.alignment import alignment_of, mirror_about
from lesionwise.types import Grid, Volume

SHAPE = (50, 60, 50)
AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
AFFINE[:3, 3] = (-73.5, -88.5, -73.5)
GRID = Grid(SHAPE, AFFINE)
STILL = np.eye(4)


def head(seed: int = 0) -> tuple[Volume, Volume]:
    i, j, k = (np.linspace(-1, 1, n) for n in SHAPE)
    inside = (i[:, None, None] ** 2 + j[:, None] ** 2 + k**2) < 0.8
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(0, 1, SHAPE), 1.5)
    array = np.where(inside, 100 + 200 * texture, 0).astype(np.float32)
    return Volume(array, GRID), Volume(inside, GRID)


def test_two_visits_of_one_person_fit_and_the_mirrored_one_is_not_tried() -> None:
    scan, brain = head()
    found = alignment_of(scan, scan, STILL, baseline_brain=brain, followup_brain=brain)
    assert found.reason is None
    assert found.similarity == found.unregistered == pytest.approx(1)
    assert np.isnan(found.mirrored)


def test_a_mirrored_followup_is_told() -> None:
    scan, brain = head()
    swapped = Volume(scan.array[::-1].copy(), GRID)
    found = alignment_of(scan, swapped, STILL, baseline_brain=brain, followup_brain=brain)
    assert found.exchanged
    assert found.mirrored > 0.95
    assert found.reason is not None
    assert "left and right are exchanged" in found.reason


def test_two_people_are_told() -> None:
    (one, brain), (two, _) = head(0), head(1)
    found = alignment_of(one, two, STILL, baseline_brain=brain, followup_brain=brain)
    assert not found.exchanged
    assert found.reason is not None
    assert "two people" in found.reason


def test_a_registration_that_made_things_worse_is_told() -> None:
    scan, brain = head()
    off = np.eye(4)
    off[:3, 3] = (12, 9, -9)
    found = alignment_of(scan, scan, off, baseline_brain=brain, followup_brain=brain)
    assert found.reason is not None
    assert "registration failed" in found.reason


def test_mirroring_twice_changes_nothing() -> None:
    scan, brain = head()
    mirror = mirror_about(scan, brain)
    np.testing.assert_allclose(mirror @ mirror, np.eye(4), atol=1e-9)
    assert mirror[0, 0] == -1
