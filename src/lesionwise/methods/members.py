"""What methods made of methods share: parts of the data, folders of members, mean maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from lesionwise.io.files import write_text
from lesionwise.io.record import sha256
from lesionwise.types import (
    FloatArray,
    InputError,
    LazyStudies,
    LesionMaps,
    Method,
    RunContext,
    Study,
    TrainingData,
    Visit,
)

FITTED = "fitted"
"""A file in the folder of a part that has been learned, with the SHA-256 of its weights."""


def chosen(studies: Sequence[Study], numbers: Iterable[int]) -> LazyStudies:
    """Some of a sequence of studies, by number, each read on demand."""
    return LazyStudies(tuple(numbers), partial(_at, studies))


def _at(studies: Sequence[Study], number: int) -> Study:
    return studies[number]


def labeled_visits(studies: Sequence[Study]) -> LazyStudies:
    """Every visit that has a lesion mask or instances, as a study of its own."""
    places = tuple(
        (number, place)
        for number, study in enumerate(studies)
        for place, visit in enumerate(study.visits)
        if {"lesions", "instances"} & set(visit.labels)
    )
    return LazyStudies(places, partial(_visit_at, studies))


def _visit_at(studies: Sequence[Study], at: tuple[int, int]) -> Study:
    number, place = at
    study = studies[number]
    return single_visit(study, study.visits[place])


def single_visit(study: Study, visit: Visit) -> Study:
    """One visit as a study without a past."""
    return Study(study.subject, (visit,))


def of_visits(data: TrainingData) -> TrainingData:
    """The labeled visits of all studies, for a method that sees one visit at a time.

    Raises:
        InputError: If no training visit has a lesion mask.
    """
    training = labeled_visits(data.training)
    if not len(training):
        raise InputError("no visit has a lesion mask to learn from")
    return replace(data, training=training, validation=labeled_visits(data.validation))


def deal(studies: Sequence[Study], folds: int, seed: int) -> dict[str, int]:
    """The part of each subject, as ``deal_subjects`` deals them."""
    return deal_subjects([study.subject for study in studies] if folds > 1 else [], folds, seed)


def deal_subjects(names: Iterable[str], folds: int, seed: int) -> dict[str, int]:
    """The part of each subject, at random by the seed, parts of sizes that differ by 1 at most.

    There are no more parts than subjects; below two folds or two subjects the answer is empty.
    A name may stand several times.
    """
    subjects = sorted(set(names))
    count = min(folds, len(subjects))
    if count < 2:
        return {}
    order = np.random.default_rng(seed).permutation(len(subjects))
    return {subjects[index]: place % count for place, index in enumerate(order)}


def hold_out(data: TrainingData, part_of: Mapping[str, int], part: int) -> TrainingData:
    """The training studies of one part validate, the others train."""
    inside = [part_of[study.subject] == part for study in data.training]
    return replace(
        data,
        training=chosen(data.training, (n for n, held in enumerate(inside) if not held)),
        validation=chosen(data.training, (n for n, held in enumerate(inside) if held)),
    )


def member_run(run: RunContext, number: int, members: int) -> RunContext:
    """Folder ``member-number``, a seed of its own and an equal share of the time limit."""
    seed = int(np.random.SeedSequence([run.seed, number]).generate_state(1)[0])
    minutes = None if run.max_minutes is None else run.max_minutes / members

    def progress(stage: str, done: int, total: int) -> None:
        which = f"member {number + 1} of {members}: " if members > 1 else ""
        run.progress(which + stage, done, total)

    folder = run.folder / f"member-{number}"
    return replace(run, folder=folder, seed=seed, max_minutes=minutes, progress=progress)


def fit_once(method: Method, data: TrainingData, run: RunContext) -> None:
    """Fit the method, unless the run is resumed and it has been fitted in this folder.

    It is fitted again where its weights are no longer those that were learned.
    """
    ended = run.folder / FITTED
    if run.resume and ended.is_file() and _is_whole(run.folder):
        return
    ended.unlink(missing_ok=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    method.fit(data, run)
    write_text(ended, _hash_of_weights(run.folder))


def _is_whole(folder: Path) -> bool:
    try:
        known = (folder / FITTED).read_text(encoding="utf-8").strip()
        return not known or known == _hash_of_weights(folder)
    except (OSError, ValueError, InputError):
        return False


def _hash_of_weights(folder: Path) -> str:
    """Empty where a method leaves no weights."""
    from lesionwise.inference.weights import WEIGHTS  # needs torch, dealing subjects does not

    return sha256(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else ""


def mean_maps(each: Iterable[LesionMaps]) -> LesionMaps:
    """The mean of maps on one grid, float32.

    Center heatmap and offsets are averaged where all give them; ``extra`` is left out.

    Raises:
        ValueError: For no maps.
    """
    count = 0
    for maps in each:
        found: list[FloatArray | None] = [
            maps.probability,
            maps.center_heatmap,
            maps.offsets_vox,
        ]
        if count == 0:
            grid = maps.grid
            totals = [None if a is None else np.array(a, dtype=np.float32) for a in found]
        for index, array in enumerate(found):
            total = totals[index]
            if array is None or total is None:
                totals[index] = None
            elif count:
                total += array
        count += 1
    if count == 0:
        raise ValueError("no maps to average")
    for total in totals:
        if total is not None:
            total /= np.float32(count)
    probability, heatmap, offsets = totals
    assert probability is not None
    return LesionMaps(probability, grid, heatmap, offsets)
