"""Recipes by name or file, with values set from the command line."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import importlib.resources
import inspect
import pkgutil
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

import lesionwise.recipes
from lesionwise.io.checked import read_checked
from lesionwise.recipe import Recipe
from lesionwise.run.user_recipes import module_of_file
from lesionwise.types import Auxiliary, InputError

REDUCED = ":reduced"
"""Behind the name of a recipe: its reduced form."""
DESCRIPTION = ("citation", "passage", "source", "reported", "departures")
"""Fields of a recipe that describe it and change no result; ``source`` in earlier versions."""


@dataclass(frozen=True)
class RecipeFacts:
    """A recipe as the command ``recipes`` shows it.

    Attributes:
        name: as ``train`` takes it.
        description: one line.
        recipe: the recipe itself.
        models: shipped models that were trained with it; most recipes have none.
    """

    name: str
    description: str
    recipe: Recipe
    models: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Every value by its dotted path, as ``--set`` takes it."""
        return settings(self.recipe)


def recipes(name: str | None = None) -> tuple[RecipeFacts, ...]:
    """All shipped recipes, or one.

    Args:
        name: as for ``find_recipe``; None takes all that are shipped.

    Raises:
        InputError: If there is no such recipe.

    Example:
        >>> [facts.recipe.visits for facts in recipes("pre-unet")]
        [2]
    """
    return tuple(
        RecipeFacts(each, describe(each), find_recipe(each), shipped_models(each))
        for each in (recipe_names() if name is None else [name])
    )


def shipped_models(recipe: str) -> tuple[str, ...]:
    """Names of the models that come with the package and were trained with a recipe.

    Example:
        >>> shipped_models("pre-unet")
        ()
    """
    folder = Path(str(importlib.resources.files("lesionwise") / "models"))
    found = []
    for path in sorted(folder.glob("*.json")):
        described = read_checked(path, dict[str, Any])
        name = str(described.get("recipe", "")).removesuffix(REDUCED)
        if name == recipe and path.with_suffix(".safetensors").is_file():
            found.append(path.stem)
    return tuple(found)


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted: a file ``unet_cc.py`` is ``unet-cc``."""
    found = pkgutil.iter_modules(lesionwise.recipes.__path__)
    return sorted(module.name.replace("_", "-") for module in found if module.name[0] != "_")


def describe(recipe: str) -> str:
    """The first line of the docstring of a recipe's file.

    Raises:
        InputError: If there is no such recipe.
    """
    return (_module_of(recipe).__doc__ or "").strip().split("\n")[0]


def find_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by its name, or a user's by the path of its ``.py`` file.

    A user's file is run as Python and must set ``RECIPE``. With ``:reduced`` after name or path
    it is ``REDUCED`` of the same file: the system made small enough for two processor cores.

    Args:
        recipe: name or path, perhaps with ``:reduced``.
        overrides: as for ``override``.

    Raises:
        InputError: If there is no such recipe, a value cannot be set, or a network cannot be
            built with it.
    """
    name = str(recipe).removesuffix(REDUCED)
    module = _module_of(recipe)
    attribute = "REDUCED" if str(recipe).endswith(REDUCED) else "RECIPE"
    found = getattr(module, attribute, None)
    if not isinstance(found, Recipe):
        raise InputError(f"{name}: does not set {attribute} to a Recipe")
    changed = found
    for text in overrides:
        changed = override(changed, text)
    _check_networks(found, changed, overrides)
    return changed


def _check_networks(before: Any, after: Any, overrides: Sequence[str]) -> None:
    """Refuse values with which a network that they change cannot be built."""
    if before is after:
        return
    if isinstance(after, functools.partial) and _builds_network(after):
        why = _fault_of(after)
        if why:
            given = " ".join(f"--set {text}" for text in overrides)
            raise InputError(f"{given}: the network cannot be built ({why})")
        return
    old = members_of(before) or {}
    for name, member in (members_of(after) or {}).items():
        _check_networks(old.get(name), member, overrides)


def _builds_network(part: functools.partial[Any]) -> bool:
    """True where a call without further arguments makes a network."""
    from torch import nn

    try:
        inspect.signature(part).bind()
        made: Any = part.func
        if not isinstance(made, type):
            made = typing.get_type_hints(made).get("return")
    except (NameError, TypeError):  # it takes more, or names what only type checkers import
        return False
    return isinstance(made, type) and issubclass(made, nn.Module)


def _fault_of(build: Callable[[], Any]) -> str:
    """Why a network cannot be built, in one line; empty if it can. No memory is taken for it."""
    import torch

    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers without channels, which are refused below
            network = build()
    except NotImplementedError:  # of what torch cannot do without memory; training will tell
        return ""
    except Exception as error:  # whatever a network's own code makes of such values
        return " ".join(str(error).split())[:200] or type(error).__name__
    empty = [name for name, weights in network.named_parameters() if not weights.numel()]
    return f"{empty[0]} has no weights" if empty else ""


def is_reducible(recipe: str | Path) -> bool:
    """True if the recipe has a reduced form.

    Raises:
        InputError: If there is no such recipe.
    """
    return isinstance(getattr(_module_of(recipe), "REDUCED", None), Recipe)


def _module_of(recipe: str | Path) -> ModuleType:
    name = str(recipe).removesuffix(REDUCED)
    if name.endswith(".py"):
        return module_of_file(Path(name))
    names = recipe_names()
    if name not in names:
        raise InputError(f"{recipe}: no such recipe; there are {', '.join(names)}")
    return importlib.import_module(f"lesionwise.recipes.{name.replace('-', '_')}")


def override(recipe: Recipe, text: str) -> Recipe:
    """The recipe with one value replaced.

    ``text`` is ``a.b.c=value``: fields of dataclasses by name, members of tuples by number,
    arguments of ``functools.partial`` by keyword. The value is a Python literal, or a plain
    word. A list becomes a tuple and an integer a float where the old value is one.

    Raises:
        InputError: If the path leads nowhere or the value is of another kind.
    """
    path, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"--set {text}: write it as name=value")
    try:
        literal = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        literal = value.strip()
    replaced = _replaced(recipe, path.strip().split("."), literal, text)
    assert isinstance(replaced, Recipe)
    return replaced


def _replaced(part: Any, path: list[str], value: Any, text: str) -> Any:
    if not path:
        return _fitting(part, value, text)
    name, rest = path[0], path[1:]
    members = members_of(part)
    if members is None or name not in members:
        raise InputError(f"--set {text}: {_no_such(name, members)}")
    new = _replaced(members[name], rest, value, text)
    if not rest:
        _check_declared(part, name, new, text)
    if isinstance(part, functools.partial):
        return functools.partial(part.func, *part.args, **{**part.keywords, name: new})
    if isinstance(part, tuple):
        index = int(name)
        return (*part[:index], new, *part[index + 1 :])
    try:
        return dataclasses.replace(part, **{name: new})
    except (TypeError, ValueError) as error:
        raise InputError(f"--set {text}: {error}") from error


def _check_declared(part: Any, name: str, value: Any, text: str) -> None:
    """Refuse a value that the declared type of a field or an argument does not allow."""
    owner: Any = part.func if isinstance(part, functools.partial) else type(part)
    if isinstance(owner, type) and not dataclasses.is_dataclass(owner):
        owner = vars(owner).get("__init__")  # a network is declared by what builds it
    try:
        declared = typing.get_type_hints(owner).get(name)
    except (NameError, TypeError):  # a name that only type checkers import
        return
    if declared is not None and not _allows(declared, value):
        expected = " or ".join(_words(declared))
        raise InputError(f"--set {text}: {name} must be {expected}, not {value!r}")


def _allows(declared: Any, value: Any) -> bool:
    """Whether a value is of a declared type; types of parts allow everything."""
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if origin is Literal:
        return any(type(value) is type(word) and value == word for word in inner)
    if origin in (typing.Union, types.UnionType):
        return any(_allows(each, value) for each in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if inner[1:] == (Ellipsis,):
            return all(_allows(inner[0], each) for each in value)
        return len(value) == len(inner) and all(map(_allows, inner, value))
    if declared in (bool, str, types.NoneType):
        return isinstance(value, declared)
    if declared is int:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)
    if declared is float:
        return isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return True


def _words(declared: Any) -> list[str]:
    """What a declared type allows, as a person would write it."""
    origin, inner = typing.get_origin(declared), typing.get_args(declared)
    if origin is Literal:
        return [repr(word) for word in inner]
    if origin in (typing.Union, types.UnionType):
        return [word for each in inner for word in _words(each)]
    if origin is tuple and inner[1:] == (Ellipsis,):
        return [f"a list of {' or '.join(_words(inner[0]))}"]
    if origin is tuple:
        return [f"a list of {len(inner)} values ({', '.join(map(_name, inner))})"]
    return [_name(declared)]


def _name(declared: Any) -> str:
    return "None" if declared is types.NoneType else getattr(declared, "__name__", str(declared))


def members_of(part: Any) -> dict[str, Any] | None:
    """What a part of a recipe is made of, by the names that ``override`` takes; None for a value.

    Example:
        >>> members_of((96, 64))
        {'0': 96, '1': 64}
        >>> members_of(96) is None
        True
    """
    if isinstance(part, functools.partial):
        return dict(part.keywords)
    if dataclasses.is_dataclass(part) and not isinstance(part, type):
        return {f.name: getattr(part, f.name) for f in dataclasses.fields(part) if f.init}
    if isinstance(part, tuple):
        return {str(index): member for index, member in enumerate(part)}
    return None


def _no_such(name: str, members: Mapping[str, Any] | None) -> str:
    if not members:
        return f"there is nothing to set below {name}" if members is None else f"no {name}"
    near = difflib.get_close_matches(name, members, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(members)}"
    return f"no {name}; {hint}"


def _fitting(old: Any, new: Any, text: str) -> Any:
    if isinstance(new, list):
        new = tuple(new)
    if old is None or new is None:
        return new
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, np.number | int | float | str | tuple | bool):
        if type(old) is not type(new):
            kind = type(old).__name__
            raise InputError(f"--set {text}: expected {kind} like {old!r}, got {new!r}")
        return new
    raise InputError(f"--set {text}: name a value, not a {type(old).__name__}")


def auxiliary_sets(recipe: Recipe) -> dict[str, Auxiliary]:
    """The further training sets that parts of a recipe learn from where they are given, by name.

    They are the values of fields called ``auxiliary``; a bare name is a set of labeled visits.
    """
    found: dict[str, Auxiliary] = {}

    def look(part: Any, field: str) -> None:
        if isinstance(part, Auxiliary):
            found[part.name] = part
        elif field == "auxiliary" and isinstance(part, str) and part:
            found.setdefault(part, Auxiliary(part))
        else:
            for name, member in (members_of(part) or {}).items():
                look(member, name)

    look(recipe, "")
    return dict(sorted(found.items()))


def settings(part: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a recipe, or of a part of it, by its dotted path; fit for JSON.

    The key ``PATH.is`` holds the name of a part's type, so that another part is another setting.
    What only describes a recipe (citation, reported scores, departures) is no setting.

    Example:
        >>> settings(find_recipe("unet-cc"))["method.optimization.epochs"]
        300
    """
    if part is None or isinstance(part, bool | int | float | str):
        return {prefix: part}
    members = members_of(part)
    if isinstance(part, tuple) and all(isinstance(m, bool | int | float | str) for m in part):
        return {prefix: list(part)}
    if isinstance(part, Mapping):
        members = {str(key): value for key, value in part.items()}
    if members is None:
        return {prefix: getattr(part, "__qualname__", repr(part))}
    dot = f"{prefix}." if prefix else ""
    flat: dict[str, Any] = {}
    if isinstance(part, functools.partial):
        flat[f"{dot}is"] = part.func.__qualname__
    elif not isinstance(part, tuple | Mapping):
        flat[f"{dot}is"] = type(part).__qualname__
    for name, member in members.items():
        if not (isinstance(part, Recipe) and name in DESCRIPTION):
            flat |= settings(member, f"{dot}{name}")
    return flat
