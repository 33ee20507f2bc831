"""The examples in docstrings run, and every public function of these packages has one."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil

import pytest

import lesionwise
from lesionwise import (
    change,
    inference,
    instances,
    io,
    learning,
    metrics,
    networks,
    preprocess,
    results,
    simulate,
)

PACKAGES = (
    metrics,
    instances,
    change,
    results,
    io,
    preprocess,
    simulate,
    inference,
    learning,
    networks,
)
MODULES = [
    f"{package.__name__}.{found.name}"
    for package in PACKAGES
    for found in pkgutil.iter_modules(package.__path__)
]
MODULES += [f"lesionwise.{name}" for name in ("types", "recipe", "reduction", "processes")]
COMPLETE = [name for name in MODULES if "._" not in name]
NEEDED = {
    "lesionwise.inference.converted": ("openvino",),
    "lesionwise.io.dicom": ("pydicom", "dcm2niix"),
    "lesionwise.io.dicom_seg": ("pydicom", "dcm2niix", "highdicom"),
    "lesionwise.io.dicom_series": ("pydicom",),
}
"""Optional packages that the examples of a module need."""


def functions(module):
    """The public functions that a module defines."""
    return {
        name: found
        for name, found in vars(module).items()
        if inspect.isfunction(found)
        and not name.startswith("_")
        and found.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name, tmp_path, monkeypatch) -> None:
    for package in NEEDED.get(name, ()):
        if importlib.util.find_spec(package) is None:  # importing OpenVINO would start telemetry
            pytest.skip(f"{package} is not installed")
    for number, example in enumerate(doctest.DocTestFinder().find(importlib.import_module(name))):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)  # examples may write files
        assert doctest.DocTestRunner().run(example).failed == 0


def test_every_function_of_the_package_has_an_example() -> None:
    names = dir(lesionwise)
    assert names
    assert not [name for name in names if ">>>" not in (getattr(lesionwise, name).__doc__ or "")]


@pytest.mark.parametrize("name", COMPLETE)
def test_every_public_function_has_an_example(name) -> None:
    public = functions(importlib.import_module(name))
    assert not [name for name, found in public.items() if ">>>" not in (found.__doc__ or "")]
