"""What commands write down about their own work."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesionwise.io.files import read_json, read_table, write_json
from lesionwise.io.record import (
    FileRecord,
    check_same_settings,
    check_settings,
    damage,
    file_records,
    note_failures,
    noted_failures,
    settings_id,
    sha256,
    sha256_of_bytes,
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
    assert sha256_of_bytes(b"abc") == sha256(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SETTINGS, SETTINGS)
def test_equal_settings_share_an_id_and_others_do_not(one, other):
    assert settings_id(dict(reversed(one.items()))) == settings_id(one)
    same_text = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (settings_id(one) == settings_id(other)) == same_text


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
    with pytest.raises(InputError, match="not the name of a file inside this folder"):
        damage(tmp_path, {"../a": FileRecord(1, "")})


@settings(deadline=None)
@given(SETTINGS, SETTINGS)
def test_for_the_same_settings_one_that_a_side_does_not_name_is_not_set(before, now):
    if all(before.get(name) == now.get(name) for name in {*before, *now}):
        check_same_settings(before, now, "out")
    else:
        with pytest.raises(InputError, match="out: was begun with ") as error:
            check_same_settings(before, now, "out")
        assert "\n" not in str(error.value)


def test_what_was_written_is_the_same_as_what_wrote_it(tmp_path):
    now = {"size": (16, 16), "limit": float("inf"), "path": Path("a/b"), "fold": np.int64(1)}
    write_json(tmp_path / "a.json", now)
    check_same_settings(read_json(tmp_path / "a.json"), now, "out")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["a", "b"], ["a"], "recipes a, b, now it is a"),
        (None, {"t": "0" * 64}, "recipes not set, now it is t SHA-256 000000000000"),
        ("0" * 64, "1" * 64, "recipes SHA-256 000000000000, now it is SHA-256 111111111111"),
        (list(range(90)), list(range(91)), "another recipes"),
        (0.5, "", "recipes 0.5, now it is empty"),
    ],
)
def test_a_setting_that_differs_is_shown_in_one_short_line(before, now, said):
    line = f"out: was begun with {said}; choose another output folder"
    for check in (check_settings, check_same_settings):
        with pytest.raises(InputError) as error:
            check({"recipes": before}, {"recipes": now}, "out")
        assert str(error.value) == line


def test_another_part_is_named_before_its_values():
    before = {"method.a": 1, "method.is": "Trees"}
    with pytest.raises(InputError, match=r"method\.is Trees, now it is Rules"):
        check_same_settings(before, {"method.b": 2, "method.is": "Rules"}, "out")


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


def test_the_failure_of_an_input_stays_until_a_call_takes_it_again(tmp_path):
    note_failures(tmp_path, ["a", "b", "c"], {"b": "bad", "c": "worse"})
    note_failures(tmp_path, ["d"], {"d": "worst"})
    note_failures(tmp_path, ["a"], {})
    assert noted_failures(tmp_path) == {"b": "bad", "c": "worse", "d": "worst"}
    note_failures(tmp_path, ["b"], {})
    assert noted_failures(tmp_path) == {"c": "worse", "d": "worst"}
    note_failures(tmp_path, ["c", "d"], {"c": "still"})
    assert noted_failures(tmp_path) == {"c": "still"}


def test_a_failure_may_be_named_by_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [str(tmp_path / name) for name in ("a.nii", "b.nii")]
    note_failures(tmp_path, given, {"b.nii": "bad"})
    note_failures(tmp_path, given[:1], {})
    assert noted_failures(tmp_path) == {"b.nii": "bad"}
    note_failures(tmp_path, given[1:], {})
    assert noted_failures(tmp_path) == {}


def test_a_failure_by_another_name_is_about_all_inputs(tmp_path):
    note_failures(tmp_path, ["a", "b"], {"sub-1": "bad"})
    note_failures(tmp_path, ["c"], {})
    assert noted_failures(tmp_path) == {"sub-1": "bad"}
    note_failures(tmp_path, ["a"], {})
    assert noted_failures(tmp_path) == {}


def test_a_failure_goes_with_its_file_and_that_of_a_missing_file_stays(tmp_path):
    bad, missing = tmp_path / "bad.nii", tmp_path / "missing.nii"
    bad.touch()
    failures = {str(bad): "empty", str(missing): "no such file"}
    note_failures(tmp_path / "out", [str(bad), str(missing)], failures)
    note_failures(tmp_path / "out", ["other"], {})
    assert noted_failures(tmp_path / "out") == failures
    bad.unlink()
    note_failures(tmp_path / "out", ["other"], {})
    assert noted_failures(tmp_path / "out") == {str(missing): "no such file"}


def test_a_folder_is_taken_again_where_something_in_it_is(tmp_path):
    folder = tmp_path / "sub-1"
    note_failures(tmp_path, [str(folder)], {str(folder): "left out: no FLAIR scan in it"})
    note_failures(tmp_path, [f"{folder}0/FLAIR.nii"], {})
    assert len(noted_failures(tmp_path)) == 1
    note_failures(tmp_path, [str(folder / "anat" / "FLAIR.nii")], {})
    assert noted_failures(tmp_path) == {}


def test_a_note_of_an_earlier_version_is_about_all_inputs_of_its_call(tmp_path):
    path = tmp_path / ".lesionwise" / "failed-1.json"
    write_json(path, {"inputs": ["a", "b", "c"], "failures": {"b": "bad", "c": "worse"}})
    note_failures(tmp_path, ["d"], {})
    assert noted_failures(tmp_path) == {"b": "bad", "c": "worse"}
    note_failures(tmp_path, ["c"], {})
    assert noted_failures(tmp_path) == {}


def test_a_damaged_note_says_nothing(tmp_path):
    note_failures(tmp_path, ["a"], {"a": "bad"})
    (path,) = (tmp_path / ".lesionwise").iterdir()
    path.write_text("{")
    assert noted_failures(tmp_path) == {}


def test_versions_name_what_is_installed():
    found = versions(("numpy", "no-such-package"))
    assert {"python", "machine", "numpy"} == set(found)
