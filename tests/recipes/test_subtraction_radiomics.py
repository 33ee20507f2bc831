"""B16 against its row of SYSTEMS.md (002, line 1942), and at work on pairs made by hand."""

import numpy as np
import pytest

from lesionwise.recipes.subtraction_radiomics import RECIPE
from lesionwise.types import Grid, RunContext, Study, Visit, Volume

SHAPE = (24, 24, 20)
GRID = Grid(SHAPE, np.eye(4))
FLUID, GRAY, WHITE = 1, 2, 3


def rule(feature):
    (found,) = [each for each in RECIPE.method.decide.rules if each.feature == feature]
    return found


def test_the_rules_are_the_rows():
    assert RECIPE.method.propose.min_vox == 5
    assert rule("in_white").least == 0.1
    assert rule("in_fluid").most == rule("in_gray").most == 0.5  # the row says: touching
    assert rule("in_bright").most == 0
    assert rule("contrast").least == 0.9
    assert rule("least_axis_mm").least == 1.2
    assert rule("sphericity").least == 0.2


def test_tissue_is_classified_before_scans_are_normalized():
    names = [type(step).__name__ for step in RECIPE.preprocess]
    assert names == ["ExtractBrain", "RegisterToFirst", "ClassifyTissue", "ZScore"]


def test_the_limit_falls_where_visits_agree_better():
    steps = RECIPE.method.propose.above
    information, limits = zip(*steps, strict=True)
    assert list(information) == sorted(information)
    assert list(limits) == sorted(limits, reverse=True)


def test_scans_are_normalized_before_they_are_subtracted():
    assert type(RECIPE.preprocess[-1]).__name__ == "ZScore"


def test_it_finds_new_lesions_without_learning():
    assert (RECIPE.scans, RECIPE.visits, RECIPE.finds) == (("flair",), 2, "new")
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
    labels = {} if tissue is None else {"tissue": Volume(tissue, GRID)}
    visits = tuple(
        Visit({"flair": Volume(a.astype(np.float32), GRID)}, labels) for a in (before, after)
    )
    predictor = RECIPE.method.load(RunContext(tmp_path))
    return predictor(Study("a", visits)).probability > RECIPE.threshold


def test_a_new_lesion_is_found(tmp_path):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[box(*LESION)] = True
    np.testing.assert_array_equal(found(tmp_path), mask)


def test_a_lesion_in_white_matter_stays(tmp_path):
    assert found(tmp_path, tissue=np.full(SHAPE, WHITE)).sum() == 125


@pytest.mark.parametrize("other", [FLUID, GRAY])
def test_what_lies_mostly_in_fluid_or_gray_matter_goes(tmp_path, other):
    tissue = np.full(SHAPE, WHITE)
    tissue[14:] = other  # a fifth of the lesion
    assert found(tmp_path, tissue=tissue).sum() == 125
    tissue[12:] = other  # three fifths
    assert not found(tmp_path, tissue=tissue).any()


def test_what_is_not_in_white_matter_goes(tmp_path):
    assert not found(tmp_path, tissue=np.full(SHAPE, 4)).any()


def test_what_was_bright_before_goes(tmp_path):
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
