"""The cord: phantoms of a head on a neck, whose cord is known."""

import logging

import numpy as np
import pytest

from lesionwise.preprocess.cord import AlignCord, BrainAndCord, CordOfLast, FindCord, cord_mask
from lesionwise.types import Grid, InputError, Study, Visit, Volume

SHAPE, SPACING = (70, 80, 60), (1.0, 1.0, 2.0)
NECK = 25
"""Slices below the brain."""


def phantom(shift=(0.0, 0.0), lean=0.1, below=NECK, seed=0, spacing=SPACING, cord=True):
    """A scan, its brain and its cord, which leans forward by ``lean`` mm per mm downward."""
    grid = Grid(SHAPE, np.diag([*spacing, 1.0]))
    i, j, k = (a * s for a, s in zip(np.indices(SHAPE), spacing, strict=True))
    middle = np.array(SHAPE) * spacing / 2
    top = below * spacing[2]
    brain = (np.hypot(i - middle[0], j - middle[1]) < 28) & (k >= top + 4)
    stem = (np.hypot(i - middle[0], j - middle[1]) < 8) & (k >= top)
    inside = brain | stem
    away = np.hypot(i - middle[0] - shift[0], j - middle[1] - lean * (top - k) - shift[1])
    is_cord = (away < 5) & (k < top) & cord
    canal = (away < 9) & (k < top)
    flesh = (np.hypot(i - middle[0], j - middle[1]) < 30) & (k < top) & ~canal
    rng = np.random.default_rng(seed)
    texture = 1 + 0.05 * np.sin(k / 3)
    scan = 100 * inside + 90 * is_cord * texture + 110 * flesh + 5 * canal
    scan = scan + 3 * rng.standard_normal(SHAPE)
    return Volume(scan.astype(np.float32), grid), Volume(inside, grid), is_cord


def pair(**second):
    first_scan, first_brain, first_cord = phantom()
    scan, brain, cord = phantom(seed=1, **second)
    visits = (
        Visit({"flair": first_scan}, brain=first_brain, session="01"),
        Visit({"flair": scan}, brain=brain, session="02"),
    )
    return Study("a", visits), first_cord, cord


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("lean", [0.0, 0.2, -0.2])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 2.0), (1.0, 1.2, 1.0)])
def test_the_cord_is_found_down_to_the_end_of_the_scan(lean, spacing):
    scan, brain, cord = phantom(lean=lean, spacing=spacing)
    found = cord_mask(scan.array, brain.array, spacing)
    assert dice(found, cord) > 0.9
    assert found[..., 1].any()
    assert not (found & brain.array).any() or dice(found, cord) > 0.9


def test_without_a_cord_or_without_a_neck_nothing_is_found():
    scan, brain, _ = phantom(cord=False)
    assert not cord_mask(scan.array, brain.array, SPACING).any()
    scan, brain, _ = phantom(below=2)
    assert not cord_mask(scan.array, brain.array, SPACING).any()
    assert not cord_mask(scan.array, np.zeros(SHAPE, dtype=bool), SPACING).any()


def test_a_visit_without_a_cord_goes_on_and_the_log_says_so(caplog):
    study, _, _ = pair(cord=False)
    with caplog.at_level(logging.WARNING, logger="lesionwise"):
        found = FindCord()(study)
    assert [record.getMessage() for record in caplog.records] == ["a 02: no spinal cord in view"]
    assert "cord" in found.baseline.labels
    assert "cord" not in found.followup.labels
    assert AlignCord()(found) is found
    joined = BrainAndCord(by_mm=0.0)(CordOfLast()(found))
    for before, after in zip(found.visits, joined.visits, strict=True):
        np.testing.assert_array_equal(after.brain.array, before.brain.array)


def test_a_shifted_cord_is_moved_back_onto_the_last_visits_and_the_brain_stays():
    study, _, cord = pair(shift=(2.0, -1.5))
    found = FindCord()(study)
    aligned = AlignCord()(found)
    lower = np.s_[:, :, 2 : NECK - 8]  # the shift fades out towards the brain
    before = found.baseline.labels["cord"].array
    after = aligned.baseline.labels["cord"].array
    assert dice(before[lower], cord[lower]) < 0.8
    assert dice(after[lower], cord[lower]) > 0.9
    kept = np.s_[:, :, NECK:]
    np.testing.assert_array_equal(
        aligned.baseline.scans["flair"].array[kept], study.baseline.scans["flair"].array[kept]
    )
    assert aligned.followup is found.followup


def test_cords_in_one_place_hardly_move():
    study, _, _ = pair()
    found = FindCord()(study)
    shifts = AlignCord().shifts_vox(
        found.followup.scans["flair"],
        found.baseline.scans["flair"],
        found.followup.labels["cord"].array,
    )
    assert np.abs(shifts).max() < 0.3


def test_slices_are_smoothed_along_the_cord_too():
    """A wrong slice is seen as its neighbors are, since 3 mm of them are looked at together."""
    study, _, _ = pair(spacing=(1.0, 1.0, 1.0))
    found = FindCord()(study)
    moving = found.baseline.scans["flair"]
    k = NECK // 2
    wrong = moving.array.copy()
    wrong[..., k] = np.roll(wrong[..., k], 4, axis=0)
    step = AlignCord(along_mm=0.1)  # no smoothing of the shifts hides it
    fixed = found.followup.scans["flair"]
    where = found.followup.labels["cord"].array
    shift = step.shifts_vox(fixed, Volume(wrong, moving.grid), where)[0, ..., k]
    assert np.abs(shift).max() < 3.0


def test_brain_and_cord_are_grown_and_joined():
    study, _, _ = pair()
    found = FindCord()(study)
    joined = BrainAndCord(by_mm=2.0)(found)
    mask = joined.followup.brain.array
    assert mask[found.followup.labels["cord"].array].all()
    assert mask[study.followup.brain.array].all()
    assert mask.sum() > (found.followup.labels["cord"].array | study.followup.brain.array).sum()


def test_the_last_visits_cord_is_that_of_all():
    study, _, _ = pair(shift=(2.0, 0.0))
    found = CordOfLast()(FindCord()(study))
    np.testing.assert_array_equal(
        found.baseline.labels["cord"].array, found.followup.labels["cord"].array
    )


def test_visits_on_two_grids_and_missing_brains_are_refused():
    study, _, _ = pair()
    bare = Study("a", tuple(Visit(v.scans, session=v.session) for v in study.visits))
    with pytest.raises(InputError, match="a 01: no brain mask"):
        FindCord()(bare)
    with pytest.raises(InputError, match="a 01: no brain mask"):
        BrainAndCord()(bare)
    found = FindCord()(study)
    away = Grid(SHAPE, found.followup.scans["flair"].grid.affine + np.eye(4)[:, [3, 3, 3, 3]] * 0)
    shifted = away.affine.copy()
    shifted[0, 3] = 5.0
    grid = Grid(SHAPE, shifted)
    moved = Visit(
        {"flair": Volume(found.baseline.scans["flair"].array, grid)},
        {"cord": Volume(found.baseline.labels["cord"].array, grid)},
    )
    with pytest.raises(InputError, match="sub-a: visits must be on one grid"):
        AlignCord()(Study("a", (moved, found.followup)))
