"""The command ``demo``: a simulated patient through the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import lesionwise
from lesionwise import defaults
from lesionwise.io.bids import Entities, derivative_path
from lesionwise.io.files import write_json
from lesionwise.io.names import parse_name
from lesionwise.io.nifti import read_labels, read_mask, read_volume, write_volume
from lesionwise.preprocess.brain import brain_mask
from lesionwise.preprocess.quality import scan_quality
from lesionwise.report.page import QualityNote
from lesionwise.results.names import ScanFiles
from lesionwise.run.compare import compare
from lesionwise.run.find_lesions import FindOptions
from lesionwise.run.segment import segment
from lesionwise.run.simulate import simulate
from lesionwise.simulate.artifacts import degraded
from lesionwise.types import InputError, Instances, Progress, no_progress

DEGRADED = "a degraded copy of the first scan, made to be noticed"
THICK_MM = (0.9, 0.9, 6.5)
"""Voxels of the second patient, as clinics acquire 2D FLAIR."""


@dataclass(frozen=True, eq=False)
class Demo:
    """What ``demo`` made.

    Attributes:
        tables: short tables by title.
        page: the page to open.
        quality: how fit each scan is, and what is wrong with the degraded one.
        clinical_page: the page of the second patient.
    """

    tables: Mapping[str, pd.DataFrame]
    page: Path
    clinical_page: Path
    quality: tuple[QualityNote, ...] = ()


def demo(
    output: Path,
    *,
    seed: int = defaults.DEMO_SEED,
    device: str = "auto",
    model: str | Path = defaults.MODEL,
    progress: Progress = no_progress,
) -> Demo:
    """Simulate two patients, find their lesions and what is new, score, and show.

    One has two visits of 1 mm, the other one visit as clinics acquire it: thick slices, bright
    fat. Both are made by the same simulator as part of the model's training data, from seeds
    that were not among them: so this shows that the parts work together, and says nothing about
    how good the model is on a real scan. That stands in ``docs/measurements/real-scans.md``.

    A degraded copy of the first scan, with ghosts, noise and its top cut off, is graded too: it
    shows what the check of the input says, and nothing is searched in it.
    """
    patient = simulate(output / "patient", 1, 2, seed, progress=progress)
    scans = sorted(patient.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz"))
    truth_root = patient / "derivatives" / "truth"
    truth = [_truth_of(scan, truth_root) for scan in scans]
    options = FindOptions(also=defaults.SEPARATIONS)
    progress("grade a degraded scan", 0, 1)
    degraded = _degraded_note(scans[0], truth_root.parent / "degraded", seed)
    found = compare(
        scans,
        output,
        model=model,
        options=options,
        device=device,
        truth=truth,
        also_judged=(degraded,),
        progress=progress,
    )
    clinical, clinical_page = _clinical_patient(
        output / "clinical", seed, model=model, options=options, device=device, progress=progress
    )
    write_json(
        output / "demo.json",
        {
            "GeneratedBy": {"Name": "lesionwise demo", "Version": lesionwise.__version__},
            "Seed": seed,
        },
    )
    assert found.scores is not None
    tables = {
        "Lesions by visit": found.summary,
        "Against the known truth (lesions from 14 mm³ and 3 mm, both sides)": found.scores,
        f"A patient with slices of {THICK_MM[2]:g} mm": clinical,
    }
    return Demo(tables, found.page, clinical_page, found.quality)


def _truth_of(scan: Path, root: Path) -> Instances:
    subject, session = scan.parts[-4].removeprefix("sub-"), scan.parts[-3].removeprefix("ses-")
    path = derivative_path(root, Entities(sub=subject, ses=session), "dseg", seg="truth")
    labels = read_labels(path)
    return Instances(labels.array.astype(np.int32, copy=False), labels.grid)


def _clinical_patient(
    output: Path,
    seed: int,
    *,
    model: str | Path,
    options: FindOptions,
    device: str,
    progress: Progress,
) -> tuple[pd.DataFrame, Path]:
    """One visit with thick slices: lesions and Dice beside the truth, and its page."""
    patient = simulate(
        output / "patient", 1, 1, seed, style="clinical", spacing_mm=THICK_MM, progress=progress
    )
    scan = next(patient.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz"))
    done = segment([scan], output, model=model, options=options, device=device, progress=progress)
    truth = _truth_of(scan, patient / "derivatives" / "truth")
    entities = parse_name(scan)
    assert entities is not None
    found = read_mask(ScanFiles(output, entities).mask).array
    both, sizes = np.count_nonzero(found & (truth.labels > 0)), np.count_nonzero(found)
    total = sizes + np.count_nonzero(truth.labels)
    count = len(np.unique(truth.labels)) - 1
    table = done.summary.assign(true_lesions=count, dsc=2 * both / total if total else 1.0)
    return table, done.page


def _degraded_note(scan: Path, folder: Path, seed: int) -> QualityNote:
    """What the check of the input says of a degraded copy of a scan, which is kept."""
    entities = parse_name(scan)
    assert entities is not None
    bad = degraded(read_volume(scan), seed, ghost=0.15, noise=0.12, keep=0.7)
    path = derivative_path(folder, entities, "FLAIR", space="", desc="degraded")
    write_volume(path, bad)
    try:
        brain = brain_mask(bad, name=path.name)
    except InputError as error:
        return QualityNote(DEGRADED, "poor", (str(error),))
    found = scan_quality(bad, brain)
    return QualityNote(DEGRADED, found.grade, found.reasons, found.measures)
