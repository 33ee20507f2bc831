"""Brain masks of several programs against the source masks of real scans, in one run.

    python benchmarks/bench_brain.py DATA THICK --runs RUNS [--deepbet FOLDER] [--simulated FOLDER]

DATA and THICK are the folders with the real scans and their masks by their source (five subjects,
eight raw FLAIR scans). RUNS holds the folds of tools/train_brain_model.py; each subject is measured
with a fold that never saw it. FOLDER is where ``pip install --no-deps --target FOLDER deepbet
fill-voids`` put the package deepbet. Every program runs in a process of its own, so that its memory
can be measured; seconds are those of the process's threads (processor time) and of the clock, for
one scan after a first one that is not counted.

``--simulated`` adds the FLAIR scans of a data set of ``lesionwise simulate --style clinical``
(bright fat, thick slices), whose brain masks are exact; its seed must not be one of the training.

Leak is the share of found voxels that lie more than 5 mm outside the source's mask.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import edt
import numpy as np

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.brain import find_brain, template_mask
from lesionwise.preprocess.brain_masks import BetBrain
from lesionwise.preprocess.brain_network import read_network
from lesionwise.preprocess.geometry import resample_to
from lesionwise.types import BoolArray, Study, Visit, Volume

COMMON = ("openlong01", "openlong03", "openlong12")
PROGRAMS = ("network", "template", "bet", "deepbet")


def common_to_raw(folder: Path) -> np.ndarray:
    """World matrix (RAS mm) of the supplied ITK file of one visit."""
    text = next(folder.glob("*_from-FLAIR_to-common_*xfm.txt")).read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    numbers = np.array(fields["Parameters"].split(), dtype=float)
    center = np.array(fields["FixedParameters"].split(), dtype=float)
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:] + center - matrix[:3, :3] @ center
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ matrix @ flip


def cases(data: Path, thick: Path) -> Iterator[tuple[str, str, Path, BoolArray]]:
    """Subject, session, path of the raw FLAIR, and the source's mask on its grid."""
    for subject in COMMON:
        derived = data / "derivatives" / "coregistered" / f"sub-{subject}"
        mask = read_mask(next((derived / "anat").glob("*desc-brain_mask.nii.gz")))
        for session in ("01", "02"):
            name = f"sub-{subject}_ses-{session}_FLAIR.nii.gz"
            path = data / f"sub-{subject}" / f"ses-{session}" / "anat" / name
            world = np.linalg.inv(common_to_raw(derived / f"ses-{session}" / "anat"))
            laid = resample_to(mask, read_volume(path).grid, order=0, world=world)
            yield subject, session, path, laid.array.astype(bool)
    for file in sorted((thick / "derivatives" / "brains").rglob("*desc-source_mask.nii.gz")):
        subject, session = (part.split("-")[1] for part in file.name.split("_")[:2])
        path = next((thick / f"sub-{subject}" / f"ses-{session}").rglob("*_FLAIR.nii.gz"))
        yield subject, session, path, read_mask(file).array.astype(bool)


def simulated_cases(folder: Path) -> Iterator[tuple[str, str, Path, BoolArray]]:
    """As ``cases``, of simulated heads."""
    for path in sorted(folder.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz")):
        subject, session = (part.split("-")[1] for part in path.name.split("_")[:2])
        truth = folder / "derivatives" / "truth" / path.relative_to(folder).parent
        mask = read_mask(next(truth.glob("*desc-brain_mask.nii.gz")))
        yield subject, session, path, mask.array.astype(bool)


def fold_without(runs: Path, subject: str) -> Path:
    """The weights of the first fold that never saw a subject."""
    for described in sorted(runs.glob("fold-*/run.json")):
        if subject not in json.loads(described.read_text())["Subjects"]:
            return described.with_name("brain.safetensors")
    sys.exit(f"{runs}: no fold was trained without {subject}")


def program(name: str, given: argparse.Namespace) -> Callable[[Path, str], BoolArray]:
    """From the path of a scan and its subject to the mask in the scan's own voxel order."""
    if name == "network":
        networks = {}

        def network(path: Path, subject: str) -> BoolArray:
            weights = fold_without(given.runs, subject)
            if weights not in networks:
                networks[weights] = read_network(weights)
            return find_brain(read_volume(path), network=networks[weights]).mask.array

        return network
    if name == "template":
        return lambda path, subject: template_mask(read_volume(path))[0].array
    if name == "bet":

        def bet(path: Path, subject: str) -> BoolArray:
            study = Study(subject, (Visit({"flair": read_volume(path)}),))
            return BetBrain()(study).visits[0].brain.array

        return bet
    sys.path.insert(0, str(given.deepbet))
    import nibabel
    from deepbet.bet import BrainExtraction

    model = BrainExtraction(no_gpu=True)

    def deepbet(path: Path, subject: str) -> BoolArray:
        mask = model.run(str(path))[1]
        return np.asarray(nibabel.as_closest_canonical(mask).dataobj).astype(bool)

    return deepbet


def measured(found: BoolArray, true: BoolArray, scan: Volume) -> dict[str, float]:
    """Dice, leak, volumes in liters."""
    away = edt.edt(~true, anisotropy=scan.grid.spacing_mm, black_border=False)
    liters = scan.grid.voxel_volume_mm3 * 1e-6
    return {
        "dice": float(2 * (found & true).sum() / (found.sum() + true.sum())),
        "leak": float((away[found] > 5).mean()),
        "liters": float(found.sum() * liters),
        "reference_liters": float(true.sum() * liters),
    }


def run_one(name: str, given: argparse.Namespace) -> None:
    """All scans by one program; a JSON line each."""
    find = program(name, given)
    every = list(cases(given.data, given.thick))
    if given.simulated is not None:
        every += simulated_cases(given.simulated)
    find(every[0][2], every[0][0])
    for subject, session, path, true in every:
        wall, processor = time.perf_counter(), time.process_time()
        found = find(path, subject)
        row = {
            "program": name,
            "scan": f"{subject} ses-{session}",
            "seconds": time.perf_counter() - wall,
            "processor_seconds": time.process_time() - processor,
            "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            **measured(found, true, read_volume(path)),
        }
        print(json.dumps(row), flush=True)


def mean_of(rows: list[dict[str, float]]) -> str:
    """Mean Dice and leak of some scans."""
    if not rows:
        return "-"
    dice, leak = (np.mean([row[name] for row in rows]) for name in ("dice", "leak"))
    return f"{dice:.3f}, {100 * leak:.1f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("thick", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--deepbet", type=Path)
    parser.add_argument("--simulated", type=Path)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--alone", help="run one program in this process")
    given = parser.parse_args()
    if given.alone:
        run_one(given.alone, given)
        return
    rows = []
    for name in given.programs.split(","):
        if name == "deepbet" and given.deepbet is None:
            continue
        again = [sys.executable, __file__, *sys.argv[1:], "--alone", name]
        output = subprocess.run(again, check=True, capture_output=True, text=True, env=os.environ)
        rows += [json.loads(line) for line in output.stdout.splitlines() if line[:1] == "{"]
    print("| scan | " + " | ".join(f"{p}: Dice, leak, l" for p in dict.fromkeys(
        row["program"] for row in rows)) + " | reference, l |")  # fmt: skip
    for scan in dict.fromkeys(row["scan"] for row in rows):
        of = [row for row in rows if row["scan"] == scan]
        shown = [f"{r['dice']:.3f}, {100 * r['leak']:.1f} %, {r['liters']:.2f}" for r in of]
        print(f"| {scan} | " + " | ".join(shown) + f" | {of[0]['reference_liters']:.2f} |")
    print(
        "| program | mean Dice | mean leak | real, sound | simulated | seconds | processor | GiB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(row["program"] for row in rows):
        of = [row for row in rows if row["program"] == name]
        made = [row for row in of if row["scan"].startswith("sim")]
        sound = [row for row in of if row not in made and "openlong03" not in row["scan"]]
        print(
            f"| {name} | {np.mean([r['dice'] for r in of]):.3f} "
            f"| {100 * np.mean([r['leak'] for r in of]):.1f} % "
            f"| {np.mean([r['dice'] for r in sound]):.3f}, "
            f"{100 * np.mean([r['leak'] for r in sound]):.1f} % "
            f"| {mean_of(made)} "
            f"| {np.mean([r['seconds'] for r in of]):.1f} "
            f"| {np.mean([r['processor_seconds'] for r in of]):.1f} "
            f"| {max(r['memory_gib'] for r in of):.2f} |"
        )


if __name__ == "__main__":
    main()
