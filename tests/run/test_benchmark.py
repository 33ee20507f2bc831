"""Recipes side by side on a small data set."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from bids import begin, save_visit

from lesionwise.io.files import read_json, read_table, write_json
from lesionwise.io.fingerprint import fingerprint_of
from lesionwise.metrics.case import KEYS
from lesionwise.run.benchmark import benchmark
from lesionwise.run.benchmark_recipes import find_benchmark_recipes
from lesionwise.run.recipes import recipe_names
from lesionwise.types import InputError

SIDE = 16
PARTS = """
from dataclasses import dataclass

from lesionwise.change.candidates import BrighterAtFollowup
from lesionwise.change.features import CandidateFeatures, VoxelNeighborhood
from lesionwise.instances.components import ConnectedComponents
from lesionwise.methods.candidates import CandidateMethod, LightGbm, Rule, Rules
from lesionwise.recipe import Citation, Recipe
from lesionwise.types import InputError, LesionMaps
"""
PAIR = (
    PARTS
    + """
RECIPE = Recipe(
    citation=Citation(title="a test"), scans=("flair",), preprocess=(), visits=2, task="new",
    method=CandidateMethod(
        propose=BrighterAtFollowup(above=40.0),
        describe={describe},
        decide={decide},
    ),
    to_instances=ConnectedComponents(),
)
"""
)
FILES = {
    "difference": PAIR.format(
        describe='CandidateFeatures(("voxels",))', decide='Rules((Rule("voxels", min_value=4),))'
    ),
    "trees": PAIR.format(
        describe="VoxelNeighborhood()", decide="LightGbm(max_trees=5, min_rows_per_leaf=5)"
    ),
    "nothing": PAIR.format(
        describe='CandidateFeatures(("voxels",))', decide='Rules((Rule("voxels", min_value=9999),))'
    ),
    "broken": PARTS
    + """
@dataclass(frozen=True)
class Broken:
    uses_validation = True

    def members(self):
        return ()

    def fit(self, data, run):
        raise ArithmeticError("two lines\\nof trouble")

RECIPE = Recipe(
    citation=Citation(title="a test"), scans=("flair",), preprocess=(), visits=2, task="new",
    method=Broken(), to_instances=ConnectedComponents(),
)
""",
    "choosy": PARTS
    + """
@dataclass(frozen=True)
class Choosy:
    uses_validation = True

    def members(self):
        return ()

    def fit(self, data, run):
        pass

    def load(self, run):
        def predict(study):
            if study.subject == "b":
                raise InputError("sub-b: not this one")
            volume = study.followup.scans["flair"]
            return LesionMaps((volume.array > 140).astype("float32"), volume.grid)
        return predict

RECIPE = Recipe(
    citation=Citation(title="a test"), scans=("flair",), preprocess=(), visits=2, task="new",
    method=Choosy(), to_instances=ConnectedComponents(),
)
""",
    "bright": PARTS
    + """
@dataclass(frozen=True)
class Bright:
    uses_validation = True

    def members(self):
        return ()

    def fit(self, data, run):
        pass

    def load(self, run):
        def predict(study):
            assert len(study.visits) == 1 and not study.followup.labels and not study.changes
            volume = study.followup.scans["flair"]
            return LesionMaps((volume.array > 140).astype("float32"), volume.grid)
        return predict

RECIPE = Recipe(
    citation=Citation(title="a test"), scans=("flair",), preprocess=(), method=Bright(),
    to_instances=ConnectedComponents(),
)
""",
}


AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def write_dataset(root, *, new=True):
    """Four patients with an old lesion in both visits and, in three, a new one in the second."""
    begin(root)
    brain = np.zeros((SIDE,) * 3, dtype=np.uint8)
    brain[2:14, 2:14, 2:14] = 1
    for seed, subject in enumerate("abcd"):
        rng = np.random.default_rng(seed)
        lesions = np.zeros(brain.shape, dtype=np.uint8)
        lesions[4:7, 4:7, 4:7] = 1
        appeared = np.zeros(brain.shape, dtype=np.uint8)
        if new and subject != "d":
            appeared[9:12, 8 + seed : 11 + seed, 9:12] = 1
        for visit, marked in (("01", lesions), ("02", lesions | appeared)):
            image = brain * (100 + 5 * rng.standard_normal(brain.shape)) + 80 * marked
            arrays = {"FLAIR": image.astype(np.float32), "desc-brain_mask": brain}
            arrays["label-L_mask"] = marked
            if visit == "02":
                arrays["desc-new_label-L_mask"] = appeared
            save_visit(root, subject, visit, arrays, AFFINE)
    return root


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    for name, text in FILES.items():
        (folder / f"{name}.py").write_text(text)
    return {name: str(folder / f"{name}.py") for name in FILES}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def compared(dataset, files, tmp_path_factory):
    output = tmp_path_factory.mktemp("benchmark") / "out"
    recipes = [files[n] for n in ("difference", "trees", "nothing", "broken", "bright")]
    return output, benchmark(dataset, recipes, output, folds=2, isolate=False)


def row(done, name):
    return done.table.set_index("recipe").loc[name]


def test_every_case_is_predicted_once(compared):
    output, done = compared
    assert row(done, "difference")["cases"] == 4
    assert row(done, "bright")["cases"] == 8  # every visit
    for fold in (0, 1):
        result = read_json(output / "recipes" / "difference" / f"fold-{fold}" / "result.json")
        assert len(result["cases"]) == 2


def test_what_finds_the_new_lesions_is_best(compared):
    _, done = compared
    assert row(done, "difference")["dsc"] == 1
    assert row(done, "difference")["lesion_recall"] == 1
    assert row(done, "nothing")["dsc"] == 0.25  # one case has nothing to find
    assert done.table["recipe"][done.table["task"] == "new lesions"].iloc[0] == "difference"


def test_no_training_holds_a_file_of_a_held_out_patient(compared):
    output, _ = compared
    for fold in (0, 1):
        folder = output / "recipes" / "trees" / f"fold-{fold}"
        run = json.loads((folder / "run" / "run.json").read_text())
        seen = {p.name.removeprefix("sub-") for p in (folder / "data").glob("sub-*")}
        held = {c["case"][4:5] for c in read_json(folder / "result.json")["cases"]}
        assert seen == {*run["training"], *run["validation"]}
        assert seen | held == set("abcd")
        assert not seen & held


def test_all_recipes_have_the_same_folds(compared):
    output, _ = compared
    folds = {
        tuple(c["case"] for c in read_json(path)["cases"])
        for path in output.glob("recipes/*/fold-0/result.json")
        if "bright" not in str(path) and "broken" not in str(path)
    }
    assert len(folds) == 1


def test_a_recipe_that_fails_is_a_row_with_its_reason(compared):
    output, done = compared
    reason = "fold 1 of 2: ArithmeticError: two lines of trouble"
    assert done.failures["broken"] == reason
    assert row(done, "broken")["result"] == reason
    assert pd.isna(row(done, "broken")["dsc"])
    assert "ArithmeticError" in (output / "recipes/broken/fold-0/error.txt").read_text()


@pytest.mark.parametrize("by_sizes", [False, True])
def test_a_benchmark_inside_its_data_set_goes_on(dataset, files, tmp_path, by_sizes):
    data = shutil.copytree(dataset, tmp_path / "data")
    output = data / "derivatives" / "bench"
    if by_sizes:  # begun by an earlier version, elsewhere
        output = tmp_path / "bench"
    done = benchmark(data, [files["difference"]], output, folds=2, isolate=False)
    if by_sizes:
        about = read_json(output / "benchmark.json")
        write_json(output / "benchmark.json", about | {"data": fingerprint_of(data, "0" * 64)})
    path = output / "recipes" / "difference" / "fold-0" / "result.json"
    written = path.stat().st_mtime_ns
    again = benchmark(data, [files["difference"]], output, folds=2, isolate=False)
    pd.testing.assert_frame_equal(again.table, done.table)
    assert path.stat().st_mtime_ns == written


def test_costs_are_stated(compared):
    _, done = compared
    assert row(done, "trees")["parameters"] > 0
    assert row(done, "difference")["parameters"] == 0
    assert row(done, "trees")["train_s"] > 0
    assert row(done, "trees")["predict_s"] > 0


@pytest.mark.parametrize("isolate", [True, False])
def test_slow_steps_are_computed_once_for_all_recipes_and_folds(dataset, tmp_path, isolate):
    for name, limit in (("one", 4), ("two", 9999)):
        text = PAIR.format(
            describe='CandidateFeatures(("voxels",))',
            decide=f'Rules((Rule("voxels", min_value={limit}),))',
        )
        text = text.replace("preprocess=()", "preprocess=(N4(iterations=3),)")
        text = f"from lesionwise.preprocess.intensity import N4\n{text}"
        (tmp_path / f"{name}.py").write_text(text)
    recipes = [str(tmp_path / f"{name}.py") for name in ("one", "two")]
    output = tmp_path / "out"
    done = benchmark(dataset, recipes, output, folds=2, isolate=isolate)
    assert not done.failures
    assert len(list((output / "steps").glob("n4-*.npz"))) == 8  # the visits of four patients


def test_recipes_that_find_the_same_are_compared_with_each_other(compared):
    output, _ = compared
    pairs = read_table(output / "comparisons.tsv")[["first", "second"]]
    assert set(map(tuple, pairs.to_numpy())) == {
        ("difference", "trees"),
        ("difference", "nothing"),
        ("trees", "nothing"),
    }


def test_every_metric_of_evaluate_is_there(compared):
    output, _ = compared
    assert set(KEYS) <= set(read_table(output / "scores.tsv").columns)
    assert (output / "evaluation-new-2" / "evaluation.html").is_file()
    assert (output / "evaluation-lesions-1" / "metrics.json").is_file()


def test_the_page_and_its_table_are_written(compared):
    output, done = compared
    assert done.page == output / "leaderboard.html"
    assert "broken" in done.page.read_text()
    assert len(read_table(output / "leaderboard.tsv")) == 5


def test_a_second_call_goes_on_where_the_first_stopped(compared, dataset, files, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(compared[0], output, symlinks=True)
    lost = output / "recipes" / "trees" / "fold-1"
    shutil.rmtree(lost)
    kept = {
        path: path.stat().st_mtime_ns
        for path in output.glob("recipes/*/*/result.json")
        if lost not in path.parents
    }
    again = benchmark(
        dataset, [files["difference"], files["trees"]], output, folds=2, isolate=False
    )
    assert (lost / "result.json").is_file()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    first = row(compared[1], "trees")
    assert row(again, "trees")["dsc"] == first["dsc"]


def test_other_settings_in_the_same_folder_are_refused(compared, dataset, files):
    with pytest.raises(InputError, match="was begun with folds 2, now it is 3; "):
        benchmark(dataset, [files["difference"]], compared[0], folds=3)
    with pytest.raises(InputError, match="was begun with max_steps not set, now it is 5; "):
        benchmark(dataset, [files["difference"]], compared[0], folds=2, max_steps=5)
    with pytest.raises(InputError, match=r": difference: was begun with method\.propose\.above "):
        benchmark(
            dataset,
            [files["difference"]],
            compared[0],
            folds=2,
            overrides=["method.propose.above=41.0"],
        )


def test_a_recipe_whose_scans_are_missing_is_a_row(dataset, files, tmp_path):
    other = tmp_path / "other.py"
    text = FILES["broken"].replace('scans=("flair",)', 'scans=("flair", "t1w")')
    other.write_text(text)
    done = benchmark(
        dataset, [str(other), files["broken"]], tmp_path / "out", folds=2, isolate=False
    )
    assert "t1w" in done.failures["other"].lower()
    assert "ArithmeticError" in done.failures["broken"]
    with pytest.raises(InputError, match=r"(?i)t1w"):
        benchmark(dataset, [str(other)], tmp_path / "alone", folds=2, isolate=False)


def test_what_failed_is_tried_again_on_request(compared, dataset, files, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(compared[0], output, symlinks=True)
    result = output / "recipes" / "broken" / "fold-0" / "result.json"
    before = result.stat().st_mtime_ns
    benchmark(dataset, [files["broken"]], output, folds=2, isolate=False)
    assert result.stat().st_mtime_ns == before
    benchmark(dataset, [files["broken"]], output, folds=2, isolate=False, retry_failed=True)
    assert result.stat().st_mtime_ns > before


def test_a_case_that_cannot_be_predicted_is_listed_and_the_others_are_scored(
    dataset, files, tmp_path
):
    done = benchmark(dataset, [files["choosy"]], tmp_path / "out", folds=2, isolate=False)
    assert done.failures == {"choosy sub-b_ses-02": "sub-b: not this one"}
    assert row(done, "choosy")["cases"] == 3


@pytest.mark.slow
def test_a_process_of_its_own_tells_its_peak_memory(dataset, files, tmp_path):
    done = benchmark(dataset, [files["difference"]], tmp_path / "out", folds=2)
    assert row(done, "difference")["dsc"] == 1
    assert 0.05 < row(done, "difference")["peak_gb"] < 5


def test_all_stands_for_every_shipped_recipe():
    assert [entry.name for entry in find_benchmark_recipes(["all"], [])] == recipe_names()
    named = [entry.recipe for entry in find_benchmark_recipes(["all:reduced"], [])]
    assert [name.removesuffix(":reduced") for name in named] == recipe_names()
    assert "iqda:reduced" in named
    assert "subtraction-threshold" in named  # it has nothing to reduce
    with pytest.raises(InputError, match=r"a recipe is named twice: iqda$"):
        find_benchmark_recipes(["all", "iqda"], [])


def test_values_are_set_where_they_exist(files):
    values = ["method.decide.max_trees=2", "difference:method.propose.min_vox=3"]
    first, second = find_benchmark_recipes([files["difference"], files["trees"]], values)
    assert first.overrides == ("method.propose.min_vox=3",)
    assert second.overrides == ("method.decide.max_trees=2",)
    assert second.found.method.decide.max_trees == 2


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["difference"], {"folds": 5}, "--folds 5: .*pairs has 4 subjects"),
        (["difference"], {"folds": 1}, "--folds 1: .*pairs has 4 subjects"),
        (["difference", "difference"], {}, "a recipe is named twice"),
        ([], {}, "name at least one recipe"),
        (["difference"], {"overrides": ["method.epochs=1"]}, "no epochs"),
    ],
)
def test_faults_are_one_line(dataset, files, tmp_path, names, options, message):
    with pytest.raises(InputError, match=message) as caught:
        benchmark(dataset, [files[n] for n in names], tmp_path / "out", isolate=False, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_one_line(dataset, tmp_path):
    with pytest.raises(InputError, match="no-such: no such recipe; there are"):
        benchmark(dataset, ["no-such"], tmp_path / "out")


def test_a_data_set_without_anything_new_is_one_line(files, tmp_path):
    stable = write_dataset(tmp_path / "stable", new=False)
    with pytest.raises(InputError, match="stable: no case has a new lesion"):
        benchmark(stable, [files["difference"]], tmp_path / "out", folds=2)
