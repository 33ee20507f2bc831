"""How often a lesion's location is the simulated one: confusion matrix over simulated patients.

    python benchmarks/bench_location.py [--patients 12] [--seed 9100] [--rows FILE]
    python benchmarks/bench_location.py --data FOLDER [--rows FILE]

Each patient has one visit, with skull, in the mixture of spacings that the simulator draws; the
brain is the one that is extracted. With --data, the first visits of a folder that ``lesionwise
simulate`` made are taken instead, with their true brains. The lesions are the known ones, so that
only the location is measured. The simulator calls a lesion periventricular within 2 mm of the true
lateral ventricles, juxtacortical within 1.5 mm of the true cortex, both measured before the scan
is taken. With --rows, patients that are in the file already are not made again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from lesionwise.io.nifti import read_labels, read_mask, read_volume
from lesionwise.preprocess.brain import brain_mask
from lesionwise.preprocess.location import find_landmarks, locate_lesions
from lesionwise.simulate.patient import simulate_patient
from lesionwise.types import Instances, Volume

ORDER = ("periventricular", "juxtacortical", "infratentorial", "deep white matter")


def simulated(seed: int) -> pd.DataFrame:
    """Rows of a new patient."""
    patient = simulate_patient(seed)
    visit = patient.study.visits[0]
    scan = visit.scans["flair"]
    brain = brain_mask(scan, name=f"seed {seed}")
    return rows_of(
        str(seed), scan, brain, visit.labels["instances"], pd.DataFrame(patient.lesions[0])
    )


def from_folder(root: Path, subject: str) -> pd.DataFrame:
    """Rows of a patient that was written before."""
    scan = next((root / subject).glob("ses-01/anat/*_FLAIR.nii.gz"))
    truth = root / "derivatives" / "truth" / subject / "ses-01" / "anat"
    return rows_of(
        subject,
        read_volume(scan),
        read_mask(next(truth.glob("*_desc-brain_mask.nii.gz"))),
        read_labels(next(truth.glob("*_seg-truth_dseg.nii.gz"))),
        pd.read_csv(next(truth.glob("*_seg-truth_dseg.tsv")), sep="\t"),
    )


def rows_of(
    patient: str, scan: Volume, brain: Volume, known: Volume, lesions: pd.DataFrame
) -> pd.DataFrame:
    """A row a lesion: true and found location, volume; the scan's spacing and processor time."""
    start = time.process_time()
    landmarks = find_landmarks(scan, brain, name=patient)
    found = locate_lesions(Instances(known.array.astype(np.int32), known.grid), landmarks)
    return pd.DataFrame(
        {
            "patient": patient,
            "truth": lesions["location"],
            "found": lesions["index"].map(found),
            "volume_mm3": lesions["volume_mm3"],
            "thickest_mm": round(max(scan.grid.spacing_mm), 2),
            "cpu_s": time.process_time() - start,
        }
    )


def report(rows: pd.DataFrame) -> str:
    """The confusion matrix and what follows from it, as Markdown."""
    right = rows["truth"] == rows["found"]
    by_patient = right.groupby(rows["patient"]).mean()
    large = right[rows["volume_mm3"] > 100]
    seconds = rows.groupby("patient")["cpu_s"].first().median()
    said = (
        f"{rows['patient'].nunique()} patients, {len(rows)} lesions; located as simulated: "
        f"{100 * right.mean():.1f} % of all, {100 * by_patient.min():.0f} to "
        f"{100 * by_patient.max():.0f} % by patient, {100 * large.mean():.1f} % of those above "
        f"100 mm³; Cohen's kappa {kappa(rows):.2f}; processor time {seconds:.1f} s a scan (median)."
    )
    lines = [
        said,
        "",
        "| simulated | " + " | ".join(ORDER) + " | found (%) |",
        "| --- |" + " --- |" * (len(ORDER) + 1),
    ]
    for truth in ORDER:
        of_truth = rows[rows["truth"] == truth]
        counts = [int((of_truth["found"] == place).sum()) for place in ORDER]
        share = 100 * (of_truth["found"] == truth).mean() if len(of_truth) else float("nan")
        lines.append(f"| {truth} | " + " | ".join(map(str, counts)) + f" | {share:.0f} |")
    correct = [100 * (rows.loc[rows["found"] == place, "truth"] == place).mean() for place in ORDER]
    lines.append("| right among these (%) | " + " | ".join(f"{c:.0f}" for c in correct) + " | |")
    involved = [
        (rows[here]["truth"] == place).any() == (rows[here]["found"] == place).any()
        for name in rows["patient"].unique()
        for here in [rows["patient"] == name]
        for place in ORDER[:3]
    ]
    lines += [
        "",
        f"Regions called involved or not as simulated: {sum(involved)} of {len(involved)}.",
    ]
    return "\n".join(lines)


def kappa(rows: pd.DataFrame) -> float:
    """Agreement beyond chance."""
    agreed = (rows["truth"] == rows["found"]).mean()
    chance = sum((rows["truth"] == p).mean() * (rows["found"] == p).mean() for p in ORDER)
    return float((agreed - chance) / (1 - chance))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=9100, help="of the first patient")
    parser.add_argument("--rows", type=Path, help="keep the rows in this table")
    parser.add_argument("--data", type=Path, help="a folder that lesionwise simulate made")
    options = parser.parse_args()
    tables = []
    if options.rows and options.rows.exists():
        tables.append(pd.read_csv(options.rows, sep="\t", dtype={"patient": str}))
    done = set(tables[0]["patient"]) if tables else set()
    wanted: list[str] = [str(options.seed + number) for number in range(options.patients)]
    if options.data:
        wanted = sorted(path.name for path in options.data.glob("sub-*"))
    for patient in wanted:
        if patient in done:
            continue
        fresh = from_folder(options.data, patient) if options.data else simulated(int(patient))
        tables.append(fresh)
        if options.rows:
            pd.concat(tables).to_csv(options.rows, sep="\t", index=False)
    print(report(pd.concat(tables)))


if __name__ == "__main__":
    main()
