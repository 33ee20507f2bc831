"""What stands beside a scan."""

import json
from datetime import UTC, datetime

import pytest

from lesionwise.io.sidecar import acquired, parse_time, read_sidecar, utc
from lesionwise.types import InputError


@pytest.fixture
def scan(tmp_path):
    """A scan in a data set; nothing of the image is read."""
    (tmp_path / "dataset_description.json").write_text("{}")
    path = tmp_path / "sub-1" / "ses-2" / "anat" / "sub-1_ses-2_acq-3D_FLAIR.nii.gz"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def write(path, **content):
    path.write_text(json.dumps(content))


def test_nearer_sidecars_win_and_others_do_not_apply(scan, tmp_path):
    write(tmp_path / "FLAIR.json", EchoTime=1, Manufacturer="A", Unit="far")
    write(tmp_path / "T1w.json", EchoTime=9)
    write(tmp_path / "sub-1" / "sub-1_FLAIR.json", EchoTime=2, FlipAngle=3)
    write(scan.parent / "sub-1_ses-2_acq-2D_FLAIR.json", EchoTime=8)
    write(scan.parent / "sub-1_ses-2_acq-3D_FLAIR.json", EchoTime=4)
    assert read_sidecar(scan) == {
        "EchoTime": 4, "Manufacturer": "A", "Unit": "far", "FlipAngle": 3,
    }  # fmt: skip


def test_without_a_data_set_only_the_own_folder_counts(tmp_path):
    write(tmp_path / "FLAIR.json", EchoTime=1)
    folder = tmp_path / "scans"
    folder.mkdir()
    write(folder / "sub-1_FLAIR.json", FlipAngle=3)
    assert read_sidecar(folder / "sub-1_FLAIR.nii.gz") == {"FlipAngle": 3}
    write(folder / "any name.json", FlipAngle=5)
    assert read_sidecar(folder / "any name.nii") == {"FlipAngle": 5}
    assert read_sidecar(folder / "none.nii.gz") == {}


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_malformed_sidecar_is_named(scan, text):
    path = scan.parent / "sub-1_ses-2_acq-3D_FLAIR.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"acq-3D_FLAIR\.json"):
        read_sidecar(scan)


def test_when_a_scan_was_acquired_by_each_place_in_turn(scan, tmp_path):
    assert acquired(scan) is None
    sessions = tmp_path / "sub-1" / "sub-1_sessions.tsv"
    sessions.write_text("session_id\tacq_time\nses-1\t2019-01-01\nses-2\t2020-01-01\n")
    assert acquired(scan) == datetime(2020, 1, 1)
    scans = tmp_path / "sub-1" / "ses-2" / "sub-1_ses-2_scans.tsv"
    scans.write_text("filename\tacq_time\nanat/" + scan.name + "\t2020-02-03T04:05:06\n")
    assert acquired(scan) == datetime(2020, 2, 3, 4, 5, 6)
    write(scan.with_name(scan.name[:-7] + ".json"), AcquisitionDateTime="2021-01-02T03:04:05Z")
    assert acquired(scan) == datetime(2021, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stated", "in_utc"),
    [
        ("2020-03-04T01:00:00+09:00", datetime(2020, 3, 3, 16)),
        ("2020-03-04T01:00:00Z", datetime(2020, 3, 4, 1)),
        ("2020-03-04T01:00:00", datetime(2020, 3, 4, 1)),
        ("0001-01-01T01:00:00+09:00", datetime(1, 1, 1, 1)),
    ],
)
def test_a_time_with_a_zone_becomes_utc(stated, in_utc):
    assert utc(parse_time(stated)) == in_utc


def test_a_time_without_a_date_says_nothing(scan):
    write(scan.with_name(scan.name[:-7] + ".json"), AcquisitionTime="10:11:12")
    assert acquired(scan) is None
    write(scan.with_name(scan.name[:-7] + ".json"), AcquisitionDateTime="yesterday")
    assert acquired(scan) is None
