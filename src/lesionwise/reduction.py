"""Recipes made small enough for two processor cores.

A published system often asks for days of a GPU. Its recipe file may set ``REDUCED`` beside
``RECIPE``: the same system with narrower networks, smaller patches and another learning rate, and
everything else as published. ``lesionwise train NAME:reduced`` takes it, and tests train it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

from lesionwise.inference.views import Views
from lesionwise.inference.window import SlidingWindow
from lesionwise.learning.samples import CombinedSamples
from lesionwise.learning.schedules import stretched
from lesionwise.methods.composite import Ensemble
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.nnunet import NnunetMethod
from lesionwise.recipe import Recipe
from lesionwise.types import Method

T = TypeVar("T")

UNTIL_THE_TIME_LIMIT = 10_000
"""Epochs that no training on two cores comes to: the time limit ends it, and one validation."""


@dataclass(frozen=True)
class Reduction:
    """What is changed in every network of a recipe; what is None stays.

    Attributes:
        network: arguments of the network, such as ``{"features": (8, 16, 32)}``; of nnU-Net the
            values of its ``Plans``, such as ``{"base_features": 8}``.
        size_vox: of a patch, and of the windows of prediction where the recipe names their size;
            two numbers for nnU-Net's slices.
        batch_size, per_epoch: of the samples.
        learning_rate, epochs: of the training; a schedule of the learning rate that counts epochs
            is stretched to them.
        every: epochs between validations; by default one validation, at the end. 0: none.
        window: of prediction and of validation.
        planes: views of prediction, of a network that joins several.
        heatmap: weight of the heatmap's loss, of nnU-Net with three heads.
        steps: settings of preprocessing steps by the name of their class, such as
            ``{"Resample": {"spacing_mm": 1.0}}``; every step of that class takes them.
        one_of_each: keep one of equal members of an ensemble, which then learns from all studies
            instead of folds; early stopping and initial trainings are kept.
    """

    network: Mapping[str, Any] = field(default_factory=dict)
    size_vox: tuple[int, ...] | None = None
    batch_size: int | None = None
    per_epoch: int | None = None
    learning_rate: float | None = None
    epochs: int | None = UNTIL_THE_TIME_LIMIT
    every: int | None = UNTIL_THE_TIME_LIMIT
    window: SlidingWindow | None = None
    planes: Views | None = None
    heatmap: float | None = None
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    one_of_each: bool = True

    def __str__(self) -> str:
        """What is reduced, in words."""
        changed = [f"{name} {value}" for name, value in self.network.items()]
        for name, unit in (
            ("size_vox", "patch"),
            ("batch_size", "batch"),
            ("per_epoch", "patches per epoch"),
            ("learning_rate", "learning rate"),
            ("epochs", "epochs"),
            ("heatmap", "heatmap weight"),
        ):
            value = getattr(self, name)
            if value is not None:
                changed.append(f"{unit} {value}")
        for step, values in self.steps.items():
            changed += [f"{step}'s {name} {value}" for name, value in values.items()]
        return "; ".join(changed) or "nothing"


def reduced(recipe: Recipe, reduction: Reduction) -> Recipe:
    """The recipe with every network reduced: those of its method, and of steps that learn.

    Raises:
        ValueError: If the recipe has no step that ``reduction.steps`` names.

    Example:
        >>> from lesionwise.recipes.unet_cc import RECIPE
        >>> small = reduced(RECIPE, Reduction(size_vox=(32, 32, 32), batch_size=1))
        >>> small.method.samples.size_vox, small.method.samples.batch_size
        ((32, 32, 32), 1)
    """

    def change(method: Method) -> Method:
        if isinstance(method, Ensemble) and reduction.one_of_each:
            return replace(method, methods=tuple(dict.fromkeys(method.methods)), folds=0)
        if isinstance(method, NnunetMethod):
            return _reduced_nnunet(method, reduction)
        return _reduced_network(method, reduction) if isinstance(method, NetworkMethod) else method

    missing = set(reduction.steps) - {type(step).__name__ for step in recipe.preprocess}
    if missing:
        raise ValueError(f"no step {', '.join(sorted(missing))} in this recipe")
    steps = [
        replace_methods(step, change) if hasattr(step, "members") else step
        for step in recipe.preprocess
    ]
    for place, step in enumerate(steps):
        if values := reduction.steps.get(type(step).__name__):
            steps[place] = replace(step, **values)  # type: ignore[type-var]
    return replace(recipe, preprocess=tuple(steps), method=change_methods(recipe.method, change))


def _reduced_network(method: NetworkMethod, reduction: Reduction) -> NetworkMethod:
    """One network reduced."""
    network = method.network
    if reduction.network and isinstance(network, partial):
        arguments = {**network.keywords, **reduction.network}
        network = partial(network.func, *network.args, **arguments)
    samples = _reduced_samples(method.samples, reduction)
    optimization = method.optimization
    if reduction.learning_rate is not None:
        optimization = replace(optimization, learning_rate=reduction.learning_rate)
    if reduction.epochs is not None:
        schedule = stretched(optimization.schedule, reduction.epochs / optimization.epochs)
        optimization = replace(optimization, epochs=reduction.epochs, schedule=schedule)
    selection, inference = method.selection, method.inference
    if reduction.every is not None:
        selection = replace(selection, every=reduction.every)
    if reduction.window is not None:
        inference = replace(inference, window=reduction.window)
        selection = replace(selection, window=reduction.window)
    if reduction.planes is not None and inference.planes is not None:
        inference = replace(inference, planes=reduction.planes)
    if reduction.size_vox is not None and inference.size_vox is not None:
        i, j, k = reduction.size_vox
        inference = replace(inference, size_vox=(i, j, k))
    return replace(
        method,
        network=network,
        samples=samples,
        optimization=optimization,
        selection=selection,
        inference=inference,
    )


def _reduced_nnunet(method: NnunetMethod, reduction: Reduction) -> NnunetMethod:
    """One network of nnU-Net reduced; it predicts by OpenVINO and without mirrored views."""
    plans = replace(method.plans, **reduction.network)
    learning = method.learning
    if reduction.size_vox is not None:
        plans = replace(plans, patch_size_vox=reduction.size_vox)
    if reduction.batch_size is not None:
        plans = replace(plans, batch_size=reduction.batch_size)
    if reduction.learning_rate is not None:
        learning = replace(learning, learning_rate=reduction.learning_rate)
    if reduction.epochs is not None:
        learning = replace(learning, epochs=reduction.epochs)
    if reduction.per_epoch is not None:
        batches = max(1, reduction.per_epoch // (plans.batch_size or 1))
        learning = replace(learning, batches_per_epoch=batches, validation_batches=1)
    heads = method.heads
    if reduction.heatmap is not None and heads is not None:
        heads = replace(heads, heatmap=reduction.heatmap)
    return replace(
        method, plans=plans, learning=learning, heads=heads, mirroring=False, engine="openvino"
    )


def _reduced_samples(samples: Any, reduction: Reduction) -> Any:
    """Samples reduced; of several together each."""
    if isinstance(samples, CombinedSamples):
        each = tuple((name, _reduced_samples(part, reduction)) for name, part in samples.sources)
        return replace(samples, sources=each)
    names = {f.name for f in fields(samples) if f.init}
    wanted = {n: getattr(reduction, n) for n in ("size_vox", "batch_size", "per_epoch")}
    balance: Any = getattr(samples, "balance", None)
    if reduction.per_epoch is not None and getattr(balance, "per_epoch", None):
        samples = replace(samples, balance=replace(balance, per_epoch=reduction.per_epoch))
    return replace(samples, **{n: v for n, v in wanted.items() if v is not None and n in names})


def change_methods(method: Method, change: Callable[[Method], Method]) -> Method:
    """A method with ``change`` applied to it and to all that it is made of, members first.

    Example:
        >>> from lesionwise.methods.given import GivenLesions
        >>> method = Ensemble((GivenLesions("a.nii.gz"), GivenLesions("b.nii.gz")))
        >>> def on_t1w(method):
        ...     return replace(method, scan="t1w") if isinstance(method, GivenLesions) else method
        ...
        >>> [member.scan for member in change_methods(method, on_t1w).members()]
        ['t1w', 't1w']
    """
    return change(replace_methods(method, change))


def replace_methods(part: T, change: Callable[[Method], Method]) -> T:
    """A dataclass with ``change`` applied to the methods that it says it is made of.

    Example:
        >>> from lesionwise.methods.given import GivenLesions
        >>> method = Ensemble((GivenLesions("a.nii.gz"), GivenLesions("b.nii.gz")))
        >>> replaced = replace_methods(method, lambda member: replace(member, scan="t1w"))
        >>> [member.scan for member in replaced.members()]
        ['t1w', 't1w']
    """
    members: tuple[Method, ...] = part.members()  # type: ignore[attr-defined]
    if not members:
        return part

    changed: dict[int, Method] = {}  # one object for a member that stands several times

    def rebuilt(value: Any) -> Any:
        if any(value is member for member in members):
            if id(value) not in changed:
                changed[id(value)] = change_methods(value, change)
            return changed[id(value)]
        if isinstance(value, tuple):
            return tuple(rebuilt(each) for each in value)
        if is_dataclass(value) and not isinstance(value, type) and _holds(value, members):
            return _with_fields(value, rebuilt)
        return value

    return _with_fields(part, rebuilt)


def _with_fields(part: T, rebuilt: Callable[[Any], Any]) -> T:
    changed = {
        f.name: new
        for f in fields(part)  # type: ignore[arg-type]
        if f.init and (new := rebuilt(getattr(part, f.name))) is not getattr(part, f.name)
    }
    return replace(part, **changed) if changed else part  # type: ignore[type-var]


def _holds(value: Any, members: tuple[Method, ...]) -> bool:
    return any(getattr(value, f.name) is member for f in fields(value) for member in members)
