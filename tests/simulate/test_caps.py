"""Bright normal tissue at the ventricles: where it lies, and that it is never a lesion."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.simulate.anatomy import HeadSettings, compose, make_head
from lesionwise.simulate.caps import Caps, caps_layer, draw_caps
from lesionwise.simulate.patient import simulate_patient

STRIKING = Caps(brightness=1.0, reach_mm=5.0, share=0.3)


@pytest.fixture(scope="module")
def anatomy():
    return compose(make_head(np.random.default_rng(2), HeadSettings()), 0.0)


@pytest.fixture(scope="module")
def layer(anatomy):
    return caps_layer(anatomy, STRIKING, np.random.default_rng(5))


def test_caps_lie_at_the_wall_within_their_reach(anatomy, layer):
    assert layer.dtype == np.float32
    assert 0 <= layer.min() < 0.9 < layer.max() <= 1
    assert anatomy.ventricle_mm[layer > 0.01].max() <= STRIKING.reach_mm
    assert not layer[anatomy.infratentorial].any()


def test_about_the_stated_share_of_the_wall_is_covered(anatomy, layer):
    x = anatomy.template_mm[0]
    wall = np.abs(anatomy.ventricle_mm) < 0.5
    wall &= anatomy.brain & ~anatomy.infratentorial & (np.abs(x) > 5)
    assert 0.15 < (layer[wall] > 0.3).mean() < 0.5


def test_left_and_right_are_alike(anatomy, layer):
    at_wall = (np.abs(anatomy.ventricle_mm) < 2) & (np.abs(anatomy.template_mm[0]) > 5)
    both = at_wall & at_wall[::-1]
    assert np.corrcoef(layer[both], layer[::-1][both])[0, 1] > 0.5


def test_the_front_ends_have_caps(anatomy, layer):
    y = anatomy.template_mm[1]
    inside = (anatomy.ventricle_mm < 0) & ~anatomy.infratentorial
    tip = np.percentile(y[inside], 99)
    front = (np.abs(anatomy.ventricle_mm) < 2) & (np.abs(y - tip) < 4)
    middle = (np.abs(anatomy.ventricle_mm) < 2) & (np.abs(y) < 4)
    assert layer[front].mean() > 2 * layer[middle].mean()


def test_a_head_without_ventricles_has_none(anatomy):
    closed = replace(anatomy, ventricle_mm=np.full_like(anatomy.ventricle_mm, 50.0))
    assert not caps_layer(closed, STRIKING, np.random.default_rng(0)).any()


def test_caps_brighten_tissue_and_leave_the_truth_as_it_is():
    plain, capped = (
        simulate_patient(3, lesion_load=0.3, spacing_mm=(1, 1, 1), with_skull=False, with_caps=c)
        for c in (False, True)
    )
    before, after = plain.study.followup, capped.study.followup
    for name in ("lesions", "instances", "tissue"):
        np.testing.assert_array_equal(before.labels[name].array, after.labels[name].array)
    tissue = before.labels["tissue"].array
    rise = after.scans["flair"].array.astype(float) - before.scans["flair"].array
    white = before.scans["flair"].array[tissue == 3].mean()
    assert (rise[tissue == 3] > 0.15 * white).sum() > 300
    assert np.abs(rise[tissue == 4]).mean() < 0.1 * white


def test_draws_differ_and_stay_in_range():
    drawn = [draw_caps(np.random.default_rng(seed)) for seed in range(20)]
    assert len({caps.reach_mm for caps in drawn}) == 20
    assert all(1.8 <= caps.reach_mm <= 4 and 0 < caps.share <= 0.5 for caps in drawn)
