from dataclasses import replace

import numpy as np
import pytest

from lesionwise.change.candidates import (
    BoundaryShiftClusters,
    BrighterAtFollowup,
    MapComponents,
    RaisedRatio,
    ball,
    clusters,
    mutual_information,
)
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def pair(before, after, *, brain=None, ventricles=None, template_brain=None, scan="flair"):
    grid = Grid(before.shape, np.diag([1.0, 1.0, 2.0, 1.0]))
    mask = None if brain is None else Volume(brain, grid)
    masks = {
        "ventricles": np.zeros(before.shape, bool) if ventricles is None else ventricles,
        "template_brain": np.ones(before.shape, bool) if template_brain is None else template_brain,
    }
    labels = {name: Volume(array, grid) for name, array in masks.items()}
    return Study(
        "a",
        tuple(
            Visit({scan: Volume(array.astype(np.float32), grid)}, labels, mask)
            for array in (before, after)
        ),
    )


def bump(shape, *spans, height=1.0):
    array = np.zeros(shape)
    for span in spans:
        array[tuple(slice(a, b) for a, b in span)] = height
    return array


FLAT = np.zeros((12, 12, 12))
CUBE = ((4, 7), (4, 7), (4, 7))


def test_what_rises_by_more_than_the_limit_is_proposed():
    after = bump((1, 1, 5), ((0, 1), (0, 1), (1, 2)), height=2.0)
    after[0, 0, 3] = 2.5
    labels = BrighterAtFollowup(above=2.0)(pair(np.zeros((1, 1, 5)), after))
    assert labels[0, 0].tolist() == [0, 0, 0, 1, 0]


def test_small_clusters_are_left_out_and_the_others_numbered():
    mask = np.array([1, 0, 1, 1, 0, 1, 1], dtype=bool)[:, None, None]
    assert clusters(mask, 2)[:, 0, 0].tolist() == [0, 0, 1, 1, 0, 2, 2]


def test_nothing_outside_the_brain_is_proposed():
    brain = np.zeros(FLAT.shape, dtype=bool)
    labels = BrighterAtFollowup(above=0.5)(pair(FLAT, bump(FLAT.shape, CUBE), brain=brain))
    assert not labels.any()


def test_the_limit_is_that_of_the_last_step_reached():
    rng = np.random.default_rng(0)
    before = rng.normal(size=(20, 20, 20))
    steps = BrighterAtFollowup(above=((0.0, 3.0), (0.5, 2.0), (99.0, 1.0)))
    brain = np.ones(before.shape, dtype=bool)
    assert steps.limit(before, before, brain) == 2.0
    assert steps.limit(before, rng.normal(size=before.shape), brain) == 3.0


def test_below_every_step_the_first_holds():
    brain = np.ones(FLAT.shape, dtype=bool)
    assert BrighterAtFollowup(above=((0.5, 3.0), (1.0, 2.0))).limit(FLAT, FLAT, brain) == 3.0


def test_information_of_equal_values_is_their_entropy():
    values = np.repeat(np.arange(4.0), 1000)
    np.testing.assert_allclose(mutual_information(values, values), np.log(4))
    np.testing.assert_allclose(mutual_information(values, -values), np.log(4))


def test_information_of_unrelated_values_is_0():
    first, second = np.repeat([0.0, 1.0], 2000), np.tile([0.0, 1.0], 2000)
    np.testing.assert_allclose(mutual_information(first, second), 0, atol=1e-12)


@pytest.mark.parametrize("count", [0, 5])
def test_information_of_nothing_or_a_constant_is_0(count):
    assert mutual_information(np.ones(count), np.ones(count)) == 0


def test_a_bright_cluster_that_survives_an_erosion_is_kept_whole():
    labels = BoundaryShiftClusters()(pair(FLAT, bump(FLAT.shape, CUBE)))
    np.testing.assert_array_equal(labels, bump(FLAT.shape, CUBE))


def test_a_flat_cluster_does_not_survive():
    flat = ((4, 5), (2, 9), (2, 9))
    assert not BoundaryShiftClusters()(pair(FLAT, bump(FLAT.shape, flat))).any()
    kept = BoundaryShiftClusters(cluster_erosions=0)(pair(FLAT, bump(FLAT.shape, flat)))
    assert kept.sum() == 49


@pytest.mark.parametrize(("length", "kept"), [(5, False), (6, True)])
def test_a_cluster_has_more_than_5_voxels(length, kept):
    row = ((4, 5), (4, 5), (2, 2 + length))
    found = BoundaryShiftClusters(cluster_erosions=0)(pair(FLAT, bump(FLAT.shape, row)))
    assert found.any() == kept


def test_what_was_bright_before_cannot_be_new():
    before = bump(FLAT.shape, CUBE, height=5.0)
    labels = BoundaryShiftClusters()(pair(before, before + bump(FLAT.shape, CUBE)))
    assert not labels.any()


def test_ventricles_eroded_twice_are_excluded():
    ventricles = bump(FLAT.shape, ((1, 10), (1, 10), (1, 10))) > 0
    after = bump(FLAT.shape, CUBE)
    assert not BoundaryShiftClusters()(pair(FLAT, after, ventricles=ventricles)).any()
    small = bump(FLAT.shape, CUBE) > 0  # gone after two erosions
    assert BoundaryShiftClusters()(pair(FLAT, after, ventricles=small)).any()


def test_the_rim_of_the_templates_brain_is_excluded():
    """002:106: "the brain tissue (from a one time eroded MNI brain mask)"."""
    inside = bump(FLAT.shape, ((3, 12), (0, 12), (0, 12))) > 0
    after = bump(FLAT.shape, ((3, 7), (4, 7), (4, 7)))
    labels = BoundaryShiftClusters()(pair(FLAT, after, template_brain=inside))
    np.testing.assert_array_equal(labels, bump(FLAT.shape, CUBE))


def test_the_patients_own_brain_bounds_nothing():
    brain = bump(FLAT.shape, ((0, 5), (0, 12), (0, 12))) > 0
    labels = BoundaryShiftClusters()(pair(FLAT, bump(FLAT.shape, CUBE), brain=brain))
    np.testing.assert_array_equal(labels, bump(FLAT.shape, CUBE))


@pytest.mark.parametrize("name", ["ventricles", "template_brain"])
def test_a_missing_or_shifted_prior_mask_is_one_line(name):
    study = pair(FLAT, FLAT)
    last = study.followup
    without = replace(last, labels={k: v for k, v in last.labels.items() if k != name})
    with pytest.raises(InputError, match=f"sub-a: no label {name}"):
        BoundaryShiftClusters()(replace(study, visits=(study.baseline, without)))
    label = last.labels[name]
    moved = Volume(label.array, Grid(label.grid.shape, np.eye(4)))
    elsewhere = replace(last, labels={**last.labels, name: moved})
    with pytest.raises(InputError, match=f"sub-a: {name} is not on the grid of the scans"):
        BoundaryShiftClusters()(replace(study, visits=(study.baseline, elsewhere)))


def test_an_empty_brain_proposes_nothing():
    brain = np.zeros(FLAT.shape, dtype=bool)
    assert not BoundaryShiftClusters()(pair(FLAT, FLAT + 1, brain=brain)).any()


def test_a_missing_scan_is_one_line():
    with pytest.raises(InputError, match="sub-a: no flair scan"):
        BrighterAtFollowup(above=1.0)(pair(FLAT, FLAT, scan="t1w"))


def raised(after, *, brain=None, before=1.0, **settings):
    """Candidates by ratio; voxels are 1 by 1 by 2 mm."""
    study = pair(np.full(after.shape, before), after, brain=brain)
    return RaisedRatio(**{"opening_mm": 0.0, "brain_erosion_mm": 0.0, **settings})(study)


def test_what_rises_by_a_larger_factor_is_proposed_the_limit_itself_is_not():
    after = 1 + bump(FLAT.shape, CUBE, height=0.25)
    assert (raised(after, above=1.2) > 0).sum() == 27
    assert not raised(after, above=1.25).any()


def test_where_a_scan_is_not_positive_nothing_is_raised():
    assert not raised(np.ones(FLAT.shape), before=0.0).any()


def test_clusters_below_the_least_volume_go_and_one_of_exactly_that_stays():
    after = 1 + bump(FLAT.shape, CUBE, ((9, 10), (9, 10), (9, 10)))
    assert raised(after, min_volume_mm3=54.0).max() == 1
    assert raised(after, min_volume_mm3=54.1).max() == 0
    assert raised(after, min_volume_mm3=2.0).max() == 2


def test_an_opening_parts_what_hangs_together_by_a_thread():
    sides = ((4, 7), (4, 7))
    thread = ((4, 7), (5, 6), (5, 6))
    after = 1 + bump(FLAT.shape, ((1, 4), *sides), thread, ((7, 10), *sides))
    assert raised(after).max() == 1
    labels = raised(after, opening_mm=1.0)
    assert labels.max() == 2
    assert labels[5, 5, 5] == 0


def test_the_border_of_the_brain_is_left_out_but_not_the_end_of_the_volume():
    after = np.full((8, 8, 8), 2.0)
    brain = np.ones(after.shape, dtype=bool)
    brain[0] = False
    found = raised(after, brain=brain, brain_erosion_mm=1.0) > 0
    assert not found[:2].any()
    assert found[2:].all()


def test_a_ball_follows_the_spacing_rounded_to_whole_voxels():
    assert ball(2.0, (1.0, 1.0, 2.0)).shape == (5, 5, 3)
    assert ball(1.0, (0.6, 1.2, 2.0)).shape == (5, 3, 1)  # 1.7, 0.8 and half a voxel
    cross = ball(1.0, (1.0, 1.0, 5.0))
    assert cross.shape == (3, 3, 1)
    assert cross.sum() == 5
    assert ball(1.0, (3.0, 3.0, 3.0)).shape == (1, 1, 1)


def test_a_lesion_in_two_thick_slices_outlasts_the_opening_and_the_erosion():
    thick = Grid((16, 16, 6), np.diag([1.0, 1.0, 3.0, 1.0]))
    before = np.ones(thick.shape, dtype=np.float32)
    after = before + bump(thick.shape, ((4, 12), (4, 12), (2, 4)))
    after[1:3, 1, 5] = 2  # too small for an opening in the plane
    brain = Volume(np.ones(thick.shape, dtype=bool), thick)
    visits = (
        Visit({"flair": Volume(scan.astype(np.float32), thick)}, brain=brain)
        for scan in (before, after)
    )
    labels = RaisedRatio(opening_mm=1.0, brain_erosion_mm=1.0)(Study("a", tuple(visits)))
    assert labels.max() == 1
    # an opening by a cross rounds the four corners of each slice
    assert (labels > 0).sum() == 2 * (64 - 4)


def test_components_of_a_map_are_candidates():
    study = pair(FLAT, bump(FLAT.shape, CUBE, ((9, 10), (9, 10), (9, 10))), scan="probability")
    assert MapComponents("probability", above=0.5)(study).max() == 2
    assert MapComponents("probability", above=0.5, min_vox=2)(study).max() == 1
    assert MapComponents("probability", above=1.0)(study).max() == 0
    with pytest.raises(InputError, match="no other scan"):
        MapComponents("other")(study)
