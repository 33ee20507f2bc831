"""How long a folder of cases takes with one process and with two or more.

    python benchmarks/bench_evaluate_folder.py --cases 100 --workers 1 2

Draws small cases (96 x 96 x 64 voxels, about 260 lesions a side), writes them into a temporary
folder and times ``evaluate`` on them, without and with the tables and the page. Results of all
runs are compared, since the number of processes must change nothing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionwise.run.evaluate import evaluate

SHAPE = (96, 96, 64)


def draw(folder: Path, cases: int) -> None:
    """Write pairs of masks: smooth blobs, and the same moved by one voxel and thinned out."""
    for case in range(cases):
        rng = np.random.default_rng(case)
        field = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 2.0)
        truth = field > np.quantile(field, 0.985)
        found = np.roll(truth, 1, axis=0) & (ndimage.gaussian_filter(field, 4) > 0)
        for side, mask in (("reference", truth), ("prediction", found)):
            path = folder / side / f"sub-{case:03d}_label-L_mask.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(mask.astype(np.uint8), np.eye(4)), path)


def cpu_seconds() -> float:
    """CPU time of this process and of those it started that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--cases", type=int, default=100)
    arguments.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--repeats", type=int, default=3)
    chosen = arguments.parse_args()
    print(f"{chosen.cases} cases of {SHAPE}, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, chosen.cases)
        first = None
        for workers in chosen.workers:
            for output in (None, folder / "out"):
                seconds = []
                before = cpu_seconds()
                for _ in range(chosen.repeats):
                    start = time.perf_counter()
                    done = evaluate(
                        folder / "reference", folder / "prediction", output, workers=workers
                    )
                    seconds.append(time.perf_counter() - start)
                flat = [case.flat() for case in done.cases]
                first = first or flat
                assert flat == first, "the number of processes changed a result"
                what = "scores alone" if output is None else "with tables and page"
                each = ", ".join(f"{second:.1f}" for second in seconds)
                cpu = (cpu_seconds() - before) / chosen.repeats
                print(
                    f"workers {workers}, {what}: "
                    f"best {min(seconds):.1f} s ({each}), CPU {cpu:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
