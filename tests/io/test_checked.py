"""Files that are read back are checked, and names in them stay where they belong."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lesionwise.io.checked import (
    encodable,
    file_named,
    inside,
    parse_checked,
    parse_rows,
    printable,
    read_checked,
    read_rows,
)
from lesionwise.types import InputError

ANYTHING: Any = Any
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no fault."""


@dataclass(frozen=True)
class Part:
    name: str
    sizes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Summary:
    lesions: int
    volume_mm3: float
    parts: dict[str, Part]
    note: str | None = None


class Settings(TypedDict):
    threshold: float
    device: NotRequired[str]


@dataclass(frozen=True)
class Row:
    lesion: int
    volume_mm3: float | None
    state: str = ""


GOOD = {
    "lesions": 3,
    "volume_mm3": 412.5,
    "parts": {"left": {"name": "L", "sizes": [1, 2.5]}},
    "unknown": [1, {"deep": None}],
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False,
        allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


def fault(text: str | bytes, wanted: Any = Summary) -> str:
    with pytest.raises(InputError) as raised:
        parse_checked(text, wanted, "a.json")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_becomes_a_value_of_the_wanted_type_and_unknown_keys_are_passed_over(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD))
    left = Part("L", (1.0, 2.5))
    assert read_checked(path, Summary) == Summary(3, 412.5, {"left": left})


def test_a_typed_dict_and_plain_types_may_be_wanted():
    assert parse_checked('{"threshold": 1, "more": 2}', Settings, "a") == {"threshold": 1.0}
    assert parse_checked("[1, 2.5]", list[float], "a") == [1.0, 2.5]


@patient
@given(json_values)
def test_whatever_json_holds_comes_back_as_it_was(value):
    assert parse_checked(json.dumps(value), ANYTHING, "a.json") == value


def test_a_byte_order_mark_is_passed_over():
    assert parse_checked(b"\xef\xbb\xbf[1]", list[int], "a.json") == [1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"volume_mm3": "1"}, "a.json: volume_mm3: expected number, got text"),
        ({"volume_mm3": True}, "a.json: volume_mm3: expected number, got true or false"),
        ({"lesions": 1.5}, "a.json: lesions: expected whole number, got number"),
        ({"note": 1}, "a.json: note: expected text or null, got whole number"),
        ({"parts": []}, "a.json: parts: expected mapping, got list"),
        ({"parts": {"a": {}}}, "a.json: parts[...]: no name"),
        ({"parts": {"a": {"name": "", "sizes": [0, None]}}},
         "a.json: parts[...].sizes[1]: expected number, got null"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_named_by_its_key(change, said):
    assert fault(json.dumps(GOOD | change)) == said


def test_a_missing_key_is_named():
    without = {key: value for key, value in GOOD.items() if key != "lesions"}
    assert fault(json.dumps(without)) == "a.json: no lesions"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1] 2",
        b"\xff\xfe[\x001\x00]\x00",
        b'["\xff"]',
        b'{"a": "\xed\xa0\x80"}',
        "[NaN]",
        "[Infinity]",
        "[1e400]",
        '["\\ud800"]',
        '["\\udc00"]',
        '["\ud800"]',
        f"[{'9' * 30}]",
        f"[{'9' * 5000}]",
        f"[{'9' * 400}.5]",
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "[" * 101 + "]" * 101,
    ],
    ids=range(19),
)
def test_json_that_is_damaged_deep_or_huge_is_refused_in_one_line(text):
    assert fault(text, ANYTHING).startswith("a.json: ")


def test_brackets_and_digits_inside_text_do_not_count():
    text = json.dumps(["[" * 1000, '\\"' + "[" * 1000, "9" * 40, '"'])
    assert parse_checked(text, ANYTHING, "a") == json.loads(text)
    assert parse_checked("[" * 100 + "]" * 100, ANYTHING, "a")


def test_a_quote_that_is_never_closed_takes_no_longer_than_one_that_is():
    assert fault('"' + '\\"' * 1_000_000, ANYTHING).startswith("a.json: not valid JSON")


@patient
@given(st.binary() | st.text() | json_values.map(json.dumps))
def test_nothing_but_an_input_error_comes_of_garbage(text):
    for wanted in (Summary, Settings, list[float], ANYTHING):
        said = ""
        try:
            parse_checked(text, wanted, "a.json")
        except InputError as error:
            said = str(error)
        assert "\n" not in said


def test_a_file_that_is_missing_a_folder_or_too_large_is_named(tmp_path):
    (tmp_path / "big.json").write_text("[" + "1," * 1000 + "1]")
    for path, said in (
        (tmp_path / "none.json", "cannot be read (No such file"),
        (tmp_path, "not a file"),
        (tmp_path / "big.json", "larger than"),
    ):
        with pytest.raises(InputError) as raised:
            read_checked(path, ANYTHING, max_bytes=100)
        assert str(raised.value).startswith(f"{path}: {said}")


def test_rows_of_a_table_become_values_and_missing_cells_none(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("lesion\tvolume_mm3\tside\n1\t2.5\tleft\n2\tn/a\t\n")
    assert read_rows(path, Row) == [Row(1, 2.5), Row(2, None)]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "not a tab-separated table (it is empty)"),
        ("lesion\n1\n", "no column volume_mm3"),
        ("lesion\tlesion\n", "two columns have the same name"),
        ("lesion\tvolume_mm3\n1\n", "row 1: 1 cells, but there are 2 columns"),
        ("lesion\tvolume_mm3\n1\t1\nx\t1\n", "row 2: lesion: expected whole number, got text"),
        ("lesion\tvolume_mm3\nn/a\t1\n", "row 1: lesion: expected whole number, got null"),
        ("lesion\tvolume_mm3\n1\tnan\n", "row 1: volume_mm3: NaN or infinite"),
        ("lesion\tvolume_mm3\n1\t-inf\n", "row 1: volume_mm3: NaN or infinite"),
        ("lesion\tvolume_mm3\n1\t1e999\n", "row 1: volume_mm3: number out of range"),
    ],
)
def test_a_table_that_does_not_fit_is_named_by_row_and_column(table, said):
    with pytest.raises(InputError) as raised:
        parse_rows(table, Row, "a.tsv")
    assert str(raised.value) == f"a.tsv: {said}"


@patient
@given(st.binary() | st.text() | st.text("lesion\tvolume_mm3\n0123456789.e-nan\"'"))
def test_nothing_but_an_input_error_comes_of_a_garbled_table(text):
    head: str | bytes = "lesion\tvolume_mm3\n"
    for table in (text, (head.encode() if isinstance(text, bytes) else head) + text):
        rows, said = [], ""
        try:
            rows = parse_rows(table, Row, "a.tsv")
        except InputError as error:
            said = str(error)
        assert "\n" not in said
        assert all(math.isfinite(row.volume_mm3 or 0) for row in rows)


def test_a_name_leads_to_a_file_inside_the_folder(tmp_path):
    assert inside(tmp_path, "a/b.png") == tmp_path / "a" / "b.png"
    assert inside(tmp_path, "a..b.png") == tmp_path / "a..b.png"
    assert inside(tmp_path, "Läsion Б.png") == tmp_path / "Läsion Б.png"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../../b", "a/..", "/etc/passwd", "C:/a", "c:a", "a\\..\\b",
     "\\\\host\\a", "a\0b", "a\nb", "\x1b[2J", "\udce9.png"],
)  # fmt: skip
def test_a_name_that_could_leave_the_folder_is_refused_in_one_line(name, tmp_path):
    with pytest.raises(InputError) as raised:
        inside(tmp_path, name)
    assert str(raised.value).startswith(f"{tmp_path}: the name")
    assert str(raised.value).isprintable()


def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "here").symlink_to(folder)
    for name in ("out", "out/x", "loop/x"):
        with pytest.raises(InputError):
            inside(folder, name)
    assert inside(folder, "here/x") == folder / "here/x"


@patient
@given(st.text())
def test_no_name_leads_out_of_the_folder(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    try:
        path = inside(folder, name)
    except InputError:
        return
    assert folder.resolve() in path.resolve().parents


def test_escape_sequences_and_bytes_that_are_no_text_are_shown_as_such():
    assert printable("a\x1b[2J\tb\nc") == "a\\x1b[2J\\tb\\nc"
    assert printable("pati\udce9nt") == "pati\\xe9nt"
    assert printable("\ud800\u202e\u2028\x9b") == "\\ud800\\u202e\\u2028\\x9b"
    assert printable("Läsion Б 病变 é") == "Läsion Б 病变 é"


@patient
@given(st.text(st.characters()))
def test_what_is_printable_can_be_encoded_and_holds_no_control_character(text):
    shown = printable(text)
    shown.encode("utf-8")
    assert not any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 for sign in shown)
    assert printable(shown) == shown


def test_a_file_whose_name_is_no_text_is_found_again_by_what_was_written(tmp_path):
    for name in ("pati\udce9nt.nii", "plain.nii", "back\\xe9slash.nii"):
        path = tmp_path / name
        path.touch()
        assert file_named(encodable(str(path))) == path
    assert file_named("nowhere\\xe9") == Path("nowhere\udce9")
