"""Trained models on real FLAIR scans, each scan by a model that never saw it.

    python benchmarks/real_scans.py OUT DATA... [--model NAME] [--folds RUN...] [--brains given]
        [--decide NAME=VALUE]

DATA are BIDS folders of real scans with lesion masks in derivatives/lesions. Every scan is done by
``lesionwise segment`` in a process of its own, so that time and peak memory are those a user sees.
With ``--folds`` a scan is done by the run whose ``run.json`` lists its subject among those that it
validated on; scans of no fold are done by ``--model`` and marked *trained on* or *never seen*, as
that model's run says. ``--decide`` changes a setting that acts in prediction, such as
``method.inference.window.overlap=0.25``, of all folds and of a run folder given as ``--model``.
``--brains given`` uses the brain masks of derivatives/brains where they exist: the rest is then the
network's.

Lesions are components (26 neighbors) on both sides, one to one at an IoU above 0.1, since no
instance truth exists; those below 3 mm³ do not count. The thresholds of each fold (of the
probability, and of a lesion's highest probability) are those with the highest mean of Dice and
lesion F1 over the scans of the other folds. Prints Markdown tables and writes them as TSV.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionwise.instances.components import connected_components
from lesionwise.instances.mask import lesion_mask
from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.io.scans import find_scans
from lesionwise.metrics.case import Options, evaluate_case
from lesionwise.types import BoolArray, Grid, Instances, Volume

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
PEAKS = (0.0, 0.7, 0.8, 0.9, 0.95, 0.98)
COUNTED = Options(min_volume_mm3=3.0)
LARGE = Options(min_volume_mm3=14.0)
THICK_MM = 3.0


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with what was found in it.

    Attributes:
        fold: number of the run that did it; -1 for ``--model``.
        shown: its mask by the model's own thresholds.
    """

    name: str
    fold: int
    seen: str
    reference: Volume
    probability: Volume
    shown: BoolArray
    seconds: float
    memory_gb: float


def segment(scan: Path, out: Path, model: str, brain: Path | None) -> tuple[float, float]:
    """Wall seconds and peak memory in GB of the command on one scan."""
    start = time.perf_counter()
    code = (
        "import resource, sys; from lesionwise.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code or 0\n"
        "else: code = 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    arguments = ["segment", str(scan), "-o", str(out), "--model", model, "--overwrite"]
    if brain is not None:
        arguments += ["--brain-mask", str(brain)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start, int(done.stderr.strip().splitlines()[-1]) / 1e6


def scores(reference: Volume, mask: BoolArray) -> dict[str, float]:
    """Dice of the masks, and lesion scores of their components."""
    sides = [
        Instances(connected_components(array != 0), reference.grid)
        for array in (reference.array, mask)
    ]
    case = evaluate_case(*sides, COUNTED)
    counted: dict[str, Any] = dict(case.values)
    large: dict[str, Any] = dict(evaluate_case(*sides, LARGE).values)
    ml = reference.grid.voxel_volume_mm3 / 1000
    found, truth = float(mask.sum()) * ml, float(np.count_nonzero(reference.array)) * ml
    number = {side: sum(row.side == side for row in case.lesions) for side in
              ("reference", "prediction")}  # fmt: skip
    return {
        "dsc": float(counted["dsc"] or 0),
        "lesion_f1": float(counted["lesion_f1"] or 0),
        "sensitivity_14mm3": float(large["lesion_recall"] or 0),
        "false_lesions": float(counted["lesion_fp"] or 0),
        "reference": float(number["reference"]),
        "found": float(number["prediction"]),
        "reference_ml": truth,
        "volume_error": (found - truth) / truth,
    }


def decided(run: Path, target: Path, settings: Sequence[str]) -> Path:
    """A copy of a run with other settings of its prediction."""
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    described["overrides"] = [*described["overrides"], *settings]
    described["settings"] |= {k: json.loads(v) for k, _, v in (s.partition("=") for s in settings)}
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "model.safetensors", target / "model.safetensors")
    (target / "run.json").write_text(json.dumps(described), encoding="utf-8")
    return target


def subjects_of(run: Path) -> tuple[set[str], set[str]]:
    """Subjects that a run trained on and validated on; copies of a scan (``v1``) are one."""
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    return tuple(  # type: ignore[return-value]
        {re.sub(r"v\d+$", "", str(name)) for name in described.get(key, [])}
        for key in ("training", "validation")
    )


def cases(
    data: Sequence[Path], out: Path, model: str, folds: Sequence[Path], brains: str, only: bool
) -> Iterator[Case]:
    """Every scan with a lesion mask, or only those of a fold, segmented."""
    held = [subjects_of(run)[1] for run in folds]
    shipped = Path(__file__).parents[1] / "src" / "lesionwise" / "models" / f"{model}.json"
    trained: set[str] = set()
    if shipped.exists() or Path(model).is_dir():
        text = shipped if shipped.exists() else Path(model) / "run.json"
        described = json.loads(text.read_text(encoding="utf-8"))
        trained = {re.sub(r"v\d+$", "", str(name)) for name in described.get("training", [])}
    for folder in data:
        for scan in find_scans([folder]):
            masks = sorted(
                (folder / "derivatives" / "lesions").rglob(f"sub-{scan.subject}_*mask.nii.gz")
            )
            if not masks:
                continue
            fold = next((n for n, names in enumerate(held) if scan.subject in names), -1)
            if only and fold < 0:
                continue
            run = str(folds[fold]) if fold >= 0 else model
            seen = "never" if fold >= 0 or scan.subject not in trained else "trained on"
            given = sorted((folder / "derivatives" / "brains").rglob(f"sub-{scan.subject}_*"))
            brain = given[0] if given and brains == "given" else None
            where = out / f"sub-{scan.subject}"
            seconds, memory = segment(scan.path, where, run, brain)
            probability = read_volume(next(where.rglob("*_label-L_probseg.nii.gz")))
            shown = read_mask(next(where.rglob("*_label-L_mask.nii.gz"))).array
            reference = read_mask(masks[0])
            yield Case(
                f"sub-{scan.subject}", fold, seen, reference, probability, shown, seconds, memory
            )


def best(found: pd.DataFrame, others: Sequence[str]) -> tuple[float, float]:
    """Threshold and least peak with the highest mean of Dice and F1 over some scans."""
    part = found[found["scan"].isin(others)]
    means = part.groupby(["threshold", "peak"])[["dsc", "lesion_f1"]].mean().mean(axis=1)
    threshold, peak = means.idxmax()
    return float(threshold), float(peak)


def printed(table: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "| " + " | ".join(["---"] * table.shape[1])]
    lines[1] += " |"
    for _, row in table.iterrows():
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def thickness_mm(grid: Grid) -> float:
    return float(max(grid.spacing_mm))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--model", default="conflunet")
    parser.add_argument("--folds", type=Path, nargs="*", default=[])
    parser.add_argument("--only-folds", action="store_true", help="skip scans of no fold")
    parser.add_argument("--brains", choices=("own", "given"), default="own")
    parser.add_argument("--decide", action="append", default=[], help="NAME=VALUE, of all runs")
    given = parser.parse_args()
    if given.decide:
        given.folds = [
            decided(run, given.out / "runs" / run.name, given.decide) for run in given.folds
        ]
        if Path(given.model).is_dir():
            run = Path(given.model)
            given.model = str(decided(run, given.out / "runs" / run.name, given.decide))
    rows, own = [], []
    for case in cases(
        given.data, given.out, given.model, given.folds, given.brains, given.only_folds
    ):
        about = {
            "scan": case.name,
            "fold": case.fold,
            "seen": case.seen,
            "slice_mm": thickness_mm(case.reference.grid),
        }
        cost = {"seconds": case.seconds, "memory_gb": case.memory_gb}
        own.append(about | scores(case.reference, case.shown) | cost)
        for threshold, peak in itertools.product(THRESHOLDS, PEAKS):
            mask = lesion_mask(case.probability.array, threshold, peak)
            rows.append(
                about | {"threshold": threshold, "peak": peak} | scores(case.reference, mask)
            )
        print(case.name, {k: round(v, 3) for k, v in own[-1].items() if isinstance(v, float)},
              file=sys.stderr, flush=True)  # fmt: skip
    grid, shown = pd.DataFrame(rows), pd.DataFrame(own)
    given.out.mkdir(parents=True, exist_ok=True)
    grid.to_csv(given.out / "thresholds.tsv", sep="\t", index=False)
    shown.to_csv(given.out / "scans.tsv", sep="\t", index=False)
    print("With the model's own thresholds:\n")
    print(printed(shown))
    numbers = ["dsc", "lesion_f1", "sensitivity_14mm3", "false_lesions", "volume_error"]
    thick = np.where(shown["slice_mm"] >= THICK_MM, "thick slices", "1 mm")
    print("\n" + printed(shown.groupby([thick, "seen"])[numbers].mean().reset_index()))
    print("\nBest thresholds over all scans:", best(grid, list(shown["scan"])))
    out_of_fold = shown[shown["fold"] >= 0]
    if len(set(out_of_fold["fold"])) > 1:
        chosen = []
        for fold, part in out_of_fold.groupby("fold"):
            others = out_of_fold.loc[out_of_fold["fold"] != fold, "scan"]
            threshold, peak = best(grid, list(others))
            at = grid[(grid["threshold"] == threshold) & (grid["peak"] == peak)]
            chosen.append(at[at["scan"].isin(part["scan"])])
        table = pd.concat(chosen)
        print("\nOut of fold, thresholds of the other folds:\n")
        print(printed(table))
        thick = np.where(table["slice_mm"] >= THICK_MM, "thick slices", "1 mm")
        print("\n" + printed(table.groupby(thick)[numbers].mean().reset_index()))


if __name__ == "__main__":
    main()
