"""How alike registered scans of one person and of two people are, and how long that takes.

    python benchmarks/bench_alignment.py --data ../shared/data --thick ../shared/data_thick

Scans of one person: the real pairs, and each scan beside a copy of it that was moved, resampled to
other voxels (1 mm, or slices of 3 to 5 mm in any direction), given another bias field, another
gamma and noise. Scans of two people: every pair of the longitudinal database, and pairs drawn at
random among all. Each is registered from the shift between the brains at 6 and 3 mm; then
``similarity`` is measured as it is and for the mirrored follow-up.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lesionwise.io.nifti import read_mask, read_volume
from lesionwise.preprocess.alignment import mirror_about
from lesionwise.preprocess.geometry import resample_to, respaced
from lesionwise.preprocess.registration import register, rigid
from lesionwise.preprocess.similarity import similarity
from lesionwise.types import Grid, Volume

PROTOCOLS_MM = ((1, 1, 1), (0.9, 0.9, 3), (0.9, 0.9, 5), (5, 0.9, 0.9), (0.9, 4, 0.9))
LONGITUDINAL = "openlong"


@dataclass(frozen=True, eq=False)
class Head:
    """One scan, cut to its brain and 6 voxels around it."""

    person: str
    scan: Volume
    brain: Volume


def cut(person: str, scan: Volume, brain: Volume) -> Head:
    index = np.argwhere(brain.array)
    low = np.maximum(index.min(axis=0) - 6, 0)
    high = np.minimum(index.max(axis=0) + 7, scan.grid.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    shift = np.eye(4)
    shift[:3, 3] = low
    grid = Grid(scan.array[box].shape, scan.grid.affine @ shift)
    return Head(person, Volume(scan.array[box], grid), Volume(brain.array[box], grid))


def heads(data: Path, thick: Path) -> list[Head]:
    """All scans with a brain mask, or stripped ones whose brain is what is not 0."""
    found = []
    for path in sorted(
        [*data.glob("sub-*/**/*_FLAIR.nii.gz"), *thick.glob("sub-*/**/*_FLAIR.nii.gz")]
    ):
        person = path.name.split("_")[0].removeprefix("sub-")
        scan = read_volume(path)
        masks = sorted((thick / "derivatives" / "brains").glob(f"sub-{person}/**/*_mask.nii.gz"))
        common = data / "derivatives" / "coregistered" / f"sub-{person}"
        if masks:
            brain = resample_to(read_mask(masks[0]), scan.grid, order=0)
        elif common.exists():
            mask = read_mask(next((common / "anat").glob("*_desc-brain_mask.nii.gz")))
            session = path.name.split("_")[1]
            image = read_volume(next((common / session).rglob("*_space-common_FLAIR.nii.gz")))
            world = np.linalg.inv(rigid(image, scan, fixed_mask=mask))
            brain = resample_to(mask, scan.grid, order=0, world=world)
        else:
            brain = Volume(scan.array > 0, scan.grid)
        found.append(cut(person, scan, Volume(brain.array.astype(bool), brain.grid)))
    return found


def rescan(head: Head, rng: np.random.Generator) -> Head:
    """The same head, moved, on other voxels, with another bias field, gamma and noise."""
    points = head.brain.grid.world_mm(np.argwhere(head.brain.array))
    center = points.mean(axis=0)
    world = np.eye(4)
    turn = Rotation.from_euler("xyz", rng.uniform(-10, 10, 3), degrees=True).as_matrix()
    world[:3, :3] = turn
    world[:3, 3] = center - turn @ center + rng.uniform(-12, 12, 3)
    low, high = points.min(axis=0) - 30, points.max(axis=0) + 30
    affine = np.eye(4)
    affine[:3, 3] = low
    i, j, k = np.ceil(high - low).astype(int)
    fine = Grid((int(i), int(j), int(k)), affine)
    grid = respaced(fine, PROTOCOLS_MM[rng.integers(len(PROTOCOLS_MM))])
    scan = resample_to(resample_to(head.scan, fine, order=1, world=world), grid, order=1)
    brain = resample_to(resample_to(head.brain, fine, order=0, world=world), grid, order=0)
    values = np.maximum(scan.array / np.median(scan.array[brain.array]), 0)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid.shape], indexing="ij")
    a = rng.uniform(-0.25, 0.25, 6)
    field = np.exp(a[0] * x + a[1] * y + a[2] * z + a[3] * x * y + a[4] * y**2 + a[5] * z**2)
    values = values ** rng.uniform(0.6, 1.6) * field
    noisy = np.hypot(values + rng.normal(0, 0.05, values.shape), rng.normal(0, 0.05, values.shape))
    return Head(head.person, Volume((100 * noisy).astype(np.float32), grid), brain)


def measured(one: Head, two: Head) -> tuple[float, float]:
    """Similarity as it is and with the second mirrored."""
    centers = [h.brain.grid.world_mm(np.argwhere(h.brain.array)).mean(axis=0) for h in (one, two)]
    start = np.eye(4)
    start[:3, 3] = centers[1] - centers[0]
    mirror = mirror_about(two.scan, two.brain)
    moved = [
        Volume(v.array, Grid(v.grid.shape, mirror @ v.grid.affine)) for v in (two.scan, two.brain)
    ]
    alike = []
    for scan, brain in ((two.scan, two.brain), (moved[0], moved[1])):
        world, _ = register(one.scan, scan, one.brain, brain, (start,), (6.0, 3.0), "rigid")
        alike.append(similarity(one.scan, scan, world, one.brain, brain))
    return alike[0], alike[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--thick", type=Path, required=True)
    parser.add_argument("--drawn", type=int, default=30, help="Pairs of two people.")
    given = parser.parse_args()
    rng = np.random.default_rng(7)
    found = heads(given.data, given.thick)
    long = [head for head in found if head.person.startswith(LONGITUDINAL)]
    pairs = [("one", a, b) for a in long for b in long if a is not b and a.person == b.person]
    pairs += [("one, copy", head, rescan(head, rng)) for head in found]
    pairs += [
        ("two", a, b) for n, a in enumerate(long) for b in long[n + 1 :] if a.person != b.person
    ]
    while sum(kind == "two, drawn" for kind, _, _ in pairs) < given.drawn:
        a, b = (found[n] for n in rng.choice(len(found), 2, replace=False))
        if a.person != b.person:
            pairs.append(("two, drawn", a, b))
    values: dict[str, list[tuple[float, float]]] = {}
    for kind, one, two in pairs:
        begun = time.process_time()
        values.setdefault(kind, []).append(measured(one, two))
        alike, mirrored = values[kind][-1]
        took = time.process_time() - begun
        print(
            f"{kind}: {one.person} {two.person} {alike:.2f} {mirrored:.2f} {took:.1f} s", flush=True
        )
    print("pairs                n  least  median  most   mirrored: least  median  most")
    for kind, rows in values.items():
        alike, mirrored = np.array(rows).T
        of = [*np.quantile(alike, [0, 0.5, 1]), *np.quantile(mirrored, [0, 0.5, 1])]
        print(f"{kind:18s}{len(rows):4d}  " + "  ".join(f"{value:5.2f}" for value in of))


if __name__ == "__main__":
    main()
