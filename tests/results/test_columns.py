"""Columns: described, rounded, and read in their present names."""

import pandas as pd
import pytest

from lesionwise.io.files import read_json, write_table
from lesionwise.results import columns
from lesionwise.results.columns import (
    LESION_COLUMNS,
    LINK_COLUMNS,
    NEW_LESION_COLUMNS,
    PAIR_COLUMNS,
    PARTICIPANT_COLUMNS,
    SCAN_COLUMNS,
    TRACK_COLUMNS,
    VISIT_COLUMNS,
    read_typed,
    write_described,
)


def test_every_column_of_every_table_is_described_once():
    for name in dir(columns):
        if name.endswith("_COLUMNS"):
            listed = [column.name for column in getattr(columns, name)]
            assert len(set(listed)) == len(listed), name
            assert all(column.description for column in getattr(columns, name))


def test_units_follow_from_the_end_of_the_name():
    ends = {"_mm3": "mm^3", "_ml": "mL", "_mm": "mm", "_percent": "%"}
    for name in dir(columns):
        if name.endswith("_COLUMNS"):
            for column in getattr(columns, name):
                wanted = next((unit for end, unit in ends.items() if column.name.endswith(end)), "")
                assert column.units == wanted or column.name == "seconds", column.name


def test_the_dictionary_beside_a_table_has_its_columns_with_units_and_levels(tmp_path):
    rows = [{"label": 1, "subject": "sub-01", "volume_mm3": 134.99987, "state": "new"}]
    write_described(tmp_path / "lesions.tsv", rows, LESION_COLUMNS)
    described = read_json(tmp_path / "lesions.json")
    table = pd.read_csv(tmp_path / "lesions.tsv", sep="\t")
    assert list(described) == list(table.columns) == ["subject", "label", "volume_mm3", "state"]
    assert described["volume_mm3"]["Units"] == "mm^3"
    assert "enlarging" in described["state"]["Levels"]
    assert table["volume_mm3"].tolist() == [135.0]


def test_a_table_without_rows_keeps_its_header(tmp_path):
    write_described(tmp_path / "lesions.tsv", [], LESION_COLUMNS)
    table = pd.read_csv(tmp_path / "lesions.tsv", sep="\t")
    assert list(table.columns) == [column.name for column in LESION_COLUMNS]


def test_older_names_of_columns_states_and_visits_are_read_as_now(tmp_path):
    write_table(
        tmp_path / "lineages.tsv",
        [
            {"lineage": 1, "visit": "01", "state": "growing", "becomes": "gone", "note": "1"},
            {"lineage": 2, "visit": "02", "state": "faint", "becomes": None, "note": None},
        ],
    )
    table = read_typed(tmp_path / "lineages.tsv")
    assert table["track"].tolist() == [1, 2]
    assert table["session"].tolist() == ["ses-01", "ses-02"]
    assert table["state"].tolist() == ["enlarging", "equivocal"]
    assert table["becomes"].tolist()[0] == "disappeared"
    assert table["note"].tolist()[0] == "1"


@pytest.mark.parametrize(
    "columns",
    [
        SCAN_COLUMNS, LESION_COLUMNS, VISIT_COLUMNS, TRACK_COLUMNS, LINK_COLUMNS, PAIR_COLUMNS,
        NEW_LESION_COLUMNS, PARTICIPANT_COLUMNS,
    ],
)  # fmt: skip
def test_text_reads_back_as_text_also_where_it_looks_like_a_number(tmp_path, columns):
    own = ("subject", "session", "baseline", "followup", "session_before", "session_after")
    texts = [c.name for c in columns if c.text and not c.levels and c.name not in own]
    assert texts
    write_described(tmp_path / "table.tsv", [dict.fromkeys(texts, "007")], columns)
    assert read_typed(tmp_path / "table.tsv").to_dict("records") == [dict.fromkeys(texts, "007")]
