"""A recipe learns from a data set."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lesionwise
from lesionwise import defaults
from lesionwise.inference.weights import INITIAL, WEIGHTS, check_weights
from lesionwise.io.checked import read_checked
from lesionwise.io.files import atomic_path, file_system_errors, write_json
from lesionwise.io.record import TRAINING_PACKAGES, check_same_settings, versions
from lesionwise.io.record import sha256 as sha256_of
from lesionwise.recipe import Recipe
from lesionwise.results.folder import check_own_folder
from lesionwise.run.learned_steps import STEPS, fit_steps
from lesionwise.run.load_model import RUN_FILE, read_run
from lesionwise.run.prepare import (
    AUXILIARY,
    Prepared,
    check_auxiliary,
    data_of,
    left_out_of,
    prepare,
    prepare_auxiliary,
    refuse_shared_scans,
)
from lesionwise.run.recipes import REDUCED, find_recipe, settings
from lesionwise.run.run_format import FORMAT, format_of, settings_of
from lesionwise.run.run_weights import hash_of_weights, known_hash, weights_of
from lesionwise.types import InputError, Progress, RunContext, TrainingData, no_progress


def validation_dice(run: Path) -> list[float]:
    """The validation Dice of each epoch that was validated, from the log of a run.

    Raises:
        InputError: If the log is missing or damaged.
    """
    path = run / "log.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [float(row["validation_dsc"]) for row in rows if "validation_dsc" in row]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; train again") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: a damaged log of a training") from error


def training_warning(folder: Path) -> str:
    """What the user should know of how a training ended; empty where nothing is wrong.

    Args:
        folder: the run, or the folder of the runs of several folds.
    """
    for log in [folder / "log.jsonl", *sorted(folder.glob("fold-*/log.jsonl"))]:
        if not log.is_file():
            continue
        scores = validation_dice(log.parent)
        if scores and not scores[-1] > 0:
            return (
                f"{log.parent}: validation Dice ended at 0, so the model finds none of the known "
                "lesions; train longer, or check the data"
            )
    return ""


def train(
    recipe: str | Path,
    dataset: str | Path,
    output: str | Path,
    *,
    overrides: Sequence[str] = (),
    fold: int | None = None,
    folds: int = defaults.FOLDS,
    validation_subjects: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    prepared: str | Path | None = None,
    reuse: str | Path | None = None,
    initial: str | Path | None = None,
    auxiliary: Mapping[str, str | Path] = {},
    progress: Progress = no_progress,
) -> Path:
    """Train a recipe on a BIDS data set; the same call again continues where it stopped.

    Subjects are split, never visits. The split deals subjects with similar numbers of
    lesions into different folds, by the seed.

    Args:
        recipe: name, or path of a ``.py`` file.
        dataset: BIDS folder, or a folder of ``prepare``.
        output: run folder; with ``fold`` the run is ``output / fold-N``.
        overrides: ``name=value`` texts that change the recipe.
        fold: which of ``folds`` parts validates; None is the first part, without a folder
            of its own, or none for a method that nothing validates (an ensemble of folds, rules).
        folds: parts of the split; fewer where there are fewer subjects.
        validation_subjects: instead of a fold; an empty list trains on all.
        seed: of every random choice.
        device: "auto", "cpu", "cuda" …
        workers: processes that prepare studies, and then batches.
        max_minutes: wall time for learning, preparation not counted; the learning rate's
            fall is fitted into it.
        max_steps: most optimizer steps of each network; methods without networks ignore it.
        prepared: folder of prepared arrays that several runs share; None: in ``output``.
        reuse: a run of the same method, such as a ``unet-cc`` run for ``unet-acls``: its
            weights are taken over and nothing is trained.
        initial: a run or a safetensors file of the same network to begin with (fine-tuning); its
            SHA-256 is written down.
        auxiliary: further data sets by the names that parts of the recipe give them, such as
            ``lesions`` of ``cascade-probability``; every visit with a lesion mask is learned
            from. Their patients must be others than those of ``dataset``.
        progress: called with each stage.

    Returns:
        The run folder, with ``run.json`` and whatever the method left.

    Raises:
        InputError: If the data cannot be used, a setting is wrong, or the folder holds a run
            with other settings, which are named.
    """
    found = find_recipe(recipe, overrides)
    dataset, output = Path(dataset), Path(output)
    further = {name: Path(other) for name, other in auxiliary.items()}
    for name, other in further.items():
        if other.resolve() == dataset.resolve():
            raise InputError(f"--auxiliary {name}: {other} is the data set itself")
    check_auxiliary(recipe, further, overrides)
    check_training_limits(max_minutes, max_steps)
    start = None if initial is None else _weights_to_start_from(Path(initial))
    check_own_folder(
        output, (dataset, *further.values()), mark=RUN_FILE, files=(WEIGHTS, "log.csv")
    )
    arrays = prepare(
        recipe,
        dataset,
        Path(prepared) if prepared is not None else output / "prepared",
        overrides=overrides,
        workers=workers,
        progress=progress,
    )
    sets = prepare_auxiliary(
        recipe,
        further,
        (Path(prepared) if prepared is not None else output / "prepared") / AUXILIARY,
        overrides=overrides,
        workers=workers,
        progress=progress,
    )
    for name, found_set in sets.items():
        refuse_shared_scans(name, arrays, found_set)
    # An ensemble of folds or a method of rules is validated by nothing here: it learns from all.
    if validation_subjects is None and fold is None and not found.method.uses_validation:
        validation_subjects = []
    training, validation = split_subjects(arrays, fold or 0, folds, seed, validation_subjects)
    folder = output if fold is None else output / f"fold-{fold}"
    before = read_run(folder) if (folder / RUN_FILE).is_file() else {}
    # Only a part of it decides the run and must agree when a call continues (``_compared``).
    begun = {
        "format": FORMAT,
        "status": "training",
        "recipe": _keep_recipe(recipe, folder),
        "overrides": list(overrides),
        "seed": seed,
        "max_minutes": max_minutes,
        "max_steps": max_steps,
        "data": data_of(arrays, dataset, before.get("data")),
        "training": training,
        "validation": validation,
        "left_out": left_out_of(arrays, sets),
        "settings": settings(found),
        "citation": str(found.citation),
        "departures": list(found.departures),
        "versions": {"lesionwise": lesionwise.__version__, **versions(TRAINING_PACKAGES)},
    }
    if sets:
        known = before.get("auxiliary")
        known = known if isinstance(known, dict) else {}
        begun["auxiliary"] = {
            name: data_of(found_set, further[name], known.get(name))
            for name, found_set in sets.items()
        }
    if start is not None:
        begun["initial"] = sha256_of(start)
    resume = _begin(folder, begun)
    if resume == "done":
        return folder
    # Kept in the run: the file given may be gone when a killed call continues.
    if start is not None:
        _copy(start, folder / INITIAL)
    if reuse is not None:
        begun |= _reused(Path(reuse), found, folder)
    else:
        run = RunContext(
            folder,
            seed,
            device,
            workers,
            resume=True,
            max_minutes=max_minutes,
            max_steps=max_steps,
            progress=progress,
        )
        data = TrainingData(
            arrays.studies(training),
            arrays.studies(validation),
            {name: found_set.studies(found_set.subjects) for name, found_set in sets.items()},
        )
        try:
            with file_system_errors(folder):
                found.method.fit(fit_steps(found.preprocess, data, run), run)
        except InputError:
            if resume == "new" and not any(folder.rglob("*.ckpt")):
                (folder / RUN_FILE).unlink()  # nothing has begun that could be resumed
            raise
    summary = folder / "training.json"
    ended = {
        **begun,
        "status": "done",
        "sha256": hash_of_weights(folder),
        "summary": read_checked(summary, dict[str, Any]) if summary.is_file() else {},
    }
    write_json(folder / RUN_FILE, ended)
    return folder


def split_subjects(
    arrays: Prepared,
    fold: int,
    folds: int,
    seed: int,
    validation_subjects: Sequence[str] | None = None,
) -> tuple[list[str], list[str]]:
    """Subjects to train on and to validate on, each sorted.

    Subjects are ranked by their number of lesions (ties by name); of every ``folds``
    neighbors in that order each goes to another fold, at random. A single subject is
    trained on and nothing validates.

    Raises:
        InputError: If a subject does not exist, none is left to train on, or there is no
            such fold.
    """
    lesions: dict[str, int] = {}
    for subject, count in zip(arrays.subjects, arrays.lesions, strict=True):
        lesions[subject] = lesions.get(subject, 0) + count
    if validation_subjects is not None:
        validation = {subject.removeprefix("sub-") for subject in validation_subjects}
        unknown = sorted(validation - set(lesions))
        if unknown:
            raise InputError(f"{arrays.folder}: no prepared subject {', '.join(unknown)}")
    else:
        count = min(folds, len(lesions))
        if count < 2:
            return sorted(lesions), []
        if not 0 <= fold < count:
            raise InputError(f"fold {fold}: there are {count}, counted from 0")
        rng = np.random.default_rng(seed)
        ranked = sorted(lesions, key=lambda s: (lesions[s], s))
        validation = set()
        for first in range(0, len(ranked), count):
            places = rng.permutation(count)
            for subject, place in zip(ranked[first : first + count], places, strict=False):
                if place == fold:
                    validation.add(subject)
    training = sorted(set(lesions) - validation)
    if not training:
        raise InputError(f"{arrays.folder}: no subject is left to train on")
    return training, sorted(validation)


def _keep_recipe(recipe: str | Path, folder: Path) -> str:
    text = str(recipe)
    path = text.removesuffix(REDUCED)
    if not path.endswith(".py"):
        return text
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "recipe.py"
    if Path(path).resolve() != target.resolve():
        if target.exists() and not (folder / RUN_FILE).exists() and _differ(Path(path), target):
            raise InputError(
                f"{target}: holds a run of another recipe; choose another output folder"
            )
        _copy(Path(path), target)
    return target.name + text.removeprefix(path)


def _differ(one: Path, two: Path) -> bool:
    return sha256_of(one) != sha256_of(two)


def _begin(folder: Path, begun: Mapping[str, Any]) -> str:
    """Write down what is about to run: new, going on ("training"), or ended already ("done")."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RUN_FILE).is_file():
        before = read_run(folder)
        if format_of(before) < FORMAT:
            raise InputError(
                f"{folder}: a run of an earlier version cannot be resumed; choose another output "
                "folder, and start from its weights with --initial"
            )
        check_same_settings(_compared(before), _compared(begun), folder)
        if before.get("status") == "done" and _has_its_weights(folder, before):
            return "done"
    state = "training" if (folder / RUN_FILE).is_file() else "new"
    write_json(folder / RUN_FILE, begun)
    return state


def _has_its_weights(folder: Path, described: Mapping[str, Any]) -> bool:
    """Whether the weights of a run that ended are those it wrote down."""
    known = described.get("sha256")
    return not known or bool(known_hash(folder, known))


def _compared(described: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "recipe",
        "seed",
        "max_minutes",
        "max_steps",
        "data",
        "training",
        "validation",
        "initial",
    )
    compared = {name: described.get(name) for name in (*names, "auxiliary")}
    return compared | settings_of(described)


def _reused(run: Path, recipe: Recipe, folder: Path) -> dict[str, Any]:
    described = read_run(run)
    if described.get("status") != "done":
        raise InputError(f"{run}: its training has not ended")
    was = {k: v for k, v in settings_of(described).items() if _shapes_the_network(k)}
    now = {k: v for k, v in settings(recipe).items() if _shapes_the_network(k)}
    check_same_settings(was, now, run, "train the recipe itself, without --from")
    if not known_hash(run, described.get("sha256")):
        raise InputError(f"{run}: has no weights, or not those that its run names")
    for path in weights_of(run):
        _copy(path, folder / path.relative_to(run))
    if (run / "training.json").is_file():
        _copy(run / "training.json", folder / "training.json")
    if (run / STEPS).is_dir():
        shutil.copytree(run / STEPS, folder / STEPS, dirs_exist_ok=True)
    return {"reused": str(run)}


def _shapes_the_network(name: str) -> bool:
    return name.startswith(("method.", "preprocess.")) and not name.startswith("method.selection.")


def check_training_limits(max_minutes: float | None, max_steps: int | None) -> None:
    """Refuse limits of a training that leave it nothing, or none.

    Raises:
        InputError: If minutes are not a positive number, or steps fewer than one.

    Example:
        >>> check_training_limits(max_minutes=10.0, max_steps=None)
    """
    if max_minutes is not None and not 0 < max_minutes < math.inf:
        raise InputError(f"a training needs a time limit above 0 minutes, got {max_minutes:g}")
    if max_steps is not None and max_steps < 1:
        raise InputError(f"a network needs at least one optimizer step, got max_steps {max_steps}")


def _weights_to_start_from(path: Path) -> Path:
    start = path / WEIGHTS if path.is_dir() else path
    check_weights(start)
    return start


def _copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with file_system_errors(target), atomic_path(target) as partial:
        shutil.copyfile(source, partial)
