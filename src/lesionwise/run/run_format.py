"""Runs and models written by earlier versions, read as today's.

``run.json`` has a format number. Format 1 (without a number) named the settings of a network's
training one by one below ``method``; format 2 groups them by samples, objective and optimization.
A run of format 1 can be applied, and its weights can begin a new training; it cannot be resumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lesionwise.run.recipes import DESCRIPTION

FORMAT = 2

RENAMED = {
    "patch_size_vox": "samples.size_vox",
    "batch_size": "samples.batch_size",
    "patches_per_epoch": "samples.per_epoch",
    "sampling.lesion_share": "samples.sampling.lesion_fraction",
    "learning_rate": "optimization.learning_rate",
    "weight_decay": "optimization.weight_decay",
    "warmup": "optimization.warmup",
    "epochs": "optimization.epochs",
    "validate_every": "selection.every",
    "validation_window": "selection.window",
    "window": "inference.window",
    "targets": "objective.targets",
    "loss": "objective.loss",
    "precision": "runtime.precision",
    "sync_batch_norm": "runtime.sync_batch_norm",
}
"""Settings of a network in format 1, and what they are called in format 2."""
FIELDS = {
    "finds": "task",
    "crumb_mm3": "fragment_mm3",
    "first_guess": "initial_logits",
    "guess": "initial_logit",
    "places": "positions",
    "tidy": "cleanup",
}
"""Fields that any part of a recipe may have, as they were called and as they are called now."""
TYPES = {
    "EveryPlace": "EveryPatch",
    "PositivePlaces": "PositivePatches",
    "Tidied": "CleanMaps",
    "Together": "CombinedSamples",
}
"""Types of a recipe's parts, as they were called and as they are called now."""
ADDED: Mapping[str, Mapping[str, Any]] = {
    "SlidingWindow": {"cover": "volume", "fit": None, "at_once": 1},
}
"""Fields that a part got later, by its type, with the value that says what it did before."""
ONLY_TRAINING = ("intensity", "spatial", "lesion_contrast", "sampling", "loss", "optimizer",
                 "schedule", "stop")  # fmt: skip
"""Settings of format 1 that do not matter once the weights are there."""
NETWORKS = ("conflunet", "unet-cc", "unet-acls")
"""Recipes whose network had three levels, each widened by its first convolution."""


def format_of(described: Mapping[str, Any]) -> int:
    """The format of what a ``run.json`` says."""
    found = described.get("format", 1)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def overrides_of(described: dict[str, Any]) -> list[str]:
    """The settings with which the recipe of a run gives its network, in today's names.

    Those of an old run that matter to its training alone are left out.
    """
    overrides = [_with_new_fields(str(text)) for text in described["overrides"]]
    if format_of(described) >= FORMAT:
        return overrides
    recipe = str(described["recipe"])
    kept = [new for text in overrides if (new := _renamed(text)) is not None]
    if recipe in NETWORKS:
        named = {text.partition("=")[0] for text in kept}
        for path, value in (
            ("method.network.widening", "first"),
            ("method.network.features", "[32,64,128]"),
        ):
            if path not in named:
                kept.append(f"{path}={described.get('settings', {}).get(path, value)}")
    return kept


def settings_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a ``run.json`` holds, in today's names.

    What only describes the recipe (citation, departures …) stood among them in earlier versions
    and is left out. Fields that parts got since (``ADDED``) have the value that changes nothing.
    """
    found = {
        _with_new_fields(name): TYPES.get(str(value), value) if name.endswith(".is") else value
        for name, value in described.get("settings", {}).items()
        if name.split(".")[0] not in DESCRIPTION
    }
    added = {
        f"{name.removesuffix('is')}{field}": value
        for name, part in found.items()
        if name.endswith(".is")
        for field, value in ADDED.get(str(part), {}).items()
    }
    return added | found


def _with_new_fields(text: str) -> str:
    """A setting's path, or ``path=value``, with today's names of fields."""
    path, sign, value = text.partition("=")
    names = [FIELDS.get(name, name) for name in path.split(".")]
    return f"{'.'.join(names)}{sign}{value}"


def _renamed(text: str) -> str | None:
    path, _, value = text.partition("=")
    path = path.strip()
    if not path.startswith("method."):
        return text
    own = path.removeprefix("method.")
    for old, new in RENAMED.items():
        if own == old or own.startswith(f"{old}."):
            if own.split(".")[0] in ONLY_TRAINING:
                return None
            return f"method.{new}{own.removeprefix(old)}={value}"
    return None if own.split(".")[0] in ONLY_TRAINING else text
