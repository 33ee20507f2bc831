"""Files of a simulated data set."""

import pytest

from lesionwise.results.simulated import NAME, SimulatedVisit, check_simulated_output, record_of
from lesionwise.types import InputError


def test_the_table_of_true_lesions_comes_back_in_present_words(tmp_path):
    visit = SimulatedVisit(tmp_path, "sim0001", "02")
    rows = [
        {
            "index": index, "volume_mm3": 12.0 * index, "location": "juxtacortical",
            "confluent_group": 0, "units_in_group": 1, "change": change,
        }
        for index, change in ((1, "enlarging"), (4, "new"))
    ]  # fmt: skip
    visit.write_lesions(rows, (2,))
    again = visit.read_lesions()
    assert [row["index"] for row in again] == [1, 4]
    assert [row["change"] for row in again] == ["enlarging", "new"]
    assert [row["volume_mm3"] for row in again] == [12.0, 48.0]


def test_all_files_of_a_visit_have_names_of_their_own(tmp_path):
    visit = SimulatedVisit(tmp_path, "sim0001", "02")
    files = [visit.scan, visit.mask, visit.brain, visit.tissue, visit.instances]
    files += [visit.change(state) for state in ("new", "disappeared", "enlarging", "shrinking")]
    assert len({path.name for path in files}) == 9
    assert "desc-disappeared_mask" in visit.change("disappeared").name
    assert record_of(tmp_path, "sim0001").is_relative_to(tmp_path / "derivatives" / "truth")


def test_another_data_set_and_the_users_files_stay(tmp_path):
    check_simulated_output(tmp_path / "new", None)
    check_simulated_output(tmp_path, NAME)
    with pytest.raises(InputError, match="another data set"):
        check_simulated_output(tmp_path, "Precious")
    (tmp_path / "participants.tsv").write_text("mine")
    with pytest.raises(InputError, match=r"participants\.tsv: exists already"):
        check_simulated_output(tmp_path, None)
