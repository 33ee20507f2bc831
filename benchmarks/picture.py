"""One scan with the lesions of its reference and those that were found, slice by slice.

    python benchmarks/picture.py SCAN REFERENCE RESULTS OUT.png [--slices 6] [--min-peak 0.7]

RESULTS is the folder of ``lesionwise segment SCAN -o RESULTS``. Drawn are the slices with most
lesion in the reference, in their order; above the scan alone, below the outlines of both masks.
With ``--min-peak`` the mask is made again from the probability map.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from lesionwise.instances.mask import lesion_mask
from lesionwise.io.nifti import read_mask, read_volume

matplotlib.use("Agg")
import matplotlib.pyplot as plt

REFERENCE, FOUND = "#35d0ff", "#ff9d2e"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("scan", "reference", "results", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--slices", type=int, default=6)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--min-peak", type=float, default=0.0)
    given = parser.parse_args()
    scan, reference = read_volume(given.scan), read_mask(given.reference)
    probability = read_volume(next(given.results.rglob("*_label-L_probseg.nii.gz")))
    brain = read_mask(next(given.results.rglob("*_desc-brain_mask.nii.gz"))).array
    found = lesion_mask(probability.array, given.threshold, given.min_peak)
    right = reference.array > 0
    most = np.sort(np.argsort(right.sum(axis=(0, 1)))[::-1][: given.slices])
    where = np.argwhere(brain.any(axis=2))
    low, high = where.min(axis=0) - 8, where.max(axis=0) + 9
    part = tuple(slice(max(0, a), b) for a, b in zip(low, high, strict=True))
    white = float(np.percentile(scan.array[brain], 99.7))
    aspect = scan.grid.spacing_mm[1] / scan.grid.spacing_mm[0]
    figure, axes = plt.subplots(2, len(most), figsize=(2.1 * len(most), 5.4), facecolor="black")
    for column, k in zip(axes.T, most, strict=True):
        for row, axis in enumerate(column):
            axis.imshow(
                scan.array[..., k][part].T, cmap="gray", vmin=0, vmax=white, origin="lower",
                aspect=aspect, interpolation="lanczos",
            )  # fmt: skip
            axis.set_axis_off()
            if row:
                for mask, color in ((right, REFERENCE), (found, FOUND)):
                    if mask[..., k].any():
                        axis.contour(mask[..., k][part].T, [0.5], colors=color, linewidths=1.1)
    figure.text(0.01, 0.015, "reference", color=REFERENCE, fontsize=11)
    figure.text(0.12, 0.015, "found", color=FOUND, fontsize=11)
    figure.subplots_adjust(0, 0.05, 1, 1, 0.01, 0.01)
    figure.savefig(given.out, dpi=110, facecolor="black")


if __name__ == "__main__":
    main()
