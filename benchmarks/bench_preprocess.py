"""Time, memory and quality of preprocessing on the real scans.

    python benchmarks/bench_preprocess.py DATA [--scan openlong01/02] [--quality]

DATA is the folder with the real scans (raw FLAIR, supplied brain masks and transforms). Without
--quality: seconds and memory of each stage on one scan. With it: brain Dice on all six scans with
skull, registration error on the three pairs and after known movements, and what N4 does to
the spread of intensity in the middle of the brightness range. Wall time is what a user
waits; processor time is what the stage costs, and tells whether something else was running.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.brain import ExtractBrain, brain_mask
from lesionwise.preprocess.geometry import CropToBrain, Resample, resample_to
from lesionwise.preprocess.intensity import N4, ZScore
from lesionwise.preprocess.registration import rigid
from lesionwise.types import Study, Visit, Volume

SUBJECTS = ("openlong01", "openlong03", "openlong12")


def raw(data: Path, subject: str, session: str) -> Volume:
    name = f"sub-{subject}_ses-{session}_FLAIR.nii.gz"
    return read_volume(data / f"sub-{subject}" / f"ses-{session}" / "anat" / name)


def common_to_raw(data: Path, subject: str, session: str) -> np.ndarray:
    """World matrix (RAS mm) of the supplied ITK file, common space to raw scan."""
    folder = data / "derivatives/coregistered" / f"sub-{subject}" / f"ses-{session}" / "anat"
    text = next(folder.glob("*_from-FLAIR_to-common_*xfm.txt")).read_text()
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    numbers = np.array(fields["Parameters"].split(), dtype=float)
    center = np.array(fields["FixedParameters"].split(), dtype=float)
    matrix = np.eye(4)
    matrix[:3, :3] = numbers[:9].reshape(3, 3)
    matrix[:3, 3] = numbers[9:] + center - matrix[:3, :3] @ center
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ matrix @ flip


def supplied_brain(data: Path, subject: str, session: str, scan: Volume) -> Volume:
    folder = data / "derivatives/coregistered" / f"sub-{subject}" / "anat"
    mask = read_mask(next(folder.glob("*desc-brain_mask.nii.gz")))
    inverse = np.linalg.inv(common_to_raw(data, subject, session))
    return resample_to(mask, scan.grid, order=0, world=inverse)


def timed(name: str, work: Callable[[], Any]) -> Any:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:<24}{wall:7.2f} s wall{processor:7.2f} s processor   peak {peak:.2f} GiB")
    return result


def stages(data: Path, subject: str, session: str) -> None:
    timed("imports and template", lambda: ExtractBrain()(_warm()))
    scan = timed("read", lambda: raw(data, subject, session))
    study = Study(subject, (Visit({"flair": scan}, session=session),))
    for step in (ExtractBrain(), CropToBrain(), Resample(1.0), N4(), ZScore()):
        study = timed(type(step).__name__, lambda step=step, study=study: step(study))
    prepared = study.visits[0].scans["flair"]
    timed("back to the scan's grid", lambda: resample_to(prepared, scan.grid, order=1))
    other = raw(data, subject, "01" if session == "02" else "02")
    timed("rigid registration", lambda: rigid(scan, other))


def _warm() -> Study:
    """The template itself as a scan: loads what the first scan would wait for."""
    from lesionwise.preprocess.brain import head_template

    return Study("template", (Visit({"flair": head_template()[0]}),))


def errors_mm(found: np.ndarray, true: np.ndarray, brain: Volume) -> np.ndarray:
    points = brain.grid.world_mm(np.argwhere(brain.array)[::50])
    apart = points @ (found - true)[:3, :3].T + (found - true)[:3, 3]
    return np.linalg.norm(apart, axis=1)


def movement(seed: int) -> np.ndarray:
    """Up to 8 degrees about each axis and 10 mm along it."""
    generator = np.random.default_rng(seed)
    matrix = np.eye(4)
    for axis, degrees in enumerate(generator.uniform(-8, 8, 3)):
        i, j = (a for a in range(3) if a != axis)
        angle, turn = np.deg2rad(degrees), np.eye(4)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix[:3, 3] = generator.uniform(-10, 10, 3)
    return matrix


def middle_spread(values: np.ndarray) -> float:
    """Coefficient of variation between the 30th and the 90th percentile."""
    low, high = np.percentile(values, [30, 90])
    middle = values[(values > low) & (values < high)]
    return float(middle.std() / middle.mean())


def quality(data: Path) -> None:
    for subject in SUBJECTS:
        scans = {session: raw(data, subject, session) for session in ("01", "02")}
        brains = {s: supplied_brain(data, subject, s, scan) for s, scan in scans.items()}
        for number, (session, scan) in enumerate(scans.items()):
            supplied = brains[session].array
            found = brain_mask(scan).array
            dice = 2 * (found & supplied).sum() / (found.sum() + supplied.sum())
            liters = scan.grid.voxel_volume_mm3 * 1e-6
            study = Study(subject, (Visit({"flair": scan}, {}, brains[session]),))
            corrected = N4()(study).visits[0].scans["flair"].array
            true = movement(number)
            moved = resample_to(scan, scan.grid, order=1, world=np.linalg.inv(true))
            known = np.median(errors_mm(rigid(scan, moved), true, brains[session]))
            before, after = (middle_spread(a[supplied]) for a in (scan.array, corrected))
            print(
                f"{subject} {session}: brain Dice {dice:.4f} ({found.sum() * liters:.2f} l, "
                f"supplied {supplied.sum() * liters:.2f} l); spread {before:.3f} -> {after:.3f} "
                f"by N4; known movement {known:.2f} mm",
                flush=True,
            )
        true = common_to_raw(data, subject, "02") @ np.linalg.inv(
            common_to_raw(data, subject, "01")
        )
        apart = errors_mm(rigid(scans["01"], scans["02"]), true, brains["01"])
        print(
            f"{subject}: registration against the supplied transform: median "
            f"{np.median(apart):.2f} mm, largest {apart.max():.2f} mm",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--scan", default="openlong01/02", help="SUBJECT/SESSION for the timings")
    parser.add_argument("--quality", action="store_true")
    arguments = parser.parse_args()
    if arguments.quality:
        quality(arguments.data)
    else:
        stages(arguments.data, *arguments.scan.split("/"))


if __name__ == "__main__":
    main()
