import json

import numpy as np
import pytest

import lesionwise.run.simulate as module
from lesionwise.io.bids import read_dataset
from lesionwise.io.files import read_table
from lesionwise.io.nifti import read_grid, write_volume
from lesionwise.results.simulated import record_of
from lesionwise.run.simulate import simulate
from lesionwise.simulate.patient import Patient
from lesionwise.types import Grid, InputError, Study, Visit, Volume

EYE = np.eye(4)


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


def test_the_table_of_participants_has_the_patients_of_all_calls(tmp_path, made):
    simulate(tmp_path, patients=3, visits=2, style="randomized")
    simulate(tmp_path, patients=1, visits=2, style="randomized")
    table = read_table(tmp_path / "participants.tsv")
    assert table["participant_id"].tolist() == ["sub-sim0001", "sub-sim0002", "sub-sim0003"]
    assert table["style"].tolist() == ["randomized"] * 3
    assert table["visits"].tolist() == ["2"] * 3
    assert len(read_dataset(tmp_path).participants()) == len(list(tmp_path.glob("sub-*")))


@pytest.mark.parametrize(
    ("other", "named"),
    [({"visits": 1}, "visits 2, now it is 1"), ({"seed": 7}, "seed"), ({"caps": True}, "caps")],
)
def test_a_patient_is_not_mixed_with_one_of_other_settings(tmp_path, made, other, named):
    simulate(tmp_path, patients=2, visits=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"sub-sim0001: was begun with {named}"):
        simulate(tmp_path, **{"patients": 1, "visits": 2, **other})
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"lesion_load": float("inf")},
        {"lesion_change": float("nan")},
        {"spacing_mm": (0.0, 5.0, 5.0)},
        {"spacing_mm": (1.0, 1.0, float("nan"))},
        {"spacing_mm": (200.0, 200.0, 200.0)},
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, made, wrong):
    with pytest.raises(InputError, match="must be"):
        simulate(tmp_path / "out", patients=1, visits=1, **wrong)
    assert not list(tmp_path.rglob("*.json"))


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


@pytest.fixture
def tissue_maps(tmp_path, monkeypatch):
    """A folder of three tissue maps of a few voxels, which are read but not registered."""
    folder = tmp_path / "maps"
    folder.mkdir()
    (folder / "dseg.tsv").write_text("index\tname\n1\tGM\n2\tWM\n")
    labels = np.ones((2, 2, 2), dtype=np.uint8)
    labels[1] = 2
    for subject in ("a", "b", "c"):
        write_volume(folder / f"sub-{subject}_dseg.nii.gz", Volume(labels, Grid((2, 2, 2), EYE)))
    monkeypatch.setattr(module, "read_aligned_map", lambda path: path.name)
    return folder


def test_patients_take_the_tissue_maps_in_turn_from_one_that_the_seed_decides(
    tmp_path, made, tissue_maps
):
    def used(seed, **settings):
        out = tmp_path / f"{seed}{len(settings)}"
        simulate(out, 3, 1, seed, tissue_maps=tissue_maps, **settings)
        records = [json.loads(record_of(out, f"sim000{n}").read_text()) for n in (1, 2, 3)]
        table = read_table(out / "participants.tsv")
        assert list(table["anatomy_from"]) == [record["tissue_map"] for record in records]
        return "".join(record["tissue_map"][4] for record in records)

    assert used(0) == "abc"
    assert used(1) == "bca"
    assert used(0, exclude_tissue_maps=("b",)) == "aca"


def test_maps_of_an_earlier_call_stay_in_the_table_and_in_the_license(tmp_path, made, tissue_maps):
    out = tmp_path / "out"
    simulate(out, 2, 1, tissue_maps=tissue_maps)
    description = (out / "dataset_description.json").read_text()
    simulate(out, 1, 1, tissue_maps=tissue_maps)
    assert read_table(out / "participants.tsv")["anatomy_from"].tolist() == [
        "sub-a_dseg.nii.gz", "sub-b_dseg.nii.gz",
    ]  # fmt: skip
    assert (out / "dataset_description.json").read_text() == description


def test_without_tissue_maps_a_patient_is_recorded_as_ever(tmp_path, made):
    simulate(tmp_path / "sim", 1, 1)
    assert "tissue_map" not in json.loads(record_of(tmp_path / "sim", "sim0001").read_text())
    assert "anatomy_from" not in read_table(tmp_path / "sim" / "participants.tsv")


def test_caps_are_asked_for_recorded_and_absent_otherwise(tmp_path, made, monkeypatch):
    asked, tiny = [], module.simulate_patient

    def noted(*args, with_caps, **settings):
        asked.append(with_caps)
        return tiny(*args, **settings)

    monkeypatch.setattr(module, "simulate_patient", noted)
    for number, caps in enumerate((True, False)):
        simulate(tmp_path / f"{number}", 1, 1, caps=caps)
    assert asked == [True, False]
    records = [
        json.loads(record_of(tmp_path / f"{number}", "sim0001").read_text()) for number in (0, 1)
    ]
    assert records[0]["caps"] is True
    assert "caps" not in records[1]  # as patients without them were recorded before


def test_a_tissue_map_that_cannot_be_used_is_told_before_anything_is_written(
    tmp_path, made, tissue_maps
):
    (tissue_maps / "dseg.tsv").write_text("index\tname\n1\tGM\n2\tGM\n")
    with pytest.raises(InputError, match=r"sub-a_dseg.nii.gz: no white matter"):
        simulate(tmp_path / "sim", 2, 1, tissue_maps=tissue_maps)
    assert not (tmp_path / "sim" / "participants.tsv").exists()


def test_a_folder_without_tissue_maps_is_told_in_one_line(tmp_path, call):
    (tmp_path / "empty").mkdir()
    status, _, told = call("simulate", "-o", tmp_path / "sim", "--tissue-maps", tmp_path / "empty")
    assert status == 2
    assert told.strip().endswith("no tissue maps (*_dseg.nii.gz) in it")
    assert len(told.strip().splitlines()) == 1
