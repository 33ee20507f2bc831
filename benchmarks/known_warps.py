"""How far learned registration is off on pairs whose displacement is known, beside our own steps.

    python benchmarks/known_warps.py SCAN.nii.gz --minutes 5 --work FOLDER

A brain is bent by smooth random fields (cubic B-splines, control points 24 mm apart), given new
noise and one new lesion; the bent scan is the second visit, the scan itself the first. The networks
of the recipes ``ncr-net`` and ``joint-registration`` (reduced) learn from eight such pairs without
the known fields, and are asked about four others. The error is the distance in mm between the field
a method finds and the true one, in the brain: mean and 95th percentile. Beside them: no
registration, the rigid step, and the free-form deformation (``DeformToLast``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from lesionwise.io.nifti import read_volume
from lesionwise.learning.registration import displacement_mm
from lesionwise.learning.spatial_transforms import spline_field
from lesionwise.methods.network import NetworkMethod
from lesionwise.methods.registered import AddRegistered, warped
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.brain_masks import MaskToBrain
from lesionwise.preprocess.deformable import DeformToLast
from lesionwise.preprocess.geometry import CropToBrain, Resample
from lesionwise.preprocess.intensity import ZScore
from lesionwise.preprocess.registration import RegisterToLast
from lesionwise.run.recipes import find_recipe
from lesionwise.types import RunContext, Study, TrainingData, Visit, Volume

CONTROL_MM = 24.0
LESION_RADIUS_MM = 5.0


def known_pair(study: Study, seed: int, std_mm: float) -> tuple[Study, np.ndarray]:
    """The scan and its bent self as two visits, and the true field (3, I, J, K) in mm.

    The field points from a voxel of the second visit to where it lies in the first.
    """
    visit = study.followup
    scan, brain = visit.scans["flair"], visit.brain
    assert brain is not None
    shape, spacing = scan.grid.shape, np.array(scan.grid.spacing_mm)
    rng = np.random.default_rng(seed)
    points = np.ceil(np.array(shape) * spacing / CONTROL_MM).astype(int) + 3
    control = rng.normal(0, std_mm, (3, *points)) / spacing.reshape(3, 1, 1, 1)
    field = spline_field(control, shape)
    noise = 0.1 * rng.standard_normal(shape).astype(np.float32)
    second = warped(scan.array, field)
    inside = warped(brain.array.astype(np.float32), field) > 0.5
    middle = np.argwhere(inside)[rng.integers(int(inside.sum()))].reshape(3, 1, 1, 1)
    apart = (np.indices(shape) - middle) * spacing.reshape(3, 1, 1, 1)
    lesion = inside & ((apart**2).sum(axis=0) < LESION_RADIUS_MM**2)
    bent = np.where(inside, second + noise + 2 * lesion, 0).astype(np.float32)
    new = Volume(lesion.astype(np.int32), scan.grid)
    visits = (
        Visit({"flair": scan}, brain=brain),
        Visit({"flair": Volume(bent, scan.grid)}, brain=Volume(inside, scan.grid)),
    )
    true = field * spacing.reshape(3, 1, 1, 1).astype(np.float32)
    return Study(f"warp{seed}", visits, {"new": new}), np.asarray(true)


def errors(found_mm: np.ndarray, true_mm: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """(n,) distances in mm, in the brain."""
    return np.asarray(np.linalg.norm(found_mm - true_mm, axis=0)[brain])


def by_steps(step: Callable[[Study], Study]) -> Callable[[Study], np.ndarray]:
    """The field of a step that moves the first visit, by moving its coordinates as scans."""

    def find(study: Study) -> np.ndarray:
        first = study.baseline
        grid = first.scans["flair"].grid
        index = np.indices(grid.shape, dtype=np.float32)
        named = {f"at_{axis}": Volume(index[n], grid) for n, axis in enumerate("ijk")}
        moved = step(
            replace(study, visits=(replace(first, scans={**first.scans, **named}), study.followup))
        )
        spacing = np.array(grid.spacing_mm).reshape(3, 1, 1, 1)
        there = np.stack([moved.baseline.scans[name].array for name in named])
        return np.asarray((there - index) * spacing)

    return find


def learned(
    method: NetworkMethod, pairs: list[Study], folder: Path, minutes: float
) -> Callable[[Study], np.ndarray]:
    """A network's field after learning from pairs."""
    run = RunContext(folder, device="cpu", max_minutes=minutes)
    method.fit(TrainingData(pairs), run)
    predictor = method.load(run)

    def find(study: Study) -> np.ndarray:
        maps = predictor(study)
        return displacement_mm(dict(maps.extra), study.followup.scans["flair"].grid.spacing_mm)

    return find


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0, help="of each network")
    parser.add_argument("--std-mm", type=float, default=1.5, help="of the control points")
    parser.add_argument("--spacing-mm", type=float, default=2.0)
    parser.add_argument("--work", type=Path, default=Path("known-warps"))
    arguments = parser.parse_args()
    study = Study("scan", (Visit({"flair": read_volume(arguments.scan)}),))
    for step in (ExtractBrain(), MaskToBrain(), Resample(arguments.spacing_mm), CropToBrain(8.0),
                 ZScore(within="brain", zero_outside=True)):  # fmt: skip
        study = step(study)
    made = [known_pair(study, seed, arguments.std_mm) for seed in range(12)]
    unseen = made[8:]
    pairs = [pair for pair, _ in made[:8]]
    (ncr,) = (
        step.method
        for step in find_recipe("ncr-net:reduced").preprocess
        if isinstance(step, AddRegistered)
    )
    joint = find_recipe("joint-registration:reduced").method
    assert isinstance(ncr, NetworkMethod)
    assert isinstance(joint, NetworkMethod)
    methods: dict[str, Callable[[Study], np.ndarray]] = {
        "no registration": lambda pair: np.zeros((3, *pair.followup.scans["flair"].grid.shape)),
        "rigid": by_steps(RegisterToLast("rigid")),
        "free-form": by_steps(DeformToLast(method="bspline", linear="rigid")),
        "ncr-net": learned(ncr, pairs, arguments.work / "ncr-net", arguments.minutes),
        "joint-registration": learned(
            joint, pairs, arguments.work / "joint-registration", arguments.minutes
        ),
    }
    for name, find in methods.items():
        apart = np.concatenate(
            [
                errors(find(pair), true, np.asarray(pair.followup.brain.array, bool))  # type: ignore[union-attr]
                for pair, true in unseen
            ]
        )
        print(
            f"{name:<19} mean {apart.mean():.2f} mm  95 % below {np.percentile(apart, 95):.2f} mm",
            flush=True,
        )


if __name__ == "__main__":
    main()
