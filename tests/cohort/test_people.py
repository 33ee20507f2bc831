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


def test_an_age_with_a_decimal_comma_is_read_and_what_is_none_is_told(tmp_path):
    text = "participant_id\tage\nsub-1\t34,5\nsub-2\tn.k.\nsub-3\tn/a\n"
    (note,) = keep_people(_data_set(tmp_path / "bids", text), tmp_path / "out")
    assert "participants.tsv: 1 values of age are no numbers (such as n.k.)" in note
    table = pd.DataFrame({"subject": ["sub-1", "sub-2", "sub-3"]})
    found = with_people(tmp_path / "out", table, "subject")
    assert found["age"].tolist()[0] == 34.5
    assert found["age"].isna().tolist() == [False, True, True]
    others = pd.DataFrame({"subject": ["sub-8"]})
    assert list(with_people(tmp_path / "out", others, "subject")) == ["subject"]


def test_a_table_of_participants_that_cannot_be_read_is_told(tmp_path):
    (note,) = keep_people(_data_set(tmp_path / "a", "name\tage\nx\t4\n"), tmp_path / "out")
    assert "no column participant_id" in note
    odd = _data_set(tmp_path / "b", "")
    (odd / "participants.tsv").write_bytes(b"participant_id\tage\nsub-\xe9\t4\n")
    (note,) = keep_people(odd, tmp_path / "out")
    assert note.endswith("age, sex and group are left out")
    assert keep_people(_data_set(tmp_path / "c", "participant_id\tx\n"), tmp_path / "out") == []


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


def test_a_subject_with_two_rows_is_told_and_the_first_is_taken(tmp_path):
    text = "participant_id\tage\nsub-1\t33\n1\t44\nsub-2\t50\n"
    (note,) = keep_people(_data_set(tmp_path / "bids", text), tmp_path / "out")
    assert note.endswith("1 subjects have several rows (such as 1); the first row of each is taken")
    table = pd.DataFrame({"subject": ["sub-1", "sub-2"]})
    assert with_people(tmp_path / "out", table, "subject")["age"].tolist() == [33, 50]
