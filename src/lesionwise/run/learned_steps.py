"""Preprocessing steps that learn: fitted on a fold's training studies, kept in the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeGuard

from lesionwise.io.files import write_json
from lesionwise.io.prepared import is_prepared, prepared_studies, write_prepared
from lesionwise.types import (
    LazyStudies,
    LearnedStep,
    OutOfFoldStep,
    RunContext,
    Step,
    Study,
    TrainingData,
)

STEPS = "steps"
"""Folder of a run in which each learned step has a folder of its own."""
STUDIES = "fold-studies"
"""Folder of a run with its studies after the learned steps."""


def learns(step: Step | LearnedStep) -> TypeGuard[LearnedStep]:
    """True for a step that has to be fitted first."""
    return hasattr(step, "fit")


def shared_steps(steps: Sequence[Step | LearnedStep]) -> tuple[Step, ...]:
    """The steps before the first that learns: the same for every fold."""
    shared: list[Step] = []
    for step in steps:
        if learns(step):
            break
        shared.append(step)  # type: ignore[arg-type]  # TypeGuard does not narrow the other way
    return tuple(shared)


def load_steps(steps: Sequence[Step | LearnedStep], run: RunContext) -> tuple[Step, ...]:
    """Every step ready to be applied; what learned steps learned is read from the run."""
    loaded: list[Step] = []
    for number, step in enumerate(steps):
        if learns(step):
            loaded.append(step.load(_own(run, number)))
        else:
            loaded.append(step)  # type: ignore[arg-type]
    return tuple(loaded)


def fit_steps(
    steps: Sequence[Step | LearnedStep], data: TrainingData, run: RunContext
) -> TrainingData:
    """Fit the steps from the first that learns, in order, and apply them to all studies.

    Each is fitted on training studies as the steps before it leave them, and sees auxiliary sets
    as those steps leave them too. The studies that come out are kept in the run, so that a resumed
    call makes none of them twice; auxiliary ones are made when they are asked for.

    Args:
        data: studies after ``shared_steps``.
        run: its folder gets ``steps/N`` for each learned step and ``fold-studies``.

    Returns:
        ``data`` itself where no step learns.
    """
    first = len(shared_steps(steps))
    if first == len(steps):
        return data
    done: list[Step] = []
    for number, step in enumerate(steps[first:], start=first):
        if learns(step):
            own = _own(run, number)
            marker = own.folder / "done.json"
            if marker.is_file():
                done.append(step.resume(own) if isinstance(step, OutOfFoldStep) else step.load(own))
                continue
            own.folder.mkdir(parents=True, exist_ok=True)
            done.append(step.fit(_stepped(data, tuple(done)), own))
            write_json(marker, {"step": type(step).__name__})
        else:
            done.append(step)  # type: ignore[arg-type]
    stepped = _stepped(data, tuple(done))
    kept = [
        _keep(studies, run.folder / STUDIES / part, run)
        for part, studies in (("training", stepped.training), ("validation", stepped.validation))
    ]
    return TrainingData(kept[0], kept[1], stepped.auxiliary)


def _stepped(data: TrainingData, steps: tuple[Step, ...]) -> TrainingData:
    """All studies, with the steps applied on demand."""

    def stepped(studies: Sequence[Study]) -> LazyStudies:
        return LazyStudies(range(len(studies)), partial(_after, steps, studies))

    return TrainingData(
        stepped(data.training),
        stepped(data.validation),
        {name: stepped(studies) for name, studies in data.auxiliary.items()},
    )


def _own(run: RunContext, number: int) -> RunContext:
    return replace(run, folder=run.folder / STEPS / str(number))


def _keep(studies: Sequence[Study], folder: Path, run: RunContext) -> LazyStudies:
    folder.mkdir(parents=True, exist_ok=True)
    folders = []
    for number in range(len(studies)):
        target = folder / f"{number:05d}"
        if not is_prepared(target):
            write_prepared(studies[number], target)
        folders.append(target)
        run.progress("learned steps", number + 1, len(studies))
    return prepared_studies(folders)


def _after(steps: tuple[Step, ...], studies: Sequence[Study], number: int) -> Study:
    study = studies[number]
    for step in steps:
        study = step(study)
    return study
