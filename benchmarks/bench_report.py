"""Time, memory and size of making the page of a study at 1 mm, with one visit and with two.

    python benchmarks/bench_report.py [--repeats 3] [--keep FOLDER]

The scan is a real FLAIR with its lesion mask (sub-open19, 44 connected lesions of 14 mm³ and
more, 49 ml); without the data, an ellipsoid of noise with ball-shaped lesions. Each page is made
in a fresh process; memory is that process's peak, the study itself and all imports included.
Processor time stands beside wall time, since other work on the machine disturbs it less.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from lesionwise.instances.components import connected_components
from lesionwise.instances.describe import describe_lesions
from lesionwise.io.nifti import read_labels, read_volume
from lesionwise.report.page import StudyPage, VisitView, write_study_page
from lesionwise.types import Grid, Instances, Volume

DATA = Path(__file__).parents[1] / ".." / "shared" / "data"
IMAGE = "sub-open19/ses-01/anat/sub-open19_ses-01_FLAIR.nii.gz"
MASK = (
    "derivatives/lesions/sub-open19/ses-01/anat/"
    "sub-open19_ses-01_space-MNI152_label-lesion_mask.nii.gz"
)
MIN_VOXELS = 14


def real_scan() -> tuple[Volume, Instances]:
    image, mask = read_volume(DATA / IMAGE), read_labels(DATA / MASK)
    labels = connected_components(mask.array != 0)
    small = np.bincount(labels.reshape(-1)) < MIN_VOXELS
    return image, Instances(np.where(small[labels], 0, labels).astype(np.int32), image.grid)


def drawn_scan() -> tuple[Volume, Instances]:
    grid = Grid((182, 218, 182), np.eye(4))
    rng = np.random.default_rng(0)
    i, j, k = np.ogrid[:182, :218, :182]
    inside = ((i - 91) / 70) ** 2 + ((j - 109) / 85) ** 2 + ((k - 91) / 65) ** 2 < 1
    image = np.where(inside, rng.normal(100, 8, grid.shape), 0).astype(np.float32)
    labels = np.zeros(grid.shape, dtype=np.int32)
    for label, center in enumerate(rng.integers(60, 120, (100, 3)), start=1):
        ball = (i - center[0]) ** 2 + (j - center[1]) ** 2 + (k - center[2]) ** 2 < 16
        labels[ball & inside] = label
    return Volume(image, grid), Instances(labels, grid)


def make(visits: int, path: Path) -> dict[str, float]:
    """Make one page in this process and say what it took."""
    image, instances = real_scan() if (DATA / IMAGE).exists() else drawn_scan()
    brain = Volume(image.array != 0, image.grid)
    table = describe_lesions(instances, image.array).assign(method="cc")
    names = [f"M{12 * number:02}" for number in range(visits)]
    lesions = [table.assign(session=name) for name in names]
    study = StudyPage(
        title="sub-bench",
        subject="bench",
        visits=tuple(VisitView(name, image, {"cc": instances}, brain) for name in names),
        lesions=pd.concat(lesions),
    )
    wall, busy = time.perf_counter(), time.process_time()
    write_study_page(study, path)
    return {
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - busy,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "size_mb": path.stat().st_size / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="leave the pages in this folder")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.one:
            print(json.dumps(make(options.one, folder / f"visits-{options.one}.html")))
            return
        print("| visits | wall (s) | processor (s) | peak memory (GB) | page (MB) |")
        print("| --- | --- | --- | --- | --- |")
        for visits in (1, 2):
            command = [sys.executable, __file__, "--one", str(visits), "--keep", str(folder)]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(options.repeats)
            ]
            middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            print(
                f"| {visits} | {middle['wall_s']:.1f} | {middle['cpu_s']:.1f} "
                f"| {middle['peak_gb']:.2f} | {middle['size_mb']:.1f} |"
            )


if __name__ == "__main__":
    main()
