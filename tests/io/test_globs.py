import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.io.globs import glob_matches, ignored_by

signs = st.text("ab*?[]!-", max_size=8)


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_one_part_matches_as_in_a_shell(pattern, name):
    assert glob_matches(pattern, [name]) == fnmatch.fnmatchcase(name, pattern) or not pattern


@given(signs, st.lists(st.text("ab-]", min_size=1, max_size=6), min_size=1, max_size=4))
def test_no_pattern_is_a_fault(pattern, parts):
    assert glob_matches(pattern, parts) in (True, False)
    assert ignored_by([pattern, pattern + "/"], parts) in (True, False)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.nii", "a.nii", True),
        ("*.nii", "a/b.nii", False),
        ("**/*.nii", "a/b/c.nii", True),
        ("**/*.nii", "c.nii", True),
        ("a/**", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "b/c", False),
        ("p[0-9]?.nii", "p1x.nii", True),
        ("p[!0-9].nii", "p1.nii", False),
        ("p[!0-9].nii", "pa.nii", True),
        ("p[", "p[", True),
        ("*a*b*c", "xaxbxc", True),
        ("*a*b*c", "xaxcxb", False),
    ],
)
def test_paths_part_by_part(pattern, path, fits):
    assert glob_matches(pattern, path.split("/")) == fits


def test_a_line_with_a_slash_holds_from_the_root_on():
    assert ignored_by(["anat/x.nii"], ["anat", "x.nii"])
    assert not ignored_by(["anat/x.nii"], ["sub-1", "anat", "x.nii"])
    assert ignored_by(["x.nii"], ["sub-1", "anat", "x.nii"])
    assert ignored_by(["anat/"], ["sub-1", "anat", "x.nii"])
    assert not ignored_by(["x.nii/"], ["sub-1", "anat", "x.nii"])
    assert ignored_by(["sub-*"], ["sub-1", "anat", "x.nii"])


def test_a_pattern_of_many_stars_takes_no_longer_than_its_length_times_the_name():
    assert not glob_matches("*a" * 100 + "b", ["a" * 250])
    assert re.fullmatch("a*", "a" * 250)
