"""Lesions followed by what each visit's map and the scans of both say."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import track_lesions
from lesionwise.instances.components import connected_components
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


def test_volumes_are_those_of_each_scans_own_grid() -> None:
    first = seen(1, [OLD], {OLD: 0.9})
    offset = np.eye(4)
    offset[:3, 3] = 0.6  # so that resampling to the common grid of 1.3 mm changes every count
    common = Grid((30, 30, 30), np.diag([1.3, 1.3, 1.3, 1.0]) + offset - np.eye(4))
    done = follow((first, first), [np.eye(4)] * 2, common)
    assert done.shared[0].labels.any()
    assert np.count_nonzero(done.shared[0].labels) * 1.3**3 != pytest.approx(64)
    assert done.tracks.table["volume_mm3"].tolist() == pytest.approx([64, 64])


def thick(visit: VisitInput, slice_mm: int = 6) -> VisitInput:
    """The visit as slices of ``slice_mm`` show it; what has half its contrast there is found."""
    affine = np.diag([1.0, 1.0, slice_mm, 1.0])
    affine[2, 3] = (slice_mm - 1) / 2
    grid = Grid((40, 40, 40 // slice_mm), affine)

    def averaged(array: np.ndarray) -> np.ndarray:
        whole = array[..., : grid.shape[2] * slice_mm].astype(np.float32)
        return whole.reshape(40, 40, grid.shape[2], slice_mm).mean(axis=3)

    seen = averaged(visit.lesions.labels > 0)
    return VisitInput(
        Volume(averaged(visit.scan.array), grid),
        Volume(averaged(visit.brain.array) > 0.5, grid),
        Volume(np.where(seen > 0.5, 0.9, 0).astype(np.float32), grid),
        Instances(connected_components(seen > 0.5), grid),
    )


FLAT: Box = ((10, 14), (10, 14), (16, 20))
"""From 16 to 19 mm, so on the border between two slices of 6 mm."""
TALL: Box = ((24, 28), (24, 28), (8, 20))


def test_a_lesion_that_thick_slices_cannot_show_is_equivocal_and_a_large_new_one_is_new() -> None:
    both = seen(1, [FLAT, TALL], {FLAT: 0.9, TALL: 0.9})
    before = thick(seen(2, [FLAT], {FLAT: 0.9}))
    assert not before.lesions.labels.any()
    assert last_states(followed(before, both)) == {1: "equivocal", 2: "new"}


def test_a_lesion_that_thick_slices_cannot_show_has_not_disappeared() -> None:
    both = seen(1, [FLAT, TALL], {FLAT: 0.9, TALL: 0.9})
    table = followed(both, thick(seen(2, [FLAT], {FLAT: 0.9}))).tracks.table
    becomes = table.query("visit == 0").set_index("label")["becomes"]
    assert becomes.to_dict() == {1: "equivocal", 2: "disappeared"}


@settings(max_examples=10, deadline=None)
@given(st.integers(4, 28), st.integers(3, 9), st.booleans())
@example(21, 6, False)  # half of it lies in each of two slices
def test_nothing_stable_is_new_or_disappeared_between_thick_and_thin_slices(
    start: int, height: int, thick_first: bool
) -> None:
    lesion: Box = ((10, 14), (10, 14), (start, start + height))
    thin = seen(1, [lesion], {lesion: 0.9})
    visits = [thick(seen(2, [lesion], {lesion: 0.9})), thin]
    done = followed(*(visits if thick_first else visits[::-1]))
    assert not {"new", "disappeared"} & set(done.tracks.table["state"])


def test_a_lesion_in_the_last_slice_is_at_the_edge() -> None:
    low: Box = ((18, 22), (18, 22), (0, 4))
    image = seen(1, [OLD], {OLD: 0.9})
    done = followed(image, seen(2, [OLD, low], {OLD: 0.9, low: 0.9}))
    edge = done.tracks.table.query("visit == 1").set_index("label")["edge"]
    assert not edge[1]
    assert edge[2]


def _within(box: Box) -> tuple[slice, ...]:
    return tuple(slice(low, high) for low, high in box)
