"""From files to numbers: what is read, resolved, refused and written."""

import json
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from lesionwise.instances.components import connected_components
from lesionwise.io.nifti import read_labels
from lesionwise.metrics.case import KEYS, Options, evaluate_case
from lesionwise.report.evaluation_tables import as_json
from lesionwise.run.evaluate import SliceOptions, evaluate, evaluate_again
from lesionwise.types import Grid, InputError, Instances

SPACING = np.diag([1.0, 1.0, 2.0, 1.0])


def save(path, labels, affine=SPACING, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(labels).astype(dtype), affine), path)
    return path


def lesions(seed=0, count=4, shape=(24, 20, 12)):
    """Cubes of different size, labelled 1 … count, on a coarse lattice so that none touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.int32)
    places = rng.permutation([(i, j, k) for i in (1, 9, 17) for j in (1, 11) for k in (1, 7)])
    for label, (i, j, k) in enumerate(places[:count], start=1):
        size = rng.integers(2, 5)
        labels[i : i + size, j : j + size, k : k + 3] = label
    return labels


def make_folders(root):
    """Four cases; methods "good" (one voxel off) and "poor" (half the lesions)."""
    for seed in range(4):
        truth = lesions(seed)
        save(root / "ref" / f"sub-{seed}_dseg.nii.gz", truth)
        save(root / "good" / f"sub-{seed}_dseg.nii.gz", np.roll(truth, 1, axis=0))
        save(root / "poor" / f"sub-{seed}_dseg.nii.gz", np.where(truth > 2, 0, truth))
    return root


@pytest.fixture
def folders(tmp_path):
    return make_folders(tmp_path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Both methods with everything that can be asked for; root, result, metrics.json."""
    root = make_folders(tmp_path_factory.mktemp("compared"))
    predictions = [root / "good", root / "poor"]
    done = evaluate(root / "ref", predictions, root / "out", slices=SliceOptions(), workers=1)
    return root, done, json.loads((root / "out" / "metrics.json").read_text())


def test_two_files_give_what_the_arrays_give(tmp_path):
    truth, found = lesions(0), np.roll(lesions(0), 1, axis=1)
    result = evaluate(
        save(tmp_path / "a_dseg.nii.gz", truth), save(tmp_path / "b_dseg.nii.gz", found)
    )
    grid = Grid(truth.shape, SPACING)
    expected = evaluate_case(Instances(truth, grid), Instances(found.astype(np.int32), grid))
    assert result.cases[0].result.lesions == expected.lesions
    assert all(result.cases[0].value(key) == dict(expected.values)[key] for key in KEYS)


def test_a_real_case_through_files_gives_what_the_arrays_give(shared):
    case = shared("oracle/cases/c10_confluent_resplit")
    reference, prediction = case / "ref_instances.nii.gz", case / "pred_instances.nii.gz"
    truth, found = read_labels(reference), read_labels(prediction)
    expected = evaluate_case(Instances(truth.array, truth.grid), Instances(found.array, found.grid))
    scored = evaluate(reference, prediction).cases[0]
    assert {key: scored.value(key) for key in KEYS} == dict(expected.values)
    assert scored.value("lesion_tp") > 0


def test_metrics_json_holds_every_key_flat_for_each_case(compared):
    written = compared[2]
    cases = [f"sub-{number}" for number in range(4) for _ in ("good", "poor")]
    assert [case["case"] for case in written["cases"]] == cases
    for case in written["cases"]:
        assert set(KEYS) <= set(case)
        assert set(case["undefined"]) == {key for key in KEYS if case[key] is None}
    assert written["options"]["connectivity"] == 26
    assert written["options"]["matching"] == "greedy"


def test_cohort_holds_the_statistics_of_each_metric(compared):
    written = compared[2]
    dsc = [case["dsc"] for case in written["cases"] if case["method"] == "good"]
    row = written["methods"]["good"]["cohort"]["dsc"]
    assert row["mean"] == pytest.approx(np.mean(dsc))
    assert row["sd"] == pytest.approx(np.std(dsc, ddof=1))
    assert (row["q1"], row["median"], row["q3"]) == pytest.approx(np.percentile(dsc, [25, 50, 75]))
    assert row["mean_ci95_low"] <= row["mean"] <= row["mean_ci95_high"]
    assert (row["n"], row["undefined"]) == (4, 0)


def test_two_files_stand_at_the_top_level_too(tmp_path):
    path = save(tmp_path / "a_dseg.nii.gz", lesions())
    evaluate(path, path, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["dsc"] == written["cases"][0]["dsc"] == 1.0


def test_tables_and_page_are_written(compared):
    root, done, _ = compared
    out = root / "out"
    assert {path.name for path in out.iterdir()} == {
        "evaluate.json",
        "metrics.json",
        "cases.tsv",
        "lesions.tsv",
        "relations.tsv",
        "comparison.tsv",
        "slices.tsv",
        "slice_scores.tsv",
        "evaluation.html",
        "methods.txt",
        "cases.json",
    }
    assert done.page == out / "evaluation.html"
    assert len(pd.read_csv(out / "cases.tsv", sep="\t")) == 8
    assert len(pd.read_csv(out / "lesions.tsv", sep="\t")) == 4 * (4 + 4) + 4 * (4 + 2)
    assert len(pd.read_csv(out / "slices.tsv", sep="\t")) == 2 * 4 * 12


def test_an_evaluation_is_written_again_from_what_it_asked_for(folders, tmp_path):
    methods = [folders / "good", folders / "poor"]
    options = Options(min_volume_mm3=2.0, empty="undefined")
    slices = SliceOptions(plane="coronal")
    out = tmp_path / "out"
    first = evaluate(
        folders / "ref", methods, out, options=options, slices=slices, names=["A", "B"], workers=1
    )
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    for path in out.iterdir():
        if path.name != "evaluate.json":
            path.unlink()
    again = evaluate_again(out)
    assert again.page == first.page
    assert {path.name: path.read_bytes() for path in out.iterdir()} == files


def test_one_method_has_its_cohort_at_the_top_and_under_its_name(folders):
    done = evaluate(folders / "ref", folders / "good", workers=1)
    written = as_json(done)
    assert written["cohort"] == written["methods"]["good"]["cohort"]
    assert "cohort" not in as_json(
        evaluate(folders / "ref", [folders / "good", folders / "poor"], workers=1)
    )


def test_methods_are_compared_on_shared_cases(folders):
    (folders / "poor" / "sub-3_dseg.nii.gz").unlink()
    done = evaluate(folders / "ref", [folders / "good", folders / "poor"], workers=1)
    (pair,) = done.comparisons["lesion_recall"]
    assert (pair.first, pair.second, pair.n) == ("good", "poor", 3)
    assert pair.difference == pytest.approx(0.5)
    assert len(done.of("good")) == 4


def test_workers_change_nothing(folders):
    alone = evaluate(folders / "ref", folders / "good", workers=1)
    shared_out = evaluate(folders / "ref", folders / "good", workers=2)
    assert [case.flat() for case in alone.cases] == [case.flat() for case in shared_out.cases]


def test_progress_counts_the_cases(folders):
    told = []
    evaluate(folders / "ref", folders / "good", workers=1, progress=lambda *step: told.append(step))
    assert told == [("scoring", done, 4) for done in range(5)]


def test_evaluation_never_loads_torch(folders):
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lesionwise.run.evaluate import evaluate\n"
        f"root = Path({str(folders)!r})\n"
        "evaluate(root / 'ref', root / 'good', root / 'out', workers=1)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_mask_becomes_components_and_an_instance_map_does_not(tmp_path):
    touching = np.zeros((8, 8, 8), dtype=np.int32)
    touching[2:4, 2:4, 2:4], touching[4:6, 2:4, 2:4] = 1, 2
    maps = save(tmp_path / "a.nii.gz", touching)
    mask = save(tmp_path / "a_mask.nii.gz", touching)
    done = evaluate(maps, mask).cases[0]
    assert (done.reference_kind, done.reference_count) == ("instances", 2)
    assert (done.prediction_kind, done.prediction_count) == ("mask", 1)


def test_one_label_in_two_places_is_a_mask_unless_its_name_or_the_caller_says_otherwise(tmp_path):
    labels = np.zeros((9, 9, 9), dtype=np.int32)
    labels[1, 1, 1], labels[7, 7, 7] = 1, 1
    plain = save(tmp_path / "x.nii.gz", labels)
    named = save(tmp_path / "x_dseg.nii.gz", labels)
    assert evaluate(plain, named).cases[0].reference_count == 2
    assert evaluate(plain, named).cases[0].prediction_count == 1
    assert evaluate(plain, named, kind="instances").cases[0].reference_count == 1
    assert evaluate(plain, named, kind="mask").cases[0].prediction_count == 2


def test_connectivity_is_used_on_masks(tmp_path):
    diagonal = np.zeros((6, 6, 6), dtype=np.int32)
    diagonal[1, 1, 1], diagonal[2, 2, 2] = 1, 1
    path = save(tmp_path / "x_mask.nii.gz", diagonal)
    assert evaluate(path, path).cases[0].reference_count == 1
    assert evaluate(path, path, options=Options(connectivity=6)).cases[0].reference_count == 2


def test_grids_that_differ_by_rounding_are_accepted_and_said_so(tmp_path):
    off = SPACING.copy()
    off[0, 3] += 1e-4
    a = save(tmp_path / "a_dseg.nii.gz", lesions())
    b = save(tmp_path / "b_dseg.nii.gz", lesions(), off)
    done = evaluate(a, b)
    assert done.cases[0].value("dsc") == 1.0
    assert any("rounding" in note for note in done.notes)


def test_the_same_voxels_in_another_axis_order_are_resolved_and_said_so(tmp_path):
    truth = lesions()
    a = save(tmp_path / "a_dseg.nii.gz", truth)
    image = nib.Nifti1Image(truth.astype(np.uint8), SPACING)
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("P", "I", "R")))
    nib.save(turned, tmp_path / "b_dseg.nii.gz")
    done = evaluate(a, tmp_path / "b_dseg.nii.gz")
    assert done.cases[0].value("dsc") == 1.0
    assert done.cases[0].value("lesion_tp") == 4
    assert any("axes" in note for note in done.notes)


@pytest.mark.parametrize(
    ("labels", "affine", "fault"),
    [
        (np.zeros((24, 20, 11)), SPACING, "shapes differ"),
        (np.zeros((24, 20, 12)), np.diag([1.0, 1.0, 3.0, 1.0]), "spacings differ"),
        (np.zeros((24, 20, 12)), SPACING + np.eye(4, k=3) * 5, "mm apart"),
    ],
)
def test_another_space_is_refused_in_one_line_that_names_the_files(tmp_path, labels, affine, fault):
    a = save(tmp_path / "a_dseg.nii.gz", lesions())
    b = save(tmp_path / "b_dseg.nii.gz", labels, affine)
    with pytest.raises(InputError, match=fault) as error:
        evaluate(a, b)
    assert "b_dseg.nii.gz" in str(error.value)
    assert "\n" not in str(error.value)


def test_whole_floats_are_labels_and_said_so(tmp_path):
    a = save(tmp_path / "a_dseg.nii.gz", lesions())
    b = save(tmp_path / "b_dseg.nii.gz", lesions(), dtype=np.float32)
    done = evaluate(a, b)
    assert done.cases[0].value("lesion_tp") == 4
    assert any("floating point" in note for note in done.notes)


@pytest.mark.parametrize(
    ("labels", "dtype", "fault"),
    [
        (lesions() * 0.4, np.float32, "fractions"),
        (-lesions(), np.int16, "negative labels"),
    ],
)
def test_fractions_and_negative_labels_are_refused(tmp_path, labels, dtype, fault):
    a = save(tmp_path / "a_dseg.nii.gz", lesions())
    with pytest.raises(InputError, match=fault):
        evaluate(a, save(tmp_path / "b_dseg.nii.gz", labels, dtype=dtype))


def test_labels_above_16_bits_are_kept(tmp_path):
    truth = lesions()
    a = save(tmp_path / "a_dseg.nii.gz", truth)
    b = save(tmp_path / "b_dseg.nii.gz", np.where(truth, truth + 70000, 0), dtype=np.int32)
    done = evaluate(a, b)
    assert done.cases[0].value("lesion_f1") == 1.0
    assert any("70004" in note for note in done.notes)


def test_an_empty_map_is_valid_and_said_so(tmp_path):
    empty = save(tmp_path / "a_mask.nii.gz", np.zeros((24, 20, 12)))
    found = save(tmp_path / "b_mask.nii.gz", lesions())
    done = evaluate(empty, found, tmp_path / "out")
    assert done.cases[0].value("false_lesion_count") == 4
    assert done.cases[0].value("hd95_mm") is None
    assert any("label 0 only" in note for note in done.notes)


def test_one_bad_case_does_not_stop_the_others(folders):
    (folders / "good" / "sub-1_dseg.nii.gz").write_bytes(b"not an image")
    (folders / "good" / "sub-2_dseg.nii.gz").unlink()
    out = folders / "out"
    done = evaluate(folders / "ref", folders / "good", out, workers=1)
    assert [case.case for case in done.cases] == ["sub-0", "sub-3"]
    assert sorted(done.failures) == ["sub-1", "sub-2"]
    assert all("\n" not in fault for fault in done.failures.values())
    table = pd.read_csv(out / "failures.tsv", sep="\t")
    assert sorted(table["name"]) == ["sub-1", "sub-2"]


def test_tables_of_an_earlier_run_do_not_stay(folders):
    out = folders / "out"
    bad = folders / "good" / "sub-1_dseg.nii.gz"
    kept = bad.read_bytes()
    bad.write_bytes(b"not an image")
    evaluate(folders / "ref", folders / "good", out, workers=1)
    assert (out / "failures.tsv").exists()
    bad.write_bytes(kept)
    evaluate(folders / "ref", folders / "good", out, workers=1)
    assert not (out / "failures.tsv").exists()


def test_same_input_and_seed_give_the_same_bytes(compared):
    root, _, _ = compared
    predictions = [root / "good", root / "poor"]
    evaluate(root / "ref", predictions, root / "again", slices=SliceOptions(), workers=1)
    for path in (root / "out").iterdir():
        assert path.read_bytes() == (root / "again" / path.name).read_bytes(), path.name


def test_a_folder_without_any_scorable_case_is_refused(folders):
    for path in (folders / "good").iterdir():
        path.write_bytes(b"not an image")
    with pytest.raises(InputError, match="sub-0"):
        evaluate(folders / "ref", folders / "good", workers=1)


def test_an_output_that_is_a_file_is_refused_before_any_work(folders):
    taken = folders / "taken"
    taken.touch()
    with pytest.raises(InputError, match="is a file"):
        evaluate(folders / "ref", folders / "good", taken)


def test_several_raters_give_a_consensus_and_their_agreement(tmp_path):
    truth = lesions() > 0
    for number in range(3):
        mask = truth.copy()
        mask[:, :, number] = False
        save(tmp_path / f"rater{number}" / "sub-1_mask.nii.gz", mask)
    save(tmp_path / "pred" / "sub-1_mask.nii.gz", truth)
    raters = [tmp_path / f"rater{number}" for number in range(3)]
    done = evaluate(raters, tmp_path / "pred", tmp_path / "out")
    assert done.cases[0].value("dsc") == 1.0
    assert done.cases[0].reference_kind == "majority of 3 raters"
    pairs = [(row["first"], row["second"]) for row in done.raters]
    assert pairs == [
        ("rater0", "rater1"),
        ("rater0", "rater2"),
        ("rater0", "consensus"),
        ("rater0", "pred"),
        ("rater1", "rater2"),
        ("rater1", "consensus"),
        ("rater1", "pred"),
        ("rater2", "consensus"),
        ("rater2", "pred"),
    ]
    written = tmp_path / "out" / "consensus" / "sub-1_desc-majority_label-L_mask.nii.gz"
    assert np.array_equal(np.asarray(nib.load(written).dataobj) > 0, truth)
    assert (tmp_path / "out" / "raters.tsv").exists()


def test_a_case_that_a_rater_lacks_is_listed(tmp_path):
    for folder in ("r1", "r2", "pred"):
        for case in ("a", "b"):
            save(tmp_path / folder / f"{case}_mask.nii.gz", lesions())
    (tmp_path / "r2" / "b_mask.nii.gz").unlink()
    done = evaluate([tmp_path / "r1", tmp_path / "r2"], tmp_path / "pred", workers=1)
    assert [case.case for case in done.cases] == ["a"]
    assert "b" in done.failures


def test_notes_of_one_sort_are_gathered(tmp_path):
    for number in range(4):
        save(tmp_path / "ref" / f"c{number}_mask.nii.gz", np.zeros((4, 4, 4)))
        save(tmp_path / "pred" / f"c{number}_mask.nii.gz", np.ones((4, 4, 4)))
    (note,) = evaluate(tmp_path / "ref", tmp_path / "pred", workers=1).notes
    assert note.startswith("c0: c0_mask.nii.gz: holds label 0 only")
    assert note.endswith("(and 3 more files alike)")


def test_two_empty_files_are_one_case_with_a_page(tmp_path):
    path = save(tmp_path / "x_mask.nii.gz", np.zeros((4, 4, 4)))
    done = evaluate(path, path, tmp_path / "out")
    assert done.cases[0].value("dsc") == 1.0
    assert done.cases[0].value("false_lesion_count") == 0


def test_a_reason_stands_beside_what_is_undefined(tmp_path):
    empty = save(tmp_path / "a_mask.nii.gz", np.zeros((24, 20, 12)))
    found = save(tmp_path / "b_mask.nii.gz", lesions())
    (table,) = evaluate(empty, found).tables().values()
    row = table[table["key"] == "hd95_mm"].iloc[0]
    assert row["value"] is None
    assert row["undefined because"]


def test_an_unknown_connectivity_is_refused(tmp_path):
    path = save(tmp_path / "x_mask.nii.gz", np.zeros((4, 4, 4)))
    with pytest.raises(InputError, match="connectivity"):
        evaluate(path, path, options=Options(connectivity=8))


def test_components_follow_the_project_default(tmp_path):
    mask = np.random.default_rng(0).random((12, 12, 12)) > 0.85
    path = save(tmp_path / "x_mask.nii.gz", mask)
    expected = connected_components(mask).max()
    assert evaluate(path, path).cases[0].reference_count == expected


def test_runs_of_a_session_are_scored_apart_and_never_against_each_other(tmp_path):
    for run in (1, 2):
        save(tmp_path / "ref" / f"sub-1_ses-1_run-{run}_label-L_mask.nii.gz", lesions(run))
        save(tmp_path / "pred" / f"sub-1_ses-1_run-{run}_label-L_mask.nii.gz", lesions(run))
    save(tmp_path / "pred" / "sub-1_ses-1_run-3_label-L_mask.nii.gz", lesions(3))
    done = evaluate(tmp_path / "ref", tmp_path / "pred", tmp_path / "out", workers=1)
    assert {case.case: case.value("dsc") for case in done.cases} == {
        "sub-1_ses-1_run-1": 1.0,
        "sub-1_ses-1_run-2": 1.0,
    }
    assert [case.patient for case in done.cases] == ["sub-1", "sub-1"]
    assert list(done.failures) == ["sub-1_ses-1_run-3"]
    listed = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t")
    assert list(listed["name"]) == ["sub-1_ses-1_run-3"]


def test_patients_may_be_named_in_a_table(tmp_path):
    for case in "abc":
        save(tmp_path / "ref" / f"{case}.nii.gz", lesions())
        save(tmp_path / "pred" / f"{case}.nii.gz", lesions())
    table = tmp_path / "patients.tsv"
    table.write_text("case\tpatient\na\tone\nb\tone\n")
    done = evaluate(tmp_path / "ref", tmp_path / "pred", patients=table, workers=1)
    assert done.patients("pred") == ["one", "one", "c"]
    assert done.cohort["pred"]["dsc"].n == 2


def test_a_note_about_a_pair_is_kept(tmp_path):
    save(tmp_path / "ref" / "sub-1_mask.nii.gz", lesions())
    save(tmp_path / "pred" / "sub-1_acq-3D_mask.nii.gz", lesions())
    done = evaluate(tmp_path / "ref", tmp_path / "pred", workers=1)
    assert any("only one of the two says acq-3D" in note for note in done.notes)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"seed": "x"}, "seed: expected whole number, got text"),
        ({"options": {"iou_threshold": 7}}, "iou_threshold"),
        ({"kind": "other"}, "kind"),
        ({"reference": None}, "reference"),
    ],
)
def test_a_request_that_was_damaged_is_refused_in_one_line(tmp_path, change, fault):
    path = save(tmp_path / "x_mask.nii.gz", lesions())
    evaluate(path, path, tmp_path / "out")
    stored = tmp_path / "out" / "evaluate.json"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | change))
    with pytest.raises(InputError, match=fault) as error:
        evaluate_again(tmp_path / "out")
    assert "evaluate.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_requests_of_earlier_versions_are_read(tmp_path):
    path = save(tmp_path / "x_mask.nii.gz", lesions())
    evaluate(path, path, tmp_path / "out")
    stored = tmp_path / "out" / "evaluate.json"
    before = json.loads(stored.read_text())
    before["options"] |= {"epsilon": 0.0, "ndsc_r": 0.001, "clu_dilations": 0}
    stored.write_text(json.dumps({k: v for k, v in before.items() if k != "label"}))
    assert evaluate_again(tmp_path / "out").cases[0].value("dsc") == 1.0


@pytest.mark.parametrize("name", ["", " ", "a\x1b[31m", "two\nlines", "\udcff"])
def test_names_of_methods_that_cannot_be_printed_are_refused(tmp_path, name):
    path = save(tmp_path / "x_mask.nii.gz", lesions())
    with pytest.raises(InputError, match="name: "):
        evaluate(path, path, names=[name])


def test_results_of_other_commands_and_what_is_read_are_not_overwritten(folders, tmp_path):
    reference, prediction = folders / "ref", folders / "good"
    with pytest.raises(InputError, match="would be among the input files"):
        evaluate(reference, prediction, prediction, workers=1)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "lesions.tsv").write_text("mine")
    with pytest.raises(InputError, match=r"lesions\.tsv: exists already"):
        evaluate(reference, prediction, taken, workers=1)
    assert [path.name for path in taken.iterdir()] == ["lesions.tsv"]
    assert (taken / "lesions.tsv").read_text() == "mine"


def test_rows_of_patients_that_fit_no_case_and_cases_without_a_row_are_noted(tmp_path):
    for case in "abc":
        save(tmp_path / "ref" / f"{case}.nii.gz", lesions())
        if case != "c":
            save(tmp_path / "pred" / f"{case}.nii.gz", lesions())
    table = tmp_path / "patients.tsv"
    table.write_text("case\tpatient\na\tone\na_mask\tone\nc\tone\na\tone\n")
    done = evaluate(tmp_path / "ref", tmp_path / "pred", patients=table, workers=1)
    notes = [note for note in done.notes if "patients.tsv" in note]
    assert notes == [
        "patients.tsv: rows that fit no case: a_mask",
        "patients.tsv: cases without a row, whose patients follow from their names: b",
    ]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("a\tone\na\ttwo\n", "names two patients for the case a: one and two"),
        ("a_mask\tone\n", "no row fits a case; the table names a_mask, the cases are a"),
    ],
)
def test_a_table_of_patients_that_contradicts_itself_or_fits_nothing_is_refused(
    tmp_path, rows, fault
):
    for side in ("ref", "pred"):
        save(tmp_path / side / "a.nii.gz", lesions())
    table = tmp_path / "patients.tsv"
    table.write_text(f"case\tpatient\n{rows}")
    with pytest.raises(InputError, match=fault):
        evaluate(tmp_path / "ref", tmp_path / "pred", tmp_path / "out", patients=table, workers=1)
    assert not (tmp_path / "out").exists()


def make_raters(root, name):
    for side, shift in (("a", 0), ("b", 1), ("c", 2)):
        for seed in (1, 2):
            found = np.roll(lesions(seed) > 0, shift, axis=0)
            save(root / side / f"{name}{seed}.nii.gz", found)
    return [root / "a", root / "c"], root / "b"


@pytest.mark.parametrize("name", ["sub-", "case", "site1/case"])
@pytest.mark.parametrize("side", ["a", "b"])
def test_an_evaluation_below_its_input_never_reads_its_own_consensus(tmp_path, name, side):
    raters, prediction = make_raters(tmp_path, name)
    out = tmp_path / side / "scores"
    first = evaluate(raters, prediction, out, workers=1)
    again = evaluate(raters, prediction, out, workers=1)
    reported = evaluate_again(out)
    dsc = first.values("b", "dsc")
    assert max(dsc) < 1
    assert again.values("b", "dsc") == reported.values("b", "dsc") == dsc
    assert not first.failures | again.failures | reported.failures


def test_the_consensus_of_an_interrupted_evaluation_is_not_read_either(tmp_path):
    raters, prediction = make_raters(tmp_path, "sub-")
    out = prediction / "scores"
    first = evaluate(raters, prediction, out, workers=1)
    for path in out.iterdir():
        if path.is_file():
            path.unlink()
    again = evaluate(raters, prediction, out, workers=1)
    assert again.values("b", "dsc") == first.values("b", "dsc")


def test_a_consensus_can_be_named_but_is_not_overwritten_by_what_is_made_of_it(tmp_path):
    raters, prediction = make_raters(tmp_path, "sub-")
    out = tmp_path / "out"
    evaluate(raters, prediction, out, workers=1)
    consensus = out / "consensus"
    with pytest.raises(InputError, match="would be among these input files"):
        evaluate([consensus, raters[1]], prediction, out, workers=1)
    evaluate(consensus, prediction, out, workers=1)
    assert len(list(consensus.iterdir())) == 2


@pytest.mark.parametrize("name", ["sub-", "case", "site1/case"])
@pytest.mark.parametrize("how", ["majority", "staple"])
def test_a_consensus_is_a_reference_for_the_same_cases(tmp_path, name, how):
    raters, prediction = make_raters(tmp_path, name)
    first = evaluate(raters, prediction, tmp_path / "out", consensus=how, workers=1)
    again = evaluate(tmp_path / "out" / "consensus", prediction, workers=1)
    assert again.values("b", "dsc") == first.values("b", "dsc")
    assert [case.case for case in again.cases] == [case.case for case in first.cases]
    evaluate(raters[0], prediction, tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "consensus").exists()


def test_consensus_masks_and_figures_of_an_earlier_run_do_not_stay(tmp_path):
    raters, prediction = make_raters(tmp_path, "case")
    out = tmp_path / "out"
    evaluate(raters, prediction, out, consensus="staple", figures=True, workers=1)
    (out / "figures" / "mine.svg").touch()
    evaluate(raters, prediction, out, workers=1)
    assert {path.name for path in (out / "consensus").iterdir()} == {
        f"case{n}_desc-majority_label-L_mask.nii.gz" for n in (1, 2)
    }
    assert [path.name for path in (out / "figures").iterdir()] == ["mine.svg"]
    evaluate(raters[0], prediction, out, workers=1)
    assert not (out / "consensus").exists()


def test_a_case_whose_consensus_has_too_long_a_name_is_listed(tmp_path):
    raters, prediction = make_raters(tmp_path, "x")
    long = "y" * 240
    for side in "abc":
        save(tmp_path / side / f"{long}.nii.gz", lesions())
    done = evaluate(raters, prediction, tmp_path / "out", workers=1)
    assert [case.case for case in done.cases] == ["x1", "x2"]
    assert "File name too long" in done.failures[long]


def test_a_name_with_a_sidecar_too_long_is_read(tmp_path):
    path = save(tmp_path / f"{'y' * 246}_dseg.nii", lesions())
    assert evaluate(path, path).cases[0].value("dsc") == 1
