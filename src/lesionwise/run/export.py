"""The command ``export``: a BIDS data set in the form that other tools train on."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from lesionwise import defaults
from lesionwise.io.bids import read_dataset
from lesionwise.io.files import check_writable
from lesionwise.io.nnunet import DATASET_NAME, describe_nnunet, write_nnunet
from lesionwise.io.space import same_space
from lesionwise.methods.members import deal_subjects
from lesionwise.preprocess.geometry import resample_to
from lesionwise.preprocess.registration import rigid
from lesionwise.run.prepare import by_name, visits_of
from lesionwise.types import InputError, Progress, Study, Task, Visit, Volume, no_progress, scan_of

SPLITS = "splits_final.json"


@dataclass(frozen=True)
class ExportResult:
    """What ``export`` wrote.

    Attributes:
        folder: the data set.
        training, test: names of the cases with and without labels.
        failures: subjects that could not be written, and why.
        left_out: visits and files that are no cases, such as those without a scan, and why.
    """

    folder: Path
    training: tuple[str, ...]
    test: tuple[str, ...]
    failures: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)


def export(
    dataset: Path,
    output: Path,
    *,
    scans: Sequence[str] = ("flair",),
    visits: int = 1,
    task: Task = "lesions",
    progress: Progress = no_progress,
) -> ExportResult:
    """Write a BIDS data set as an nnU-Net raw data set, which appears complete or not at all.

    Cases whose lesions (or new lesions) are known go to ``imagesTr`` and ``labelsTr``, the others
    to ``imagesTs``. nnU-Net wants all channels of a case on one grid, so scans that lie on
    another grid than the first scan of the last visit are registered to it rigidly and resampled
    linearly; labels are never resampled.

    nnU-Net's own splits know nothing of patients, whose visits are cases of their own. Where two
    or more patients have labels, ``splits_final.json`` holds splits by patient (`splits_of`).

    Args:
        output: a folder called like ``Dataset001_Lesions``, as nnU-Net wants it; not there yet.
        scans: channels of a visit, in order.
        visits: 1, or 2 for every two visits that follow each other.
        task: what the labels are of; ``new`` needs two visits.

    Raises:
        InputError: If the settings do not fit together, the folder is there or misnamed, the data
            set cannot be read, or nothing in it can be written. An error of one study is listed,
            and the others continue.
    """
    if visits not in (1, 2) or (task == "new" and visits != 2):
        raise InputError(f"export: {task} lesions with {visits} visits per case is not possible")
    if not DATASET_NAME.fullmatch(output.name):
        raise InputError(f"{output}: nnU-Net needs a folder name such as Dataset001_Lesions")
    if output.exists():
        raise InputError(f"{output}: exists already; remove it or choose another number")
    studies = read_dataset(dataset, scans=scans)
    check_writable(output.parent)
    # Written beside its place and renamed at the end, so a killed call leaves no half data set.
    partial = output.with_name(f".{secrets.token_hex(4)}-{output.name}")
    names: dict[Literal["Tr", "Ts"], list[str]] = {"Tr": [], "Ts": []}
    patients: dict[str, str] = {}
    failures = {f"sub-{subject}": error for subject, error in studies.errors.items()}
    try:
        for done, subject in enumerate(studies.subjects):
            progress(f"sub-{subject}", done, len(studies))
            try:
                parts = list(visits_of(studies[done], visits))
                if not parts:
                    failures[f"sub-{subject}"] = f"fewer than {visits} visits"
                for _, study in parts:
                    known = study.changes if task == "new" else study.followup.labels
                    # Cases without a reference are what nnU-Net predicts, not what it learns from.
                    labeled = "new" in known or bool({"lesions", "instances"} & set(known))
                    part: Literal["Tr", "Ts"] = "Tr" if labeled else "Ts"
                    written = _write_one(study, partial, scans, part, visits, task)
                    names[part] += written
                    patients |= dict.fromkeys(written, study.subject)
            except InputError as error:
                failures[f"sub-{subject}"] = str(error)
        if not names["Tr"] and not names["Ts"]:
            reasons = "; ".join(f"{name}: {error}" for name, error in list(failures.items())[:3])
            raise InputError(f"{dataset}: nothing to export ({reasons})")
        describe_nnunet(partial, len(names["Tr"]), scans, visits, task, patients=patients)
        splits = splits_of({case: patients[case] for case in names["Tr"]})
        if splits:
            text = json.dumps(splits, indent=4)
            (partial / SPLITS).write_text(text + "\n", encoding="utf-8")
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress("done", len(studies), len(studies))
    return ExportResult(
        output, tuple(names["Tr"]), tuple(names["Ts"]), failures, by_name(studies.skipped)
    )


def splits_of(
    patients: Mapping[str, str], folds: int = defaults.FOLDS
) -> list[dict[str, list[str]]]:
    """Splits in the form of nnU-Net's ``splits_final.json``: no patient trains and validates.

    Patients are dealt at random by a fixed seed into ``folds`` parts, or one each where there are
    fewer, so the same patients give the same splits. Every case validates once.

    Args:
        patients: by case.

    Returns:
        Of each fold ``train`` and ``val``, names of cases in order; no fold below two patients.
    """
    part_of = deal_subjects(patients.values(), folds, seed=0)
    return [
        {
            "train": sorted(case for case, who in patients.items() if part_of[who] != part),
            "val": sorted(case for case, who in patients.items() if part_of[who] == part),
        }
        for part in sorted(set(part_of.values()))
    ]


def _write_one(
    study: Study,
    folder: Path,
    scans: Sequence[str],
    part: Literal["Tr", "Ts"],
    visits: int,
    task: Task,
) -> tuple[str, ...]:
    """Write one case whole: scratch first, so that an error leaves nothing of it behind."""
    scratch = folder / f".case-{secrets.token_hex(4)}"
    try:
        written = write_nnunet(
            [on_one_grid(study, scans)], scratch, scans, part=part, visits=visits, task=task
        )
        for path in sorted(scratch.glob("*/*.nii*")):
            target = folder / path.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return written


def on_one_grid(study: Study, scans: Sequence[str]) -> Study:
    """All scans on the grid of the last visit's first one, registered where they lie elsewhere.

    Labels and changes stay as they are: they lie on the last visit's grid.

    Raises:
        InputError: If a visit lacks its first scan.
    """
    firsts = [scan_of(study, visit, scans[0]) for visit in study.visits]
    target = firsts[-1]
    visits: list[Visit] = []
    for visit, first in zip(study.visits, firsts, strict=True):
        to_visit = _found_by(target, first)
        moved = {}
        for name, volume in visit.scans.items():
            if name in scans:
                moved[name] = _moved(target, volume, _found_by(first, volume) @ to_visit)
        visits.append(replace(visit, scans=moved))
    return replace(study, visits=tuple(visits))


def _found_by(fixed: Volume, moving: Volume) -> np.ndarray:
    """World mm of one scan to world mm of another; scans on one grid count as aligned."""
    if same_space(fixed.grid, moving.grid).same:
        return np.eye(4)
    return rigid(fixed, moving)


def _moved(target: Volume, volume: Volume, world: np.ndarray) -> Volume:
    if same_space(target.grid, volume.grid).same and np.array_equal(world, np.eye(4)):
        return volume
    as_float = Volume(np.asarray(volume.array, dtype=np.float32), volume.grid)
    return resample_to(as_float, target.grid, order=1, world=world)
