"""``lesionwise search``: one recipe trained with every combination of some settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise import defaults
from lesionwise.io.files import write_json, write_table
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.selection import Selection
from lesionwise.results.folder import check_own_folder
from lesionwise.run.load_model import load_model, read_run
from lesionwise.run.prepare import prepare
from lesionwise.run.recipes import find_recipe
from lesionwise.run.train import check_training_limits, train, validation_dice
from lesionwise.types import InputError, Progress, no_progress

TABLE = "search.tsv"
BEST = "best.json"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What came of a search.

    Attributes:
        table: a row for each combination: ``run``, its settings, ``dsc`` (the highest validation
            Dice of its training), and all metrics of those that were compared.
        best: the run that is best by the mean rank over all metrics.
        failures: by run, why it has no row of scores.
    """

    table: pd.DataFrame
    best: Path
    failures: Mapping[str, str]


def search(
    recipe: str,
    dataset: str | Path,
    output: str | Path,
    grid: Mapping[str, Sequence[str]],
    *,
    compare: int = defaults.COMPARED_MODELS,
    overrides: Sequence[str] = (),
    validation_subjects: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    progress: Progress = no_progress,
) -> SearchResult:
    """Train a recipe with every combination of settings; compare the best by all metrics.

    As in Wynen et al. (ConfLUNet), section 3.4: every combination is an experiment with one model;
    the models with the highest validation Dice are compared by all validation metrics, and the one
    with the best mean rank is taken. How the metrics are weighed the paper does not say. The same
    call continues after an interruption; a failed combination is listed and the others continue.

    Args:
        recipe: name or file.
        dataset: BIDS folder, or a folder of ``prepare``.
        output: gets ``prepared``, a run ``run-01`` … for each combination, ``search.tsv`` and
            ``best.json``.
        grid: values by the name of the setting, such as
            ``{"method.objective.loss.heatmap": ("500", "2000")}``; the last one varies fastest.
        compare: how many models are compared by all metrics.
        overrides: further settings of all runs.
        validation_subjects, seed, device, workers, max_minutes, max_steps, progress: as for
            ``train``; the limits are those of each training.

    Raises:
        InputError: If a setting is wrong, nothing validates, or every combination fails.

    Example:
        >>> search("unet-cc", "DATA", "out", {"method.selection.threshold": ("0.4", "0.5")})
    """
    if not grid or any(not values for values in grid.values()):
        raise InputError("search: name at least one setting with values (NAME=VALUE,VALUE)")
    if compare < 1:
        raise InputError(f"search: at least one model is compared, got {compare}")
    check_training_limits(max_minutes, max_steps)
    combinations = [
        tuple(f"{name}={value}" for name, value in zip(grid, values, strict=True))
        for values in product(*grid.values())
    ]
    for combination in combinations:  # a wrong setting is said before anything is trained
        found = find_recipe(recipe, [*overrides, *combination])
    if not isinstance(found.method, NetworkMethod):
        raise InputError(f"search: {recipe} is not a single network")
    output = check_own_folder(Path(output), (Path(dataset),))
    prepared = output / "prepared"
    # Once for all runs, so only settings of the method can be searched: a run with other
    # preprocessing is refused by the arrays.
    prepare(recipe, Path(dataset), prepared, overrides=overrides, workers=workers)
    rows: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    for number, combination in enumerate(combinations, 1):
        name = f"run-{number:02d}"
        row: dict[str, Any] = {"run": name, **dict(c.split("=", 1) for c in combination)}
        try:
            run = train(
                recipe,
                dataset,
                output / name,
                overrides=[*overrides, *combination],
                validation_subjects=validation_subjects,
                seed=seed,
                device=device,
                workers=workers,
                max_minutes=max_minutes,
                max_steps=max_steps,
                prepared=prepared,
                progress=_named(progress, number, len(combinations)),
            )
            row["dsc"] = best_dice(run)
        except InputError as error:
            failures[name] = str(error)
        rows.append(row)
    trained = [row for row in rows if "dsc" in row]
    if not trained:
        raise InputError(f"search: no combination was trained ({next(iter(failures.values()))})")
    # All metrics cost a prediction of every validation study, so only the best by Dice have them.
    compared = sorted(trained, key=lambda row: -row["dsc"])[:compare]  # stable: the first of equals
    scores = [
        all_metrics(output / row["run"], prepared, recipe, overrides, device) for row in compared
    ]
    best = str(compared[Selection().best(scores)]["run"])
    for row, found_scores in zip(compared, scores, strict=True):
        row.update(found_scores)
    table = pd.DataFrame(rows)
    write_table(output / TABLE, table)
    why = Selection(top_k=compare, to_instances=found.to_instances).reason(len(compared))
    write_json(output / BEST, {"run": best, "why": why})
    return SearchResult(table, output / best, failures)


def best_dice(run: Path) -> float:
    """The highest validation Dice in the log of a run.

    Raises:
        InputError: If nothing was validated, or the log is missing or damaged.
    """
    values = validation_dice(run)
    if not values:
        raise InputError(f"{run}: no validation studies to rank by")
    return max(values)


def all_metrics(
    run: Path, prepared: Path, recipe: str, overrides: Sequence[str], device: str
) -> dict[str, float]:
    """The means of all metrics of a run's model over its validation subjects."""
    model = load_model(run, device, trust_recipe=True)
    studies = prepare(recipe, prepared, prepared, overrides=overrides).studies(
        read_run(run)["validation"]
    )
    selection = Selection(
        top_k=2,  # more than one: compared by all metrics
        threshold=model.recipe.threshold,
        to_instances=model.recipe.to_instances,
        refine=model.recipe.refine,
    )
    return selection.score(model.predictor, studies, model.recipe.task)


def _named(progress: Progress, number: int, total: int) -> Callable[[str, int, int], None]:
    def on_progress(stage: str, done: int, of: int) -> None:
        progress(f"run {number} of {total}: {stage}", done, of)

    return on_progress
