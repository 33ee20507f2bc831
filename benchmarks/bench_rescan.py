"""How much the volume of an unchanged lesion varies when it is sampled twice.

    python benchmarks/bench_rescan.py [--masks ../shared/data/derivatives/lesions] [--subjects 14]

Real lesion masks are blurred to partial volumes and sampled twice, each time with its own shift
below one voxel, correlated noise and a small change of contrast, then thresholded. Lesions are
followed from one sample to the other by ``track_lesions``; what it calls enlarging or shrinking is
an error. The noise is a choice, not a measurement of a scanner: the table shows how the error
depends on it and on the boundary's uncertainty, the rule that decides.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter, shift

from lesionwise.change.rules import TrackingRules
from lesionwise.change.tracking import track_lesions
from lesionwise.instances.components import connected_components
from lesionwise.instances.filters import DropSmall
from lesionwise.types import Grid, Instances

BLUR_VOX = 0.7
BOUNDARIES_MM = (0.2, 0.3, 0.4, 0.5)
NOISES = (0.05, 0.1)
SIZES_MM3 = (14, 50, 200, 1000, np.inf)


def sampled(fraction: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """One noisy sampling of a map of partial volumes: a mask near the old lesions."""
    moved = shift(fraction, rng.uniform(-0.5, 0.5, 3), order=1)
    texture = gaussian_filter(rng.normal(size=fraction.shape), 1)
    moved += texture * (noise / texture.std()) + rng.normal(0, noise / 3)
    return (moved > 0.5) & (fraction > 1e-3)


def pairs(folder: Path, subjects: int, noise: float) -> np.ndarray:
    """(n, 2) volumes in mm³ of lesions linked one to one between two samplings."""
    rng = np.random.default_rng(0)
    found = []
    for path in sorted(folder.rglob("*_mask.nii.gz"))[:subjects]:
        image = nib.load(path)
        mask = np.asarray(image.dataobj) > 0
        index = np.argwhere(mask)
        box = tuple(
            slice(max(a - 6, 0), b + 7) for a, b in zip(index.min(0), index.max(0), strict=True)
        )
        spacing_mm = Grid(mask.shape, image.affine).spacing_mm
        fraction = gaussian_filter(mask[box].astype(np.float32), BLUR_VOX)
        grid = Grid(fraction.shape, np.diag([*spacing_mm, 1.0]))
        visits = [
            DropSmall()(Instances(connected_components(sampled(fraction, noise, rng)), grid))
            for _ in range(2)
        ]
        rows = track_lesions(visits).table.query("visit == 1")
        rows = rows[(rows["parents"] != "") & (rows["label"] > 0) & (rows["form"] == "")]
        volume = rows["volume_mm3"].to_numpy()
        found.append(np.stack([volume - rows["change_mm3"].to_numpy(), volume], axis=1))
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    beside = Path(__file__).parents[2] / "shared" / "data" / "derivatives" / "lesions"
    parser.add_argument("--masks", type=Path, default=beside)
    parser.add_argument("--subjects", type=int, default=14)
    arguments = parser.parse_args()
    for noise in NOISES:
        volumes = pairs(arguments.masks, arguments.subjects, noise)
        change, mean = np.abs(np.diff(volumes)[:, 0]), volumes.mean(axis=1)
        print(f"noise {noise} of the contrast, {len(volumes)} unchanged lesions")
        print(
            "  mm³            lesions  median change  95 % below   called changed at boundary (mm)"
        )
        print(" " * 58 + "".join(f"{boundary:8.1f}" for boundary in BOUNDARIES_MM))
        for low, high in zip((0, *SIZES_MM3), (*SIZES_MM3, np.inf), strict=True):
            at = (mean >= low) & (mean < high)
            if not at.any():
                continue
            called = []
            for boundary in BOUNDARIES_MM:
                rules = TrackingRules(rescan_boundary_mm=boundary)
                limit = np.array([rules.limit_mm3(a, b) for a, b in volumes[at]])
                called.append(np.mean(change[at] > limit))
            share = change[at] / mean[at]
            print(
                f"  {low:5.0f} to {high:6.0f} {at.sum():9d} {np.median(share):14.0%} "
                f"{np.percentile(share, 95):12.0%}          "
                + "".join(f"{value:8.1%}" for value in called)
            )


if __name__ == "__main__":
    main()
