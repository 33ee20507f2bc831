"""Lesions followed by what each visit's map and the scans of both say."""

import numpy as np
import pytest

from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import track_lesions
from lesionwise.run.follow import TrackingResult, VisitInput, follow
from lesionwise.types import Grid, Instances, Volume

SHAPE = (40, 40, 40)
GRID = Grid(SHAPE, np.eye(4))
BRAIN = np.zeros(SHAPE, dtype=np.bool_)
BRAIN[3:37, 3:37, 3:37] = True
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
OLD: Box = ((10, 14),) * 3
OTHER: Box = ((24, 28),) * 3


def seen(seed: int, bright: list[Box], probability: dict[Box, float]) -> VisitInput:
    """A brain of 100 ± 2 with lesions at 150; those believed above one half are outlined."""
    image = 100.0 * BRAIN + np.random.default_rng(seed).normal(0, 2, SHAPE)
    maps = np.zeros(SHAPE, dtype=np.float32)
    labels = np.zeros(SHAPE, dtype=np.int32)
    for box in bright:
        image[_within(box)] += 50
    for box, value in probability.items():
        maps[_within(box)] = value
        if value > 0.5:
            labels[_within(box)] = labels.max() + 1
    return VisitInput(
        Volume(image.astype(np.float32), GRID),
        Volume(BRAIN, GRID),
        Volume(maps, GRID),
        Instances(labels, GRID),
    )


def followed(*visits: VisitInput, rules: TrackingRules = TrackingRules()) -> TrackingResult:  # noqa: B008
    return follow(visits, [np.eye(4)] * len(visits), GRID, rules)


def last_states(done: TrackingResult) -> dict[int, str]:
    rows = done.tracks.table
    rows = rows[rows["visit"] == rows["visit"].max()]
    return dict(zip(rows["label"], rows["state"], strict=True))


def test_what_was_overlooked_at_the_baseline_is_not_new_and_what_came_is() -> None:
    done = followed(
        seen(1, [OLD], {}),
        seen(2, [OLD, OTHER], {OLD: 0.9, OTHER: 0.9}),
    )
    assert last_states(done) == {1: "equivocal", 2: "new"}


def test_what_was_overlooked_at_the_followup_is_not_gone_and_what_went_is() -> None:
    done = followed(
        seen(1, [OLD, OTHER], {OLD: 0.9, OTHER: 0.9}),
        seen(2, [OLD], {}),
    )
    becomes = done.tracks.table.query("visit == 0").set_index("label")["becomes"]
    assert becomes.to_dict() == {1: "equivocal", 2: "disappeared"}


def test_what_came_joins_the_followup_though_its_map_shows_it_weakly() -> None:
    visits = (
        seen(1, [OLD], {OLD: 0.9}),
        seen(2, [OLD, OTHER], {OLD: 0.9, OTHER: 0.3}),
    )
    done = followed(*visits)
    assert done.rescued == ((), (2,))
    assert last_states(done) == {1: "stable", 2: "new"}
    joined = done.lesions[1].labels == 2
    assert joined[_within(OTHER)].all()
    assert joined.sum() == 64
    row = done.tracks.table.query("visit == 1 and label == 2").iloc[0]
    assert row["ambiguous"]
    assert "below the threshold" in row["note"]
    assert visits[1].lesions.labels.max() == 1
    off = followed(*visits, rules=TrackingRules(rescue_probability=1.0))
    assert off.rescued == ((), ())
    assert last_states(off) == {1: "stable"}


def test_what_a_map_shows_weakly_at_both_visits_does_not_join() -> None:
    done = followed(
        seen(1, [OLD, OTHER], {OLD: 0.9}),
        seen(2, [OLD, OTHER], {OLD: 0.9, OTHER: 0.3}),
    )
    assert last_states(done) == {1: "stable"}


@pytest.mark.parametrize(("bright", "state"), [(True, "enlarging"), (False, "stable")])
def test_growth_must_show_in_the_scans(bright: bool, state: str) -> None:
    larger: Box = ((10, 14), (10, 14), (10, 18))
    done = followed(
        seen(1, [OLD], {OLD: 0.9}),
        seen(2, [larger if bright else OLD], {larger: 0.9}),
    )
    row = done.tracks.table.query("visit == 1").iloc[0]
    assert row["state"] == state
    assert ("hardly brighter" in row["note"]) is not bright


def test_half_the_rescan_variability_suffices_where_the_scans_show_the_growth() -> None:
    longer: Box = ((10, 14), (10, 14), (10, 16))  # 32 mm3 more; the limit is 36
    visits = (seen(1, [OLD], {OLD: 0.9}), seen(2, [longer], {longer: 0.9}))
    assert last_states(followed(*visits)) == {1: "enlarging"}
    assert last_states(followed(*visits, rules=TrackingRules(shown_fraction=1.0))) == {1: "stable"}
    unasked = track_lesions([visit.lesions for visit in visits])
    assert unasked.table.query("visit == 1")["state"].tolist() == ["stable"]


def test_later_visits_count_from_what_joined() -> None:
    done = followed(
        seen(1, [OLD], {OLD: 0.9}),
        seen(2, [OLD, OTHER], {OLD: 0.9, OTHER: 0.3}),
        seen(3, [OLD, OTHER], {OLD: 0.9, OTHER: 0.9}),
    )
    assert last_states(done) == {1: "stable", 2: "stable"}


def test_visits_on_their_own_grids_meet_on_the_common_one() -> None:
    shift = np.eye(4)
    shift[0, 3] = 2
    first = seen(1, [OLD], {OLD: 0.9})
    moved = Grid(SHAPE, shift)
    second = VisitInput(
        *(Volume(each.array, moved) for each in (first.scan, first.brain, first.probability)),
        Instances(first.lesions.labels, moved),
    )
    done = follow((first, second), [np.eye(4), shift], GRID)
    assert np.array_equal(done.shared[0].labels, done.shared[1].labels)
    assert last_states(done) == {1: "stable"}


def _within(box: Box) -> tuple[slice, ...]:
    return tuple(slice(low, high) for low, high in box)
