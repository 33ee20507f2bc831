"""Trained models, ready to be applied."""

from __future__ import annotations

import importlib.resources
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lesionwise.instances.components import ConnectedComponents
from lesionwise.io.checked import inside, read_checked
from lesionwise.io.record import sha256 as sha256_of
from lesionwise.io.record import sha256_of_bytes
from lesionwise.methods.network import NetworkMethod
from lesionwise.preprocess.brain_network import WEIGHTS as BRAIN_WEIGHTS
from lesionwise.recipe import Citation, Recipe
from lesionwise.run.learned_steps import load_steps, shared_steps
from lesionwise.run.recipes import REDUCED, find_recipe, settings
from lesionwise.run.run_format import overrides_of, settings_of
from lesionwise.run.run_weights import known_hash
from lesionwise.types import (
    InputError,
    LesionMaps,
    Predictor,
    Progress,
    RunContext,
    Step,
    Study,
    Task,
    no_progress,
)

RUN_FILE = "run.json"
SIZED = ("method.network.", "method.samples.size_vox", "method.patch_size_vox")
LARGEST = 4096
"""Channels of a network and voxels of a patch along an axis; published ones reach 1024 and 512."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A recipe with what it learned.

    Attributes:
        recipe: with the values it was trained with.
        predictor: from a prepared study to lesion maps.
        name: of the shipped model, or the run folder.
        sha256: of the weights, one over all files of a run that has several
            (``run.run_weights``); empty for a method without a weights file.
        run: what was written down when it was trained.
    """

    recipe: Recipe
    predictor: Predictor
    name: str
    sha256: str
    run: Mapping[str, Any]

    @property
    def steps(self) -> tuple[Step, ...]:
        """From a study as read to the study the predictor takes; what learns has learned."""
        return shared_steps(self.recipe.preprocess)

    def predict(self, prepared: Study, progress: Progress = no_progress) -> LesionMaps:
        """Lesion maps on the prepared grid; a network tells of its windows."""
        predictor: Any = self.predictor
        if hasattr(predictor, "progress"):  # those of rules and trees have no windows
            predictor = replace(predictor, progress=progress)
        maps: LesionMaps = predictor(prepared)
        return maps


def model_names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(p.stem for p in shipped_models().glob("*.safetensors") if p.name != BRAIN_WEIGHTS)


def load_model(
    model: str | Path | LoadedModel, device: str = "auto", *, trust_recipe: bool = False
) -> LoadedModel:
    """A shipped model by its name, or the model of a run folder; one that is loaded, as it is.

    ``nnunet:DIR`` is a model folder of nnU-Net's own (``load_nnunet_model``); its lesions are
    components.

    A folder wins over a shipped model of the same name only if it is written as a path, with
    a separator in it.

    Args:
        model: name, run folder, or ``nnunet:DIR``.
        device: "auto", "cpu", "cuda" …
        trust_recipe: let the recipe file inside a run execute. A run of a shipped recipe needs
            no trust: it is named, with settings, and nothing of the folder executes.

    Raises:
        InputError: If there is no such model, its weights are missing or malformed, or they
            are not the ones its run wrote down; if the run has a recipe of its own that is not
            trusted.
    """
    if isinstance(model, LoadedModel):
        return model
    text = str(model)
    if text.startswith("nnunet:"):
        return _nnunet_model(text, device)
    described, recipe = read_model(model, trust_recipe=trust_recipe)
    if _is_shipped(model):
        return _shipped_model(text, described, recipe, device)
    folder = Path(model)
    run = RunContext(folder, device=device)
    _warn_of_other_steps(folder, described, recipe)
    recipe = replace(recipe, preprocess=load_steps(recipe.preprocess, run))
    predictor = recipe.method.load(run)
    sha256 = known_hash(folder, described.get("sha256"))
    if sha256 is None:
        raise InputError(f"{folder}: not the weights that its run names (SHA-256 differs)")
    return LoadedModel(recipe, predictor, text, sha256, described)


def read_model(model: str | Path, *, trust_recipe: bool = False) -> tuple[dict[str, Any], Recipe]:
    """What was written down when a model was trained, and its recipe; no weights are read.

    Args:
        model, trust_recipe: as for ``load_model``.

    Raises:
        InputError: As ``load_model``, but for the weights.
    """
    if _is_shipped(model):
        path = shipped_models() / f"{model}.json"
        described = read_checked(path, dict[str, Any])
        return described, _recipe_of(described, path.parent)
    folder = Path(model)
    if not folder.is_dir():
        names = ", ".join(model_names()) or "none"
        raise InputError(f"{model}: no such run folder, and no such model (shipped: {names})")
    described = read_run(folder)
    if described.get("status") != "done":
        raise InputError(f"{folder}: its training has not ended")
    return described, _recipe_of(described, folder, trust_recipe)


def _warn_of_other_steps(folder: Path, described: Mapping[str, Any], recipe: Recipe) -> None:
    """Say where the recipe prepares scans otherwise today than when the run was trained."""
    was, now = (
        {name: value for name, value in found.items() if name.startswith("preprocess.")}
        for found in (settings_of(described), json.loads(json.dumps(settings(recipe))))
    )
    steps = [{name for name in found if name.endswith(".is")} for found in (was, now)]
    # a field that only one side has is one that the package did not have before
    names = [*sorted(steps[0] ^ steps[1]), *(n for n in now if n in was and was[n] != now[n])]
    if was and names:
        first = names[0]
        logging.getLogger("lesionwise").warning(
            "%s: trained when its recipe prepared scans otherwise (%s %s, now %s); train it again",
            folder,
            first,
            was.get(first, "none"),
            now.get(first, "none"),
        )


def _is_shipped(model: str | Path) -> bool:
    return isinstance(model, str) and model in model_names()


def read_run(folder: Path) -> dict[str, Any]:
    """What ``run.json`` in a run folder says.

    Raises:
        InputError: If it is missing or malformed.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        folds = sorted(p.parent.name for p in folder.glob(f"fold-*/{RUN_FILE}"))
        if folds:
            raise InputError(f"{folder}: holds several runs; name one of {', '.join(folds)}")
        raise InputError(f"{folder}: not a run folder (no {RUN_FILE})")
    described = read_checked(path, dict[str, Any])
    overrides = described.get("overrides")
    if not isinstance(described.get("recipe"), str):
        raise InputError(f"{path}: malformed (recipe: expected text)")
    if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
        raise InputError(f"{path}: malformed (overrides: expected a list of texts)")
    for text in overrides:
        _check_size(text, path)
    return described


def _check_size(text: str, path: Path) -> None:
    """Refuse a network or a patch that no machine could hold, before anything is built."""
    name, _, value = text.partition("=")
    if not name.strip().startswith(SIZED):
        return
    numbers = [int(number) for number in re.findall(r"\d+", value)[:64] if len(number) < 19]
    if any(number > LARGEST for number in numbers) or re.search(r"\d{19}", value):
        raise InputError(f"{path}: {name.strip()} is too large")


def shipped_models() -> Path:
    """The folder of the models that come with the package."""
    return Path(str(importlib.resources.files("lesionwise") / "models"))


def _shipped_model(
    name: str, described: Mapping[str, Any], recipe: Recipe, device: str
) -> LoadedModel:
    weights = shipped_models() / f"{name}.safetensors"
    if not isinstance(recipe.method, NetworkMethod):
        raise InputError(f"{weights}: {described['recipe']} is not a single network")
    sha256 = sha256_of(weights)
    if described.get("sha256", sha256) != sha256:
        raise InputError(f"{weights}: not the weights that its run names (SHA-256 differs)")
    predictor = recipe.method.with_weights(weights, device)
    return LoadedModel(recipe, predictor, name, sha256, described)


def _nnunet_model(name: str, device: str) -> LoadedModel:
    from lesionwise.methods.nnunet import NnunetMethod
    from lesionwise.methods.nnunet.imported import load_nnunet_model

    read = load_nnunet_model(name, device)
    task: Task = "new" if read.visits == 2 else "lesions"
    recipe = Recipe(
        citation=Citation(title=f"nnU-Net's model folder {Path(name).name}"),
        scans=read.scans,
        preprocess=(),
        method=NnunetMethod(scans=read.scans, task=task, within_brain=False),
        to_instances=ConnectedComponents(),
        visits=read.visits,
        task=task,
        departures=("logits are summed in float32", "windows without a voxel are left out"),
    )
    hashes = [sha256_of(path) for path in read.checkpoints]
    together = sha256_of_bytes("".join(hashes).encode())
    sha256 = hashes[0] if len(hashes) == 1 else together
    described = {"recipe": name, "overrides": [], "configuration": read.configuration}
    return LoadedModel(recipe, read.predictor, name, sha256, described)


def trusted_recipe(folder: Path, reference: str, trust: bool) -> Path:
    """The recipe file inside a run, which is Python and runs when it is read.

    Args:
        folder: of the run.
        reference: what ``run.json`` names.
        trust: the user said that this file may run.

    Raises:
        InputError: If it lies outside the run, is missing, or may not run; the message has its
            SHA-256, so that the user can compare it.
    """
    path = inside(folder, reference)
    if not path.is_file():
        raise InputError(f"{path}: no such recipe file")
    if not trust:
        raise InputError(
            f"{path}: a recipe file, which is a Python program (SHA-256 "
            f"{sha256_of(path)}); add --trust-recipe to run it"
        )
    return path


def _recipe_of(described: Mapping[str, Any], folder: Path, trust: bool = False) -> Recipe:
    reference = str(described["recipe"])
    overrides = overrides_of(dict(described))
    name = reference.removesuffix(REDUCED)
    if not name.endswith(".py"):
        return find_recipe(reference, overrides)
    path = trusted_recipe(folder, name, trust)
    return find_recipe(f"{path}{reference.removeprefix(name)}", overrides)
