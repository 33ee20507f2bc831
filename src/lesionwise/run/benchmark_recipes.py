"""The recipes of a benchmark, with the values that are set in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lesionwise.recipe import Recipe
from lesionwise.run.recipes import REDUCED, find_recipe, is_reducible, override, recipe_names
from lesionwise.types import InputError, Task

ALL = "all"
"""In place of a recipe's name: every shipped one."""


@dataclass(frozen=True)
class BenchmarkRecipe:
    """One recipe of a benchmark.

    Attributes:
        name: of its row.
        recipe: name or file.
        overrides: those of the values to set that it has.
        found: the recipe itself.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...]
    found: Recipe

    @property
    def group(self) -> str:
        """Entries of one group are scored on the same cases."""
        return f"{self.found.task}-{self.found.visits}"


def find_benchmark_recipes(
    recipes: Sequence[str], overrides: Sequence[str]
) -> list[BenchmarkRecipe]:
    """The recipes by name or file, with ``overrides`` as ``benchmark`` takes them.

    ``all`` stands for every shipped recipe, ``all:reduced`` for each in its reduced form; a recipe
    without one needs none and is taken as it is.

    Raises:
        InputError: If there is none, one is named twice or not known, or a value fits none.
    """
    recipes = [one for recipe in recipes for one in _expanded(recipe)]
    names = [_name_of(recipe) for recipe in recipes]
    if not names:
        raise InputError("benchmark: name at least one recipe")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"benchmark: a recipe is named twice: {', '.join(twice)}")
    plain = [find_recipe(recipe) for recipe in recipes]
    chosen: list[list[str]] = [[] for _ in recipes]
    for text in overrides:
        owner, colon, own = text.partition(":")
        addressed = bool(colon) and owner in names
        errors = []
        for index, name in enumerate(names):
            if addressed and name != owner:
                continue
            wanted = own if addressed else text
            try:
                plain[index] = override(plain[index], wanted)
            except InputError as error:
                errors.append(str(error))
            else:
                chosen[index].append(wanted)
        if len(errors) == (1 if addressed else len(names)):
            raise InputError(errors[0])
    return [
        BenchmarkRecipe(name, recipe, tuple(texts), found)
        for name, recipe, texts, found in zip(names, recipes, chosen, plain, strict=True)
    ]


def _expanded(recipe: str) -> list[str]:
    """The recipes that ``all`` or ``all:reduced`` stands for; another name stands for itself."""
    if recipe.removesuffix(REDUCED) != ALL:
        return [recipe]
    if recipe == ALL:
        return recipe_names()
    return [name + REDUCED if is_reducible(name) else name for name in recipe_names()]


def _name_of(recipe: str) -> str:
    """The recipe's name, or its file's; ``iqda-reduced`` of ``iqda:reduced``."""
    name = recipe.removesuffix(REDUCED)
    stem = Path(name).stem if name.endswith(".py") else name
    return stem + recipe.removeprefix(name).replace(":", "-")


def scans_of(entries: Sequence[BenchmarkRecipe]) -> tuple[str, ...]:
    """Every scan that any of them needs, each once."""
    return tuple(dict.fromkeys(scan for entry in entries for scan in entry.found.scans))


def groups(entries: Sequence[BenchmarkRecipe]) -> Iterator[tuple[str, Task, Recipe]]:
    """Each group once: its name, what is found, and one of its recipes."""
    seen: set[str] = set()
    for entry in entries:
        if entry.group not in seen:
            seen.add(entry.group)
            yield entry.group, entry.found.task, entry.found
