"""A comparison that was interrupted: what was found in each visit is not found again."""

import numpy as np
import pytest
from heads import head, save

from lesionwise.io.record import STATE
from lesionwise.run import compare as module
from lesionwise.run.compare import compare
from lesionwise.run.find_lesions import FindOptions
from lesionwise.types import InputError


@pytest.fixture
def visits(tmp_path):
    before = save(tmp_path / "sub-1_ses-1_FLAIR.nii.gz", head("ab"))
    after = save(tmp_path / "sub-1_ses-2_FLAIR.nii.gz", head("bc", shift=(0, 2, 0)))
    return [before, after]


@pytest.fixture
def finder(monkeypatch):
    """Sessions whose lesions were found; Ctrl-C comes where one is to be found in ``stops``."""

    class Finder:
        done: tuple[str, ...] = ()
        stops: tuple[str, ...] = ()

        def __call__(self, study, *rest, find=module.find_lesions):
            session = study.followup.session
            if session in self.stops:
                raise KeyboardInterrupt
            self.done += (session,)
            return find(study, *rest)

    finder = Finder()
    monkeypatch.setattr(module, "find_lesions", finder)
    return finder


def interrupted(finder, visits, out):
    finder.stops = ("2",)
    with pytest.raises(KeyboardInterrupt):
        compare(visits, out)
    finder.done = finder.stops = ()


def images(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.nii.gz")}


def tables(folder):
    names = ("tracks.tsv", "lesions.tsv", "links.tsv")
    return [(folder / name).read_text() for name in names]


def test_the_same_call_finds_only_what_is_not_found_yet_and_ends_the_same(
    tmp_path, model, visits, finder
):
    interrupted(finder, visits, tmp_path / "a")
    compare(visits, tmp_path / "a")
    assert finder.done == ("2",)
    compare(visits, tmp_path / "b")
    assert images(tmp_path / "a") == images(tmp_path / "b")
    assert tables(tmp_path / "a") == tables(tmp_path / "b")
    pictures = [sorted((tmp_path / name).rglob("*.webp")) for name in "ab"]
    assert len(pictures[0]) > 2
    for one, other in zip(*pictures, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_nothing_is_kept_once_the_comparison_is_written(tmp_path, model, visits, finder):
    interrupted(finder, visits, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out" / STATE / "visits").iterdir()] == ["sub-1_ses-1"]
    compare(visits, tmp_path / "out")
    assert not (tmp_path / "out" / STATE).exists()


def test_a_comparison_that_is_refused_leaves_nothing(tmp_path, model, finder):
    before = save(tmp_path / "sub-1_ses-1_FLAIR.nii.gz", head("ab"))
    after = save(tmp_path / "sub-1_ses-2_FLAIR.nii.gz", head("ab")[::-1].copy())
    with pytest.raises(InputError, match="exchanged"):
        compare([before, after], tmp_path / "out")
    assert finder.done == ("1", "2")
    assert not (tmp_path / "out").exists()
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="exchanged"):
        compare([before, after], tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []


def test_other_settings_find_the_lesions_again(tmp_path, model, visits, finder):
    interrupted(finder, visits, tmp_path / "out")
    compare(visits, tmp_path / "out", options=FindOptions(instances="cc"))
    assert finder.done == ("1", "2")


def test_another_scan_of_the_name_is_read(tmp_path, model, visits, finder):
    interrupted(finder, visits, tmp_path / "out")
    save(visits[0], head("abc"))
    assert compare(visits, tmp_path / "out").summary["lesions"].tolist() == [3, 2]
    assert finder.done == ("1", "2")


@pytest.mark.parametrize("name", ["arrays.zip", "found.json"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
def test_what_is_damaged_is_found_again(tmp_path, model, visits, finder, name, damage):
    interrupted(finder, visits, tmp_path / "out")
    path = tmp_path / "out" / STATE / "visits" / "sub-1_ses-1" / name
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    else:
        path.write_bytes(np.random.default_rng(0).bytes(4000))
    compare(visits, tmp_path / "out")
    assert finder.done == ("1", "2")


def test_a_scan_without_a_skull_is_taken_up_with_its_brain(tmp_path, model, visits, finder):
    bare = FindOptions(extract_brain=False)
    finder.stops = ("2",)
    with pytest.raises(KeyboardInterrupt):
        compare(visits, tmp_path / "a", options=bare)
    finder.done = finder.stops = ()
    compare(visits, tmp_path / "a", options=bare)
    assert finder.done == ("2",)
    compare(visits, tmp_path / "b", options=bare)
    assert images(tmp_path / "a") == images(tmp_path / "b")
    assert tables(tmp_path / "a") == tables(tmp_path / "b")
