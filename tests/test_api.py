"""The public functions: what ``import lesionwise`` gives."""

import ast
import doctest
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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
    "train": "lesionwise.run.train.train",
    "benchmark": "lesionwise.run.benchmark.benchmark",
    "search": "lesionwise.run.search.search",
    "simulate_patients": "lesionwise.run.simulate.simulate",
    "process_cohort": "lesionwise.cohort.participant.participant",
}


@pytest.fixture
def calls(monkeypatch):
    """The calls that reach what is replaced, with their arguments by name."""
    made = {}

    def replace(name, target):
        module, _, function = target.rpartition(".")
        signature = inspect.signature(getattr(__import__(module, fromlist=["x"]), function))

        def fake(*given, **named):
            made[name] = signature.bind(*given, **named).arguments
            return SimpleNamespace(table=None, best=Path("run"), failures={}, participants=())

        monkeypatch.setattr(target, fake)

    for name, target in SLOW.items():
        replace(name, target)
    gathered = SimpleNamespace(participants=())
    monkeypatch.setattr("lesionwise.cohort.group.group", lambda *a, **k: gathered)
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the examples name, and a model that finds bright cubes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lesionwise.run.locations.find_landmarks", _nowhere)
    for module in ("segment", "compare", "predict"):
        monkeypatch.setattr(f"lesionwise.run.{module}.load_model", lambda *a, **k: bright_model())
    save("sub-01_FLAIR.nii.gz", head())
    save("sub-01_ses-M00_FLAIR.nii.gz", head("ab"))
    save("sub-01_ses-M12_FLAIR.nii.gz", head("abc"))
    save("lesion_mask.nii.gz", mask("ab"))
    lesionwise.segment("sub-01_FLAIR.nii.gz", "before")
    begin(tmp_path / "patients")
    volumes = {"FLAIR": head("a"), "label-L_mask": mask("a")}
    save_visit(tmp_path / "patients", "01", "M00", volumes)
    return tmp_path


def mask(names):
    found = np.zeros(head().shape, np.uint8)
    for i, j, k in (LESIONS[name] for name in names):
        found[i : i + 4, j : j + 4, k : k + 4] = 1
    return found


def _nowhere(*arguments):
    raise InputError("no template in this test")


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_function_runs(name, folder, calls):
    if name == "rebuild_pages":
        (folder / "before").rename(folder / "out")
    found = doctest.DocTestFinder(recurse=False).find(getattr(lesionwise, name), name)
    results = doctest.DocTestRunner().run(found[0], out=lambda text: print(text))
    assert results.attempted >= 2
    assert results.failed == 0
    assert (name in calls) == (name in SLOW)


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_texts(kind, folder):
    scan, mask_file = kind("sub-01_FLAIR.nii.gz"), kind("lesion_mask.nii.gz")
    assert lesionwise.segment(scan, kind("a")).page.is_file()
    assert lesionwise.segment([scan], kind("b")).page.is_file()
    assert lesionwise.split(mask_file, kind("c")).written[0].is_file()
    assert lesionwise.evaluate(mask_file, [mask_file], kind("d")).page.is_file()


def test_settings_reach_training_as_the_command_line_would_give_them(calls):
    settings = {"method.optimization.epochs": 5, "method.samples.size_vox": [32, 32, 32]}
    lesionwise.train("unet-cc", "data", "run", settings=settings)
    wanted = ["method.optimization.epochs=5", "method.samples.size_vox=[32, 32, 32]"]
    assert calls["train"]["overrides"] == wanted
    assert calls["train"]["dataset"] == Path("data")


def test_limits_reach_the_result(folder):
    result = lesionwise.segment("sub-01_FLAIR.nii.gz", "large", min_volume_mm3=100_000)
    assert result.summary["lesions"].sum() == 0


def test_bad_input_is_one_line_that_names_the_file(folder):
    with pytest.raises(InputError, match=r"missing\.nii\.gz") as raised:
        lesionwise.split("missing.nii.gz", "out")
    assert "\n" not in str(raised.value)
