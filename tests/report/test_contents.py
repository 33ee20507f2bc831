import numpy as np
import pandas as pd
import pytest

from lesionwise.report.contents import (
    Look,
    answer,
    change_rows,
    change_tiles,
    free_table,
    interval_rows,
    lesion_rows,
    location_chart,
    method_table,
    outliers,
    regions,
    tiles,
    with_fate,
)
from lesionwise.types import Grid

MISSING = "\N{EN DASH}"
LESIONS = pd.DataFrame(
    {
        "session": "M00",
        "method": ["offsets", "offsets", "offsets", "cc"],
        "label": [1, 2, 3, 1],
        "volume_mm3": [10.0, 20.0, 30.0, 60.0],
        "location": ["periventricular", "deep_white_matter", "periventricular", None],
        "confluent_group": [0, 2, 2, 0],
    }
)
OFFSETS = LESIONS[LESIONS["method"] == "offsets"]


def test_tiles_count_lesions_volume_and_groups() -> None:
    assert tiles([OFFSETS]) == [
        ("3", "lesions"),
        ("0.06", "ml lesion volume"),
        ("20", "mm³ median lesion"),
        ("30", "mm³ largest lesion"),
        ("1", "confluent groups"),
        ("2", "lesions in them"),
    ]


def test_tiles_of_two_visits_stand_in_order() -> None:
    assert tiles([OFFSETS, OFFSETS.iloc[:1]])[0] == ("3 → 1", "lesions")


def test_tiles_without_lesions() -> None:
    values = {what: value for value, what in tiles([OFFSETS.iloc[:0]])}
    assert values["lesions"] == "0"
    assert values["mm³ largest lesion"] == MISSING


def test_the_parts_of_a_split_lesion_count_its_former_volume_once() -> None:
    changes = pd.DataFrame(
        {
            "state": ["split", "split", "new"],
            "baseline": ["4", "4", ""],
            "followup": ["1", "2", "3"],
            "baseline_mm3": [100.0, 100.0, np.nan],
            "followup_mm3": [70.0, 50.0, 8.0],
        }
    )
    found = {entry["state"]: entry for entry in change_tiles(OFFSETS, changes)}
    assert found["split"]["count"] == 2
    assert found["split"]["difference_mm3"] == 20
    assert found["new"]["difference_mm3"] == 8
    assert found["disappeared"]["count"] == 0


def test_nothing_followed_gives_no_change_tiles() -> None:
    assert change_tiles(OFFSETS, None) == []
    assert change_tiles(OFFSETS.assign(state="baseline"), None) == []


def test_lesions_of_the_visit_before_say_what_became_of_them() -> None:
    lesions = OFFSETS.assign(state="baseline")
    changes = pd.DataFrame(
        {"state": ["gone", "merged"], "baseline": ["1", "2,3"], "followup": ["", "1"]}
    )
    assert with_fate(lesions, changes, "M00")["state"].tolist() == ["gone", "merged", "merged"]
    assert with_fate(lesions, changes, "M12")["state"].tolist() == ["baseline"] * 3


def test_a_change_leads_to_its_lesion_or_to_the_one_that_is_gone() -> None:
    changes = pd.DataFrame(
        {"state": ["gone", "merged"], "baseline": ["1", "2,3"], "followup": ["", "5"]}
    )
    targets = [row["target"] for row in change_rows(changes, "M00", "M12")]
    assert targets == [{"session": "M00", "label": 1}, {"session": "M12", "label": 5}]


def test_methods_stand_side_by_side_by_place() -> None:
    table = method_table(LESIONS, {"M00": ["offsets", "cc", "acls"]})
    assert table["places"] == ["periventricular", "deep white matter"]
    assert [(row["method"], row["count"], row["confluent"]) for row in table["rows"]] == [
        ("offsets", 3, 2),
        ("cc", 1, 0),
        ("acls", 0, 0),
    ]
    assert table["rows"][0]["places"] == [(2, 0.04), (1, 0.02)]


def test_regions_count_only_those_of_the_criteria() -> None:
    found = {region.name: region.count for region in regions(OFFSETS)}
    assert found == {"periventricular": 2, "juxtacortical": 0, "infratentorial": 0}


def test_a_lesion_at_an_edge_is_flagged_and_does_not_decide_a_region() -> None:
    found = regions(OFFSETS.assign(edge=[True, None, False]))[0]
    assert (found.name, found.count, found.flagged) == ("periventricular", 1, 1)


def test_the_answer_counts_what_changed_and_names_what_did_not() -> None:
    def counts(**numbers: int) -> list[dict[str, object]]:
        return [{"state": state, "count": n, "before": 0} for state, n in numbers.items()]

    assert answer(counts(new=2, enlarging=1, stable=4)) == (
        "2 new lesions, 1 enlarging; none shrinking or disappeared"
    )
    assert answer(counts(stable=4)) == "No new, enlarging, shrinking or disappeared lesion"
    assert answer(counts(new=1, equivocal=3)).endswith("; 3 equivocal")
    assert answer([]) == ""


def test_a_tile_counts_lesions_of_the_later_visit_and_those_that_disappeared() -> None:
    changes = pd.DataFrame(
        {
            "state": ["equivocal", "equivocal", "disappeared"],
            "baseline": ["", "4", "5"],
            "followup": ["1", "", ""],
        }
    )
    found = {entry["state"]: entry for entry in change_tiles(OFFSETS, changes)}
    assert (found["equivocal"]["count"], found["equivocal"]["before"]) == (1, 1)
    assert (found["disappeared"]["count"], found["disappeared"]["before"]) == (1, 0)


def test_one_interval_needs_no_table_of_intervals_and_two_have_a_row_each() -> None:
    table = pd.DataFrame({"before": ["a", "b"], "after": ["b", "c"], "new": [2, 0]})
    assert interval_rows(table.iloc[:1]) == []
    rows = interval_rows(table)
    assert [(row["before"], row["counts"][0]) for row in rows] == [
        ("a", {"state": "new", "count": 2}),
        ("b", {"state": "new", "count": 0}),
    ]


def test_without_locations_nothing_is_said_about_regions() -> None:
    unknown = OFFSETS.drop(columns="location")
    assert regions(unknown) == []
    assert location_chart(unknown, "M00", ["offsets"]) is None


def test_a_lesion_leads_to_a_point_inside_it() -> None:
    labels = np.zeros((9, 9, 3), dtype=np.int32)
    labels[0:7, 0, 1] = labels[0:7, 6, 1] = labels[0, 0:7, 1] = 5  # a U: its center is outside
    grid = Grid(labels.shape, np.diag([1.0, 2.0, 3.0, 1.0]))
    shift = np.eye(4)
    shift[:3, 3] = 100, 0, 0
    look = Look.of(labels, grid, shift, {5: "#ffffff"})
    index = np.linalg.inv(shift @ grid.affine) @ np.append(look.place_mm[5], 1)
    assert labels[tuple(index[:3].round().astype(int))] == 5


def test_rows_without_a_map_fall_back_on_the_table() -> None:
    lesions = OFFSETS.iloc[:1].assign(center_x_mm=1.0, center_y_mm=2.0, center_z_mm=3.0)
    row = lesion_rows(lesions, {})[0]
    assert row["place"] == (1.0, 2.0, 3.0)
    assert row["confidence"] is None


def test_volumes_and_percentages_are_whole_numbers() -> None:
    table = free_table(pd.DataFrame({"baseline_mm3": [9.61, 108.2], "gone (%)": [84.1, 3.2]}))
    assert [[cell.text for cell in row] for row in table["rows"]] == [["10", "84"], ["108", "3"]]
    small = free_table(pd.DataFrame({"least_mm3": [0.25, 0.5]}))
    assert [row[0].text for row in small["rows"]] == ["0.250", "0.500"]


def test_a_column_of_numbers_is_shown_with_equal_digits() -> None:
    table = free_table(pd.DataFrame({"DSC": [0.5, 0.25], "n": [3.0, np.nan], "name": ["a", None]}))
    assert [[cell.text for cell in row] for row in table["rows"]] == [
        ["0.500", "3", "a"],
        ["0.250", MISSING, MISSING],
    ]
    assert table["rows"][1][1].value == ""


def test_an_outlier_is_named_with_the_usual_range() -> None:
    table = pd.DataFrame(
        {"scan": list("abcdefghij"), "lesions": [10, 11, 9, 10, 12, 10, 9, 11, 10, 90]}
    )
    found = outliers(table, ["lesions"])
    assert found["scan"].tolist() == ["j"]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_few_scans_have_no_outliers(count: int) -> None:
    table = pd.DataFrame(
        {"scan": range(count), "lesions": [1] * max(count - 1, 0) + [99] * (count > 0)}
    )
    assert len(outliers(table, ["lesions", "missing"])) == 0


def test_each_metric_has_its_own_decimals() -> None:
    table = pd.DataFrame({"metric": ["dsc", "dsc", "volume"], "difference": [0.0123, -0.2, 1234.5]})
    cells = [row[1].text for row in free_table(table, by="metric")["rows"]]
    assert cells == ["0.012", "\N{MINUS SIGN}0.200", "1\N{NARROW NO-BREAK SPACE}235"]
