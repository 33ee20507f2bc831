import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionwise.io.labels import label_text, stem, unique_labels
from lesionwise.io.names import Entities, parse_name

LABEL = re.compile(r"[A-Za-z0-9+]+")
names = st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)


@given(st.sets(names | st.text("ab12_-.+ ", min_size=1), min_size=2, max_size=20))
def test_texts_that_differ_get_labels_that_differ(texts):
    import unicodedata

    labels = {label_text(text) for text in texts}
    assert len(labels) == len({unicodedata.normalize("NFC", text) for text in texts})
    assert all(LABEL.fullmatch(label) for label in labels)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("P11", "P11"),
        ("P1_1", "P1+1"),
        ("P1-1", "P1++1"),
        ("patient_03-FLAIR", "patient+03++FLAIR"),
    ],
)
def test_separators_stay_apart(text, label):
    assert label_text(text) == label


def test_names_in_other_scripts_are_told_apart():
    labels = [label_text(text) for text in ("病人一", "病人二", "Иванов", "Петров", "—")]
    assert len(set(labels)) == 5
    assert all(label.startswith("x+") for label in labels)
    assert label_text("Läsion").startswith("Lasion+")


def test_composed_and_decomposed_accents_are_one_name():
    assert label_text("Lä") == label_text("La\u0308")


def test_a_long_name_gives_a_label_that_fits_into_a_file_name():
    one, two = label_text("a" * 200), label_text("a" * 201)
    assert one != two
    assert len(one) < 100


@given(st.lists(st.tuples(names, names), min_size=1, max_size=8, unique=True))
def test_files_that_differ_never_share_a_label(places):
    paths = [f"/data/{folder}/{name}" for folder, name in places]
    labels = unique_labels(paths)
    assert len(set(labels)) == len(paths)
    for label in labels:
        entities = Entities(sub=label, suffix="mask", extension=".nii.gz")
        assert parse_name(entities.name) == entities


def test_a_file_keeps_its_label_whichever_others_are_named():
    paths = [f"/data/{name}/FLAIR.nii.gz" for name in ("anna", "bert", "cara")]
    labels = unique_labels(paths)
    assert labels == ["anna+FLAIR", "bert+FLAIR", "cara+FLAIR"]
    assert unique_labels(paths[1:]) == labels[1:]
    assert unique_labels(paths[2:]) == labels[2:]


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/d/pat01/2020/FLAIR.nii.gz", "pat01+2020+FLAIR"),
        ("/d/pat01/ses-2/anat/t2_flair.nii", "pat01+ses++2+anat+t2+flair"),
        ("/d/pat01/visit1/3D_FLAIR.nii", "pat01+visit1+3D+FLAIR"),
        ("/d/pat01/P1_T1_FLAIR.nii", "P1+T1+FLAIR"),
        ("/d/pat01/scan1.nii", "scan1"),
        ("/d/pat01/noise.nii.gz", "noise"),
        ("/FLAIR.nii", "FLAIR"),
    ],
)
def test_folders_stand_in_front_of_a_name_that_says_little(path, label):
    assert unique_labels([path]) == [label]


def test_equal_names_in_several_folders_are_told_apart_by_the_folder():
    assert unique_labels(["/d/a/s1.nii", "/d/b/s1.nii"]) == ["s1+a", "s1+b"]
    assert unique_labels(["/a/x/s1.nii", "/b/x/s1.nii"]) == ["s1+a", "s1+b"]
    assert len(set(unique_labels(["/a/s1.nii", "/a/s1.nii.gz", "/b/s1.nii"]))) == 3


def test_a_path_given_twice_has_one_label():
    one, two, other = unique_labels(["/a/s1.nii", "/a/../a/s1.nii", "/b/s1.nii"])
    assert one == two != other


def test_the_stem_of_a_name():
    from pathlib import Path

    for name, stated in (
        ("a.nii.gz", "a"),
        ("a.NII", "a"),
        ("1.2.840", "1.2.840"),
        (".nii", ".nii"),
    ):
        assert stem(Path(name)) == stated
