"""What commands write down about their own work."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionwise.io.files import read_json, read_table, write_json
from lesionwise.io.record import (
    FileRecord,
    begin,
    check_settings,
    damage,
    file_records,
    note_failures,
    noted_failures,
    sha256,
    versions,
    write_failures,
)
from lesionwise.types import InputError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
SETTINGS = st.dictionaries(st.sampled_from(["folds", "model", "seed", "version"]), JSON)


def test_a_hash_is_that_of_the_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_is_no_file_has_no_hash(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, reason in (
        (tmp_path, "not a file"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "link", "a link to a file that is not there"),
    ):
        with pytest.raises(InputError, match=reason):
            sha256(path)


def test_damage_names_the_file_and_what_is_wrong(tmp_path):
    path = tmp_path / "sub" / "a"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    files = file_records(tmp_path, [path, path])
    assert list(files) == ["sub/a"]
    assert damage(tmp_path, files) == ""
    path.write_bytes(b"abd")
    assert damage(tmp_path, files, read=False) == ""
    assert damage(tmp_path, files) == f"{path}: its content is not what was written"
    path.write_bytes(b"ab")
    assert damage(tmp_path, files) == f"{path}: has 2 bytes, but 3 were written"
    path.unlink()
    assert damage(tmp_path, files) == f"{path}: is missing"
    with pytest.raises(InputError, match="no name of a file inside this folder"):
        damage(tmp_path, {"../a": FileRecord(1, "")})


def test_a_record_is_begun_once_and_gone_on_with(tmp_path):
    path = tmp_path / "run" / "settings.json"
    assert begin(path, {"folds": 5, "recipes": ["a", "b"]}) == "fresh"
    assert begin(path, {"folds": 5, "recipes": ["a", "b"]}) == "resumed"
    with pytest.raises(InputError, match=r"run: was begun with recipes a, b, now it is a; "):
        begin(path, {"folds": 5, "recipes": ["a"]})
    assert read_json(path) == {"settings": {"folds": 5, "recipes": ["a", "b"]}}
    for bad in ({"settings": [1]}, {}):
        write_json(path, bad)
        with pytest.raises(InputError, match="holds no settings"):
            begin(path, {"folds": 5})


@settings(deadline=None)
@given(SETTINGS, SETTINGS)
def test_settings_differ_where_both_sides_name_one_and_its_values_differ(before, now):
    if any(name in before and before[name] != value for name, value in now.items()):
        with pytest.raises(InputError) as error:
            check_settings(before, now, "out")
        assert "\n" not in str(error.value)
    else:
        check_settings(before, now, "out")


def test_failures_are_a_table_or_nothing(tmp_path):
    write_failures(tmp_path, {"a.nii": "no brain"}, first="pair")
    assert read_table(tmp_path / "failures.tsv").to_dict("records") == [
        {"pair": "a.nii", "error": "no brain"}
    ]
    write_failures(tmp_path, {})
    assert not (tmp_path / "failures.tsv").exists()


def test_a_call_replaces_what_a_call_with_one_of_its_inputs_left(tmp_path):
    note_failures(tmp_path, ["a", "b"], {"b": "bad"})
    note_failures(tmp_path, ["c"], {"c": "worse"})
    assert noted_failures(tmp_path) == {"b": "bad", "c": "worse"}
    note_failures(tmp_path, ["a"], {})
    assert noted_failures(tmp_path) == {"c": "worse"}
    note_failures(tmp_path, ["c"], {"c": "still"})
    assert noted_failures(tmp_path) == {"c": "still"}


def test_a_damaged_note_says_nothing(tmp_path):
    note_failures(tmp_path, ["a"], {"a": "bad"})
    (path,) = (tmp_path / ".lesionwise").iterdir()
    path.write_text("{")
    assert noted_failures(tmp_path) == {}


def test_versions_name_what_is_installed():
    found = versions(("numpy", "no-such-package"))
    assert {"python", "machine", "numpy"} == set(found)
