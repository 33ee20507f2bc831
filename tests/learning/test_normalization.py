"""Normalization after augmentation."""

import numpy as np
import pytest

from lesionwise.learning.normalization import ClipToRange


def test_percentiles_go_to_the_ends_of_the_range():
    image = np.arange(1001.0)
    seen = ClipToRange(low=10, high=90, onto=(-1, 1))(image)
    assert seen[0] == seen[100] == -1
    assert seen[900] == seen[1000] == 1
    assert seen[500] == pytest.approx(0, abs=1e-6)


def test_a_constant_image_becomes_the_middle_of_the_range():
    assert (ClipToRange()(np.full((2, 2, 2), 7.0)) == 0).all()
