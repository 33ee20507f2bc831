"""Records of subjects, as they are written and as earlier versions wrote them."""

import json
from dataclasses import replace
from pathlib import Path

from lesionwise.cohort.records import RECORD, read_record, write_record

BEFORE = Path(__file__).parents[1] / "results/before/cohort/sub-a"


def test_a_record_is_read_as_it_was_written(tmp_path) -> None:
    record = read_record(BEFORE)
    assert record is not None
    record = replace(record, failures={"comparison": "the visits do not overlap"})
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert "faults" not in json.loads((tmp_path / RECORD).read_text())


def test_what_earlier_versions_called_faults_are_failures(tmp_path) -> None:
    keys = json.loads((BEFORE / RECORD).read_text()) | {"faults": {"ses-01_FLAIR": "empty"}}
    (tmp_path / RECORD).write_text(json.dumps(keys))
    record = read_record(tmp_path)
    assert record is not None
    assert record.failures == {"ses-01_FLAIR": "empty"}
