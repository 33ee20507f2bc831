import os

import pytest

from lesionwise.io.tree import adopted, files_below, files_matching, survey, walk
from lesionwise.types import InputError


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_walk_goes_by_natural_order_and_skips_what_is_hidden_or_foreign(tmp_path):
    touch(
        tmp_path,
        "sub-10/anat/sub-10_FLAIR.nii.gz",
        "sub-2/anat/sub-2_FLAIR.nii",
        "sub-2/anat/.ab12-sub-2_T1w.nii.gz",
        "sub-2/anat/notes.nii.gz",
        "sub-2/anat/sub-2_FLAIR.json",
        "derivatives/x/sub-2/anat/sub-2_mask.nii.gz",
    )
    assert [file.path.name for file in walk(tmp_path)] == ["sub-2_FLAIR.nii", "sub-10_FLAIR.nii.gz"]


@pytest.mark.parametrize(
    "name", ["sub-01/anat/sub-02_FLAIR.nii.gz", "sub-01/ses-1/anat/sub-01_ses-2_FLAIR.nii.gz"]
)
def test_a_file_in_the_wrong_folder_is_named(tmp_path, name):
    touch(tmp_path, name)
    with pytest.raises(InputError, match="name different visits"):
        list(walk(tmp_path))


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("# nothing\n\n", ["1_FLAIR", "1_T1w", "2_FLAIR"]),
        ("*_T1w.nii", ["1_FLAIR", "2_FLAIR"]),
        ("sub-2/", ["1_FLAIR", "1_T1w"]),
        ("sub-1/*/*_FLAIR.nii", ["1_T1w", "2_FLAIR"]),
        ("**/*_FLAIR.nii", ["1_T1w"]),
        ("/anat", ["1_FLAIR", "1_T1w", "2_FLAIR"]),
        ("anat/", []),
        ("sub-?_FLAIR.nii\nsub-1_T1w.nii\n", []),
    ],
)
def test_a_data_set_names_what_is_no_part_of_it(tmp_path, pattern, left):
    for name in ("1_FLAIR", "1_T1w", "2_FLAIR"):
        path = tmp_path / f"sub-{name[0]}" / "anat" / f"sub-{name}.nii"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / ".bidsignore").write_text(pattern)
    assert [f.path.name[4:-4] for f in walk(tmp_path)] == left


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    touch(
        tmp_path,
        "store/ses-2/anat/sub-1_ses-2_FLAIR.nii",
        "data/sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii",
    )
    data = tmp_path / "data"
    (data / "sub-1" / "ses-2").symlink_to(tmp_path / "store" / "ses-2")
    (data / "sub-1" / "ses-1" / "up").symlink_to(data)
    (data / "sub-1" / "ses-1" / "nowhere").symlink_to("gone")
    assert [f.path.name for f in walk(data)] == ["sub-1_ses-1_FLAIR.nii", "sub-1_ses-2_FLAIR.nii"]


def test_misfits_are_told_beside_the_good_files(tmp_path):
    touch(tmp_path, "sub-1/anat/sub-1_FLAIR.nii", "sub-1/anat/sub-2_FLAIR.nii", "sub-1/anat/x.nii")
    files, misfits = survey(tmp_path)
    assert [f.path.name for f in files] == ["sub-1_FLAIR.nii"]
    assert [m.reason.rpartition(": ")[2] for m in misfits] == [
        "the name and the folder name different visits",
        "its name does not follow BIDS",
    ]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("sub-MS_001/anat/sub-MS_001_FLAIR.nii", ("MS+001", "", "FLAIR")),
        ("sub-MS-002/anat/sub-MS-002_FLAIR.nii", ("MS++002", "", "FLAIR")),
        ("sub-1/ses-2020_01/anat/sub-1_ses-2020_01_run-1_FLAIR.nii", ("1", "2020+01", "FLAIR")),
        ("sub-MS_001/anat/sub-MS_002_FLAIR.nii", None),
        ("sub-MS_001/anat/notes.nii", None),
        ("sub-MS_001/anat/sub-MS_001_ses-1_FLAIR.nii", None),
    ],
)
def test_a_label_with_signs_is_read_where_folder_and_file_agree(tmp_path, name, labels):
    touch(tmp_path, name)
    _, (misfit,) = survey(tmp_path)
    file = adopted(misfit)
    stated = file and (file.entities.sub, file.entities.ses, file.entities.suffix)
    assert stated == labels


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        list(files_below(tmp_path))


def test_a_list_of_files_to_ignore_cannot_hang(tmp_path):
    name = "sub-1/anat/sub-1_acq-" + "a" * 200 + "_FLAIR.nii"
    touch(tmp_path, name)
    (tmp_path / ".bidsignore").write_text("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b\n" * 1000)
    assert len(list(walk(tmp_path))) == 1
    (tmp_path / ".bidsignore").write_text("x" * 70_000)
    with pytest.raises(InputError, match="longer than 64 KiB"):
        list(walk(tmp_path))
    (tmp_path / ".bidsignore").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        list(walk(tmp_path))


def test_files_by_a_pattern(tmp_path):
    touch(
        tmp_path, "p1/2020/FLAIR.nii", "p1/2020/T1.nii", "p2/FLAIR.nii", "FLAIR.nii", ".h/FLAIR.nii"
    )
    for pattern, count in (("FLAIR*", 3), ("*/FLAIR*", 1), ("**/FLAIR*", 3), ("p?/**/*.nii", 3)):
        assert len(files_matching(tmp_path, pattern)) == count


def test_a_link_to_a_folder_above_leads_nowhere(tmp_path):
    for name in ("1", "2"):
        scan = tmp_path / "data" / f"sub-{name}" / "anat" / f"sub-{name}_FLAIR.nii"
        scan.parent.mkdir(parents=True)
        scan.touch()
    (tmp_path / "data" / "sub-1" / "up").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "sub-1" / "anat" / "far").symlink_to(tmp_path)
    files, misfits = survey(tmp_path / "data")
    assert [file.path.name for file in files] == ["sub-1_FLAIR.nii", "sub-2_FLAIR.nii"]
    assert misfits == []
