"""The public functions: what ``import lesionwise`` gives."""

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import lesionwise
from lesionwise import api
from lesionwise.types import InputError

sys.path.insert(0, str(Path(__file__).parent / "run"))

from bids import begin, save_visit
from heads import LESIONS, bright_model, head, save

NAMES = dir(lesionwise)
STUB = Path(lesionwise.__file__).with_suffix(".pyi")


def test_dir_shows_the_public_functions_and_nothing_else():
    own = [f for f in vars(api).values() if inspect.isfunction(f) and f.__module__ == api.__name__]
    assert sorted(f.__name__ for f in own if f.__name__[0] != "_") == NAMES
    assert all(getattr(lesionwise, name) is getattr(api, name) for name in NAMES)


def test_editors_and_type_checkers_see_the_same_functions():
    imported = [
        alias.asname
        for node in ast.parse(STUB.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(imported) == NAMES


def test_no_submodule_hides_a_public_function():
    package = Path(lesionwise.__file__).parent
    modules = {path.stem for path in package.iterdir() if path.suffix in ("", ".py")}
    assert modules & {*NAMES} == set()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lesionwise.nonsense


def test_importing_the_package_reads_no_library():
    show = "import sys, lesionwise; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert {"numpy", "torch", "pandas", "nibabel", "typer"} & {*done.stdout.split()} == set()
    assert "lesionwise" in done.stdout.split()


def test_split_and_evaluate_need_no_torch():
    show = (
        "import sys, lesionwise; lesionwise.split, lesionwise.evaluate;"
        "import lesionwise.run.split, lesionwise.run.evaluate; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_result_is_typed(name):
    function = getattr(lesionwise, name)
    signature = inspect.signature(function)
    assert all(p.annotation is not p.empty for p in signature.parameters.values())
    assert signature.return_annotation is not signature.empty


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_explained_and_an_example_is_given(name):
    text = inspect.getdoc(getattr(lesionwise, name))
    missing = [p for p in inspect.signature(getattr(lesionwise, name)).parameters if p not in text]
    assert missing == []
    assert f"lesionwise.{name}(" in text.split("Example:")[1]


# What takes long is replaced: the example then shows that names and types of the call are right.
SLOW = {
    "compare": "lesionwise.run.compare.compare",
    "predict": "lesionwise.run.predict.predict",
    "train": "lesionwise.run.train.train",
    "benchmark": "lesionwise.run.benchmark.benchmark",
    "search": "lesionwise.run.search.search",
    "simulate_patients": "lesionwise.run.simulate.simulate",
    "process_cohort": "lesionwise.cohort.participant.participant",
}


@pytest.fixture
def calls(monkeypatch):
    """``calls(name)`` replaces what a function calls; gives its arguments by name afterwards."""

    def replace(name):
        module, _, function = SLOW[name].rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), function))
        made = {}

        def fake(*given, **named):
            made.update(signature.bind(*given, **named).arguments)
            summary = pd.DataFrame({"new": [0, 1]})
            return SimpleNamespace(summary=summary, failures={}, table=None, best=Path("run"))

        monkeypatch.setattr(SLOW[name], fake)
        gathered = SimpleNamespace(participants=())
        monkeypatch.setattr("lesionwise.cohort.group.group", lambda *a, **k: gathered)
        return made

    return replace


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the examples name, and a model that finds bright cubes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lesionwise.run.locations.find_landmarks", _nowhere)
    monkeypatch.setattr("lesionwise.run.segment.load_model", lambda *a, **k: bright_model())
    save("sub-01_FLAIR.nii.gz", head())
    save("lesion_mask.nii.gz", mask("ab"))
    begin(tmp_path / "patients")
    save_visit(tmp_path / "patients", "01", "M00", {"FLAIR": head("a"), "label-L_mask": mask("a")})
    return tmp_path


def mask(names):
    found = np.zeros(head().shape, np.uint8)
    for i, j, k in (LESIONS[name] for name in names):
        found[i : i + 4, j : j + 4, k : k + 4] = 1
    return found


def _nowhere(*arguments):
    raise InputError("no template in this test")


def run_example(name):
    """How many lines of a function's example failed."""
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(lesionwise, name), name)
    results = doctest.DocTestRunner().run(found)
    assert results.attempted >= 2
    return results.failed


@pytest.mark.parametrize("name", ["export", "evaluate", "model_names", "recipe_names", "split"])
def test_the_example_of_a_fast_function_runs(name, folder):
    assert run_example(name) == 0


def test_the_examples_of_segment_and_of_its_pages_run(folder):
    assert run_example("segment") == 0
    assert run_example("rebuild_pages") == 0


@pytest.mark.parametrize("name", SLOW)
def test_the_example_of_a_slow_function_calls_what_it_should(name, calls):
    made = calls(name)
    assert run_example(name) == 0
    assert made


def test_every_example_is_tested():
    fast = {"export", "evaluate", "model_names", "recipe_names", "split"}
    assert {*SLOW} | fast | {"segment", "rebuild_pages"} == {*NAMES}


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_texts(kind, calls):
    made = calls("compare")
    lesionwise.compare([kind("a.nii.gz"), kind("b.nii.gz")], kind("out"))
    assert made["visits"] == [Path("a.nii.gz"), Path("b.nii.gz")]
    assert made["output"] == Path("out")


@pytest.mark.parametrize("one", ["mask.nii.gz", Path("mask.nii.gz"), ["mask.nii.gz"]])
def test_a_single_path_stands_for_a_list_of_one(one, calls):
    made = calls("predict")
    lesionwise.predict("run", one, "out")
    assert made["scans"] == [Path("mask.nii.gz")]


def test_settings_reach_training_as_the_command_line_would_give_them(calls):
    made = calls("train")
    settings = {"method.optimization.epochs": 5, "method.samples.size_vox": [32, 32, 32]}
    lesionwise.train("unet-cc", "data", "run", settings=settings)
    wanted = ["method.optimization.epochs=5", "method.samples.size_vox=[32, 32, 32]"]
    assert made["overrides"] == wanted
    assert made["dataset"] == Path("data")


def test_limits_and_the_separation_method_reach_the_result(calls):
    made = calls("compare")
    lesionwise.compare(
        ["a", "b"], "out", instances="acls", min_peak=0.6, min_volume_mm3=5, extract_brain=False
    )
    options = made["options"]
    assert options.min_peak == 0.6
    assert (options.instances, options.min_volume_mm3, options.extract_brain) == ("acls", 5, False)


def test_defaults_are_those_of_the_commands(calls):
    compare = importlib.import_module("lesionwise.run.compare").compare
    stated = inspect.signature(compare).parameters
    made = calls("compare")
    lesionwise.compare(["a", "b"], "out")
    assert made["model"] == stated["model"].default
    assert made["options"] == stated["options"].default


def test_bad_input_is_one_line_that_names_the_file(tmp_path):
    with pytest.raises(InputError, match=r"missing\.nii\.gz") as raised:
        lesionwise.split("missing.nii.gz", tmp_path / "out")
    assert "\n" not in str(raised.value)
