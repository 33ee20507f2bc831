import json

import numpy as np
import pytest

import lesionwise.run.simulate as module
from lesionwise.io.bids import read_dataset
from lesionwise.io.files import read_table
from lesionwise.io.nifti import read_grid
from lesionwise.results.simulated import record_of
from lesionwise.run.simulate import simulate
from lesionwise.simulate.patient import Patient
from lesionwise.types import Grid, InputError, Study, Visit, Volume


@pytest.fixture
def made(monkeypatch):
    """Patients of a few voxels in place of simulated ones; lists the seeds that were asked for."""
    seeds = []

    def tiny(seed, visits, *, subject, **settings):
        seeds.append(seed)
        grid = Grid((4, 5, 6), np.diag([2.0, 2.0, 3.0, 1.0]))
        labels = np.zeros(grid.shape, dtype=np.int32)
        labels[1, 1, 1:3] = 300  # more than a byte holds
        labels[1, 2, 1] = 2
        image = np.arange(120, dtype=np.uint16).reshape(grid.shape) + seed % 7

        def volume(array):
            return Volume(array, grid)

        visit = [
            Visit(
                scans={"flair": volume(image)},
                labels={
                    "lesions": volume((labels > 0).astype(np.uint8)),
                    "instances": volume(labels),
                    "tissue": volume(np.full(grid.shape, 3, dtype=np.uint8)),
                },
                brain=volume(np.ones(grid.shape, dtype=bool)),
                session=f"{number + 1:02d}",
            )
            for number in range(visits)
        ]
        rows = tuple(
            {
                "index": label, "name": f"lesion-{label}", "volume_mm3": 12.0,
                "location": "periventricular", "confluent_group": 1, "units_in_group": 2,
                "change": "",
            }
            for label in (2, 300)
        )  # fmt: skip
        changes = {"new": volume((labels == 2).astype(np.uint8))} if visits > 1 else {}
        study = Study(subject, tuple(visit), changes)
        return Patient(study, (rows,) * visits, ((), (9,))[:visits])

    monkeypatch.setattr(module, "simulate_patient", tiny)
    return seeds


def test_what_is_written_is_read_back_as_studies(tmp_path, made):
    simulate(tmp_path / "out", patients=2, visits=2)
    studies = read_dataset(tmp_path / "out")
    assert list(studies.subjects) == ["sim0001", "sim0002"]
    for study in studies:
        assert len(study.visits) == 2
        assert set(np.unique(study.followup.labels["instances"].array)) == {0, 2, 300}
        assert study.followup.labels["instances"].array[1, 1, 1] == 300
        assert study.changes["new"].array.sum() == 1
        assert study.baseline.brain is not None


def test_half_the_files_lie_as_scanners_write_them(tmp_path, made):
    simulate(tmp_path, patients=2, visits=1)
    signs = set()
    for scan in tmp_path.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz"):
        signs.add(tuple(np.sign(np.diag(read_grid(scan).affine)[:3])))
    assert signs == {(1, 1, 1), (-1, -1, 1)}


def test_the_table_names_every_lesion(tmp_path, made):
    simulate(tmp_path, patients=1, visits=1)
    table = read_table(next(tmp_path.rglob("*seg-truth_dseg.tsv")))
    assert list(table["index"]) == ["2", "300"]
    assert list(table["location"]) == ["periventricular"] * 2


def test_finished_patients_are_not_made_again(tmp_path, made):
    simulate(tmp_path, patients=1, visits=1)
    simulate(tmp_path, patients=3, visits=1)
    assert made == [1, 2, 3]


def test_other_settings_make_a_patient_again(tmp_path, made):
    simulate(tmp_path, patients=1, visits=1)
    simulate(tmp_path, patients=1, visits=1, style="randomized")
    assert made == [1, 1]


def test_seeds_of_two_data_sets_do_not_meet(tmp_path, made):
    simulate(tmp_path / "a", patients=2, visits=1, seed=0)
    simulate(tmp_path / "b", patients=2, visits=1, seed=1)
    assert len(set(made)) == 4


def test_another_data_set_is_not_overwritten(tmp_path, made):
    (tmp_path / "dataset_description.json").write_text('{"Name": "somebody\'s scans"}')
    with pytest.raises(InputError, match="another data set"):
        simulate(tmp_path, patients=1, visits=1)


def test_no_patients_is_an_error(tmp_path):
    with pytest.raises(InputError, match="at least one patient"):
        simulate(tmp_path, patients=0)


def test_progress_is_told(tmp_path, made):
    told = []
    simulate(tmp_path, patients=2, visits=1, progress=lambda *step: told.append(step))
    assert told == [("simulate", 0, 2), ("simulate", 1, 2), ("simulate", 2, 2)]


def test_raters_draw_the_new_lesions_of_the_last_visit(tmp_path, made):
    simulate(tmp_path / "sim", 1, 2, raters=4)
    (study,) = read_dataset(tmp_path / "sim")
    drawn = {name for name in study.changes if "rater" in name}
    assert drawn == {f"new-rater-{n}" for n in range(1, 5)}
    for name in drawn:
        assert study.changes[name].grid.matches(study.changes["new"].grid)


def test_without_raters_a_patient_is_the_same_as_ever(tmp_path, made):
    simulate(tmp_path / "sim", 1, 2)
    assert "raters" not in json.loads(record_of(tmp_path / "sim", "sim0001").read_text())
