"""What the reduced form of each recipe changes, as a Markdown table made from the code.

    python benchmarks/reductions.py

A cell with an arrow has the recipe's value, then the reduced one. A cell without an arrow did not
change. If a recipe trains several networks, slashes separate their values. The last column has
everything else that changed, by the names that ``--set`` takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lesionwise.inference.views import MirroredPlanes
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.nnunet import NnunetMethod
from lesionwise.recipe import Recipe
from lesionwise.run.recipes import find_recipe, is_reducible, recipe_names, settings

Network = NetworkMethod | NnunetMethod

WIDTHS = ("features", "fine", "coarse", "joint", "layers", "growth", "first", "fine_vox")
"""Arguments of networks that say how large they are."""

IN_COLUMNS = (
    "batch_size",
    "per_epoch",
    "learning_rate",
    "epochs",
    "selection.every",
    "mirror_axes",
    "mirroring",
    "early_stopping",
    "size_vox",
    "patch_size_vox",
    "base_features",
    "validation_batches",
    "batches_per_epoch",
    "network.",
    "per_study",
    # These change how a window is computed, but not what is learned or found.
    "engine",
    "windows_per_batch",
    "selection.window",
)
"""Settings that a column shows, or that only change how a window is computed."""


def networks(recipe: Recipe) -> list[Network]:
    """Every network that a recipe trains, in order; equal ones as often as they are trained."""
    steps = [step for step in recipe.preprocess if hasattr(step, "members")]
    return [each for part in (*steps, recipe.method) for each in _walk(part)]


def _walk(part: Any) -> Iterator[Network]:
    if isinstance(part, NetworkMethod | NnunetMethod):
        yield part
    for member in part.members():
        yield from _walk(member)


def row(name: str) -> list[str]:
    """A recipe's cells."""
    published, small = find_recipe(name), find_recipe(f"{name}:reduced")
    before, after = networks(published), networks(small)
    cells = [f"`{name}`"]
    for column in COLUMNS.values():
        cells.append(_change(_joined(before, column), _joined(after, column)))
    cells.append(_change(str(len(before)), str(len(after))))
    cells.append(_others(published, small))
    return cells


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before}→{after}"


def _joined(methods: list[Network], column: Callable[[Network], str]) -> str:
    return "/".join(dict.fromkeys(column(method) for method in methods))


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return "-".join(_text(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _network(method: Network) -> str:
    """Widths, and other sizes among the arguments of the network, given or by default."""
    if isinstance(method, NnunetMethod):
        return _text(method.plans.base_features)
    function = getattr(method.network, "func", method.network)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    arguments = {**defaults, **getattr(method.network, "keywords", {})}
    return ",".join(_text(arguments[name]) for name in WIDTHS if name in arguments) or "none"


def _patch(method: Network) -> str:
    if isinstance(method, NnunetMethod):
        size = method.plans.patch_size_vox
    else:
        size = getattr(method.samples, "size_vox", None)
    return "planned" if size is None else "x".join(str(each) for each in size)


def _batch(method: Network) -> str:
    if isinstance(method, NnunetMethod):
        return str(method.plans.batch_size or "planned")
    return _text(method.samples.batch_size)


def _patches_per_epoch(method: Network) -> str:
    if isinstance(method, NnunetMethod):
        batches, size = method.learning.batches_per_epoch, method.plans.batch_size
        return str(batches * size) if size else f"{batches}xbatch"
    samples = method.samples
    if study := getattr(samples, "per_study", None):
        return f"{study}xstudy"
    number = getattr(samples, "per_epoch", None)
    return str(number or getattr(getattr(samples, "balance", None), "per_epoch", None) or "all")


def _learning_rate(method: Network) -> str:
    part = method.learning if isinstance(method, NnunetMethod) else method.optimization
    return _text(part.learning_rate)


def _epochs(method: Network) -> str:
    part = method.learning if isinstance(method, NnunetMethod) else method.optimization
    return str(part.epochs)


def _validated(method: Network) -> str:
    """After how many epochs studies are validated; nnU-Net validates some batches in each."""
    if isinstance(method, NnunetMethod):
        return f"1({method.learning.validation_batches})"
    every = method.selection.every
    if not every:
        return "never"
    return "end" if every >= method.optimization.epochs else str(every)


def _early_stopping(method: Network) -> str:
    """The score that ends a training; ``off`` where it is not measured during training."""
    rule = None if isinstance(method, NnunetMethod) else method.optimization.early_stopping
    if rule is None:
        return "none"
    measured = rule.metric in ("total", "validation_loss") or _validated(method) != "end"
    return rule.metric.removeprefix("validation_") if measured else "off"


def _flips(method: Network) -> str:
    if isinstance(method, NnunetMethod):
        return "yes" if method.mirroring else "no"
    mirrored = isinstance(method.inference.planes, MirroredPlanes)
    return "yes" if mirrored or method.inference.window.mirror_axes else "no"


COLUMNS: dict[str, Callable[[Network], str]] = {
    "network": _network,
    "patch (vox)": _patch,
    "batch": _batch,
    "patches per epoch": _patches_per_epoch,
    "learning rate": _learning_rate,
    "epochs": _epochs,
    "validated": _validated,
    "early stopping": _early_stopping,
    "flips": _flips,
}


def _others(published: Recipe, small: Recipe) -> str:
    """Settings without a column that differ."""
    changes: dict[str, str] = {}
    before = [_unmirrored(method) for method in networks(published)]
    for after in (_unmirrored(method) for method in networks(small)):
        changes |= min((_differences(each, after) for each in before), key=len)
    old, new = (
        {k: v for k, v in settings(recipe).items() if k.startswith("preprocess.")}
        for recipe in (published, small)
    )
    folds = [max(_folds(recipe.method), default=0) for recipe in (published, small)]
    if folds[0] != folds[1]:
        changes["folds"] = _change(str(folds[0]), str(folds[1]))
    learned = [
        f"preprocess.{i}." for i, s in enumerate(published.preprocess) if hasattr(s, "members")
    ]
    for key in sorted({*old, *new}):
        named = not key.startswith(tuple(learned)) or key in (f"{step}folds" for step in learned)
        if old.get(key) != new.get(key) and named:
            changes[key] = _change(_text(old.get(key)), _text(new.get(key)))
    return "; ".join(f"`{name}` {change}" for name, change in changes.items())


def _unmirrored(method: Network) -> dict[str, Any]:
    """Settings of a network without its mirrored views, which have a column."""
    if isinstance(method, NetworkMethod) and isinstance(method.inference.planes, MirroredPlanes):
        inference = replace(method.inference, planes=method.inference.planes.planes)
        method = replace(method, inference=inference)
    return settings(method)


def _folds(method: Any) -> Iterator[int]:
    yield getattr(method, "folds", 0)
    for member in method.members():
        yield from _folds(member)


def _differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    keys = [
        key
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and not any(each in key for each in IN_COLUMNS)
    ]
    return {key: _change(_text(before.get(key)), _text(after.get(key))) for key in keys}


def table() -> str:
    """The table, with a heading and a line of dashes."""
    names = [name for name in recipe_names() if is_reducible(name)]
    head = ["recipe", *COLUMNS, "networks", "others"]
    rows = [head, ["---"] * len(head), *(row(name) for name in names)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


if __name__ == "__main__":
    print(table())
