"""One fold of one recipe: train on some subjects of a data set, predict the others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from lesionwise.inference.weights import WEIGHTS
from lesionwise.io.bids import read_dataset
from lesionwise.io.checked import read_checked
from lesionwise.io.nifti import write_volume
from lesionwise.preprocess.kept import saved_s
from lesionwise.run.find_lesions import FindOptions, find_lesions
from lesionwise.run.load_model import load_model
from lesionwise.run.prepare import (
    AUXILIARY,
    SETTINGS_FILE,
    left_out_of,
    parts_of,
    prepare,
    prepare_auxiliary,
)
from lesionwise.run.train import train
from lesionwise.types import InputError, Method, Progress, Study, Visit, Volume


@dataclass(frozen=True)
class PrepareJob:
    """A data set through a recipe's steps, once for all folds.

    Attributes:
        recipe: name or file.
        overrides: ``name=value`` texts.
        dataset: BIDS folder.
        folder: for the arrays.
        workers: processes.
        auxiliary: further data sets by name; their arrays go to ``folder / "auxiliary"``.
    """

    recipe: str
    overrides: tuple[str, ...]
    dataset: Path
    folder: Path
    workers: int
    auxiliary: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class FoldJob:
    """One fold.

    Attributes:
        recipe, overrides, dataset: as in ``PrepareJob``.
        arrays: folder of the whole data set, prepared.
        folder: of this fold.
        predictions: folder for the lesions found, one file a case, shared by all folds.
        training, held_out: subjects.
        auxiliary: names of further data sets, prepared in ``arrays / "auxiliary"``.
    """

    recipe: str
    overrides: tuple[str, ...]
    dataset: Path
    arrays: Path
    folder: Path
    predictions: Path
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    seed: int
    device: str
    workers: int
    max_minutes: float | None
    max_steps: int | None = None
    auxiliary: tuple[str, ...] = ()


def prepare_data(job: PrepareJob, progress: Progress) -> dict[str, Any]:
    """Prepare a data set; returns ``left_out`` by study."""
    prepared = prepare(
        job.recipe,
        job.dataset,
        job.folder,
        overrides=job.overrides,
        workers=job.workers,
        progress=progress,
    )
    further = prepare_auxiliary(
        job.recipe,
        dict(job.auxiliary),
        job.folder / AUXILIARY,
        overrides=job.overrides,
        workers=job.workers,
        progress=progress,
    )
    return {"left_out": left_out_of(prepared, further)}


def run_fold(job: FoldJob, progress: Progress) -> dict[str, Any]:
    """Train and predict one fold.

    The run lies in ``job.folder / "run"`` and sees a folder that holds no subject but
    ``job.training``, so nothing of the held-out ones can reach it. A method that learns without
    validation studies gets all of them to learn from; any other sets a fifth apart to choose
    its weights by.

    Returns:
        ``train_s`` (of a training that was interrupted, what its networks took in all),
        ``parameters``, ``cases`` with ``case`` and ``predict_s`` of each held-out case (with the
        seconds of results that were kept), and ``errors`` by case.

    Raises:
        InputError: If the recipe cannot be trained on these subjects.
    """
    run = job.folder / "run"
    view = _only(job.arrays, job.training, job.folder / "data")
    started = time.perf_counter()
    train(
        job.recipe,
        view,
        run,
        overrides=job.overrides,
        validation_subjects=None if _method(job).uses_validation else [],
        seed=job.seed,
        device=job.device,
        workers=job.workers,
        max_minutes=job.max_minutes,
        max_steps=job.max_steps,
        auxiliary={name: job.arrays / AUXILIARY / name for name in job.auxiliary},
        progress=progress,
    )
    train_s = max(time.perf_counter() - started, trained_before_s(run))
    model = load_model(run, job.device, trust_recipe=True)
    output = replace(model.recipe.output, grid="followup")
    model = replace(model, recipe=replace(model.recipe, output=output))
    cases, errors = [], {}
    studies = read_dataset(job.dataset, scans=model.recipe.scans).select(job.held_out)
    for done, study in enumerate(studies):
        progress("predict", done, len(studies))
        for _, part in parts_of(study, model.recipe):
            case = case_name(part)
            target = job.predictions / f"{case}_dseg.nii.gz"
            target.unlink(missing_ok=True)
            started = time.perf_counter() + saved_s()
            try:
                found = find_lesions(without_truth(part), model, FindOptions())
            except InputError as error:
                errors[case] = str(error)
                continue
            seconds = time.perf_counter() + saved_s() - started
            lesions = found.main[1]
            write_volume(target, Volume(lesions.labels, lesions.grid))
            cases.append({"case": case, "predict_s": round(seconds, 3)})
    return {
        "train_s": round(train_s, 2),
        "parameters": count_parameters(run),
        "cases": cases,
        "errors": errors,
    }


@dataclass(frozen=True)
class _Summary:
    """What ``training.json`` says of a network and of the time it took."""

    parameters: int | None = None
    minutes: float = 0.0


def trained_before_s(run: Path) -> float:
    """Seconds that the networks of a run were trained, over all its starts; 0 without one."""
    trainings = [read_checked(path, _Summary) for path in sorted(run.rglob("training.json"))]
    return 60.0 * sum(each.minutes for each in trainings)


def case_name(part: Study) -> str:
    """``sub-01_ses-02``: the last visit names the case."""
    session = part.followup.session
    return f"sub-{part.subject}_ses-{session}" if session else f"sub-{part.subject}"


def without_truth(study: Study) -> Study:
    """The scans and brain masks of a study, and nothing that says where lesions are."""
    visits = tuple(
        Visit(visit.scans, brain=visit.brain, session=visit.session) for visit in study.visits
    )
    return Study(study.subject, visits)


def count_parameters(run: Path) -> int | None:
    """How many numbers a run has learned: of all its weights files, or as the run wrote down.

    0 where it left neither weights nor a summary, as rules do; None where the summary does not
    say.
    """
    weights = [
        path
        for path in sorted(run.rglob(WEIGHTS))
        if not {"candidates", "checkpoints", "pretrained"} & set(path.relative_to(run).parts)
    ]
    if weights:
        total = 0
        for path in weights:
            try:
                with safe_open(str(path), framework="numpy") as tensors:
                    for name in tensors.keys():  # noqa: SIM118  (no mapping)
                        total += int(np.prod(tensors.get_slice(name).get_shape()))
            except (SafetensorError, OSError, ValueError) as error:
                raise InputError(f"{path}: not a safetensors file") from error
        return total
    summary = run / "training.json"
    if not summary.is_file():
        return 0
    return read_checked(summary, _Summary).parameters


def _method(job: FoldJob) -> Method:
    from lesionwise.run.recipes import find_recipe

    return find_recipe(job.recipe, job.overrides).method


def _only(arrays: Path, subjects: Sequence[str], folder: Path) -> Path:
    """A prepared folder that holds these subjects of another and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(arrays / SETTINGS_FILE, folder / SETTINGS_FILE)
    for subject in subjects:
        source = arrays / f"sub-{subject}"
        if source.is_dir():
            (folder / source.name).symlink_to(source.resolve(), target_is_directory=True)
    return folder


def folds_of(
    lesions: Mapping[str, int], folds: int, seed: int, source: Path
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Subjects to train on and held out, fold by fold; the split of ``lesionwise train``.

    Args:
        lesions: number of lesions by subject.
        source: of the data, for messages.

    Raises:
        InputError: If there are more folds than subjects, or fewer than two.
    """
    from lesionwise.run.prepare import Prepared
    from lesionwise.run.train import split_subjects

    if not 2 <= folds <= len(lesions):
        raise InputError(
            f"--folds {folds}: {source} has {len(lesions)} subjects; "
            "at least 2 folds, at most one per subject"
        )
    names = tuple(lesions)
    listed = Prepared(source, names, names, tuple(lesions[n] for n in names), {}, "")
    found = []
    for fold in range(folds):
        training, held_out = split_subjects(listed, fold, folds, seed)
        found.append((tuple(training), tuple(held_out)))
    return found
