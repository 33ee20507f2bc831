"""Time and memory of every metric of one case on a whole 1 mm volume.

    python benchmarks/bench_metrics.py [--repeats 5] [--panoptica-python PATH]

154 x 240 x 240 voxels with about 390 lesions a side: the size on which the peers were timed. The
reference is the lesion mask of one patient (sub-open06, which the peers' volume was made
of as well, before it was put into another space); without the data, drawn lesions of similar
sizes. The prediction is that reference with lesions dropped, grown, moved and split, and
false ones added, all from one seed. Beside wall times stands processor time, which other work
on the machine disturbs less.

``--panoptica-python`` names an interpreter that has panoptica installed; it then scores the same
two arrays in its own process. The other peers' times are read from the reference vectors.
Peak memory is that of a fresh process that holds the two volumes and scores them once.
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

import nibabel as nib
import numpy as np
from scipy import ndimage

from lesionwise.instances.components import connected_components
from lesionwise.metrics.case import Options, evaluate_case
from lesionwise.metrics.surface import HAUSDORFF_DEFINITIONS
from lesionwise.types import Grid, Instances

SHAPE = (154, 240, 240)
LESIONS = 391
SHARED = Path(__file__).parents[1] / ".." / "shared"
MASK = "sub-open06/ses-01/anat/sub-open06_ses-01_space-MNI152_label-lesion_mask.nii.gz"

PANOPTICA = """
import sys, time
import numpy as np
from panoptica import InputType, Metric, NaiveThresholdMatching, Panoptica_Evaluator
case = np.load(sys.argv[1])
reference, prediction = case["reference"].astype(np.uint16), case["prediction"].astype(np.uint16)
few = [Metric.DSC, Metric.IOU]
full = few + [Metric.ASSD, Metric.RVD, Metric.RVAE, Metric.HD, Metric.HD95, Metric.NSD, Metric.CEDI]
for name, instance, whole in (("DSC and IoU", few, []), ("all nine, nine global", full, full)):
    judge = Panoptica_Evaluator(
        expected_input=InputType.UNMATCHED_INSTANCE,
        instance_matcher=NaiveThresholdMatching(matching_threshold=0.1),
        instance_metrics=instance, global_metrics=whole, verbose=False, log_times=False,
    )
    seconds, busy = [], []
    for _ in range(int(sys.argv[2])):
        start, start_busy = time.perf_counter(), time.process_time()
        result = judge.evaluate(prediction, reference, voxelspacing=(1.0, 1.0, 1.0))
        result = next(iter(result.values()))
        scores = [result.tp, result.pq, result.sq]
        if whole:
            scores += [result.sq_assd, result.sq_hd95, result.global_bin_assd]
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    print(f"PANOPTICA|{name}|{min(seconds)}|{sorted(seconds)[len(seconds) // 2]}|{min(busy)}")
"""


def reference_labels(rng: np.random.Generator) -> np.ndarray:
    """The patient's lesions in the middle of the volume, or drawn ones."""
    path = SHARED / "data/derivatives/lesions" / MASK
    if path.exists():
        mask = np.asanyarray(nib.load(path).dataobj) > 0
        return connected_components(np.ascontiguousarray(_fitted(mask)))
    labels = np.zeros(SHAPE, dtype=np.int32)
    for label in range(1, LESIONS + 1):
        _draw(labels, label, rng, radius=min(1.0 + rng.exponential(1.6), 9.0))
    return labels


def _fitted(mask: np.ndarray) -> np.ndarray:
    """Cut or padded to ``SHAPE`` about the middle of the foreground."""
    found = np.argwhere(mask)
    middle = (found.min(axis=0) + found.max(axis=0)) // 2
    at = found - middle + np.array(SHAPE) // 2
    at = at[((at >= 0) & (at < np.array(SHAPE))).all(axis=1)]
    fitted = np.zeros(SHAPE, dtype=bool)
    fitted[tuple(at.T)] = True
    return fitted


def _draw(labels: np.ndarray, label: int, rng: np.random.Generator, radius: float) -> None:
    reach = int(np.ceil(radius))
    center = rng.integers(reach + 20, np.array(SHAPE) - reach - 20)
    box = tuple(slice(c - reach, c + reach + 1) for c in center)
    ball = np.linalg.norm(np.indices((2 * reach + 1,) * 3) - reach, axis=0) <= radius
    labels[box][ball & (labels[box] == 0)] = label


def predicted_labels(reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each lesion dropped, kept, grown, moved by a voxel or split, and some false ones."""
    prediction = np.zeros(reference.shape, dtype=np.int32)
    next_label = 1
    for label, box in enumerate(ndimage.find_objects(reference), start=1):
        if box is None:
            continue
        margin = tuple(
            slice(max(s.start - 3, 0), min(s.stop + 3, n))
            for s, n in zip(box, reference.shape, strict=True)
        )
        lesion = reference[margin] == label
        fate = rng.choice(["drop", "keep", "grow", "move", "split"], p=[0.2, 0.1, 0.4, 0.2, 0.1])
        if fate == "drop":
            continue
        if fate == "grow":
            lesion = ndimage.binary_dilation(lesion)
        elif fate == "move":
            lesion = np.roll(lesion, rng.integers(-1, 2, size=3), axis=(0, 1, 2))
        free = lesion & (prediction[margin] == 0)
        prediction[margin][free] = next_label
        if fate == "split" and np.count_nonzero(free) > 8:
            side = np.indices(free.shape)[int(np.argmax(free.shape))]
            half = free & (side > np.median(side[free]))
            prediction[margin][half] = next_label + 1
            next_label += 1
        next_label += 1
    for _ in range(40):
        _draw(prediction, next_label, rng, radius=rng.uniform(1.0, 3.0))
        next_label += 1
    return prediction


def score(path: str) -> None:
    """Score the stored case once and print this process's peak memory in MB: used as a child."""
    case = np.load(path)
    grid = Grid(SHAPE, np.eye(4))
    sides = [Instances(case[name], grid) for name in ("reference", "prediction")]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    evaluate_case(*sides)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{before} {after}")


def seconds_of(sides: list[Instances], options: Options, repeats: int) -> list[float]:
    evaluate_case(*sides, options)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        evaluate_case(*sides, options)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--panoptica-python", help="an interpreter with panoptica installed")
    parser.add_argument("--timings", type=Path, default=SHARED / "oracle/timings.json")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    reference = reference_labels(rng)
    prediction = predicted_labels(reference, rng)
    grid = Grid(SHAPE, np.eye(4))
    sides = [Instances(reference, grid), Instances(prediction, grid)]
    counts = [len(np.unique(side.labels)) - 1 for side in sides]
    voxels = [int(np.count_nonzero(side.labels)) for side in sides]
    print(
        f"{SHAPE}: {counts[0]} against {counts[1]} lesions, {voxels[0]} against {voxels[1]} voxels"
    )
    times = seconds_of(sides, Options(), arguments.repeats)
    ours = statistics.median(times)
    start = time.process_time()
    evaluate_case(*sides)
    print(
        f"every metric: median {ours:.3f} s, best {min(times):.3f} s of {len(times)},"
        f" processor {time.process_time() - start:.3f} s"
    )
    by_area = Options(hd95="area_weighted", assd="area_weighted")
    print(f"with area-weighted distances: {min(seconds_of(sides, by_area, 2)):.3f} s")
    hd95 = {
        name: evaluate_case(*sides, Options(hd95=name)).values["hd95_mm"]
        for name in HAUSDORFF_DEFINITIONS
    }
    print("hd95_mm:", ", ".join(f"{name} {value:.2f}" for name, value in hd95.items()))
    with tempfile.TemporaryDirectory() as folder:
        stored = str(Path(folder) / "case.npz")
        np.savez(stored, reference=reference, prediction=prediction)
        child = [sys.executable, __file__, "--score", stored]
        before, after = (
            float(n)
            for n in subprocess.run(
                child, capture_output=True, text=True, check=True
            ).stdout.split()
        )
        print(f"peak memory: {after:.0f} MB, {before:.0f} MB before the first metric")
        if arguments.panoptica_python:
            run = [arguments.panoptica_python, "-c", PANOPTICA, stored, str(arguments.repeats)]
            output = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True).stdout
            for line in output.splitlines():
                if line.startswith("PANOPTICA|"):
                    name, *numbers = line.split("|")[1:]
                    best, median, busy = (float(n) for n in numbers)
                    print(
                        f"panoptica here, {name}: median {median:.2f} s, best {best:.2f} s,"
                        f" processor {busy:.2f} s; {median / ours:.1f} times ours"
                    )
    if arguments.timings.exists():
        for name, seconds in json.loads(arguments.timings.read_text())["seconds"].items():
            print(f"stored, {name}: {seconds} s, {seconds / ours:.1f} times ours")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--score"]:
        score(sys.argv[2])
    else:
        main()
