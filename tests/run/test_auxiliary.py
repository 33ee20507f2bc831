"""A further data set reaches the part of a recipe that learns from it."""

import json

import numpy as np
import pytest
from bids import begin, save_visit

from lesionwise.io.files import read_table
from lesionwise.run.benchmark import benchmark
from lesionwise.run.recipes import auxiliary_sets, find_recipe
from lesionwise.run.train import train
from lesionwise.types import InputError

RECIPE = """
import json
from dataclasses import dataclass

from lesionwise.instances.components import ConnectedComponents
from lesionwise.methods.cascade import AddMaps
from lesionwise.recipe import Citation, Recipe
from lesionwise.types import LesionMaps


@dataclass(frozen=True)
class Bright:
    uses_validation = True

    def members(self):
        return ()

    def fit(self, data, run):
        seen = [[study.subject, len(study.visits)] for study in data.training]
        (run.folder / "seen.json").write_text(json.dumps(seen))

    def load(self, run):
        def predict(study):
            volume = study.followup.scans["flair"]
            return LesionMaps((volume.array > 140).astype("float32"), volume.grid)
        return predict


RECIPE = Recipe(
    citation=Citation(title="a test"), scans=("flair",), visits=2, task="new", method=Bright(),
    preprocess=(AddMaps(Bright(), name="map", auxiliary="lesions"),),
    to_instances=ConnectedComponents(),
)
"""
FIRST = "run/steps/0/member-0/seen.json"


def write(root, subjects, sessions, masks=True):
    """Patients with one lesion in every visit, which is new in the second."""
    lesion = np.zeros((8, 8, 8), dtype=bool)
    lesion[2:4, 2:4, 2:4] = True
    for subject in subjects:
        noise = np.random.default_rng(ord(subject[0])).normal(100, 5, lesion.shape)
        volumes = {"FLAIR": (noise + 80 * lesion).astype(np.float32)}
        volumes["desc-brain_mask"] = np.ones_like(lesion)
        for session in sessions:
            marked = {"label-L_mask": lesion} if masks else {}
            if session == "02":
                marked["desc-new_label-L_mask"] = lesion
            save_visit(root, subject, session, {**volumes, **marked})
    return begin(root)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "cascade.py"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def pairs(tmp_path):
    return write(tmp_path / "pairs", "ab", ("01", "02"))


@pytest.fixture
def single(tmp_path):
    return write(tmp_path / "single", "xy", ("",))


def test_the_first_network_learns_from_the_auxiliary_set_alone(recipe, pairs, single, tmp_path):
    train(recipe, pairs, tmp_path / "run", auxiliary={"lesions": single})
    assert json.loads((tmp_path / FIRST).read_text()) == [["x", 1], ["y", 1]]
    assert json.loads((tmp_path / "run/seen.json").read_text()) in ([["a", 2]], [["b", 2]])
    described = json.loads((tmp_path / "run/run.json").read_text())
    assert set(described["auxiliary"]) == {"lesions"}


def test_a_run_goes_on_with_the_same_sets_only(recipe, pairs, single, tmp_path):
    train(recipe, pairs, tmp_path / "run", auxiliary={"lesions": single})
    train(recipe, pairs, tmp_path / "run", auxiliary={"lesions": single})
    with pytest.raises(
        InputError, match=r"was begun with auxiliary lesions SHA-256 .*, now it is not set; "
    ):
        train(recipe, pairs, tmp_path / "run")


def test_without_the_set_and_without_masks_one_line_says_what_is_missing(recipe, tmp_path):
    unmasked = write(tmp_path / "pairs", "ab", ("01", "02"), masks=False)
    with pytest.raises(InputError) as fault:
        train(recipe, unmasked, tmp_path / "run")
    assert str(fault.value) == (
        "no visit has a lesion mask to learn from, and no auxiliary set lesions was given "
        "(--auxiliary lesions=DATA)"
    )


def test_a_set_that_nobody_asks_for_is_refused(recipe, pairs, single, tmp_path):
    with pytest.raises(InputError, match="learns from no such set; it asks for lesions"):
        train(recipe, pairs, tmp_path / "run", auxiliary={"other": single})
    with pytest.raises(InputError, match="no recipe learns from a set of that name"):
        benchmark(pairs, [recipe], tmp_path / "b", folds=2, auxiliary={"other": single})


def test_a_set_that_cannot_be_used_is_refused_before_anything_is_prepared(
    recipe, pairs, single, tmp_path
):
    for sets in ({"others": single}, {"lesions": tmp_path / "missing"}, {"lesions": pairs}):
        with pytest.raises(InputError, match="--auxiliary"):
            train(recipe, pairs, tmp_path / "run", auxiliary=sets)
    assert not (tmp_path / "run").exists()


def test_the_data_set_itself_is_no_auxiliary_set(recipe, pairs, tmp_path):
    for call in (
        lambda: train(recipe, pairs, tmp_path / "run", auxiliary={"lesions": pairs}),
        lambda: benchmark(
            pairs, [recipe], tmp_path / "b", folds=2, auxiliary={"lesions": pairs / "."}
        ),
    ):
        with pytest.raises(InputError, match="is the data set itself"):
            call()


def test_scans_of_the_data_set_under_other_names_are_refused(recipe, pairs, single, tmp_path):
    scan = pairs / "sub-b" / "ses-01" / "anat" / "sub-b_ses-01_FLAIR.nii.gz"
    copied = single / "sub-x" / "anat" / "sub-x_FLAIR.nii.gz"
    copied.write_bytes(scan.read_bytes())
    with pytest.raises(InputError, match=r"--auxiliary lesions: holds scans .*\(sub-b\)"):
        train(recipe, pairs, tmp_path / "run", auxiliary={"lesions": single})


def test_every_fold_of_a_benchmark_learns_from_the_set(recipe, pairs, single, tmp_path):
    done = benchmark(
        pairs, [recipe], tmp_path / "b", folds=2, isolate=False, auxiliary={"lesions": single}
    )
    assert not done.failures
    for fold in range(2):
        seen = tmp_path / f"b/recipes/cascade/fold-{fold}" / FIRST
        assert json.loads(seen.read_text()) == [["x", 1], ["y", 1]]


def test_a_text_without_a_name_or_a_folder_is_one_line(call, recipe, pairs, tmp_path):
    status, _, said = call(
        *("train", recipe, pairs, "-o", tmp_path / "run", "--auxiliary", "lesions")
    )
    assert status == 2
    assert said == "lesionwise: --auxiliary lesions: write it as NAME=DATA\n"


def test_a_subject_that_contradicts_itself_is_left_out_and_named(call, recipe, pairs, tmp_path):
    for acquisition in ("2D", "3D"):
        volumes = {f"acq-{acquisition}_FLAIR": np.ones((8, 8, 8), np.float32)}
        save_visit(pairs, "z", "01", volumes)
    status, _, said = call("train", recipe, pairs, "-o", tmp_path / "run")
    assert status == 0
    assert "left out: sub-z: sub-z_ses-01: more than one flair scan" in said
    (failed,) = read_table(tmp_path / "run" / "prepared" / "failures.tsv").to_dict("records")
    assert failed["study"] == "sub-z"
    assert failed["error"].startswith("sub-z_ses-01: more than one flair scan")
    done = benchmark(pairs, [recipe], tmp_path / "b", folds=2, isolate=False)
    assert done.failures["sub-z"].startswith("sub-z_ses-01: more than one flair scan")
    assert list(done.failures) == ["sub-z"]


def test_a_set_can_have_scans_that_the_data_set_lacks(recipe, pairs, tmp_path):
    several = tmp_path / "several.py"
    several.write_text(
        RECIPE.replace(
            'AddMaps(Bright(), name="map", auxiliary="lesions"),',
            'FillMissingScans(("flair", "t2w")),AddMaps(Bright(), name="map", auxiliary=OTHERS),',
        )
        .replace("import LesionMaps", "import Auxiliary, LesionMaps")
        .replace("RECIPE =", 'OTHERS = Auxiliary("lesions", scans=("flair", "t2w"))\nRECIPE =')
        .replace(
            "from lesionwise.recipe",
            "from lesionwise.preprocess.missing_scans import FillMissingScans\n"
            "from lesionwise.recipe",
        )
        .replace(
            "seen = [[study.subject, len(study.visits)]",
            'seen = [[study.subject, float(study.followup.scans["t2w"].array.mean())]',
        )
    )
    others = write(tmp_path / "others", "xyz", ("",))
    ramp = np.linspace(-1, 1, 8, dtype=np.float32)
    for subject in "xy":
        save_visit(others, subject, "", {"T2w": np.full((8, 8, 8), 3.0, np.float32) + ramp})
    train(several, pairs, tmp_path / "run", auxiliary={"lesions": others})
    assert json.loads((tmp_path / FIRST.replace("/0/", "/1/")).read_text()) == [["x", 3], ["y", 3]]
    assert json.loads((tmp_path / "run/seen.json").read_text()) in ([["a", 0]], [["b", 0]])


@pytest.mark.parametrize("name", ["cascade-probability", "deepscan", "nnunet-subtraction"])
def test_recipes_that_name_a_set_ask_for_it(name):
    assert list(auxiliary_sets(find_recipe(name))) == ["lesions"]


def test_other_recipes_ask_for_none():
    assert auxiliary_sets(find_recipe("conflunet")) == {}
