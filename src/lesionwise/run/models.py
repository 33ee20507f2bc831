"""What trained models really are: settings, training, scores, licence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lesionwise.recipe import Recipe
from lesionwise.run.load_model import LoadedModel, model_names, read_model, shipped_models
from lesionwise.run.recipes import REDUCED, find_recipe, recipe_names, settings
from lesionwise.run.run_format import FORMAT, format_of, settings_of
from lesionwise.types import EMPTY

APPLIED = (
    "scans",
    "visits",
    "task",
    "preprocess",
    "method.is",
    "method.task",
    "method.scans",
    "method.network",
    "method.objective.targets",
    "method.inference",
    "to_instances",
    "threshold",
    "min_peak",
    "refine",
    "output",
)
"""Settings that act when a model is applied; the others matter to its training alone."""
APPLIED_BEFORE = ("method.is", "method.task", "method.scans", "method.network", "method.targets",
                  "method.window")  # fmt: skip
"""The same of a network in a run of format 1; other parts have the same names."""
LICENCE = "Apache-2.0, as lesionwise itself"


@dataclass(frozen=True)
class Setting:
    """One value of a model.

    Attributes:
        name: its dotted path in the recipe.
        value: that of the model.
        recipe: that of the recipe; None where the recipe has none, or it is not known any more.
        changed: whether the model departs from its recipe.
        training: whether it matters to the training alone.
    """

    name: str
    value: Any
    recipe: Any
    changed: bool
    training: bool


@dataclass(frozen=True)
class ModelFacts:
    """What a model is.

    Attributes:
        name: as ``--model`` takes it.
        recipe: the recipe that was trained.
        citation: the publication that describes the recipe.
        departures: where the recipe departs from the publication.
        visits, scans, task: what the model takes and finds.
        settings: every value, by name.
        training: what is known about the training: studies, steps, minutes …
        scores: from the model's card: by measure, or by measure and model.
        licence: of the weights.
        sha256: of the weights.
        card: the model's card, empty where there is none.
    """

    name: str
    recipe: str
    citation: str
    departures: tuple[str, ...]
    visits: int
    scans: tuple[str, ...]
    task: str
    settings: tuple[Setting, ...]
    training: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    scores: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    licence: str = LICENCE
    sha256: str = ""
    card: str = ""

    @property
    def changed(self) -> tuple[Setting, ...]:
        """The settings in which the model departs from its recipe."""
        return tuple(setting for setting in self.settings if setting.changed)

    def as_json(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        return {
            **asdict(self),
            "training": dict(self.training),
            "scores": dict(self.scores),
        }

    def summary(self) -> dict[str, Any]:
        """The same in short, as the sidecar of a result holds it."""
        return {
            "Name": self.name,
            "Recipe": self.recipe,
            "Changed": {setting.name: setting.value for setting in self.changed},
            "Training": dict(self.training),
            "License": self.licence,
            "SHA256": self.sha256,
        }


def models(name: str | Path | None = None, *, trust_recipe: bool = False) -> tuple[ModelFacts, ...]:
    """Facts about all shipped models, or about one model; no weights are loaded.

    Args:
        name: a shipped model, or a run folder of ``train``; None takes all that are shipped.
        trust_recipe: let the recipe file inside a run execute, as for ``load_model``.

    Raises:
        InputError: If there is no such model, or its recipe is not trusted.

    Example:
        >>> [facts.recipe for facts in models("unet-cc")]
        ['unet-cc']
    """
    found = []
    for each in model_names() if name is None else [name]:
        run, recipe = read_model(each, trust_recipe=trust_recipe)
        found.append(_facts(str(each), run, recipe))
    return tuple(found)


def facts_of(model: LoadedModel) -> ModelFacts:
    """Facts about a model that is loaded."""
    return _facts(model.name, model.run, model.recipe)


def _facts(name: str, run: Mapping[str, Any], recipe: Recipe) -> ModelFacts:
    plain = _plain_recipe(str(run.get("recipe", "")))
    own, known = settings(recipe), {} if plain is None else settings(plain)
    if format_of(run) >= FORMAT or "settings" not in run:
        found = [
            Setting(
                key,
                value,
                known.get(key),
                bool(known) and value != known.get(key),
                not _applied(key),
            )
            for key, value in own.items()
        ]
    else:
        # what an older training used is known by its old names alone, so it stands so
        found = [
            Setting(key, value, known.get(key), value != known.get(key), False)
            for key, value in own.items()
            if _applied(key)
        ]
        set_by_hand = [str(text).partition("=")[0] for text in run.get("overrides", [])]
        found += [
            Setting(key, value, None, any(_below(key, path) for path in set_by_hand), True)
            for key, value in settings_of(run).items()
            if key.startswith("method.") and not any(_below(key, path) for path in APPLIED_BEFORE)
        ]
    card = read_card(name)
    return ModelFacts(
        name=name,
        recipe=str(run.get("recipe", "")),
        citation=str(recipe.citation),
        departures=recipe.departures,
        visits=recipe.visits,
        scans=recipe.scans,
        task=recipe.task,
        settings=tuple(found),
        training=_training(run),
        scores=card.scores,
        licence=card.licence,
        sha256=str(run.get("sha256", "")),
        card=card.path,
    )


def _plain_recipe(reference: str) -> Recipe | None:
    """The shipped recipe as it is without the values of a run."""
    shipped = reference.removesuffix(REDUCED) in recipe_names()
    return find_recipe(reference) if shipped else None


def _applied(key: str) -> bool:
    return any(_below(key, path) for path in APPLIED)


def _below(key: str, path: str) -> bool:
    return key == path or key.startswith(f"{path}.")


def _training(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a run says of its training, in short."""
    summary = run.get("summary", {})
    found: dict[str, Any] = {}
    for key in ("training", "validation"):
        if isinstance(run.get(key), list):
            found[f"{key}_studies"] = len(run[key])
    for key in ("epochs", "steps", "patches", "minutes", "parameters", "device", "precision"):
        if key in summary:
            found[key] = summary[key]
    chosen = summary.get("chosen", {})
    if "epoch" in chosen:
        found["weights_of_epoch"] = chosen["epoch"]
    if run.get("initial"):
        found["begun_with_weights"] = str(run["initial"])[:12]
    if run.get("data"):
        found["data"] = str(run["data"])[:12]
    if "lesionwise" in run.get("versions", {}):
        found["lesionwise"] = run["versions"]["lesionwise"]
    return found


@dataclass(frozen=True)
class Card:
    """What is read of a model card.

    Attributes:
        path: of the card; empty where there is none.
        scores: its table of measures for the model, as printed.
        licence: of the weights.
    """

    path: str = ""
    scores: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    licence: str = LICENCE


def read_card(name: str) -> Card:
    """The card of a shipped model: the file that names it in its title.

    Scores are the rows of the first table below a heading *Measured* or *Results*, of the
    column with the model's name, or of all columns, each with its heading, where none has it. A
    cell that is empty is left out.

    Example:
        >>> read_card("no-such-model").scores
        {}
    """
    if name not in model_names():
        return Card(scores={})
    for path in sorted(shipped_models().glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if f"`{name}`" in text.split("\n", 1)[0]:
            lines = text.splitlines()
            rows = [_cells(line) for line in lines if line.startswith("|")]
            licences = [row[1] for row in rows if row[0] == "licence" and len(row) > 1]
            return Card(str(path), _scores(lines, name), licences[0] if licences else LICENCE)
    return Card(scores={})


def _scores(lines: Sequence[str], name: str) -> dict[str, str]:
    headings = [n for n, line in enumerate(lines) if re.match(r"#+ (Measured|Results)", line)]
    if not headings:
        return {}
    table: list[list[str]] = []
    for line in lines[headings[0] + 1 :]:
        if line.startswith("#") or (table and not line.startswith("|")):
            break
        if line.startswith("|") and not set(line) <= set("|-: "):
            table.append(_cells(line))
    if not table:
        return {}
    header, *rows = table
    if f"`{name}`" in header:
        column = header.index(f"`{name}`")
        pairs = {row[0]: row[column] for row in rows if len(row) > column}
    else:
        pairs = {row[0]: _labeled(header[1:], row[1:]) for row in rows}
    return {measure: value for measure, value in pairs.items() if measure and value}


def _labeled(heads: Sequence[str], cells: Sequence[str]) -> str:
    """The cells of a row that are not empty, with the heads of their columns if there are several.

    Example:
        >>> _labeled(["first phase", "shipped"], ["0.66", "0.81"])
        'first phase 0.66; shipped 0.81'
    """
    if len(cells) == 1:
        return cells[0]
    pairs = zip(heads, cells, strict=False)
    return "; ".join(f"{head} {cell}".strip() for head, cell in pairs if cell)


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]
