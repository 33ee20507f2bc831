"""The shipped model on real FLAIR scans: scores where a mask exists, counts, time, memory.

    python benchmarks/real_scans.py DATA OUT [--model conflunet]

DATA is a BIDS folder of real scans with consensus masks in derivatives/lesions. Every scan is done
by ``lesionwise segment`` in a process of its own, so that time and peak memory are those a user
sees. Lesions are components (connectivity 26) on both sides, since no instance truth exists, and
count from 14 mm³ and 3 mm on both sides. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from lesionwise.instances.components import connected_components
from lesionwise.io.nifti import read_mask
from lesionwise.io.scans import find_scans
from lesionwise.metrics.case import Options, evaluate_case
from lesionwise.types import Instances

STAGES = ("brain", "bias field", "resample", "normalize", "network", "instances")


def segment(scan: Path, out: Path, model: str) -> tuple[float, float]:
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
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start, int(done.stderr.strip().splitlines()[-1]) / 1e6


def score(reference: Path, out: Path) -> tuple[float, float, int, int]:
    """DSC of the masks, lesion F1, lesions of the reference and of the mask, as components."""
    truth, found = read_mask(reference), read_mask(next(out.rglob("*_label-L_mask.nii.gz")))
    sides = [Instances(connected_components(v.array), v.grid) for v in (truth, found)]
    values = evaluate_case(*sides).values
    filtered = Options(min_volume_mm3=14, min_extent_mm=3)
    result = evaluate_case(*sides, filtered)
    counts = [
        sum(row.side == side for row in result.lesions) for side in ("reference", "prediction")
    ]
    return float(values["dsc"] or 0), float(result.values["lesion_f1"] or 0), counts[0], counts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="conflunet")
    given = parser.parse_args()
    print("| scan | DSC | lesion F1 | reference lesions | cc | acls | offsets | volume (ml) |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    costs = []
    for scan in find_scans([given.data]):
        name = f"sub-{scan.subject}_ses-{scan.session}"
        out = given.out / name
        wall, memory = segment(scan.path, out, given.model)
        sidecar = json.loads(next(out.rglob("*_label-L_mask.json")).read_text(encoding="utf-8"))
        costs.append((name, sidecar["Seconds"], wall, memory))
        counts = [str(sidecar["Summary"][way]) for way in ("cc", "acls", "offsets")]
        volume = f"{sidecar['Summary']['volume_ml']:.1f}"
        masks = list(
            (given.data / "derivatives" / "lesions").rglob(f"sub-{scan.subject}_*mask.nii.gz")
        )
        scores = ["–", "–", "–"]  # noqa: RUF001
        if masks:
            dsc, f1, reference, _ = score(masks[0], out)
            scores = [f"{dsc:.3f}", f"{f1:.3f}", str(reference)]
        print("| " + " | ".join([name, *scores, *counts, volume]) + " |", flush=True)
    print("\n| scan | " + " | ".join(STAGES) + " | whole command (s) | peak memory (GB) |")
    print("| --- |" + " --- |" * (len(STAGES) + 2))
    for name, seconds, wall, memory in costs:
        stages = [f"{seconds.get(stage, 0):.1f}" for stage in STAGES]
        print("| " + " | ".join([name, *stages, f"{wall:.1f}", f"{memory:.2f}"]) + " |")


if __name__ == "__main__":
    main()
