"""Tracking on lesions that can be counted: every class, chains of visits, time reversed."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lesionwise.change.partial_volume import Acquisition
from lesionwise.change.rules import STATES, TrackingRules
from lesionwise.change.tracking import change_map, track_lesions
from lesionwise.types import Grid, Instances

SHAPE = (12, 12, 40)
Box = tuple[int, tuple[int, int], tuple[int, int], tuple[int, int]]


def visit(*boxes: Box, spacing_mm: tuple[float, float, float] = (1, 1, 1)) -> Instances:
    """Boxes (label, i range, j range, k range); later ones lie over earlier ones."""
    labels = np.zeros(SHAPE, dtype=np.int32)
    for label, i, j, k in boxes:
        labels[slice(*i), slice(*j), slice(*k)] = label
    return Instances(labels, Grid(SHAPE, np.diag([*spacing_mm, 1.0])))


def box(label: int, k: int, size: tuple[int, int, int] = (4, 4, 4), j: int = 2) -> Box:
    """A box whose corner is at (2, j, k)."""
    return label, (2, 2 + size[0]), (j, j + size[1]), (k, k + size[2])


def states(table: pd.DataFrame, at: int) -> dict[int, str]:
    rows = table[table["visit"] == at]
    return dict(zip(rows["label"], rows["state"], strict=True))


def row_of(table: pd.DataFrame, at: int, label: int) -> Any:
    (row,) = table[(table["visit"] == at) & (table["label"] == label)].itertuples()
    return row


def test_an_unchanged_lesion_is_stable_and_keeps_its_track() -> None:
    tracks = track_lesions([visit(box(7, 2)), visit(box(3, 2))])
    row = row_of(tracks.table, 1, 3)
    assert (row.state, row.track, row.parents, row.change_mm3) == ("stable", 1, "7", 0)
    assert (row.overlap_fraction, row.confidence, row.ambiguous) == (1, 1, False)
    first = row_of(tracks.table, 0, 7)
    assert (first.state, first.becomes, first.children) == ("baseline", "stable", "3")


def test_a_lesion_at_a_new_place_is_new() -> None:
    tracks = track_lesions([visit(box(1, 2)), visit(box(1, 2), box(2, 20))])
    row = row_of(tracks.table, 1, 2)
    assert (row.state, row.track, row.parents) == ("new", 2, "")
    assert row.volume_mm3 == row.change_mm3 == 64
    assert row.distance_mm == 15


def test_new_means_at_least_3_mm_across() -> None:
    found = visit(box(1, 2, (2, 3, 2)), box(2, 10, (2, 2, 2)), box(3, 20, (1, 1, 3)))
    assert states(track_lesions([visit(), found]).table, 1) == {
        1: "new",
        2: "too small",
        3: "new",
    }


def test_across_is_measured_in_mm_along_each_axis() -> None:
    spacing_mm = (0.5, 0.5, 1.6)
    found = visit(box(1, 2, (5, 5, 1)), box(2, 20, (1, 1, 2)), spacing_mm=spacing_mm)
    assert states(track_lesions([visit(spacing_mm=spacing_mm), found]).table, 1) == {
        1: "too small",
        2: "new",
    }


def test_a_lesion_without_successor_is_gone_and_has_a_row() -> None:
    tracks = track_lesions([visit(box(4, 2), box(5, 20)), visit(box(1, 20))])
    gone = row_of(tracks.table, 1, 0)
    assert (gone.state, gone.track, gone.parents) == ("disappeared", 1, "4")
    assert (gone.volume_mm3, gone.change_mm3) == (0, -64)
    assert row_of(tracks.table, 0, 4).becomes == "disappeared"


def test_a_small_lesion_without_successor_is_not_called_gone() -> None:
    tracks = track_lesions([visit(box(1, 2, (2, 2, 2))), visit()])
    assert row_of(tracks.table, 0, 1).becomes == "too small"
    assert row_of(tracks.table, 1, 0).state == "too small"
    assert tracks.counts().loc[1].sum() == 0
    assert tracks.counts_before().loc[1].to_dict()["too small"] == 1


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [
        ((4, 4, 4), (4, 4, 7), "enlarging"),  # +48; a ball of 88 mm3 has 95.7 mm2, so 38
        ((4, 4, 7), (4, 4, 4), "shrinking"),
        ((4, 4, 4), (4, 4, 6), "stable"),  # +32; limit 36
        ((2, 2, 2), (2, 2, 4), "stable"),  # doubled, but by 8 mm3 only
        ((10, 10, 10), (10, 10, 12), "stable"),  # +200; limit 206
        ((10, 10, 10), (10, 10, 13), "enlarging"),  # +300; limit 212
    ],
)
def test_growth_must_exceed_rescan_variability(
    before: tuple[int, int, int], after: tuple[int, int, int], state: str
) -> None:
    tracks = track_lesions([visit(box(1, 2, before)), visit(box(1, 2, after))])
    assert states(tracks.table, 1) == {1: state}


def test_the_limit_is_the_greatest_of_three() -> None:
    assert TrackingRules(0, 0, 0, 0.5, 0, 0).limit_mm3(36 * np.pi, 36 * np.pi) == pytest.approx(
        0.5 * 36 * np.pi  # Radius 3: the surface in mm2 is the volume in mm3.
    )
    assert TrackingRules(0, 0, 0, 0, 0.2, 0).limit_mm3(100, 300) == 40
    assert TrackingRules(0, 0, 0, 0.001, 0.001, 7).limit_mm3(100, 300) == 7


def test_a_change_exactly_on_the_limit_is_stable() -> None:
    rules = TrackingRules(rescan_boundary_mm=0, rescan_relative=0, rescan_mm3=16)
    visits = [visit(box(1, 2)), visit(box(1, 2, (4, 4, 5)))]
    assert states(track_lesions(visits, rules).table, 1) == {1: "stable"}
    rules = TrackingRules(rescan_boundary_mm=0, rescan_relative=0, rescan_mm3=15.99)
    assert states(track_lesions(visits, rules).table, 1) == {1: "enlarging"}


def test_volumes_are_in_mm3() -> None:
    spacing_mm = (0.5, 0.5, 3.0)
    visits = [
        visit(box(1, 2), spacing_mm=spacing_mm),
        visit(box(1, 2, (4, 4, 6)), spacing_mm=spacing_mm),
    ]
    table = track_lesions(visits).table
    assert table["volume_mm3"].tolist() == pytest.approx([48, 72])
    assert table["change_mm3"].iloc[1] == pytest.approx(24)


def test_a_split_names_its_parent_and_the_largest_part_carries_the_track() -> None:
    tracks = track_lesions(
        [visit(box(1, 2, (4, 4, 11))), visit(box(1, 2, (4, 4, 4)), box(2, 7, (4, 4, 6)))]
    )
    table = tracks.table
    assert states(table, 1) == {1: "split", 2: "split"}
    assert row_of(table, 1, 2).track == 1
    assert row_of(table, 1, 1).track == 2
    assert row_of(table, 1, 1).parents == row_of(table, 1, 2).parents == "1"
    assert row_of(table, 0, 1).children == "1,2"
    assert row_of(table, 0, 1).becomes == "split"
    assert row_of(table, 1, 1).change_mm3 == row_of(table, 1, 2).change_mm3 == -16
    assert not table["ambiguous"].any()


def test_a_merger_names_its_parents_and_continues_the_largest() -> None:
    tracks = track_lesions(
        [visit(box(4, 2, (4, 4, 4)), box(9, 7, (4, 4, 6))), visit(box(1, 2, (4, 4, 11)))]
    )
    row = row_of(tracks.table, 1, 1)
    assert (row.state, row.track, row.parents, row.change_mm3) == ("merged", 2, "4,9", 16)
    assert row_of(tracks.table, 0, 4).becomes == row_of(tracks.table, 0, 9).becomes
    assert len(tracks.table) == 3  # A merged lesion is not a gone one.


def test_a_lesion_that_falls_into_parts_and_loses_half_is_shrinking_in_parts() -> None:
    parts = visit(box(1, 2, (4, 4, 3)), box(2, 8, (4, 4, 3)))
    tracks = track_lesions([visit(box(1, 2, (4, 4, 12))), parts])
    rows = tracks.table.query("visit == 1")
    assert rows["state"].tolist() == ["shrinking", "shrinking"]
    assert rows["form"].tolist() == ["in parts", "in parts"]
    assert rows["change_mm3"].tolist() == [-96, -96]
    assert row_of(tracks.table, 0, 1).becomes == "shrinking"
    assert not tracks.table["ambiguous"].any()
    assert tracks.counts().loc[1, "shrinking"] == 2
    assert tracks.counts_before().loc[1, "shrinking"] == 1


def test_parts_that_grew_together_are_enlarging() -> None:
    parts = visit(box(1, 2, (4, 4, 8)), box(2, 11, (4, 4, 8)))
    tracks = track_lesions([visit(box(1, 6, (4, 4, 8))), parts])
    rows = tracks.table.query("visit == 1")
    assert (rows["state"] == "enlarging").all()
    assert (rows["form"] == "in parts").all()


def test_a_merger_is_judged_by_the_sum_of_its_parents_and_every_parent_counts() -> None:
    before = visit(box(4, 2, (4, 4, 3)), box(9, 9, (4, 4, 3)))
    tracks = track_lesions([before, visit(box(1, 2, (4, 4, 14)))])
    row = row_of(tracks.table, 1, 1)
    assert (row.state, row.form, row.parents, row.change_mm3) == ("enlarging", "merged", "4,9", 128)
    assert tracks.counts().loc[1, "enlarging"] == 1
    assert tracks.counts_before().loc[1, "enlarging"] == 2


def test_touching_units_that_keep_their_places_do_not_merge() -> None:
    before = visit(box(1, 2, (4, 4, 6)), box(2, 8, (4, 4, 6)))
    after = visit(box(1, 2, (4, 4, 7)), box(2, 9, (4, 4, 5)))
    tracks = track_lesions([before, after])
    assert states(tracks.table, 1) == {1: "stable", 2: "stable"}
    assert tracks.table["track"].tolist() == [1, 2, 1, 2]


def test_an_exchange_of_parts_is_ambiguous() -> None:
    before = visit(box(1, 2, (4, 4, 6)), box(2, 8, (4, 4, 6)))
    after = visit(box(1, 2, (4, 2, 12)), box(2, 2, (4, 2, 12), j=4))
    rows = track_lesions([before, after]).table.query("visit == 1")
    assert rows["state"].tolist() == ["merged", "merged"]
    assert rows["ambiguous"].all()
    assert rows["note"].str.contains("exchange").all()


def test_a_fragment_beside_its_lesion_makes_the_split_ambiguous() -> None:
    after = visit(box(1, 2, (4, 4, 6)), box(2, 9, (2, 2, 2)))
    rows = track_lesions([visit(box(1, 2, (4, 4, 9))), after]).table.query("visit == 1")
    assert rows["state"].tolist() == ["split", "split"]
    assert rows["note"].str.contains("rescan").all()


def test_a_small_displacement_is_bridged_and_reported() -> None:
    tracks = track_lesions([visit(box(1, 2)), visit(box(1, 7))])
    row = row_of(tracks.table, 1, 1)
    assert (row.state, row.track, row.distance_mm, row.ambiguous) == ("stable", 1, 2, True)
    assert row.confidence < 0.5
    assert tracks.links["kind"].tolist() == ["near"]
    apart = track_lesions([visit(box(1, 2)), visit(box(1, 8))])
    assert states(apart.table, 1) == {1: "new", 0: "disappeared"}


def test_the_tolerance_is_in_mm() -> None:
    visits = [visit(box(1, 2), spacing_mm=(1, 1, 3)), visit(box(1, 6), spacing_mm=(1, 1, 3))]
    assert states(track_lesions(visits).table, 1) == {1: "new", 0: "disappeared"}
    wide = track_lesions(visits, TrackingRules(tolerance_mm=3.0))
    assert states(wide.table, 1) == {1: "stable"}


def test_little_overlap_links_only_lesions_that_have_no_better_partner() -> None:
    alone = track_lesions([visit(box(1, 2, (4, 4, 6))), visit(box(1, 7, (4, 4, 6)))])
    assert states(alone.table, 1) == {1: "stable"}
    assert alone.links["kind"].tolist() == ["weak"]
    beside = track_lesions(
        [visit(box(1, 2, (4, 4, 6))), visit(box(1, 2, (4, 4, 5)), box(2, 7, (4, 4, 6)))]
    )
    assert states(beside.table, 1) == {1: "stable", 2: "new"}
    new = row_of(beside.table, 1, 2)
    assert new.ambiguous
    assert new.confidence < 0.5


def test_the_nearest_of_two_candidates_is_linked() -> None:
    visits = [visit(box(1, 2)), visit(box(1, 7), box(2, 2, j=7))]
    visits[1].labels[5:6, 6:7, 5:6] = 2  # Now 2 lies one voxel from the old place, 1 lies two.
    tracks = track_lesions(visits)
    assert row_of(tracks.table, 1, 2).track == 1
    assert row_of(tracks.table, 1, 1).state == "new"


def test_a_chain_of_three_visits() -> None:
    visits = [
        visit(box(1, 2)),
        visit(box(5, 2, (4, 4, 8)), box(6, 20)),
        visit(box(1, 20), box(2, 2, (4, 4, 14))),
    ]
    tracks = track_lesions(visits)
    table = tracks.table.set_index(["track", "visit"])["state"]
    assert table.to_dict() == {
        (1, 0): "baseline",
        (1, 1): "enlarging",
        (1, 2): "enlarging",
        (2, 1): "new",
        (2, 2): "stable",
    }
    assert tracks.links["visit_before"].tolist() == [0, 1, 1]
    assert tracks.counts().loc[2, "enlarging"] == 1
    assert tracks.counts().loc[2, "disappeared"] == 0


def test_a_lesion_missed_once_gets_its_track_back_and_a_note() -> None:
    table = track_lesions([visit(box(1, 2)), visit(), visit(box(3, 2))]).table
    back = row_of(table, 2, 3)
    assert (back.state, back.track, back.ambiguous) == ("new", 1, True)
    assert back.note == "at the place of track 1, last seen 2 visits before"
    assert table["state"].tolist() == ["baseline", "disappeared", "new"]


@pytest.mark.parametrize("small_first", [True, False])
def test_of_several_at_its_place_the_largest_part_gets_the_track_back(small_first: bool) -> None:
    small, large = (1, 2) if small_first else (2, 1)
    parts = visit(box(small, 2, (4, 4, 3)), box(large, 6, (4, 4, 6)))
    table = track_lesions([visit(box(1, 2, (4, 4, 10))), visit(), parts]).table
    assert row_of(table, 2, large).track == 1
    assert row_of(table, 2, small).track == 2
    assert row_of(table, 2, small).note == ""


def test_each_track_comes_back_once_and_to_one_lesion() -> None:
    before = visit(box(1, 2, (4, 4, 4)), box(2, 7, (4, 4, 6)))
    table = track_lesions([before, visit(), visit(box(1, 2, (4, 4, 11))), visit(box(4, 30))]).table
    assert row_of(table, 2, 1).track == 2
    assert row_of(table, 3, 4).track == 3


@pytest.mark.parametrize("visits", [1, 2, 3])
def test_visits_without_lesions(visits: int) -> None:
    tracks = track_lesions([visit()] * visits)
    assert len(tracks.table) == len(tracks.links) == 0
    assert tracks.counts().shape == (visits, len(STATES))
    assert tracks.counts_before().shape == (visits - 1, len(STATES))
    assert not change_map([visit()] * visits, tracks).array.any()


def test_visits_without_lesions_count_to_the_last() -> None:
    tracks = track_lesions([visit(box(1, 2)), visit(), visit()])
    counts, before = tracks.counts(), tracks.counts_before()
    assert counts.index.tolist() == [0, 1, 2]
    assert counts["disappeared"].tolist() == [0, 1, 0]
    assert before["disappeared"].to_dict() == {1: 1, 2: 0}
    assert list(counts) == list(before) == list(STATES)


def test_a_lesion_without_a_voxel_is_equivocal_and_has_its_rows() -> None:
    visits = [visit(box(2, 2)), visit(box(2, 2)), visit(box(2, 2))]
    volumes = [{2: 64.0, 5: 0.1}, {1: 0.2, 2: 64.0}, {2: 64.0}]
    everywhere = [np.ones(SHAPE, np.bool_)] * 3
    tracks = track_lesions(visits, volumes_mm3=volumes, edges=everywhere)
    columns = ["visit", "label", "state", "becomes", "volume_mm3", "change_mm3", "parents"]
    lost = tracks.table[(tracks.table["label"] != 2)].fillna(0)
    assert lost[columns].to_numpy().tolist() == [
        [0, 5, "baseline", "equivocal", 0.1, 0, ""],
        [1, 1, "equivocal", "equivocal", 0.2, 0.2, ""],
        [1, 0, "equivocal", "", 0, -0.1, "5"],
        [2, 0, "equivocal", "", 0, -0.2, "1"],
    ]
    assert lost["track"].tolist() == [2, 3, 2, 3]
    assert lost["note"].str.contains("too small for the voxels").tolist() == [False, *[True] * 3]
    assert not lost["edge"].any()
    assert tracks.counts().loc[1, ["stable", "equivocal"]].tolist() == [1, 1]
    assert tracks.counts_before().loc[1, ["stable", "equivocal"]].tolist() == [1, 1]
    assert np.count_nonzero(change_map(visits, tracks, 1).array) == 64


def test_a_single_visit_is_the_baseline() -> None:
    visits = [visit(box(2, 2))]
    tracks = track_lesions(visits)
    assert tracks.table["state"].tolist() == ["baseline"]
    assert np.unique(change_map(visits, tracks).array).tolist() == [0, STATES.index("baseline") + 1]


def test_visits_must_share_a_grid() -> None:
    with pytest.raises(ValueError, match="visit 2"):
        track_lesions([visit(), visit(spacing_mm=(1, 1, 2))])
    with pytest.raises(ValueError, match="one visit"):
        track_lesions([])


def test_the_change_map_draws_states_and_what_is_gone_beneath() -> None:
    visits = [
        visit(box(1, 2, (4, 4, 6)), box(2, 8, (4, 4, 6))),
        visit(box(5, 2, (4, 4, 7)), box(6, 30)),
    ]
    drawn = change_map(visits, track_lesions(visits)).array[3, 3]
    codes = {state: code for code, state in enumerate(STATES, start=1)}
    assert (drawn[2:9] == codes["stable"]).all()
    assert (drawn[9:14] == codes["disappeared"]).all()
    assert (drawn[30:34] == codes["new"]).all()
    assert (drawn > 0).sum() == 7 + 5 + 4
    baseline = change_map(visits, track_lesions(visits), 0).array[3, 3]
    assert (baseline[2:14] == codes["baseline"]).all()


REVERSED = {
    "new": "disappeared",
    "disappeared": "new",
    "enlarging": "shrinking",
    "shrinking": "enlarging",
    "split": "merged",
    "merged": "split",
    "stable": "stable",
    "too small": "too small",
}


@st.composite
def studies(draw: st.DrawFn) -> list[Instances]:
    shape = (6, 6, 12)
    spacing_mm = draw(st.sampled_from([(1, 1, 1), (0.5, 1, 3)]))
    grid = Grid(shape, np.diag([*spacing_mm, 1.0]))
    visits = []
    for _ in range(draw(st.integers(2, 3))):
        labels = np.zeros(shape, dtype=np.int32)
        for label in draw(st.lists(st.integers(1, 9), max_size=5, unique=True)):
            low = [draw(st.integers(0, n - 1)) for n in shape]
            high = [a + draw(st.integers(1, 5)) for a in low]
            labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = label
        visits.append(Instances(labels, grid))
    return visits


@settings(max_examples=50, deadline=None)
@given(studies())
def test_reversing_time_exchanges_the_classes(visits: list[Instances]) -> None:
    forward = track_lesions(visits).table
    backward = track_lesions(visits[::-1]).table
    last = len(visits) - 1
    becomes = {
        (last - row.visit, row.label): row.becomes
        for row in backward.itertuples()
        if row.visit < last and row.label
    }
    seen = {
        (row.visit, row.label): row.state for row in forward.itertuples() if row.visit and row.label
    }
    assert {key: REVERSED[state] for key, state in seen.items()} == becomes


@settings(max_examples=30, deadline=None)
@given(studies())
def test_every_lesion_has_one_row_and_one_track_a_visit(visits: list[Instances]) -> None:
    tracks = track_lesions(visits)
    table = tracks.table
    for at, instances in enumerate(visits):
        rows = table[(table["visit"] == at) & (table["label"] > 0)]
        assert rows["label"].tolist() == [n for n in np.unique(instances.labels) if n]
        assert rows["track"].is_unique
        volume = (instances.labels > 0).sum() * instances.grid.voxel_volume_mm3
        assert rows["volume_mm3"].sum() == pytest.approx(volume)
    assert table["state"].isin(STATES).all()
    later = table[table["visit"] > 0]
    assert later["confidence"].between(0, 1).all()
    unlinked = later["parents"].eq("") & later["label"].gt(0)
    assert later.loc[unlinked, "state"].isin(["new", "too small"]).all()


@settings(max_examples=50, deadline=None)
@given(studies())
def test_the_states_of_either_side_sum_to_its_lesions(visits: list[Instances]) -> None:
    tracks = track_lesions(visits)
    after, before = tracks.counts(), tracks.counts_before()
    for at in range(1, len(visits)):
        lesions = len(np.unique(visits[at].labels[visits[at].labels > 0]))
        earlier = len(np.unique(visits[at - 1].labels[visits[at - 1].labels > 0]))
        now, ended = after.loc[at], before.loc[at]
        assert now.drop("disappeared").sum() == lesions
        assert ended.sum() == earlier
        assert ended["disappeared"] == now["disappeared"]
        for state in ("new", "baseline"):
            assert ended[state] == 0


@settings(max_examples=50, deadline=None)
@given(studies())
def test_every_lesion_ends_in_one_state_and_all_of_a_family_change_alike(
    visits: list[Instances],
) -> None:
    tracks = track_lesions(visits)
    table = tracks.table[tracks.table["label"] > 0].set_index(["visit", "label"])
    assert (
        (table["becomes"] != "").eq(table.index.get_level_values("visit") < len(visits) - 1).all()
    )
    for link in tracks.links.itertuples():
        earlier = table.loc[(link.visit_before, link.label_before)]
        later = table.loc[(link.visit_after, link.label_after)]
        resized = {"enlarging", "shrinking"} & {earlier["becomes"], later["state"]}
        assert len(resized) == 0 or earlier["becomes"] == later["state"]
    unpartnered = tracks.table[(tracks.table["label"] == 0)]
    ended = table[(table["children"] == "") & (table["becomes"] != "")]
    assert len(unpartnered) == len(ended)


@settings(max_examples=25, deadline=None)
@given(studies(), st.permutations(list(range(1, 10))))
def test_names_of_labels_decide_nothing(visits: list[Instances], names: list[int]) -> None:
    table = np.array([0, *names], dtype=np.int32)
    renamed = [Instances(table[v.labels], v.grid) for v in visits]
    here = track_lesions(visits).table
    there = track_lesions(renamed).table
    seen = {(r.visit, int(table[r.label])): r.state for r in here.itertuples() if r.label}
    assert seen == {(r.visit, r.label): r.state for r in there.itertuples() if r.label}


def tracked(table: pd.DataFrame, names: np.ndarray) -> set[frozenset[tuple[int, int]]]:
    """The lesions of each track, as visits and names, whatever the track's own number."""
    lesions = table[table["label"] > 0]
    return {
        frozenset(zip(rows["visit"].tolist(), names[rows["label"]].tolist(), strict=True))
        for _, rows in lesions.groupby("track")
    }


@settings(max_examples=60, deadline=None)
@given(studies(), st.permutations(list(range(1, 10))))
@example(
    [  # two parts come back, the smaller one first in C order and in its label
        visit(box(1, 2, (4, 4, 10))),
        visit(),
        visit(box(1, 2, (4, 4, 3)), box(2, 6, (4, 4, 6))),
    ],
    [2, 1, 3, 4, 5, 6, 7, 8, 9],
)
@example(  # two equal halves
    [visit(box(1, 2, (4, 4, 8))), visit(box(1, 2), box(2, 6))], [2, 1, 3, 4, 5, 6, 7, 8, 9]
)
def test_names_of_labels_decide_no_track(visits: list[Instances], names: list[int]) -> None:
    table = np.array([0, *names], dtype=np.int32)
    renamed = [Instances(table[v.labels], v.grid) for v in visits]
    same = np.arange(10, dtype=np.int32)
    assert tracked(track_lesions(visits).table, table) == tracked(
        track_lesions(renamed).table, same
    )


def test_what_lies_outside_of_the_other_scan_is_not_shown_there() -> None:
    whole = Acquisition(visit().grid, np.eye(4))
    short = Acquisition(Grid((12, 12, 10), np.eye(4)), np.eye(4))
    found = visit(box(1, 2), box(2, 20))
    tracks = track_lesions([visit(), found], acquisitions=[short, whole])
    assert states(tracks.table, 1) == {1: "new", 2: "equivocal"}
    assert row_of(tracks.table, 1, 2).note == "the other visit does not show this place"


def test_a_lesion_that_the_other_visit_shows_faintly_is_neither_new_nor_gone() -> None:
    before, after = visit(box(1, 2)), visit(box(1, 20), box(2, 30))
    earlier, later = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    earlier[before.labels == 1] = later[after.labels > 0] = 0.9
    earlier[after.labels == 1] = 0.3
    earlier[after.labels == 2] = 0.2  # on the limit
    later[before.labels == 1] = 0.4
    tracks = track_lesions([before, after], probabilities=[earlier, later])
    assert states(tracks.table, 1) == {1: "equivocal", 2: "new", 0: "equivocal"}
    assert row_of(tracks.table, 0, 1).becomes == "equivocal"
    off = TrackingRules(max_other_probability=1.0)
    tracks = track_lesions([before, after], off, [earlier, later])
    assert states(tracks.table, 1) == {1: "new", 2: "new", 0: "disappeared"}


def test_a_lesion_that_is_hardly_believed_is_not_new() -> None:
    later = np.zeros(SHAPE, np.float32)
    later[visit(box(1, 2)).labels > 0] = 0.6  # on the limit
    later[visit(box(1, 20)).labels > 0] = 0.55
    maps = [np.zeros(SHAPE, np.float32), later]
    tracks = track_lesions([visit(), visit(box(1, 2), box(2, 20))], probabilities=maps)
    assert states(tracks.table, 1) == {1: "new", 2: "equivocal"}


def test_a_small_lesion_stays_too_small_however_faint() -> None:
    seen = np.ones(SHAPE, np.float32)
    tracks = track_lesions([visit(), visit(box(1, 2, (2, 2, 2)))], probabilities=[seen, seen])
    assert states(tracks.table, 1) == {1: "too small"}


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one probability map per visit"):
        track_lesions([visit(), visit()], probabilities=[np.zeros((2, 2, 2), np.float32)] * 2)


def test_what_slices_of_the_other_visit_cannot_show_is_equivocal() -> None:
    fine, found = (
        Acquisition(visit().grid, np.eye(4)),
        visit(box(1, 2, (4, 4, 3)), box(2, 20, (4, 4, 9))),
    )
    thick = Acquisition(Grid((12, 12, 7), np.diag([1.0, 1, 6, 1])), np.eye(4))
    tracks = track_lesions([visit(), found], acquisitions=[thick, fine])
    assert states(tracks.table, 1) == {1: "equivocal", 2: "new"}
    assert "too large" in row_of(tracks.table, 1, 1).note
    assert states(track_lesions([visit(), found], acquisitions=[fine, thick]).table, 1) == {
        1: "new",
        2: "new",
    }
    back = track_lesions([found, visit()], acquisitions=[fine, thick]).table
    assert dict(zip(back["label"], back["becomes"], strict=True)) == {
        1: "equivocal",
        2: "disappeared",
        0: "",
    }
    off = TrackingRules(min_visible_fraction=0.0)
    assert states(track_lesions([visit(), found], off, acquisitions=[thick, fine]).table, 1) == {
        1: "new",
        2: "new",
    }


def test_a_lesion_is_at_the_edge_where_half_of_it_is_at_either_visit() -> None:
    edge = np.zeros(SHAPE, np.bool_)
    edge[:, :, :4] = True
    none = np.zeros(SHAPE, np.bool_)
    visits = [visit(box(1, 2), box(2, 30)), visit(box(1, 2), box(2, 3, j=7))]
    table = track_lesions(visits, edges=[edge, none]).table
    rows = zip(table["visit"], table["label"], table["edge"], strict=True)
    assert list(rows) == [
        (0, 1, True),
        (0, 2, False),
        (1, 1, True),
        (1, 2, False),
        (1, 0, False),
    ]
    with pytest.raises(ValueError, match="one edge mask per visit"):
        track_lesions(visits, edges=[edge])
