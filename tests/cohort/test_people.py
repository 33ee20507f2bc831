import pandas as pd

from lesionwise.cohort.people import by_group, keep_people, with_people


def _data_set(folder, text):
    folder.mkdir()
    (folder / "participants.tsv").write_text(text)
    return folder


def test_age_sex_and_group_stand_behind_the_subject_and_nothing_else_is_taken(tmp_path):
    text = "participant_id\tage\tname\tgroup\nsub-1\t40\tAnna\trelapsing\nsub-2\tn/a\tBert\tn/a\n"
    keep_people(_data_set(tmp_path / "bids", text), tmp_path / "out")
    table = pd.DataFrame({"subject": ["sub-1", "sub-1", "sub-2"], "lesions": [1, 2, 3]})
    found = with_people(tmp_path / "out", table, "subject")
    assert list(found) == ["subject", "age", "group", "lesions"]
    assert found["age"].tolist()[:2] == [40, 40]
    assert found["age"].isna().tolist() == [False, False, True]
    assert "Anna" not in "".join(p.read_text() for p in tmp_path.glob("out/.cohort/*"))


def test_without_participants_the_table_stays(tmp_path):
    (tmp_path / "bids").mkdir()
    keep_people(tmp_path / "bids", tmp_path / "out")
    table = pd.DataFrame({"subject": ["sub-1"]})
    assert with_people(tmp_path / "out", table, "subject") is table


def test_groups_are_of_the_last_scan_of_each_patient():
    scans = pd.DataFrame(
        {
            "subject": ["sub-1", "sub-1", "sub-2", "sub-3"],
            "group": ["a", "a", "a", "b"],
            "lesions": [1, 5, 7, 2],
        }
    )
    found = by_group(scans, ("lesions",))
    assert found is not None
    assert found["patients"].tolist() == [2, 1]
    assert found["lesions"].tolist() == ["6 (5.5 to 6.5)", "2 (2 to 2)"]
    assert by_group(scans.assign(group="a"), ("lesions",)) is None
