"""Lesions followed by what each visit's map and the scans of both say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import track_lesions
from lesionwise.instances.components import connected_components
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.run.follow import TrackingResult, VisitInput, covering_grid, follow
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


CUT = 22
LOW: Box = ((24, 28), (24, 28), (8, 12))
"""Below the end of a field of view that begins at ``CUT``."""


def cropped(visit: VisitInput) -> VisitInput:
    """The visit without the slices below ``CUT``."""
    affine = np.eye(4)
    affine[2, 3] = CUT
    grid = Grid((*SHAPE[:2], SHAPE[2] - CUT), affine)
    scan, brain, probability = (
        Volume(np.ascontiguousarray(each.array[..., CUT:]), grid)
        for each in (visit.scan, visit.brain, visit.probability)
    )
    return VisitInput(scan, brain, probability, Instances(visit.lesions.labels[..., CUT:], grid))


def followed_on_the_first(*visits: VisitInput) -> TrackingResult:
    """As ``compare`` follows them: on the first visit's grid, grown."""
    worlds = [np.eye(4)] * len(visits)
    first = visits[0].scan.grid
    return follow(visits, worlds, covering_grid(visits, worlds, first), first=first)


def test_what_the_first_visit_does_not_show_is_equivocal_and_has_a_row() -> None:
    first = cropped(seen(1, [OTHER], {OTHER: 0.9}))
    later = seen(2, [LOW, OTHER], {LOW: 0.9, OTHER: 0.9})
    done = followed_on_the_first(first, later)
    assert last_states(done) == {1: "equivocal", 2: "stable"}
    row = done.tracks.table.query("visit == 1 and label == 1").iloc[0]
    assert row["note"] == "the other visit does not show this place"
    assert row["edge"]
    assert row["volume_mm3"] == 64
    back = followed_on_the_first(later, first).tracks.table.query("visit == 0")
    assert back["becomes"].tolist() == ["equivocal", "stable"]


def test_later_visits_are_compared_where_the_first_shows_nothing() -> None:
    done = followed_on_the_first(
        cropped(seen(1, [OTHER], {OTHER: 0.9})),
        seen(2, [OTHER, OLD], {OTHER: 0.9, OLD: 0.9}),
        seen(3, [OTHER, OLD, LOW], {OTHER: 0.9, OLD: 0.9, LOW: 0.9}),
    )
    rows = done.tracks.table.query("visit > 0 and label > 0")
    assert rows["state"].tolist() == ["stable", "equivocal", "stable", "stable", "new"]


def test_a_lesion_that_the_field_of_view_cuts_is_not_enlarging() -> None:
    cut: Box = ((24, 28), (24, 28), (16, 28))  # half of it below the end of the baseline
    whole = seen(2, [cut, OTHER], {cut: 0.9})
    first = cropped(seen(1, [cut, OTHER], {cut: 0.9}))
    for visits in ((first, whole), (whole, first)):
        (row,) = followed_on_the_first(*visits).tracks.table.query("visit == 1").itertuples()
        assert row.state == "stable"
        assert row.note == "partly outside of the other visit's field of view"
        assert abs(row.change_mm3) == 96
    grown: Box = ((20, 32), (24, 28), (16, 28))
    more = seen(3, [grown], {grown: 0.9})
    (row,) = followed_on_the_first(first, more).tracks.table.query("visit == 1").itertuples()
    assert row.state == "enlarging"


def test_a_grown_grid_changes_nothing_where_the_first_visit_shows_the_brain() -> None:
    first = cropped(seen(1, [OTHER], {OTHER: 0.9}))
    later = seen(2, [OTHER], {OTHER: 0.9})
    both = (first, later)
    narrow = follow(both, [np.eye(4)] * 2, first.scan.grid)
    wide = followed_on_the_first(*both)
    assert wide.shared[1].labels.shape[2] > narrow.shared[1].labels.shape[2]
    assert np.array_equal(wide.shared[1].labels[..., -SHAPE[2] + CUT :], narrow.shared[1].labels)
    pd.testing.assert_frame_equal(wide.tracks.table, narrow.tracks.table)


def test_a_grown_grid_keeps_the_voxels_whose_centers_lie_between_two_of_a_scan() -> None:
    rng = np.random.default_rng(0)
    affine = np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, :3] = Rotation.from_euler("xyz", [0.1, -0.15, 0.05]).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = -80.3, 31.7, -44.9
    fine = Grid(SHAPE, affine)
    visit = VisitInput(
        *(Volume(rng.random(SHAPE).astype(np.float32), fine) for _ in range(3)),
        Instances(rng.integers(0, 4, SHAPE).astype(np.int32), fine),
    )
    whole = respaced(fine, 1.0)
    upper = affine.copy()
    upper[:3, :3] *= 2
    upper[:3, 3] = whole.world_mm(np.array([0, 0, 8]))
    first = Grid((20, 20, 12), upper)
    worlds = [np.eye(4)] * 2
    common = covering_grid([visit, visit], worlds, first)
    assert common.shape == (20, 20, 20)
    narrow = follow([visit, visit], worlds, first).shared[1].labels
    wide = follow([visit, visit], worlds, common, first=first).shared[1].labels
    assert np.array_equal(wide[..., 8:], narrow)
    assert wide[..., :8].any()


def test_every_lesion_has_a_track_though_none_of_the_common_voxels_meets_it() -> None:
    fine = Grid((80, 80, 80), np.diag([0.5, 0.5, 0.5, 1]))
    labels = np.zeros(fine.shape, np.int32)
    labels[21, 21, 21], labels[40:52, 40:52, 40:52] = 1, 2
    visit = VisitInput(
        *(Volume(np.zeros(fine.shape, np.float32), fine) for _ in range(3)),
        Instances(labels, fine),
    )
    common = Grid(SHAPE, np.diag([1.0, 1, 1, 1]))
    assert covering_grid([visit, visit], [np.eye(4)] * 2, common) is common
    table = follow([visit, visit], [np.eye(4)] * 2, common).tracks.table
    assert table[["visit", "label", "becomes"]].to_numpy().tolist()[:2] == [
        [0, 1, "equivocal"],
        [0, 2, "stable"],
    ]
    assert table[["label", "state"]].to_numpy().tolist()[2:] == [
        [1, "equivocal"],
        [2, "stable"],
        [0, "equivocal"],
    ]
    assert table["note"].str.contains("too small for the voxels").sum() == 2


def test_the_grid_grows_by_whole_voxels_and_only_where_a_brain_reaches_beyond() -> None:
    visit = seen(1, [], {})  # its brain lies from 3 to 36
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 5, 3, 3
    grid = Grid((12, 20, 20), affine)  # along i from 4 to 28 mm
    grown = covering_grid([visit], [np.eye(4)], grid)
    assert grown.shape == (17, 20, 20)
    assert np.array_equal(grown.affine[:3, :3], grid.affine[:3, :3])
    assert grown.affine[:3, 3].tolist() == [3, 3, 3]
    world = np.eye(4)
    world[:3, 3] = 1.2, 0, -40  # mm of the grid to mm of the visit
    far = covering_grid([visit, visit], [np.eye(4), world], grown)
    assert far.shape == (17, 20, 37)
    assert far.affine[:3, 3].tolist() == [3, 3, 3]


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.floats(-0.5, 0.5)] * 3),
    st.tuples(*[st.floats(-30, 30)] * 3),
    st.sampled_from([0.7, 1.0, 2.5]),
)
def test_the_grid_covers_every_brain_on_the_same_voxels(
    turns: tuple[float, ...], shift_mm: tuple[float, ...], spacing_mm: float
) -> None:
    visit = seen(1, [], {})
    world = np.eye(4)
    world[:3, :3] = Rotation.from_euler("xyz", turns).as_matrix()
    world[:3, 3] = shift_mm
    grid = Grid((20, 20, 20), np.diag([*[spacing_mm] * 3, 1.0]))
    grown = covering_grid([visit], [world], grid)
    layers = np.linalg.solve(grid.affine, grown.affine)[:3, 3]
    assert np.allclose(layers, np.round(layers), atol=1e-9)
    wider = Grid(
        (*(n + 4 for n in grown.shape),),  # type: ignore[arg-type]
        np.block([[grown.affine[:3, :3], grown.world_mm(np.full((1, 3), -2)).T], [0, 0, 0, 1]]),
    )
    brain = resample_to(visit.brain, wider, order=0, world=world).array
    assert brain.sum() == brain[2:-2, 2:-2, 2:-2].sum() > 0


def _within(box: Box) -> tuple[slice, ...]:
    return tuple(slice(low, high) for low, high in box)
