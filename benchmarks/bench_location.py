"""How often a lesion's location is the simulated one: confusion matrix over simulated patients.

    python benchmarks/bench_location.py [--patients 12] [--seed 9100] [--rows FILE]

Each patient has one visit, with skull, in the mixture of spacings that the simulator draws. The
brain is the one that is extracted, the lesions are the known ones, so that only the location is
measured. The simulator calls a lesion periventricular within 2 mm of the true lateral ventricles,
juxtacortical within 1.5 mm of the true cortex, both measured before the scan is taken. With
--rows, patients that are in the file already are not made again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from lesionwise.preprocess.brain import brain_mask
from lesionwise.preprocess.location import find_landmarks, locate_lesions
from lesionwise.simulate.patient import simulate_with_truth
from lesionwise.types import Instances

ORDER = ("periventricular", "juxtacortical", "infratentorial", "deep white matter")


def one_patient(seed: int) -> pd.DataFrame:
    """A row a lesion: true and found location, volume; the patient's spacing and processor time."""
    patient = simulate_with_truth(seed)
    visit = patient.study.visits[0]
    scan, known = visit.scans["flair"], visit.labels["instances"]
    brain = brain_mask(scan, name=f"seed {seed}")
    start = time.process_time()
    landmarks = find_landmarks(scan, brain, name=f"seed {seed}")
    found = locate_lesions(Instances(known.array.astype(np.int32), known.grid), landmarks)
    seconds = time.process_time() - start
    rows = pd.DataFrame(patient.lesions[0])
    return pd.DataFrame(
        {
            "seed": seed,
            "truth": rows["location"],
            "found": rows["index"].map(found),
            "volume_mm3": rows["volume_mm3"],
            "thickest_mm": round(max(scan.grid.spacing_mm), 2),
            "cpu_s": seconds,
        }
    )


def report(rows: pd.DataFrame) -> str:
    """The confusion matrix and what follows from it, as Markdown."""
    right = rows["truth"] == rows["found"]
    by_patient = right.groupby(rows["seed"]).mean()
    large = right[rows["volume_mm3"] > 100]
    seconds = rows.groupby("seed")["cpu_s"].first().median()
    said = (
        f"{rows['seed'].nunique()} patients, {len(rows)} lesions; located as simulated: "
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
        (rows[of_seed]["truth"] == place).any() == (rows[of_seed]["found"] == place).any()
        for seed in rows["seed"].unique()
        for of_seed in [rows["seed"] == seed]
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
    options = parser.parse_args()
    tables = []
    if options.rows and options.rows.exists():
        tables.append(pd.read_csv(options.rows, sep="\t"))
    done = set(tables[0]["seed"]) if tables else set()
    for seed in range(options.seed, options.seed + options.patients):
        if seed in done:
            continue
        tables.append(one_patient(seed))
        if options.rows:
            pd.concat(tables).to_csv(options.rows, sep="\t", index=False)
    print(report(pd.concat(tables)))


if __name__ == "__main__":
    main()
