"""Lesions without a partner, judged by what the maps and the scans say."""

import numpy as np
import pytest

from lesionwise.change.evidence import ScanChange
from lesionwise.change.links import Lesions
from lesionwise.change.rules import TrackingRules
from lesionwise.change.unmatched import (
    judge_unmatched,
    rescued_lesions,
    subthreshold_lesions,
)
from lesionwise.types import Grid, Instances

SHAPE = (24, 24, 24)
GRID = Grid(SHAPE, np.eye(4))
PLACE = (slice(10, 14),) * 3
RULES = TrackingRules()


def lesion(size: int = 4) -> Instances:
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[10 : 10 + size, 10 : 10 + size, 10 : 10 + size] = 3
    return Instances(labels, GRID)


def scans(z: float, appeared: float, shown: bool = True) -> ScanChange:
    """The lesion is 10 brighter than the tissue around it, and of that ``appeared`` came since."""
    later = np.zeros(SHAPE, dtype=np.float32)
    later[PLACE] = 10
    normal = np.ones(SHAPE, dtype=np.bool_)
    seen = np.full(SHAPE, shown)
    score = np.full(SHAPE, z, dtype=np.float32)
    return ScanChange(later * np.float32(1 - appeared), later, score, normal, seen, GRID)


def judged(change, own=None, other=None, name="new", size=4, rules=RULES):  # type: ignore[no-untyped-def]
    maps = [None if p is None else np.full(SHAPE, p, dtype=np.float32) for p in (own, other)]
    return judge_unmatched(name, Lesions.of(lesion(size)), [0], (maps[0], maps[1]), change, rules)[
        0
    ]


@pytest.mark.parametrize(
    ("z", "appeared", "state"),
    [
        (3.0, 0.7, "new"),
        (2.9, 1.0, "equivocal"),
        (9.0, 0.65, "equivocal"),
        (9.0, -0.2, "equivocal"),
    ],
)
def test_new_is_what_came_beyond_the_noise(z: float, appeared: float, state: str) -> None:
    assert judged(scans(z, appeared)).state == state


def test_on_a_limit_the_confidence_is_one_half_and_it_rises_beyond() -> None:
    assert judged(scans(3.0, 1.0)).confidence == pytest.approx(0.5)
    assert judged(scans(6.0, 1.0)).confidence == pytest.approx(0.75)
    assert judged(scans(30.0, 0.85)).confidence == pytest.approx(0.75)


def test_the_less_came_the_surer_is_it_that_nothing_did() -> None:
    assert judged(scans(0.0, 0.0)).confidence == 1
    assert judged(scans(1.5, 1.0)).confidence == pytest.approx(0.75)


def test_a_limit_of_zero_is_off() -> None:
    off = TrackingRules(min_contrast_gain=0.0, min_z=0.0)
    verdict = judged(scans(-1.0, -0.5), rules=off)
    assert (verdict.state, verdict.confidence) == ("new", 1.0)


def test_gone_is_what_went() -> None:
    here = scans(5.0, 0.9)
    gone = ScanChange(here.later, here.earlier, -here.z, here.normal, here.shown, GRID)
    assert judged(gone, name="disappeared").state == "disappeared"
    assert judged(here, name="disappeared").state == "equivocal"


def test_what_the_other_visits_map_holds_is_faint_and_ambiguous_even_where_it_came() -> None:
    verdict = judged(scans(9.0, 1.0), own=0.9, other=0.3)
    assert (verdict.state, verdict.confidence) == ("equivocal", 0.5)
    assert "map shows it too" in verdict.note


def test_where_the_scans_speak_a_weak_map_does_not_matter() -> None:
    assert judged(scans(9.0, 1.0), own=0.51, other=0.0).state == "new"
    assert judged(None, own=0.51, other=0.0).state == "equivocal"


def test_without_normal_tissue_around_a_weak_map_matters() -> None:
    bare = scans(9.0, 1.0)
    bare.normal[...] = False
    assert judged(bare, own=0.9, other=0.0).state == "new"
    assert judged(bare, own=0.51, other=0.0).state == "equivocal"


def test_a_place_that_the_other_visit_does_not_show_is_no_proof() -> None:
    verdict = judged(scans(9.0, 1.0, shown=False))
    assert verdict.state == "equivocal"
    assert verdict.note == "the other visit does not show this place"


def test_a_near_miss_is_noted() -> None:
    assert judged(scans(9.0, 0.6)).note == "60 % of its contrast appeared, 9.0 times the noise"
    assert judged(scans(9.0, 0.3)).note == ""


def test_a_small_lesion_stays_too_small_however_much_came() -> None:
    verdict = judged(scans(9.0, 1.0), size=2)
    assert verdict.state == "too small"
    assert verdict.evidence.contrast_gain == pytest.approx(1)


def weak_map(value: float = 0.3) -> np.ndarray:
    """A part at (10 … 13)³ and one that holds a lesion."""
    probability = np.zeros(SHAPE, dtype=np.float32)
    probability[PLACE] = value
    probability[2:6, 2:6, 2:6] = 0.4
    return probability


def found() -> Instances:
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[3:5, 3:5, 3:5] = 1
    return Instances(labels, GRID)


def test_subthreshold_lesions_hold_no_lesion_and_are_large_enough() -> None:
    probability = weak_map()
    probability[20:22, 20:22, 20:22] = 0.3
    weak = subthreshold_lesions(probability, found(), 0.2)
    assert np.array_equal(weak.labels > 0, lesion().labels > 0)
    assert weak.labels.max() == 1
    assert not subthreshold_lesions(weak_map(0.2), found(), 0.2).labels.any()


@pytest.mark.parametrize(
    ("z", "appeared", "labels"), [(4.0, 0.8, (1,)), (3.9, 1.0, ()), (9.0, 0.75, ())]
)
def test_a_weak_lesion_needs_more_to_be_new(
    z: float, appeared: float, labels: tuple[int, ...]
) -> None:
    weak = subthreshold_lesions(weak_map(), found(), 0.2)
    nothing = np.zeros(SHAPE, dtype=np.float32)
    before = Instances(nothing.astype(np.int32), GRID)
    change = scans(z, appeared)
    assert rescued_lesions(weak, before, (weak_map(), nothing), change, RULES) == labels


def test_a_weak_lesion_that_meets_an_earlier_one_is_not_new() -> None:
    weak = subthreshold_lesions(weak_map(), found(), 0.2)
    nothing = np.zeros(SHAPE, dtype=np.float32)
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[13, 13, 13] = 1
    before = Instances(labels, GRID)
    assert rescued_lesions(weak, before, (weak_map(), nothing), scans(9.0, 1.0), RULES) == ()
