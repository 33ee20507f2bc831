"""Commands and the functions that do their work agree on every default."""

import importlib
import inspect

import pytest
import typer

from lesionwise import cli

FUNCTIONS = {
    "demo": "lesionwise.run.demo",
    "segment": "lesionwise.run.segment",
    "compare": "lesionwise.run.compare",
    "split": "lesionwise.run.split",
    "simulate": "lesionwise.run.simulate",
    "evaluate": "lesionwise.run.evaluate",
    "train": "lesionwise.run.train",
    "benchmark": "lesionwise.run.benchmark",
    "search": "lesionwise.run.search",
    "predict": "lesionwise.run.predict",
    "cohort": "lesionwise.cohort.cohort",
    "export": "lesionwise.run.export",
    "report": "lesionwise.cohort.report",
    "recipes": "lesionwise.run.recipes",
    "models": "lesionwise.run.models",
}
UNITS = {
    "min_volume": "min_volume_mm3",
    "min_extent": "min_extent_mm",
    "spacing": "spacing_mm",
    "surface_tolerance": "surface_tolerance_mm",
}

OF_ANOTHER_KIND = {"slices", "scans"}
"""A switch that stands for options, and names with commas between them."""


def defaults_of(function):
    return {
        UNITS.get(name, name): parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_every_command_is_a_function_of_its_name_in_a_file_of_its_name() -> None:
    commands = {command.callback.__name__ for command in cli.app.registered_commands}
    assert commands == set(FUNCTIONS)
    for name, module in FUNCTIONS.items():
        assert module.rpartition(".")[2] == name
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_command_and_its_function_have_the_same_defaults(name) -> None:
    shown = defaults_of(getattr(cli, name))
    own = defaults_of(getattr(importlib.import_module(FUNCTIONS[name]), name))
    nothing = (None, (), "", {})
    different = {
        key: (shown[key], own[key])
        for key in (shown.keys() & own.keys()) - OF_ANOTHER_KIND
        if shown[key] != own[key] and not (shown[key] in nothing and own[key] in nothing)
    }
    assert not different


def test_options_of_scores_are_those_of_evaluate() -> None:
    from lesionwise.metrics.case import Options

    options = Options()
    shown = defaults_of(cli.evaluate)
    names = ("matching", "iou_threshold", "empty", "hd95", "assd")
    for name in (*names, "min_volume_mm3", "surface_tolerance_mm"):
        assert shown[name] == getattr(options, name)


def test_no_command_is_without_help() -> None:
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert command.help, name
