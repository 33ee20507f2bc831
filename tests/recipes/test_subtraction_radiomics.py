"""B16 against document 002, by line, and at work on pairs made by hand."""

import numpy as np
import pytest

from lesionwise.recipes.subtraction_radiomics import RECIPE
from lesionwise.types import Grid, RunContext, Study, Visit, Volume

SHAPE = (24, 24, 20)
GRID = Grid(SHAPE, np.eye(4))
OUTSIDE, FLUID, GRAY, WHITE = 0, 1, 2, 3


def rule(feature):
    (only,) = [each for each in RECIPE.method.decide.rules if each.feature == feature]
    return only


def test_pairs_meet_half_way_and_nothing_else_is_done_before_the_pipeline():
    """Lines 1972 to 1973: "co-registered to the mid-space between the two time-points. No
    additional pre-processing is performed." Lines 1981 to 1987: tissue, then skull-stripped
    z-scores, then the subtraction."""
    names = [type(step).__name__ for step in RECIPE.preprocess]
    assert names == ["ExtractBrain", "RegisterToHalfway", "ClassifyTissue", "ZScore"]


def test_the_rules_are_the_documents():
    """Lines 1991 to 1999."""
    assert RECIPE.method.propose.min_vox == 5
    assert rule("in_white").min_value == 0.1
    for structure in ("fluid", "gray", "other", "bright"):
        assert rule(f"touches_{structure}").max_value == 0
    assert rule("contrast").min_value == 0.9
    assert rule("least_axis_mm").min_value == 1.2
    assert rule("sphericity").min_value == 0.2


def test_the_limit_falls_where_visits_agree_better():
    """Lines 1988 to 1991: different thresholds by the mutual information. Departure: which ones
    is not stated."""
    steps = RECIPE.method.propose.above
    information, limits = zip(*steps, strict=True)
    assert list(information) == sorted(information)
    assert list(limits) == sorted(limits, reverse=True)
    assert any("thresholds by mutual information are not given" in d for d in RECIPE.departures)


def test_it_finds_new_lesions_without_learning():
    """Lines 1943 to 1945; the scores are those of line 2028."""
    assert (RECIPE.scans, RECIPE.visits, RECIPE.task) == (("flair",), 2, "new")
    assert RECIPE.reported == {"lesion_recall": 0.75, "lesion_fpr": 0.38, "dsc": 0.36}


LESION = ((10, 15), (10, 15), (8, 13))


def box(*spans):
    return tuple(slice(a, b) for a, b in spans)


def found(tmp_path, *, spans=LESION, rise=6.0, before_rise=0.0, tissue=None, halo=0.0):
    rng = np.random.default_rng(0)
    texture = rng.normal(0, 1, SHAPE)
    before = texture + rng.normal(0, 0.1, SHAPE)
    after = texture + rng.normal(0, 0.1, SHAPE)
    before[box(*spans)] += before_rise
    after[box(*((a - 1, b + 1) for a, b in spans))] += halo
    after[box(*spans)] += rise - halo
    labels = {"tissue": Volume(np.full(SHAPE, WHITE) if tissue is None else tissue, GRID)}
    visits = tuple(
        Visit({"flair": Volume(a.astype(np.float32), GRID)}, labels) for a in (before, after)
    )
    predictor = RECIPE.method.load(RunContext(tmp_path))
    return predictor(Study("a", visits)).probability > RECIPE.threshold


def test_a_new_lesion_is_found(tmp_path):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[box(*LESION)] = True
    np.testing.assert_array_equal(found(tmp_path), mask)


@pytest.mark.parametrize("other", [OUTSIDE, FLUID, GRAY])
def test_what_touches_fluid_gray_matter_or_another_structure_goes(tmp_path, other):
    """Lines 1993 to 1994: "discard those touching the cerebrospinal fluid (CSF), gray matter and
    other structures"."""
    tissue = np.full(SHAPE, WHITE)
    tissue[16:] = other  # a voxel of white matter lies between
    assert found(tmp_path, tissue=tissue).sum() == 125
    tissue[15:] = other  # face to face
    assert not found(tmp_path, tissue=tissue).any()
    tissue[14:] = other  # a fifth of the lesion
    assert not found(tmp_path, tissue=tissue).any()


def test_what_touches_a_lesion_of_the_first_time_point_goes(tmp_path):
    """Line 1995."""
    assert not found(tmp_path, before_rise=7.0, rise=16.0).any()


@pytest.mark.parametrize(
    "spans",
    [
        ((10, 11), (10, 11), (8, 12)),  # 4 voxels
        ((10, 11), (10, 15), (8, 13)),  # a sheet one voxel thick
    ],
)
def test_small_and_flat_clusters_go(tmp_path, spans):
    assert not found(tmp_path, spans=spans).any()


def test_what_does_not_stand_out_from_its_surround_goes(tmp_path):
    # the halo rises by less than the limit of the subtraction but nearly as far as the lesion
    assert found(tmp_path, rise=1.7).any()
    assert not found(tmp_path, rise=1.7, halo=1.0).any()
