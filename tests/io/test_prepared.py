"""Prepared studies on disk."""

from dataclasses import replace

import numpy as np
import pytest

from lesionwise.io.prepared import prepared_studies, read_prepared, write_prepared
from lesionwise.types import Grid, InputError, Study, Visit, Volume


def _study(label="instances"):
    rng = np.random.default_rng(0)
    shape = (20, 18, 16)
    grid = Grid(shape, np.diag([1.0, 1.0, 2.0, 1.0]))
    labels = np.zeros(shape, dtype=np.int32)
    labels[4:7, 4:7, 4:7] = 300
    labels[12:15, 4:7, 4:7] = 2
    array = labels > 0 if label == "lesions" else labels
    visit = Visit(
        scans={"flair": Volume(rng.standard_normal(shape).astype(np.float32), grid)},
        labels={label: Volume(array, grid)},
        brain=Volume(np.ones(shape, dtype=bool), grid),
        session="01",
    )
    return Study("a", (visit,))


def test_a_study_comes_back_as_it_was_kept(tmp_path):
    study = _study()
    write_prepared(study, tmp_path / "a")
    read = read_prepared(tmp_path / "a")
    assert read.subject == "a"
    assert read.followup.session == "01"
    volume = study.followup.scans["flair"]
    np.testing.assert_allclose(read.followup.scans["flair"].array, volume.array, atol=2e-3)
    assert read.followup.scans["flair"].grid.matches(volume.grid)
    np.testing.assert_array_equal(
        read.followup.labels["instances"].array, study.followup.labels["instances"].array
    )
    assert read.followup.brain is not None
    assert read.followup.brain.array.dtype == bool


def test_fractions_of_raters_keep_their_values(tmp_path):
    study = _study()
    soft = np.zeros((20, 18, 16), dtype=np.float32)
    soft[3:5] = 0.75
    grid = study.followup.scans["flair"].grid
    visit = Visit(study.followup.scans, {"raters": Volume(soft, grid)})
    write_prepared(Study("a", (visit,)), tmp_path / "a")
    read = read_prepared(tmp_path / "a").followup.labels["raters"].array
    np.testing.assert_array_equal(read, soft)


def test_keeping_a_study_again_replaces_it(tmp_path):
    write_prepared(_study(label="lesions"), tmp_path / "a")
    write_prepared(_study(), tmp_path / "a")
    assert set(read_prepared(tmp_path / "a").followup.labels) == {"instances"}
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_an_incomplete_folder_is_named(tmp_path):
    write_prepared(_study(), tmp_path / "a")
    (tmp_path / "a" / "visit-0_scan-flair.npy").unlink()
    with pytest.raises(InputError, match="not a prepared study"):
        read_prepared(tmp_path / "a")


@pytest.mark.parametrize("name", ["visit-0_scan-flair.npy", "visit-0_brain.npy", "study.json"])
def test_a_file_that_is_cut_off_is_named(tmp_path, name):
    write_prepared(_study(), tmp_path / "a")
    path = tmp_path / "a" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"not a prepared study .*{name}"):
        read_prepared(tmp_path / "a")


@pytest.mark.parametrize("array", ["../elsewhere", "/etc/passwd", "x/../../y"])
def test_arrays_outside_of_the_folder_are_refused(tmp_path, array):
    write_prepared(_study(), tmp_path / "a")
    path = tmp_path / "a" / "study.json"
    path.write_text(path.read_text().replace("label-instances", f"x/{array}"))
    with pytest.raises(InputError, match="not a prepared study"):
        read_prepared(tmp_path / "a")


def test_objects_in_an_array_are_not_read(tmp_path):
    write_prepared(_study(), tmp_path / "a")
    np.save(tmp_path / "a" / "visit-0_brain.npy", np.full((20, 18, 16), {}), allow_pickle=True)
    with pytest.raises(InputError, match=r"visit-0_brain\.npy: no array"):
        read_prepared(tmp_path / "a")


def test_prepared_studies_are_read_one_by_one(tmp_path):
    write_prepared(_study(), tmp_path / "a")
    studies = prepared_studies((tmp_path / "a", tmp_path / "missing"))
    assert studies[0].subject == "a"
    assert len(studies[:1]) == 1
    with pytest.raises(InputError):
        studies[1]


def test_a_folder_of_before_says_as_read_for_the_way_to_native_space(tmp_path):
    study = _study()
    moved = np.diag([1.0, 1.0, 1.0, 1.0])
    moved[:3, 3] = 5.0
    visit = replace(study.followup, to_native=moved)
    write_prepared(Study("a", (visit,)), tmp_path / "a")
    path = tmp_path / "a" / "study.json"
    path.write_text(path.read_text().replace('"to_native"', '"as_read"'))
    np.testing.assert_array_equal(read_prepared(tmp_path / "a").followup.to_native, moved)
