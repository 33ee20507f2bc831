"""A comparison of visits, written and read again."""

import numpy as np
import pandas as pd
import pytest

from lesionwise.io.files import read_json, write_json
from lesionwise.io.names import Entities
from lesionwise.results.comparison import (
    ComparisonRecord,
    ComparisonResult,
    VisitChange,
    named_tracks,
    state_counts,
    with_states,
)
from lesionwise.types import Grid, InputError, Volume

SCANS = (Entities(sub="01", ses="M00", acq="3D"), Entities(sub="01", ses="M12", acq="3D"))
MOVED = ((1.0, 0.0, 0.0, 4.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))


def result(scores=None):
    tracks = pd.DataFrame(
        {
            "track": [1, 2, 1, 3, 2], "visit": [0, 0, 1, 1, 1], "label": [1, 2, 1, 2, 0],
            "state": ["baseline", "baseline", "enlarging", "new", "disappeared"],
            "volume_mm3": [10.0, 20.0, 30.0, 5.5, np.nan], "parents": ["", "", "1", "", "2"],
            "ambiguous": [False, False, True, False, False],
        }
    )  # fmt: skip
    links = pd.DataFrame(
        {"visit_before": [0], "visit_after": [1], "label_before": [1], "label_after": [1]}
    )
    named, linked = named_tracks(tracks, links, SCANS)
    visits = pd.DataFrame(
        {"subject": "sub-01", "session": ["ses-M00", "ses-M12"], "lesions": [2, 2], "new": [0, 1]}
    )
    record = ComparisonRecord(
        sources=("/scans/a.nii.gz", "/scans/b.nii.gz"),
        first_visit_to_visit_mm=(tuple(map(tuple, np.eye(4).tolist())), MOVED),
        recipe="none",
        options={"threshold": None},
        found_by_following=((), (2,)),
        seconds=({"network": 1.0}, {"network": 2.0}),
        further={"Registration": [{"Similarity": 0.9}]},
    )
    return ComparisonResult(SCANS, record, visits, named, linked, scores)


def test_all_of_it_comes_back(tmp_path):
    scores = pd.DataFrame({"session": ["ses-M00"], "DSC": [0.75]})
    written = result(scores)
    record = written.write(tmp_path)
    again = ComparisonResult.read(tmp_path, SCANS)
    assert again.scans == SCANS
    assert again.record == ComparisonRecord(**{**vars(record), "further": {}})
    assert read_json(tmp_path / "compare.json")["Registration"] == [{"Similarity": 0.9}]
    assert record.scans == ("sub-01_ses-M00_acq-3D", "sub-01_ses-M12_acq-3D")
    assert set(record.files) == {"visits.tsv", "tracks.tsv", "links.tsv", "scores.tsv"}
    assert again.tracks["label"].tolist() == [1, 2, 1, 2, 0]
    assert again.tracks["state"].tolist() == written.tracks["state"].tolist()
    assert again.tracks["ambiguous"].tolist() == [False, False, True, False, False]
    assert again.links["session_after"].tolist() == ["ses-M12"]
    assert again.visits["new"].tolist() == [0, 1]
    assert again.scores is not None
    assert again.scores["DSC"].tolist() == [0.75]
    result().write(tmp_path)
    assert ComparisonResult.read(tmp_path).scores is None


def test_change_maps_come_back(tmp_path):
    grid = Grid((6, 5, 4), np.diag([1.0, 1.5, 3.0, 1.0]))
    states = np.zeros(grid.shape, np.uint8)
    states[1, 2, 3], states[4, 1, 1] = 2, 3
    change = VisitChange(
        SCANS[1], "/scans/b.nii.gz", Volume(states, grid), Volume(states[::-1], grid),
        Volume(states == 2, grid),
    )  # fmt: skip
    written = change.write(tmp_path)
    assert all(path.exists() for path in written)
    assert len({path.name for path in written}) == 3
    again = VisitChange.read(tmp_path, SCANS[1], "/scans/b.nii.gz")
    assert np.array_equal(again.states.array, states)
    assert np.array_equal(again.common.array, states[::-1])
    assert again.new is not None
    assert np.array_equal(again.new.array > 0, states == 2)
    legend = read_json(written[0].with_name(written[0].name.replace(".nii.gz", ".json")))["Labels"]
    assert (legend["2"], legend["3"]) == ("new", "enlarging")


def test_lesions_take_their_track_and_state_by_session_and_label():
    lesions = pd.DataFrame({"session": ["ses-M12"] * 3, "label": [2, 1, 9]})
    joined = with_states(lesions, result().tracks)
    assert joined["state"].tolist()[:2] == ["new", "enlarging"]
    assert joined["track"].tolist()[:2] == [3, 1]
    assert pd.isna(joined["state"][2])


def test_the_first_visit_has_nothing_before_it():
    assert state_counts(result().visits) == {"ses-M12": {"new": 1}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Sources", ["a"]),
        ("FirstVisitToVisitMm", [[[1.0]], [[1.0]]]),
        ("FirstVisitToVisitMm", [np.zeros((4, 4)).tolist()] * 2),
        ("FirstVisitToVisitMm", [None, None]),
        ("Truth", "yes"),
        ("Quality", {}),
    ],
)
def test_a_wrong_value_is_one_line(tmp_path, key, value):
    result().write(tmp_path)
    path = tmp_path / "compare.json"
    write_json(path, {**read_json(path), key: value})
    with pytest.raises(InputError, match=r"compare\.json: "):
        ComparisonRecord.read(tmp_path)


@pytest.mark.parametrize("text", ["", "track\tsession\n1\tses-1\n", "\x00\x01", "track\n" * 3])
def test_a_broken_table_of_tracks_is_one_line(tmp_path, text):
    result().write(tmp_path)
    (tmp_path / "tracks.tsv").write_text(text)
    with pytest.raises(InputError, match=r"tracks\.tsv"):
        ComparisonResult.read(tmp_path)
