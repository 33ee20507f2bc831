"""A data set through a recipe's steps, once, kept as plain arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise.instances.reference import classes_joined, hard_labels, reference_of
from lesionwise.io.checked import inside, printable, read_checked
from lesionwise.io.files import atomic_folder, write_json
from lesionwise.io.fingerprint import fingerprint_of, same_form
from lesionwise.io.prepared import is_prepared, prepared_studies, write_prepared
from lesionwise.io.record import check_same_settings, sha256_of_bytes, write_failures
from lesionwise.processes import map_processes
from lesionwise.recipe import Recipe
from lesionwise.run.learned_steps import shared_steps
from lesionwise.run.recipes import auxiliary_sets, find_recipe, settings
from lesionwise.types import (
    Auxiliary,
    InputError,
    LazyStudies,
    Progress,
    Study,
    Volume,
    no_progress,
)

SETTINGS_FILE = "prepared.json"
DONE = "done.json"
"""The record of a subject that came to its end, in its folder."""
UNLABELLED = "unlabelled"
"""In place of what is to be found, for auxiliary sets without labels."""
AUXILIARY = "auxiliary"
"""Folder beside prepared subjects in which each auxiliary set has a folder of its own."""


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
        folder: where it lies; training needs nothing else.
        names: of the prepared studies, each a folder below ``folder``.
        subjects: of each study.
        lesions: number of lesions of each study.
        left_out: what could not be used, and why.
        fingerprint: of the data set it came from.
        scans: SHA-256 of the scans of each subject as they were read; empty for arrays of a version
            that did not write them down.
    """

    folder: Path
    names: tuple[str, ...]
    subjects: tuple[str, ...]
    lesions: tuple[int, ...]
    left_out: Mapping[str, str]
    fingerprint: str
    scans: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def studies(self, subjects: Sequence[str]) -> LazyStudies:
        """The studies of these subjects, in order."""
        wanted = set(subjects)
        return prepared_studies(
            self.folder / name
            for name, subject in zip(self.names, self.subjects, strict=True)
            if subject in wanted
        )


@dataclass(frozen=True)
class _KeptStudy:
    name: str
    lesions: int


@dataclass(frozen=True)
class _Record:
    """What a subject's record says.

    Attributes:
        subject: its name; empty where nothing was read.
        studies: those kept, by their folder below that of all, and their numbers of lesions.
        left_out: what could not be used, and why.
        scans: SHA-256 of the voxels of each scan.
    """

    subject: str = ""
    studies: tuple[_KeptStudy, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    scans: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Settings:
    """What the settings file of a folder says; ``skipped`` are visits and files of the data set
    that are no studies, each with the reason."""

    settings: dict[str, Any]
    data: str | None
    skipped: tuple[str, ...] = ()


def prepare(
    recipe: str | Path,
    dataset: Path,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    auxiliary: Auxiliary | None = None,
    workers: int = 0,
    progress: Progress = no_progress,
) -> Prepared:
    """Put a BIDS data set through a recipe's steps and keep the results in ``folder``.

    Subjects that are prepared already, and whole, are not prepared again, so an interrupted call
    goes on. Calls may share a folder at the same time: of a subject that two prepare, the first
    result is kept. A recipe for one visit gets every visit as a study of its own; a recipe for two
    gets every pair of visits that follow each other. A study that does not say what is to be found,
    or whose preparation fails on an error of its files, is left out and listed. Only the steps
    before the first that learns are taken; the others belong to a fold (``run.learned_steps``).

    ``folder`` gets a folder a subject, ``prepared.json`` (settings and fingerprint), and
    ``failures.tsv`` where something was left out.

    Args:
        recipe: name or file.
        dataset: BIDS or nnU-Net raw folder; or a prepared folder, which is returned as it is.
        folder: for the results.
        overrides: values of the recipe to set.
        auxiliary: the data set is this auxiliary one: whatever the recipe takes and finds, its
            studies have as many visits as that says, and what is to be found in them are all
            lesions, or nothing where the set has no labels.
        workers: processes; 0 works in this one.
        progress: called with each subject.

    Raises:
        InputError: If the data set cannot be read, nothing in it can be used, or ``folder``
            holds studies prepared in another way.
    """
    if (dataset / SETTINGS_FILE).is_file():
        folder = dataset
    found = _recipe(recipe, overrides, auxiliary)
    how = preparation_settings(found)
    if folder == dataset:
        return _read(folder, _check_settings(folder, how))
    from lesionwise.io.bids import open_dataset

    studies = open_dataset(dataset, found.scans, found.visits)
    fingerprint = fingerprint_of(dataset, _data_before(folder))
    _begin(folder, how, fingerprint, studies.skipped)
    # Recorded like the others, so that they are listed with what was left out.
    for subject, error in studies.errors.items():
        record = _Record(subject, left_out={f"sub-{subject}": error})
        write_json(folder / f"sub-{subject}" / DONE, asdict(record))
    subjects = studies.subjects
    waiting = [n for n, s in enumerate(subjects) if not _is_whole(folder / f"sub-{s}")]
    done = len(subjects) - len(waiting)
    progress("prepare", done, len(subjects))
    map_processes(
        partial(_prepare_subject, str(recipe), tuple(overrides), auxiliary, dataset, folder),
        waiting,
        workers,
        lambda ended: progress("prepare", done + ended, len(subjects)),
    )
    prepared = _read(folder, fingerprint)
    write_failures(folder, prepared.left_out, first="study")
    if not prepared.names:
        reasons = "; ".join(f"{k}: {v}" for k, v in list(prepared.left_out.items())[:3])
        raise InputError(f"{dataset}: no study to learn from ({reasons or 'no subjects'})")
    return prepared


def preparation_settings(recipe: Recipe) -> dict[str, Any]:
    """All that decides the arrays of a recipe; recipes that agree in it can share them."""
    return {
        "scans": list(recipe.scans),
        "visits": recipe.visits,
        "task": recipe.task,
        **settings(shared_steps(recipe.preprocess), "preprocess"),
    }


def _recipe(recipe: str | Path, overrides: Sequence[str], auxiliary: Auxiliary | None) -> Recipe:
    found = find_recipe(recipe, overrides)
    if auxiliary is None:
        return found
    task = "lesions" if auxiliary.labelled else UNLABELLED
    scans = auxiliary.scans or found.scans
    return replace(found, visits=auxiliary.visits, task=task, scans=scans)


def check_auxiliary(
    recipe: str | Path, datasets: Mapping[str, Path], overrides: Sequence[str] = ()
) -> None:
    """Refuse auxiliary sets that a recipe cannot use, before any work is done.

    Raises:
        InputError: If the recipe asks for no set of a name, or a folder is missing.
    """
    asked = auxiliary_sets(find_recipe(recipe, overrides))
    for name, dataset in datasets.items():
        if name not in asked:
            raise InputError(
                f"--auxiliary {name}: {recipe} learns from no such set"
                + (f"; it asks for {', '.join(asked)}" if asked else ", nor from any other")
            )
        if not dataset.is_dir():
            raise InputError(f"--auxiliary {name}: {dataset}: no such folder")


def prepare_auxiliary(
    recipe: str | Path,
    datasets: Mapping[str, Path],
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    workers: int = 0,
    progress: Progress = no_progress,
) -> dict[str, Prepared]:
    """Prepare the auxiliary sets of a recipe, each in a folder of its name below ``folder``.

    Args:
        datasets: BIDS, nnU-Net raw or prepared folders by the names the recipe gives them.

    Raises:
        InputError: As for ``prepare``; if the recipe asks for no set of a name.
    """
    check_auxiliary(recipe, datasets, overrides)
    asked = auxiliary_sets(find_recipe(recipe, overrides))
    return {
        name: prepare(
            recipe,
            dataset,
            folder / name,
            overrides=overrides,
            auxiliary=asked[name],
            workers=workers,
            progress=progress,
        )
        for name, dataset in datasets.items()
    }


def left_out_of(prepared: Prepared, auxiliary: Mapping[str, Prepared]) -> dict[str, str]:
    """What could not be used, and why; studies of an auxiliary set stand behind its name."""
    left_out = dict(prepared.left_out)
    for name, found in auxiliary.items():
        left_out |= {f"{name} {study}": error for study, error in found.left_out.items()}
    return left_out


def _prepare_subject(
    recipe: str,
    overrides: tuple[str, ...],
    auxiliary: Auxiliary | None,
    dataset: Path,
    folder: Path,
    index: int,
) -> None:
    from lesionwise.io.bids import open_dataset

    found = _recipe(recipe, overrides, auxiliary)
    studies = open_dataset(dataset, found.scans, found.visits)
    subject = studies.subjects[index]
    left_out: dict[str, str] = {}
    kept: list[_KeptStudy] = []
    name_in_data = subject
    scans: tuple[str, ...] = ()
    parts: list[tuple[str, Study]] = []
    try:
        whole = studies[index]
        name_in_data = whole.subject  # a case of nnU-Net's has its patient's name here
        scans = tuple(_hash_of(v) for visit in whole.visits for v in visit.scans.values())
        parts = list(parts_of(whole, found))
        if not parts:
            left_out[f"sub-{subject}"] = f"fewer than {found.visits} visits"
    except InputError as error:
        left_out[f"sub-{subject}"] = str(error)
    target = folder / f"sub-{subject}"
    with atomic_folder(target, keep=_is_whole) as making:
        for name, study in parts:
            try:
                if found.task != UNLABELLED:
                    reference_of(study, found.task)
                for step in shared_steps(found.preprocess):
                    study = step(study)
                lesions = np.empty(0, dtype=np.int64)
                if found.task != UNLABELLED:
                    lesions = np.unique(hard_labels(reference_of(study, found.task)))
            except InputError as error:
                left_out[f"sub-{subject}_{name}"] = str(error)
                continue
            write_prepared(study, making / name)
            kept.append(_KeptStudy(f"sub-{subject}/{name}", int((lesions > 0).sum())))
        record = _Record(name_in_data, tuple(kept), left_out, scans)
        write_json(making / DONE, asdict(record))


def _is_whole(folder: Path) -> bool:
    """Whether a subject came to its end and all that its record names is there."""
    try:
        studies = list(_studies_of(folder / DONE, read_checked(folder / DONE, _Record)))
    except InputError:
        return False
    return all(is_prepared(folder.parent / name) for name, _ in studies)


def _studies_of(path: Path, record: _Record) -> Iterator[tuple[str, int]]:
    """Name and number of lesions of each study of a record.

    Raises:
        InputError: If a name leads out of the subject's folder.
    """
    own = path.parent
    for study in record.studies:
        if not study.name.startswith(f"{own.name}/"):
            raise InputError(f"{path}: {printable(study.name)} lies in another folder")
        inside(own.resolve(), study.name.removeprefix(f"{own.name}/"))
        yield study.name, study.lesions


def _hash_of(volume: Volume) -> str:
    """SHA-256 of a scan's voxels, whatever its file was called."""
    array = np.ascontiguousarray(volume.array, dtype=np.float32)
    return sha256_of_bytes(repr(array.shape).encode() + array.tobytes())


def refuse_shared_scans(name: str, prepared: Prepared, auxiliary: Prepared) -> None:
    """Refuse an auxiliary set that holds scans of the data set, under whatever name.

    What learns from it would have seen the patients that the rest is trained and scored on.

    Raises:
        InputError: Naming the subjects of the data set.
    """
    elsewhere = frozenset().union(*auxiliary.scans.values())
    shared = sorted(s for s, scans in prepared.scans.items() if scans & elsewhere)
    if shared:
        more = " and more" if len(shared) > 3 else ""
        raise InputError(
            f"--auxiliary {name}: holds scans of the data set "
            f"(sub-{', sub-'.join(shared[:3])}{more})"
        )


def parts_of(study: Study, recipe: Recipe) -> Iterator[tuple[str, Study]]:
    """The visits a recipe takes at a time: name and study of each run of visits that follow."""
    return visits_of(study, recipe.visits)


def visits_of(study: Study, count: int) -> Iterator[tuple[str, Study]]:
    """``count`` visits at a time with the changes to their last: name and study of each run.

    Instance maps whose labels are classes become components of one mask (``classes_joined``).
    """
    study = classes_joined(study)
    visits = study.visits
    for first in range(len(visits) - count + 1):
        part = visits[first : first + count]
        sessions = [f"ses-{visit.session}" if visit.session else "visit" for visit in part]
        last = first + count == len(visits)
        marked = f"@{part[-1].session}"
        changes = {
            name.removesuffix(marked): volume
            for name, volume in study.changes.items()
            if name.endswith(marked) or (last and "@" not in name)
        }
        yield "_".join(sessions), Study(study.subject, part, changes)


def _data_before(folder: Path) -> str:
    """The fingerprint of the data that a folder was prepared from; empty where none was."""
    path = folder / SETTINGS_FILE
    return (read_checked(path, _Settings).data or "") if path.is_file() else ""


def data_of(prepared: Prepared, dataset: Path, known: object) -> str:
    """The fingerprint of the data behind prepared studies, to be compared with that of a record.

    Args:
        dataset: what they were prepared from, or their own folder.
        known: what the record holds; where its form is not that of the prepared folder, which
            another version may have begun, the data set is read again.
    """
    text = known if isinstance(known, str) else ""
    if same_form(text, prepared.fingerprint) or (dataset / SETTINGS_FILE).is_file():
        return prepared.fingerprint
    return fingerprint_of(dataset, text)


def _begin(folder: Path, how: Mapping[str, Any], fingerprint: str, skipped: Sequence[str]) -> None:
    path = folder / SETTINGS_FILE
    if path.is_file():
        _check_settings(folder, how, fingerprint)
    else:
        write_json(path, {"settings": how, "data": fingerprint, "skipped": list(skipped)})


def _check_settings(folder: Path, how: Mapping[str, Any], fingerprint: str | None = None) -> str:
    """The fingerprint of the data that a folder was prepared from, in the same way as now."""
    before = read_checked(folder / SETTINGS_FILE, _Settings)
    was, now = {"data": before.data, **before.settings}, {"data": fingerprint, **how}
    if fingerprint is None:  # the data are the prepared folder itself
        now["data"] = before.data
    check_same_settings(was, now, folder)
    return str(before.data)


def by_name(phrases: Iterable[str]) -> dict[str, str]:
    """What was left out by its name, from phrases ``NAME: why``.

    Example:
        >>> by_name(["sub-1_ses-2: no flair scan"])
        {'sub-1_ses-2': 'no flair scan'}
    """
    return {name: why for name, _, why in (phrase.partition(": ") for phrase in phrases)}


def _read(folder: Path, fingerprint: str) -> Prepared:
    names, subjects, lesions = [], [], []
    left_out = by_name(read_checked(folder / SETTINGS_FILE, _Settings).skipped)
    scans: dict[str, frozenset[str]] = {}
    for path in sorted(folder.glob(f"sub-*/{DONE}")):
        record = read_checked(path, _Record)
        left_out |= record.left_out
        if record.subject:
            before = scans.get(record.subject, frozenset())
            scans[record.subject] = before | frozenset(record.scans)
        for name, count in _studies_of(path, record):
            names.append(name)
            subjects.append(record.subject)
            lesions.append(count)
    return Prepared(
        folder, tuple(names), tuple(subjects), tuple(lesions), left_out, fingerprint, scans
    )
