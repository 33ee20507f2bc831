"""A comparison that was interrupted: what was found in each visit is not found again."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from heads import save
from test_compare_folder import quick, visits  # noqa: F401  (fixtures)
from test_segment_folder import find_bright, image

from lesionwise.io.names import Entities
from lesionwise.io.record import STATE
from lesionwise.report.stages import Stage
from lesionwise.results.names import ScanFiles
from lesionwise.run import compare as module
from lesionwise.run.compare import compare
from lesionwise.run.find_lesions import FindOptions
from lesionwise.run.kept import keep, read_kept
from lesionwise.types import Grid, InputError, Study, Visit, Volume


@pytest.fixture
def finder(quick, monkeypatch):  # noqa: F811
    """Sessions whose lesions were found; Ctrl-C comes where one is to be found in ``stops``."""

    class Finder:
        done: tuple[str, ...] = ()
        stops: tuple[str, ...] = ()

        def __call__(self, study, *rest, beside=False):
            session = study.followup.session
            if session in self.stops:
                raise KeyboardInterrupt
            self.done += (session,)
            return find_bright(study, *rest)

    finder = Finder()
    monkeypatch.setattr(module, "find_lesions", finder)
    return finder


def interrupted(finder, scans, out):
    finder.stops = ("2",)
    with pytest.raises(KeyboardInterrupt):
        compare(scans, out)
    finder.done = finder.stops = ()


def written(folder):
    """Images and tables by name."""
    names = ("tracks.tsv", "lesions.tsv", "links.tsv")
    files = [*folder.rglob("*.nii.gz"), *(folder / name for name in names)]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_the_same_call_finds_only_what_is_not_found_yet_and_ends_the_same(
    tmp_path,
    visits,  # noqa: F811
    finder,
):
    interrupted(finder, visits, tmp_path / "a")
    compare(visits, tmp_path / "a")
    assert finder.done == ("2",)
    compare(visits, tmp_path / "b")
    assert written(tmp_path / "a") == written(tmp_path / "b")


def test_nothing_is_kept_once_the_comparison_is_written(tmp_path, visits, finder):  # noqa: F811
    interrupted(finder, visits, tmp_path / "out")
    kept = tmp_path / "out" / STATE / "visits"
    assert [path.name for path in kept.iterdir()] == ["sub-1_ses-1_acq-3D"]
    compare(visits, tmp_path / "out")
    assert not (tmp_path / "out" / STATE).exists()


def test_a_comparison_that_is_refused_leaves_nothing(
    tmp_path,
    visits,  # noqa: F811
    finder,
    monkeypatch,
):
    def refuse(*arguments):
        raise InputError("left and right are exchanged")

    monkeypatch.setattr(module, "alignment_notes", refuse)
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with pytest.raises(InputError, match="exchanged"):
            compare(visits, tmp_path / name)
    assert finder.done == ("1", "2", "1", "2")
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "mine").iterdir()) == []


def test_other_settings_find_the_lesions_again(tmp_path, visits, finder):  # noqa: F811
    interrupted(finder, visits, tmp_path / "out")
    compare(visits, tmp_path / "out", options=FindOptions(instances="cc"))
    assert finder.done == ("1", "2")


def test_another_scan_of_the_name_is_read(tmp_path, visits, finder):  # noqa: F811
    interrupted(finder, visits, tmp_path / "out")
    save(visits[0], image("ab"))
    assert compare(visits, tmp_path / "out").summary["lesions"].tolist() == [2, 2]
    assert finder.done == ("1", "2")


@pytest.mark.parametrize("name", ["arrays.zip", "found.json"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "gone"])
def test_what_is_damaged_is_found_again(tmp_path, visits, finder, name, damage):  # noqa: F811
    interrupted(finder, visits, tmp_path / "out")
    path = tmp_path / "out" / STATE / "visits" / "sub-1_ses-1_acq-3D" / name
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    else:
        path.write_bytes(np.random.default_rng(0).bytes(4000))
    compare(visits, tmp_path / "out")
    assert finder.done == ("1", "2")


@pytest.mark.parametrize("own_brain", [False, True])
def test_all_that_was_found_comes_back_to_the_bit(tmp_path, own_brain):
    rng = np.random.default_rng(0)
    grid = Grid((5, 6, 7), np.diag([1.1, 0.7, 3.3, 1]))
    scan = Volume(rng.random(grid.shape, np.float32), grid)
    visit = Visit({"flair": scan}, session="1")
    found = find_bright(Study("1", (visit,)), None, FindOptions(), print)
    brain = Volume(rng.random(grid.shape) > 0.3, grid)
    slices = (np.full((4, 3), np.nan, np.float32), rng.random((2, 3)).astype(np.float32))
    stages = (
        Stage("as read", slices, None, (0.1, 1 / 3)),
        Stage("ExtractBrain()", slices, (slices[0] > 1, slices[1] > 0.5), (0.0, 1.0)),
    )
    found = replace(
        found,
        visit=replace(visit, brain=brain if own_brain else None),
        brain=brain,
        probability=Volume(rng.random(grid.shape, np.float32), grid),
        threshold=1 / 3,
        prepared_grid=Grid((8, 9, 10), np.linalg.inv(grid.affine) + 1e-17),
        warnings=("a", "b"),
        stages=stages,
        seconds={"network": 1 / 7},
    )
    files, settings = ScanFiles(tmp_path / "out", Entities(sub="1")), {"scan": "0"}
    keep(tmp_path, files, settings, found)
    back = read_kept(tmp_path, files, settings, visit)
    assert back is not None
    for name in ("brain", "probability", "mask"):
        assert np.array_equal(getattr(back, name).array, getattr(found, name).array)
        assert getattr(back, name).array.dtype == getattr(found, name).array.dtype
    assert list(back.instances) == list(found.instances)
    for name, lesions in found.instances.items():
        assert np.array_equal(back.instances[name].labels, lesions.labels)
    assert (back.visit.brain is not None) == own_brain
    assert np.array_equal(back.prepared_grid.affine, found.prepared_grid.affine)
    assert back.prepared_grid.shape == (8, 9, 10)
    same = ("threshold", "warnings", "seconds")
    assert all(getattr(back, name) == getattr(found, name) for name in same)
    assert [stage.webp() for stage in back.stages] == [stage.webp() for stage in stages]
    assert read_kept(tmp_path, files, {"scan": "1"}, visit) is None


def test_arrays_of_another_size_than_stated_are_not_read(tmp_path, visits, finder):  # noqa: F811
    interrupted(finder, visits, tmp_path / "out")
    path = tmp_path / "out" / STATE / "visits" / "sub-1_ses-1_acq-3D" / "found.json"
    about = path.read_text()
    assert '"stages": []' in about
    huge = [sys.maxsize // 10**6, 4]
    stage = f'[{{"step": "x", "shapes": [{huge}, {huge}], "outlined": false, "window": [0, 1]}}]'
    path.write_text(about.replace('"stages": []', f'"stages": {stage}'))
    compare(visits, tmp_path / "out")
    assert finder.done == ("1", "2")
