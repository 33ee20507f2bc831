"""The command ``benchmark``: recipes cross-validated on one data set, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lesionwise import defaults
from lesionwise.instances.reference import reference_of
from lesionwise.io.bids import BidsStudies, read_dataset
from lesionwise.io.files import read_json, write_json, write_text
from lesionwise.io.fingerprint import fingerprint_of
from lesionwise.io.nifti import write_volume
from lesionwise.io.record import check_same_settings, settings_id
from lesionwise.metrics.case import Options
from lesionwise.metrics.evaluation import Evaluation
from lesionwise.preprocess.kept import results_kept
from lesionwise.results.folder import check_own_folder
from lesionwise.run.benchmark_job import Outcome, run_here, run_isolated
from lesionwise.run.benchmark_recipes import (
    BenchmarkRecipe,
    find_benchmark_recipes,
    groups,
    scans_of,
)
from lesionwise.run.benchmark_tables import write_benchmark_tables
from lesionwise.run.crossvalidate import (
    FoldJob,
    PrepareJob,
    case_name,
    folds_of,
    prepare_data,
    run_fold,
)
from lesionwise.run.evaluate import evaluate
from lesionwise.run.prepare import parts_of, preparation_settings
from lesionwise.run.recipes import auxiliary_sets, settings
from lesionwise.run.run_format import settings_of
from lesionwise.run.train import check_training_limits
from lesionwise.types import InputError, Progress, Volume, no_progress

BENCHMARK = "benchmark.json"
RESULT = "result.json"
KEPT = "steps"
"""Folder of the results of slow steps; it only saves time."""
ERRORS = "errors.json"
ERRORS_BEFORE = "faults.json"
"""The file of earlier versions."""


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """What a benchmark found.

    Attributes:
        table: one row per recipe, as in ``leaderboard.tsv``.
        failures: by recipe, recipe and case, or subject, why there is no score.
        page: the leaderboard.
    """

    table: pd.DataFrame
    failures: dict[str, str]
    page: Path


def benchmark(
    dataset: str | Path,
    recipes: Sequence[str],
    output: str | Path,
    *,
    folds: int = defaults.FOLDS,
    overrides: Sequence[str] = (),
    max_minutes: float | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int = 0,
    options: Options | None = None,
    retry_failed: bool = False,
    isolate: bool = True,
    auxiliary: Mapping[str, str | Path] = {},
    progress: Progress = no_progress,
) -> BenchmarkResult:
    """Train every recipe in every fold, predict the held-out patients, score, compare.

    Patients are dealt into folds as ``train`` does it, the same for all recipes; a training never
    sees a file of a held-out patient. What is scored are a recipe's lesions after its filters,
    on the follow-up's grid, case by case: every visit for a recipe of one visit, every pair of
    visits that follow each other for one of two. Recipes that find the same in the same cases
    are compared with each other. Scans and, where the data set has them, brain masks are all that
    a prediction sees.

    Registrations, brain masks, bias fields and filtered scans are computed once for all recipes and
    folds and kept in ``steps`` (``preprocess.kept``).

    A call continues where the last one stopped. ``output`` gets ``leaderboard.html``,
    ``leaderboard.tsv`` and the tables of ``report.leaderboard``, an evaluation per group of
    recipes with every metric of ``evaluate``, the lesions found in ``predictions`` and the runs
    in ``recipes``.

    Args:
        dataset: BIDS folder.
        recipes: names or ``.py`` files; ``all`` takes every shipped recipe, ``all:reduced`` each in
            its reduced form.
        output: folder.
        folds: at most one per patient, which is leave-one-out.
        overrides: ``path=value`` sets the value in every recipe that has it, ``recipe:path=value``
            in one.
        max_minutes: wall time of each training.
        max_steps: most optimizer steps of each network, so that recipes of several networks are
            not at a disadvantage.
        seed: of the folds and of every training.
        device, workers: as for ``train``.
        options: how lesions are matched and counted; None takes the defaults.
        retry_failed: try again what failed in an earlier call.
        isolate: run each fold in a process of its own, so that its peak memory is known and
            that it can fail alone.
        auxiliary: as for ``train``, for the recipes that ask for a set of that name.
        progress: called with each stage.

    Raises:
        InputError: If a recipe is not known, a value fits none, the data set cannot be split or
            holds nothing to find, or ``output`` was begun with other settings. A recipe that
            fails later is listed and the others continue.
    """
    check_training_limits(max_minutes, max_steps)
    dataset, output = Path(dataset), Path(output)
    entries = find_benchmark_recipes(recipes, overrides)
    failures = _without_scans(entries, dataset)
    # A recipe without scans is a row of the table; with no recipe left there is nothing to do.
    usable = [entry for entry in entries if entry.name not in failures]
    if not usable:
        raise InputError(next(iter(failures.values())))
    studies = read_dataset(dataset, scans=scans_of(usable))
    check_own_folder(output, (dataset,))
    counts = _references(studies, usable, output, dataset, progress)
    # One split for all recipes: else their scores could not be compared case by case.
    split = folds_of(_balance(counts), folds, seed, dataset)
    before = _made_before(output)
    made = {
        "data": fingerprint_of(dataset, _text(before.get("data"))),
        "folds": folds,
        "seed": seed,
        "max_minutes": max_minutes,
    }
    if max_steps is not None:
        made["max_steps"] = max_steps
    further = _auxiliary(auxiliary, entries, dataset)
    if further:
        known = before.get("auxiliary")
        known = known if isinstance(known, dict) else {}
        made["auxiliary"] = {
            name: fingerprint_of(data, _text(known.get(name))) for name, data in further.items()
        }
    _begin(output, made, entries)
    run = run_isolated if isolate else run_here
    done: dict[str, list[dict[str, Any]]] = {}
    with results_kept(output / KEPT):
        for number, entry in enumerate(entries):
            if entry.name in failures:
                continue

            def on_progress(stage: str, part: int, total: int, number: int = number) -> None:
                name = entries[number].name
                progress(f"{name} ({number + 1} of {len(entries)}): {stage}", part, total)

            results, error = _cross_validated(
                entry,
                dataset,
                output,
                split,
                made,
                further,
                (device, workers),
                run,
                retry_failed,
                on_progress,
            )
            if error:
                failures[entry.name] = error
            else:
                done[entry.name] = results
    progress("score", 0, 0)
    evaluations = _evaluated(entries, done, output, options, seed, workers, failures)
    noted = _first_file(output / "references", ERRORS, ERRORS_BEFORE)
    unusable = {} if noted is None else read_json(noted)
    failures |= {f"sub-{subject}": error for subject, error in unusable.items()}
    table, page = write_benchmark_tables(
        entries, done, evaluations, failures, made, dataset, output
    )
    return BenchmarkResult(table, failures, page)


def _made_before(output: Path) -> dict[str, Any]:
    """What the folder was begun with; empty for a new one, or one that ``_begin`` will refuse."""
    before = read_json(output / BENCHMARK) if (output / BENCHMARK).is_file() else {}
    return before if isinstance(before, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _without_scans(entries: Sequence[BenchmarkRecipe], dataset: Path) -> dict[str, str]:
    """Recipes for whose scans the data set has no patient, and the reason."""
    errors = {}
    for entry in entries:
        try:
            read_dataset(dataset, scans=entry.found.scans)
        except InputError as error:
            errors[entry.name] = str(error)
    return errors


def _auxiliary(
    given: Mapping[str, str | Path], entries: Sequence[BenchmarkRecipe], dataset: Path
) -> dict[str, Path]:
    """The further data sets by name, each asked for by a recipe and apart from the data set."""
    found = {name: Path(data) for name, data in given.items()}
    for name, data in found.items():
        if data.resolve() == dataset.resolve():
            raise InputError(f"--auxiliary {name}: {data} is the data set itself")
        if not data.is_dir():
            raise InputError(f"--auxiliary {name}: {data}: no such folder")
        if not any(name in auxiliary_sets(entry.found) for entry in entries):
            raise InputError(f"--auxiliary {name}: no recipe learns from a set of that name")
    return found


def _references(
    studies: BidsStudies,
    entries: Sequence[BenchmarkRecipe],
    output: Path,
    dataset: Path,
    progress: Progress,
) -> dict[str, dict[str, int]]:
    """Lesions to find by group and subject; the references are written once."""
    path = output / "references" / "lesions.json"
    errors = dict(studies.errors)
    known: dict[str, dict[str, int]] = read_json(path) if path.is_file() else {}
    for group, task, recipe in groups(entries):
        if group in known:
            continue
        counts: dict[str, int] = {}
        message = ""
        for index, subject in enumerate(studies.subjects):
            progress("references", index, len(studies))
            try:
                parts = list(parts_of(studies[index], recipe))
            except InputError as error:
                errors[subject] = message = str(error)
                continue
            for _, part in parts:
                try:
                    reference = reference_of(part, task)
                except InputError as error:
                    message = message or str(error)
                    continue
                grid = part.followup.scans[recipe.scans[0]].grid
                target = output / "references" / group / f"{case_name(part)}_dseg.nii.gz"
                write_volume(target, Volume(reference.astype("int32"), grid))
                counts[subject] = counts.get(subject, 0) + len(set(reference.ravel()) - {0})
        if not counts:
            reason = message or f"no patient has {recipe.visits} visits"
            raise InputError(f"{dataset}: nothing to score against ({reason})")
        if not any(counts.values()):
            what = "new lesion" if task == "new" else "lesion"
            raise InputError(f"{dataset}: no case has a {what}; there is nothing to learn")
        known[group] = counts
        write_json(output / "references" / ERRORS, errors)
        write_json(path, known)
    return {group: known[group] for group, _, _ in groups(entries)}


def _balance(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Lesions by subject, by which folds are balanced: new ones first, where they are sought."""
    subjects = sorted({subject for group in counts.values() for subject in group})
    first = counts[sorted(counts, reverse=True)[0]]
    return {subject: first.get(subject, 0) for subject in subjects}


def _begin(output: Path, made: Mapping[str, Any], entries: Sequence[BenchmarkRecipe]) -> None:
    path = output / BENCHMARK
    before: Any = read_json(path) if path.is_file() else {**made, "recipes": {}}
    known = before.get("recipes") if isinstance(before, dict) else None
    if not isinstance(known, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("settings"), dict)
        for entry in known.values()
    ):
        raise InputError(f"{path}: malformed (recipes)")
    recipes: dict[str, dict[str, Any]] = {
        entry.name: {"overrides": list(entry.overrides), "settings": settings(entry.found)}
        for entry in entries
    }
    general = {name: value for name, value in before.items() if name != "recipes"}
    check_same_settings(general, made, output)
    for name in recipes.keys() & known.keys():
        was, now = known[name], recipes[name]
        place = f"{output}: {name}"
        check_same_settings(settings_of(was), now["settings"], place)
        check_same_settings(
            {"overrides": was.get("overrides")}, {"overrides": now["overrides"]}, place
        )
    write_json(path, {**made, "recipes": {**before["recipes"], **recipes}})


def _cross_validated(
    entry: BenchmarkRecipe,
    dataset: Path,
    output: Path,
    split: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    made: Mapping[str, Any],
    auxiliary: Mapping[str, Path],
    where: tuple[str, int],
    run: Callable[..., Outcome],
    retry_failed: bool,
    progress: Progress,
) -> tuple[list[dict[str, Any]], str]:
    """The result of every fold, or those so far and why there are no more."""
    device, workers = where
    folder = output / "recipes" / entry.name
    # Recipes with the same shared steps share the arrays.
    arrays = output / "prepared" / settings_id(preparation_settings(entry.found))
    asked = auxiliary_sets(entry.found)
    further = tuple((name, data) for name, data in auxiliary.items() if name in asked)
    prepared = _once(
        folder / "prepared.json",
        lambda: run(
            prepare_data,
            PrepareJob(entry.recipe, entry.overrides, dataset, arrays, workers, further),
            progress,
        ),
        retry_failed,
    )
    if prepared["error"]:
        return [], prepared["error"]
    results: list[dict[str, Any]] = []
    for fold, (training, held_out) in enumerate(split):

        def on_progress(stage: str, part: int, total: int, fold: int = fold) -> None:
            progress(f"fold {fold + 1} of {len(split)}: {stage}", part, total)

        job = FoldJob(
            recipe=entry.recipe,
            overrides=entry.overrides,
            dataset=dataset,
            arrays=arrays,
            folder=folder / f"fold-{fold}",
            predictions=output / "predictions" / entry.name,
            training=training,
            held_out=held_out,
            seed=made["seed"],
            device=device,
            workers=workers,
            max_minutes=made["max_minutes"],
            max_steps=made.get("max_steps"),
            auxiliary=tuple(name for name, _ in further),
        )
        # An interrupted training resumes; its times are then those of its last call only.
        begun = (job.folder / "run").is_dir()
        result = _once(
            job.folder / RESULT,
            lambda job=job, on_progress=on_progress: run(run_fold, job, on_progress),  # type: ignore[misc]
            retry_failed,
            {"fold": fold, "continued": begun},
        )
        if result["error"]:
            return results, f"fold {fold + 1} of {len(split)}: {result['error']}"
        results.append({**result, "prepare_s": prepared["seconds"]})
    return results, ""


def _once(
    path: Path, work: Callable[[], Outcome], retry_failed: bool, about: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """The result stored in a file, or else that of the work, which is then written there."""

    if path.is_file():
        known = _in_present_names(read_json(path))
        if not (known["error"] and retry_failed):
            return known
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    outcome = work()
    result = {
        **about,
        **(outcome.value or {}),
        "error": outcome.error,
        "seconds": round(time.perf_counter() - started, 2),
        "peak_gb": outcome.peak_gb,
        "gpu_gb": outcome.gpu_gb,
    }
    if outcome.details:
        write_text(path.with_name("error.txt"), outcome.details)
    write_json(path, result)
    return result


def _first_file(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _in_present_names(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result as it was written, also by earlier versions, which said fault for error."""
    names = {"fault": "error", "faults": "errors"}
    return {names.get(key, key): value for key, value in result.items()}


def _evaluated(
    entries: Sequence[BenchmarkRecipe],
    done: Mapping[str, Sequence[Mapping[str, Any]]],
    output: Path,
    options: Options | None,
    seed: int,
    workers: int,
    failures: dict[str, str],
) -> dict[str, Evaluation]:
    """One evaluation per group of recipes that have results; cases without go to ``failures``."""
    evaluations = {}
    for group, _, _ in groups(entries):
        members = [e.name for e in entries if e.group == group and e.name in done]
        for name in list(members):
            errors = {k: v for result in done[name] for k, v in result["errors"].items()}
            failures |= {f"{name} {case}": error for case, error in errors.items()}
            if not any(result["cases"] for result in done[name]):
                failures[name] = (
                    f"no held-out case could be predicted: {next(iter(errors.values()), '')}"
                )
                members.remove(name)
        if not members:
            continue
        evaluations[group] = evaluate(
            output / "references" / group,
            [output / "predictions" / name for name in members],
            output / f"evaluation-{group}",
            options=options,
            kind="instances",
            names=members,
            workers=max(1, workers),
            seed=seed,
        )
    return evaluations
