import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lesionwise.io import files
from lesionwise.io.files import (
    atomic_folder,
    atomic_path,
    check_writable,
    file_system_errors,
    read_json,
    read_table,
    write_json,
    write_table,
    write_text,
)
from lesionwise.types import InputError


def test_atomic_path_leaves_only_the_finished_file(tmp_path):
    with atomic_path(tmp_path / "new" / "a.nii.gz") as temporary:
        temporary.write_bytes(b"1")
        assert temporary.parent == tmp_path / "new"
        assert temporary.name.endswith(".nii.gz")
        assert not (tmp_path / "new" / "a.nii.gz").exists()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.nii.gz"]


def test_atomic_path_keeps_the_old_file_after_an_error(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    def fail():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"a\.txt: cannot be written \(No space left"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_passes_unchanged(tmp_path):
    def fail():
        with atomic_path(tmp_path / "a.txt"):
            Path(tmp_path / "missing").read_text()

    with pytest.raises(FileNotFoundError):
        fail()


def test_write_below_a_file_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_json_holds_null_for_nan_and_plain_numbers(tmp_path):
    @dataclass(frozen=True)
    class Options:
        threshold: float
        folder: Path

    write_json(
        tmp_path / "a.json",
        {
            "nan": float("nan"),
            "infinite": np.float32("inf"),
            "count": np.int64(3),
            "flag": np.bool_(True),
            "array": np.array([1.5, np.nan]),
            "set": {"b", "a"},
            "options": Options(0.5, Path("a/b")),
        },
    )
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "nan": None,
        "infinite": None,
        "count": 3,
        "flag": True,
        "array": [1.5, None],
        "set": ["a", "b"],
        "options": {"threshold": 0.5, "folder": "a/b"},
    }


def test_json_keeps_the_order_of_keys(tmp_path):
    write_json(tmp_path / "a.json", {"z": 1, "a": 2})
    assert list(read_json(tmp_path / "a.json")) == ["z", "a"]


def test_json_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="complex"):
        write_json(tmp_path / "a.json", {"x": 1j})
    assert list(tmp_path.iterdir()) == []


def test_bad_json_is_an_input_error(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "b.json")


def test_table_in_bids_style(tmp_path):
    rows = [
        {"label": 1, "volume_mm3": 0.1 + 0.2, "place": "deep\twhite\nmatter"},
        {"label": np.int32(2), "volume_mm3": np.nan, "ok": np.True_},
    ]
    write_table(tmp_path / "a.tsv", rows)
    assert (tmp_path / "a.tsv").read_text() == (
        "label\tvolume_mm3\tplace\tok\n1\t0.3\tdeep white matter\tn/a\n2\tn/a\tn/a\ttrue\n"
    )


def test_table_from_a_frame_equals_table_from_rows(tmp_path):
    rows = [{"a": 1, "b": 2.5}, {"a": 2, "b": 0.25}]
    write_table(tmp_path / "rows.tsv", rows)
    write_table(tmp_path / "frame.tsv", pd.DataFrame(rows, index=[7, 9]))
    assert (tmp_path / "rows.tsv").read_bytes() == (tmp_path / "frame.tsv").read_bytes()


def test_integers_beside_floats_stay_integers(tmp_path):
    write_table(tmp_path / "a.tsv", pd.DataFrame({"label": [1, 2], "x": [0.5, 1.0]}))
    assert (tmp_path / "a.tsv").read_text().splitlines()[1] == "1\t0.5"


def test_an_empty_table_has_its_header(tmp_path):
    write_table(tmp_path / "a.tsv", [], columns=["label", "x"])
    assert (tmp_path / "a.tsv").read_text() == "label\tx\n"
    assert list(read_table(tmp_path / "a.tsv")) == ["label", "x"]


def test_read_table_keeps_names_as_text(tmp_path):
    write_table(tmp_path / "a.tsv", [{"id": "01", "group": "NA", "x": None}])
    table = read_table(tmp_path / "a.tsv")
    assert table["id"][0] == "01"
    assert table["group"][0] == "NA"
    assert table["x"].isna().all()


def test_read_table_refuses_what_is_no_table(tmp_path):
    (tmp_path / "a.tsv").write_text("")
    with pytest.raises(InputError, match="not a tab-separated table"):
        read_table(tmp_path / "a.tsv")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "b.tsv")


def test_check_writable_leaves_nothing_behind(tmp_path):
    assert check_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert check_writable(tmp_path) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_check_writable_refuses_a_file(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_writable(tmp_path / "a")
    with pytest.raises(InputError, match="a: is a file"):
        check_writable(tmp_path / "a" / "b")


def test_check_writable_names_a_read_only_place(tmp_path, monkeypatch):
    def refuse(self, mode):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(files.Path, "open", refuse)
    for place in (tmp_path, tmp_path / "new"):
        with pytest.raises(InputError, match=f"{place}: .* \\(Read-only file system"):
            check_writable(place)


def test_a_temporary_file_is_there_before_it_is_written_and_its_name_cannot_be_guessed(tmp_path):
    names = []
    for _ in range(2):
        with atomic_path(tmp_path / "a.nii.gz") as temporary:
            assert temporary.read_bytes() == b""
            assert not temporary.is_symlink()
            names.append(temporary.name)
    assert len(set(names)) == 2
    assert all(len(name) > 32 and name.endswith("-a.nii.gz") for name in names)


def test_a_temporary_name_that_is_taken_is_not_written_to(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr("secrets.token_hex", lambda count: "0")
    (tmp_path / ".0-a.txt").symlink_to(victim)
    with pytest.raises(InputError, match=r"a\.txt: cannot be written \(File exists\)"):
        write_text(tmp_path / "a.txt", "theirs")
    assert victim.read_text() == "mine"


def test_a_link_at_the_place_of_a_result_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a.txt").symlink_to(victim)
    write_text(tmp_path / "a.txt", "theirs")
    assert (victim.read_text(), (tmp_path / "a.txt").read_text()) == ("mine", "theirs")


def test_a_long_name_has_room_for_its_temporary_one(tmp_path):
    path = tmp_path / ("a" * 240 + ".txt")
    write_text(path, "x")
    assert path.read_text() == "x"


def test_bytes_of_a_file_name_that_are_no_text_are_written_as_escapes(tmp_path):
    name = "pati\udce9nt"
    write_json(tmp_path / "a.json", {"file": name, name: Path(name)})
    assert read_json(tmp_path / "a.json") == {"file": "pati\\xe9nt", "pati\\xe9nt": "pati\\xe9nt"}
    write_table(tmp_path / "a.tsv", [{"file": name}])
    assert read_table(tmp_path / "a.tsv")["file"][0] == "pati\\xe9nt"


def test_a_row_that_is_longer_than_the_header_is_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\n1\t2\t3\n")
    with pytest.raises(InputError, match="not a tab-separated table"):
        read_table(tmp_path / "a.tsv")


def test_a_folder_appears_whole_and_replaces_what_lay_there(tmp_path):
    place = tmp_path / "new" / "a"
    with atomic_folder(place) as temporary:
        (temporary / "one").write_text("1")
        assert not place.exists()
    with atomic_folder(place) as temporary:
        (temporary / "two").write_text("2")
    assert [path.name for path in place.iterdir()] == ["two"]
    assert [path.name for path in place.parent.iterdir()] == ["a"]


def test_a_folder_that_fails_leaves_the_one_before(tmp_path):
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "one").write_text("1")

    def fail():
        with atomic_folder(tmp_path / "a") as temporary:
            (temporary / "two").write_text("2")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_came_meanwhile_stays_where_it_is_to_be_kept(tmp_path):
    with atomic_folder(tmp_path / "a", keep=lambda there: (there / "done").exists()) as temporary:
        (temporary / "done").write_text("second")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "done").write_text("first")
    assert (tmp_path / "a" / "done").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_link_at_the_place_of_a_folder_is_replaced_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("kept")
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "one").write_text("1")
    assert not (tmp_path / "a").is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["kept"]


def test_a_fault_in_a_folder_names_it_as_it_will_be_called(tmp_path):
    def fail():
        with atomic_folder(tmp_path / "a") as temporary, atomic_path(temporary / "b"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError) as caught:
        fail()
    fault = f"{tmp_path / 'a' / 'b'}: cannot be written (No space left on device)"
    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOSPC, "run: cannot be written (No space left on device)"),
        (errno.EFBIG, "run: cannot be written (File too large)"),
        (errno.EACCES, "run: cannot be read or written (Permission denied)"),
    ],
)
def test_what_the_disk_does_not_take_is_one_line(number, fault):
    with pytest.raises(InputError) as caught, file_system_errors("run"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value) == fault


def test_other_errors_of_the_system_pass_unchanged():
    with pytest.raises(BrokenPipeError), file_system_errors("run"):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def test_check_writable_names_a_file_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").write_text("")
    for place in ("a/b", "a/b/c", "../" + tmp_path.name + "/a/b"):
        with pytest.raises(InputError) as error:
            check_writable(place)
        assert str(error.value).startswith(f"{place.partition('/b')[0]}: is a file")
    assert check_writable("new/folder") == Path("new/folder")
