"""What a raw pair of visits costs before a network sees it: ours, ANTsPy and SimpleITK in one run.

    python benchmarks/bench_pair.py DATA [--subject openlong12] [--systems ours,antspy,simpleitk]
        [--threads N]

DATA is the folder with the real scans. Each system does the same to the two raw FLAIR scans: rigid
registration of the second to the first, a brain mask of both, N4 of both, z-score. Ours are the
package's steps. The peers are plain calls with their defaults: ANTsPy ``registration("Rigid")``,
``n4_bias_field_correction``; SimpleITK a multi-resolution Mattes search from centered geometry, and
N4 on a copy shrunk by 4 in plane. Neither ships a brain extraction that works offline, so
both lay the template's brain onto the scan by their own affine registration. Each system runs
in a process of its own, so that peak memory is its own. Prints a Markdown table: wall and processor
seconds of each stage, peak memory, and what was reached: the median error of registration at brain
points against the supplied transform, and Dice with the supplied brain masks. Every system
gets the same number of threads, 1 or N: ours treat the visits side by side, the peers compute each
of their calls in N threads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_preprocess import (
    affine_of,
    common_to_raw,
    errors_mm,
    plain_search,
    raw,
    supplied_brain,
)

SYSTEMS = ("ours", "antspy", "simpleitk")
THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
STAGES = ("registration", "brain", "N4", "normalization")


class Clock:
    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        spent = (time.perf_counter() - wall, time.process_time() - processor)
        before = self.stages.get(stage, [0.0, 0.0])
        self.stages[stage] = [a + b for a, b in zip(before, spent, strict=True)]
        return result


def ours(scans: list[Any], clock: Clock) -> tuple[np.ndarray, list[np.ndarray]]:
    from lesionwise.preprocess.brain import ExtractBrain
    from lesionwise.preprocess.intensity import N4, ZScore
    from lesionwise.preprocess.registration import move_onto, register_visits
    from lesionwise.types import Study, Visit

    study = Study("pair", tuple(Visit({"flair": scan}) for scan in scans))
    study = clock.time("brain", lambda: ExtractBrain()(study))
    masks = [visit.brain.array for visit in study.visits if visit.brain is not None]
    matrices = clock.time("registration", lambda: register_visits(study))
    study = clock.time("registration", lambda: move_onto(study, matrices))
    study = clock.time("N4", lambda: N4()(study))
    clock.time("normalization", lambda: ZScore("brain")(study))
    return matrices[1], masks


def antspy(scans: list[Any], clock: Clock) -> tuple[np.ndarray, list[np.ndarray]]:
    import ants

    from lesionwise.preprocess._ants import to_ants
    from lesionwise.preprocess.template import template_maps

    maps = template_maps()
    template, brain = to_ants(ants, maps.t1), to_ants(ants, maps.brain)
    fixed, moving = (to_ants(ants, scan) for scan in scans)
    found = clock.time("registration", lambda: ants.registration(fixed, moving, "Rigid"))
    transform = ants.read_transform(found["fwdtransforms"][0])
    matrix = affine_of(transform.apply_to_point)
    masks, corrected = [], []
    for image in (fixed, moving):
        laid = clock.time("brain", lambda image=image: ants.registration(image, template, "Affine"))
        mask = clock.time(
            "brain",
            lambda image=image, laid=laid: ants.apply_transforms(
                image, brain, laid["fwdtransforms"], "nearestNeighbor"
            ),
        )
        masks.append(mask.numpy() > 0)
        corrected.append(
            clock.time(
                "N4", lambda i=image, m=mask: ants.n4_bias_field_correction(i, mask=m).numpy()
            )
        )
    clock.time("normalization", lambda: _z_scores(corrected, masks))
    return matrix, masks


def simpleitk(scans: list[Any], clock: Clock) -> tuple[np.ndarray, list[np.ndarray]]:
    import SimpleITK

    from lesionwise.preprocess.registration import to_image
    from lesionwise.preprocess.template import template_maps
    from lesionwise.types import Volume

    threads = int(os.environ[THREADS])
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    maps = template_maps()
    template = to_image(maps.t1)
    brain = to_image(Volume(maps.brain.array.astype(np.uint8), maps.brain.grid))
    fixed, moving = (SimpleITK.Cast(to_image(s), SimpleITK.sitkFloat32) for s in scans)

    found = clock.time(
        "registration", lambda: plain_search(fixed, moving, SimpleITK.Euler3DTransform())
    )
    clock.time("registration", lambda: SimpleITK.Resample(moving, fixed, found))
    matrix = affine_of(found.TransformPoint)
    masks, corrected = [], []
    for image in (fixed, moving):
        laid = clock.time(
            "brain", lambda image=image: plain_search(image, template, SimpleITK.AffineTransform(3))
        )
        mask = SimpleITK.Resample(brain, image, laid, SimpleITK.sitkNearestNeighbor)

        def correct(image: Any = image, mask: Any = mask) -> Any:
            n4 = SimpleITK.N4BiasFieldCorrectionImageFilter()
            n4.Execute(*(SimpleITK.Shrink(each, [4, 4, 1]) for each in (image, mask)))
            field = SimpleITK.Exp(n4.GetLogBiasFieldAsImage(image))
            return SimpleITK.GetArrayFromImage(image / field).T

        corrected.append(clock.time("N4", correct))
        masks.append(SimpleITK.GetArrayFromImage(mask).T > 0)
    clock.time("normalization", lambda: _z_scores(corrected, masks))
    return matrix, masks


def _z_scores(arrays: list[np.ndarray], masks: list[np.ndarray]) -> None:
    for array, mask in zip(arrays, masks, strict=True):
        inside = array[mask] if mask.any() else array
        (array - inside.mean()) / inside.std()


def one(system: str, data: Path, subject: str) -> dict[str, Any]:
    scans = [raw(data, subject, session) for session in ("01", "02")]
    clock = Clock()
    matrix, masks = {"ours": ours, "antspy": antspy, "simpleitk": simpleitk}[system](scans, clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    true = common_to_raw(data, subject, "02") @ np.linalg.inv(common_to_raw(data, subject, "01"))
    brains = [supplied_brain(data, subject, f"0{n + 1}", scan) for n, scan in enumerate(scans)]
    dice = [
        float(2 * (m & b.array).sum() / (m.sum() + b.array.sum()))
        for m, b in zip(masks, brains, strict=True)
    ]
    error = float(np.median(errors_mm(matrix, true, brains[0])))
    return {"stages": clock.stages, "peak": peak, "error_mm": error, "dice": dice}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--subject", default="openlong12")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--threads", type=int, default=1, help="of each system")
    parser.add_argument("--one", choices=SYSTEMS, help="this system alone, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.data, arguments.subject)))
        return
    head = " | ".join(STAGES)
    print(f"threads: {arguments.threads}; load of the machine before: {os.getloadavg()[0]:.1f}\n")
    print(f"| system | {head} | in all | peak memory | registration | brain Dice |")
    print("| --- " * (len(STAGES) + 5) + "|")
    threads = dict.fromkeys((THREADS, "OMP_NUM_THREADS"), str(arguments.threads))
    for system in arguments.systems.split(","):
        command = [sys.executable, __file__, str(arguments.data), "--one", system]
        done = subprocess.run(
            [*command, "--subject", arguments.subject],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **threads},
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        times = [found["stages"][stage] for stage in STAGES]
        cells = [f"{wall:.1f} s ({processor:.1f})" for wall, processor in times]
        wall, processor = (sum(t[n] for t in times) for n in (0, 1))
        print(
            f"| {system} | {' | '.join(cells)} | {wall:.1f} s ({processor:.1f}) | "
            f"{found['peak']:.2f} GiB | {found['error_mm']:.2f} mm | "
            f"{found['dice'][0]:.3f}, {found['dice'][1]:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
