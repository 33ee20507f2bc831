"""Age, sex and group of a study's patients, as its ``participants.tsv`` states them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise.cohort.records import STATE
from lesionwise.io.checked import printable
from lesionwise.io.files import read_table, write_table
from lesionwise.results.columns import Column
from lesionwise.types import InputError

PEOPLE_COLUMNS = (
    Column("age", "age as the data set's participants.tsv states it", "year"),
    Column("sex", "sex as the data set's participants.tsv states it", text=True),
    Column("group", "group as the data set's participants.tsv states it", text=True),
)
"""What is taken over; nothing else of ``participants.tsv`` is."""
KEPT = "people.tsv"


def keep_people(dataset: Path, output: Path) -> list[str]:
    """Keep age, sex and group beside the results, for the group level.

    A data set without ``participants.tsv``, or with one that states none of them, keeps nothing.

    Returns:
        A line for each thing that could not be read.
    """
    path = dataset / "participants.tsv"
    if not path.exists():
        return []
    try:
        table = read_table(path)
    except InputError as error:
        return [f"{error}; age, sex and group are left out"]
    names = [column.name for column in PEOPLE_COLUMNS if column.name in table]
    if not names:
        return []
    if "participant_id" not in table:
        return [f"{path}: no column participant_id; age, sex and group are left out"]
    (output / STATE).mkdir(parents=True, exist_ok=True)
    write_table(output / STATE / KEPT, table[["participant_id", *names]])
    notes = []
    people = table["participant_id"].astype(object).str.removeprefix("sub-")
    twice = people[people.duplicated()].unique()
    if len(twice):
        notes.append(
            f"{path}: {len(twice)} subjects have several rows (such as "
            f"{printable(twice[0])}); the first row of each is taken"
        )
    for column in PEOPLE_COLUMNS:
        if column.name in names and not column.text:
            stated = table[column.name].dropna()
            odd = stated[_numbers(stated).isna()]
            if len(odd):
                notes.append(
                    f"{path}: {len(odd)} values of {column.name} are no numbers (such as "
                    f"{printable(odd.iloc[0])}) and are left out"
                )
    return notes


def _numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    """Texts as numbers, with a point or a comma before decimals; NaN where they are none."""
    texts = values.astype(object)  # nothing but missing values would be numbers
    return pd.to_numeric(texts.str.strip().str.replace(",", ".", regex=False), errors="coerce")


def with_people(output: Path, table: pd.DataFrame, by: str) -> pd.DataFrame:
    """The table with age, sex and group behind the column that names the subject.

    Args:
        by: the column; its values begin with ``sub-``. Subjects that are not stated have none.
    """
    path = output / STATE / KEPT
    if not path.is_file():
        return table
    people = read_table(path).set_index("participant_id")
    people.index = ["sub-" + str(name).removeprefix("sub-") for name in people.index]
    people = people[~people.index.duplicated()]
    for column in PEOPLE_COLUMNS:
        if column.name not in people:
            continue
        values = table[by].map(people[column.name])
        if not column.text:
            values = _numbers(values)
        if values.notna().any():
            place = int(table.columns.get_loc(by)) + 1  # type: ignore[arg-type]
            known = sum(name in table for name in ("age", "sex", "group"))
            table = table.copy()
            table.insert(place + known, column.name, values)
    return table


def by_group(scans: pd.DataFrame, measures: tuple[str, ...]) -> pd.DataFrame | None:
    """Median and middle half of each measure by group, of each patient's last scan.

    Args:
        scans: a row a scan, in time order, with subject and group.

    Returns:
        A row a group: patients, and ``median (25 % to 75 %)`` of each measure; None where fewer
        than two groups are known.
    """
    if "group" not in scans or scans["group"].nunique() < 2:
        return None
    last = scans.drop_duplicates("subject", keep="last")
    rows = []
    for name, rows_of in last.groupby("group"):
        row: dict[str, object] = {"group": name, "patients": len(rows_of)}
        for measure in measures:
            values = pd.to_numeric(rows_of[measure], errors="coerce").dropna()
            if len(values):
                low, middle, high = values.quantile([0.25, 0.5, 0.75])
                row[measure] = f"{middle:.4g} ({low:.4g} to {high:.4g})"
        rows.append(row)
    return pd.DataFrame(rows)
