"""The columns of all tables: what each holds, in which unit, and how it is rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionwise.io.files import read_table, write_json, write_table
from lesionwise.results.names import beside
from lesionwise.results.words import session_name, state_name, subject_name
from lesionwise.types import EMPTY


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: as in the table.
        description: for the data dictionary.
        units: of the numbers, as BIDS writes them; empty for text and counts.
        decimals: kept in the table; None keeps what there is.
        levels: meaning of each word that the column may hold.
        text: stays text, also where it looks like a number.
    """

    name: str
    description: str
    units: str = ""
    decimals: int | None = None
    levels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    text: bool = False


STATE_LEVELS = {
    "baseline": "first visit, nothing to compare with",
    "stable": "no change beyond what varies from scan to scan",
    "new": "at this visit only",
    "enlarging": "larger than at the visit before",
    "shrinking": "smaller than at the visit before",
    "merged": "several lesions of the visit before became one",
    "split": "a lesion of the visit before became several",
    "disappeared": "at the visit before only",
    "equivocal": "outlined at one visit only, but the scans do not show that it came or went",
    "too small": "without a partner, too small to be called new or disappeared",
}
FORM_LEVELS = {
    "in parts": "one lesion of the visit before became several",
    "merged": "several lesions of the visit before became one",
    "rearranged": "several lesions of the visit before became several others",
}
GRADE_LEVELS = {
    "good": "no finding",
    "fair": "read with care",
    "poor": "results mean little",
}
LOCATION_LEVELS = {
    "periventricular": "abuts a lateral ventricle",
    "juxtacortical": "abuts the cortex",
    "infratentorial": "in brainstem or cerebellum",
    "deep white matter": "none of these",
}

SUBJECT = Column("subject", "subject with sub-", text=True)
SESSION = Column("session", "session with ses-; n/a where the scan names none", text=True)
SCAN = Column(
    "scan",
    "all entities of the scan, which tell it from the other scans of its session",
    text=True,
)
SOURCE = Column("source", "the file or DICOM folder that was read", text=True)
QUALITY = Column("quality", "the worst grade of the scan", levels=GRADE_LEVELS, text=True)
REASONS = Column("quality_reasons", "why the scan has this grade", text=True)
SECONDS = Column("seconds", "computing time", "s", 1)
PAGE = Column("page", "the page, relative to the table", text=True)

COUNTS = (
    Column("lesions", "lesions of the main separation method that passed the size filters"),
    Column("volume_ml", "summed volume of these lesions", "mL", 3),
    Column(
        "mask_volume_ml",
        "volume of the mask, which also holds what the size filters dropped",
        "mL",
        3,
    ),
)
LOAD = (
    Column("brain_volume_ml", "volume of the brain mask", "mL", 1),
    Column("lesion_load_percent", "volume of the lesions, of the volume of the brain", "%", 3),
)
METHOD_COUNTS = tuple(
    Column(f"lesions_{method}", f"lesions by the separation method {method}, same size filters")
    for method in ("cc", "acls", "offsets")
)
STATE_COUNTS = tuple(
    Column(state, f"lesions since the visit before: {meaning}")
    for state, meaning in STATE_LEVELS.items()
    if state != "baseline"
)

PREVIOUS_COUNTS = tuple(
    Column(f"previous_{state}", f"lesions of the visit before: {meaning}")
    for state, meaning in STATE_LEVELS.items()
    if state not in ("baseline", "new")
)

SCAN_COLUMNS = (
    SUBJECT, SESSION, SCAN, QUALITY, *COUNTS, *LOAD, *METHOD_COUNTS, *STATE_COUNTS, SECONDS,
    REASONS, SOURCE, PAGE,
)  # fmt: skip
"""``scans.tsv``: a row a scan."""

EXTENT = "size of the bounding box along the voxel axis nearest to"

MEASURES = (
    Column("voxels", "voxels of the lesion"),
    Column("volume_mm3", "volume of the lesion", "mm^3", 1),
    Column("center_x_mm", "center of mass, to the right", "mm", 1),
    Column("center_y_mm", "center of mass, to the front", "mm", 1),
    Column("center_z_mm", "center of mass, upward", "mm", 1),
    Column("extent_i_mm", f"{EXTENT} left-right", "mm", 2),
    Column("extent_j_mm", f"{EXTENT} back-front", "mm", 2),
    Column("extent_k_mm", f"{EXTENT} down-up", "mm", 2),
    Column("mean_intensity", "mean of the scan over the lesion, in its own unit", "", 3),
    Column("confidence", "mean network output over the lesion; not a probability", "", 3),
    Column(
        "confluent_group",
        "lesions that touch share a number, the lowest label among them; 0 touches none",
    ),
    Column("location", "region of the McDonald criteria", levels=LOCATION_LEVELS, text=True),
)

TRACK = Column("track", "one number for one lesion at all visits")
STATE = Column("state", "what the lesion is since the visit before", levels=STATE_LEVELS, text=True)
AMBIGUOUS = Column("ambiguous", "another reading is possible; see the note in tracks.tsv")
EDGE = Column("edge", "half of the lesion or more lies where findings are less certain")

LESION_COLUMNS = (
    SUBJECT,
    SESSION,
    SCAN,
    Column("method", "instance separation method", text=True),
    Column("label", "value of the lesion in the instance map"),
    *MEASURES,
    TRACK,
    STATE,
    AMBIGUOUS,
    EDGE,
    SOURCE,
)
"""``lesions.tsv``: a row a lesion of the main separation method."""

LABEL_COLUMNS = (
    Column("index", "value of the lesion in the instance map"),
    Column("name", "name of the lesion", text=True),
    Column("abbreviation", "short name", text=True),
    Column("color", "suggested color", text=True),
    Column("mapping", "index of lesion in the BIDS table of labels"),
    *MEASURES,
)
"""The table beside an instance map."""

VISIT_COLUMNS = (
    SUBJECT, SESSION, SCAN, QUALITY, *COUNTS, *LOAD, *STATE_COUNTS, *PREVIOUS_COUNTS, REASONS,
    SOURCE,
)  # fmt: skip
"""``visits.tsv``: a row a visit of a comparison."""

TRACK_COLUMNS = (
    SUBJECT,
    SESSION,
    SCAN,
    TRACK,
    Column(
        "label",
        "value of the lesion in the main instance map; 0 for a lesion of the visit before that "
        "has no partner at this one",
    ),
    STATE,
    Column(
        "form",
        "what became of the number of lesions of the family; empty for one lesion at either visit",
        levels=FORM_LEVELS,
        text=True,
    ),
    Column("volume_mm3", "volume of the lesion, as in lesions.tsv", "mm^3", 1),
    Column(
        "change_mm3",
        "change of the summed volume of the lesion's family since the visit before",
        "mm^3",
        1,
    ),
    Column("parents", "labels at the visit before, with commas between them", text=True),
    Column("children", "labels at the visit after, with commas between them", text=True),
    Column("becomes", "state at the visit after", levels=STATE_LEVELS, text=True),
    Column("overlap_fraction", "common part with the main parent, of the smaller one", "", 3),
    Column(
        "distance_mm",
        "to the nearest lesion of the visit before; where the label is 0, of this visit",
        "mm",
        1,
    ),
    Column(
        "change_z",
        "how much brighter the place became, in standard deviations of the noise between the scans",
        "",
        2,
    ),
    Column("contrast_gain", "share of the contrast that one visit has and the other not", "", 3),
    Column("confidence", "distance of the decision from its limits: 0.5 on the limit", "", 3),
    AMBIGUOUS,
    Column("note", "which other reading is possible", text=True),
    EDGE,
)
"""``tracks.tsv``: a row a lesion and visit; columns that a table lacks are left out."""

LINK_COLUMNS = (
    SUBJECT,
    Column("session_before", "earlier session of the link", text=True),
    Column("session_after", "later session of the link", text=True),
    Column("label_before", "lesion at the earlier session"),
    Column("label_after", "lesion at the later session"),
    Column("overlap_mm3", "common volume", "mm^3", 1),
    Column("fraction_before", "common volume, of the earlier lesion", "", 3),
    Column("fraction_after", "common volume, of the later lesion", "", 3),
    Column("fraction_of_smaller", "common volume, of the smaller lesion", "", 3),
    Column("distance_mm", "distance between the two", "mm", 1),
    Column("kind", "how the two belong together", text=True),
)
"""``links.tsv``: which lesions of two visits belong together."""

PAIR_COLUMNS = (
    SUBJECT,
    Column("baseline", "earlier session", text=True),
    Column("followup", "later session", text=True),
    SCAN,
    *COUNTS,
    SECONDS,
    Column("warnings", "what to know before believing the result", text=True),
    SOURCE,
    PAGE,
)
"""``pairs.tsv``: a row for each two visits; counts are of new lesions."""

NEW_LESION_COLUMNS = (
    SUBJECT,
    Column("baseline", "earlier session", text=True),
    Column("followup", "later session", text=True),
    SCAN,
    Column("method", "instance separation method", text=True),
    Column("label", "value of the lesion in the instance map"),
    *MEASURES,
    SOURCE,
)
"""``new_lesions.tsv``: a row a new lesion."""

PARTICIPANT_COLUMNS = (
    Column("participant_id", "subject with sub-", text=True),
    Column("sessions", "sessions with a result; a scan without a session counts as one"),
    Column("scans", "scans with a result"),
    *COUNTS,
    *LOAD,
    *METHOD_COUNTS,
    *STATE_COUNTS,
    QUALITY,
    SECONDS,
    Column("failures", "scans and comparisons that gave nothing"),
)
"""``participants.tsv`` of a cohort: counts are of the last visit, changes summed over visits."""


_OTHER_TEXT = {"visit", "lesions by", "file", "error", "map"}
"""Columns of other tables, and as they were called before."""
_TEXT = _OTHER_TEXT | {
    column.name
    for columns in (
        SCAN_COLUMNS, LESION_COLUMNS, LABEL_COLUMNS, VISIT_COLUMNS, TRACK_COLUMNS, LINK_COLUMNS,
        PAIR_COLUMNS, NEW_LESION_COLUMNS, PARTICIPANT_COLUMNS,
    )
    for column in columns
    if column.text
}  # fmt: skip
_TRUTH = {"true": True, "false": False}
_RENAMED = {
    "share_before": "fraction_before", "share_after": "fraction_after",
    "share_of_smaller": "fraction_of_smaller", "overlap_share": "overlap_fraction",
    "appeared": "contrast_gain",
    "lineage": "track", "visit": "session", "fault": "error",
    "growing": "enlarging", "gone": "disappeared", "faint": "equivocal",
}  # fmt: skip
"""Columns as they were called before."""


def write_described(
    path: Path, rows: Sequence[Mapping[str, Any]] | pd.DataFrame, columns: Sequence[Column]
) -> None:
    """Write a table with the columns that it has, rounded, and its data dictionary beside it.

    The dictionary (``.json``) holds a description of each column, units and levels, as BIDS
    wants it. Columns that are not described are kept behind the others. Both files are written
    atomically, the dictionary first.

    Args:
        rows: where there are none, the table has the columns of ``columns``.

    Example:
        >>> columns = [Column("volume_mm3", "volume of the lesion", units="mm3")]
        >>> write_described(Path("lesions.tsv"), [{"volume_mm3": 27.04}], columns)
        >>> Path("lesions.tsv").read_text().split()
        ['volume_mm3', '27.04']
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if not len(table.columns):
        table = pd.DataFrame(columns=[column.name for column in columns])
    known = {column.name: column for column in columns}
    order = [name for name in known if name in table]
    order += [str(name) for name in table.columns if name not in known]
    table = rounded(table[order], columns)
    write_json(beside(path, ".json"), dictionary([known[n] for n in order if n in known]))
    write_table(path, table)


def rounded(table: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The table with each number to the decimals of its column.

    Example:
        >>> rounded(pd.DataFrame({"volume_mm3": [134.99987]}), MEASURES)["volume_mm3"][0]
        np.float64(135.0)
    """
    decimals = {c.name: c.decimals for c in columns if c.decimals is not None}
    changed = {}
    for name in table.columns:
        if name in decimals:
            values = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
            changed[name] = values.round(decimals[name]) + 0.0  # no -0
    return table.assign(**changed)


def dictionary(columns: Sequence[Column]) -> dict[str, dict[str, Any]]:
    """A BIDS data dictionary: description, units and levels by column.

    Example:
        >>> dictionary([Column("volume_mm3", "volume of the lesion", units="mm3")])
        {'volume_mm3': {'Description': 'volume of the lesion', 'Units': 'mm3'}}
    """
    described: dict[str, dict[str, Any]] = {}
    for column in columns:
        entry: dict[str, Any] = {"Description": column.description}
        if column.units:
            entry["Units"] = column.units
        if column.levels:
            entry["Levels"] = dict(column.levels)
        described[column.name] = entry
    return described


def read_typed(path: Path) -> pd.DataFrame:
    """A table that this package wrote, also before: numbers as numbers, names and states as now.

    Numbers that cannot be read, and infinite ones, are NaN. Subjects and sessions come with
    ``sub-`` and ``ses-``, states by their present names, and columns too.

    Raises:
        InputError: If the file is missing or is no table.

    Example:
        >>> from lesionwise.io.files import write_table
        >>> write_table("tracks.tsv", [{"lineage": 1, "visit": "ses-01", "state": "growing"}])
        >>> read_typed(Path("tracks.tsv")).to_dict("records")
        [{'track': 1, 'session': 'ses-01', 'state': 'enlarging'}]
    """
    table = read_table(path).rename(columns=_RENAMED)
    table = table.loc[:, ~table.columns.duplicated()]
    for name in table.columns:
        values = table[name]
        if name in ("state", "becomes", "change"):
            table[name] = values.map(state_name)
        elif name == "subject":
            table[name] = values.map(subject_name, na_action="ignore")
        elif name in ("session", "baseline", "followup", "session_before", "session_after"):
            table[name] = values.map(session_name, na_action="ignore")
        elif name in ("ambiguous", "edge"):
            table[name] = values.str.lower().map(_TRUTH)
        elif name not in _TEXT:
            numbers = pd.to_numeric(values, errors="coerce")
            table[name] = numbers.where(numbers.abs() < np.inf)
    return table
