"""Simulated scans beside real ones, in three planes, to be looked at.

    python benchmarks/render_simulation.py OUT.png --real REAL.nii.gz … --seeds 21 25
        [--tissue-maps MAP_dseg.nii.gz …] [--caps]

Each row is one scan: sagittal, coronal, axial, and the axial slice again with the true
instances where they are known. Real scans come first. Simulated scans take the voxel
size and the skull (or its absence) of the real scan they stand in turn with. Heads from real
tissue maps come last, numbered on from the last seed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from lesionwise.io.nifti import read_volume
from lesionwise.simulate.patient import simulate_patient
from lesionwise.simulate.tissue_heads import read_aligned_map

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--real", type=Path, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 25])
    parser.add_argument("--style", default="realistic")
    parser.add_argument("--caps", action="store_true")
    parser.add_argument("--tissue-maps", type=Path, nargs="*", default=[])
    a = parser.parse_args()

    rows = []
    for path in a.real:
        volume = read_volume(path)
        rows.append((path.name.split("_FLAIR")[0], volume.array, None, volume.grid.spacing_mm))
    heads = [(seed, None) for seed in a.seeds]
    heads += [(a.seeds[-1] + n, path) for n, path in enumerate(a.tissue_maps, 1)]
    for number, (seed, path) in enumerate(heads):
        _, array, _, spacing = rows[number % len(a.real)]
        stripped = np.mean(array[array.shape[0] // 2, :, -3:] != 0) < 0.5 and spacing[2] < 1.5
        visit = simulate_patient(
            seed,
            style=a.style,
            spacing_mm=spacing,
            with_skull=not stripped,
            with_caps=a.caps,
            tissue_map=None if path is None else read_aligned_map(path),
        ).study.baseline
        scan = visit.scans["flair"]
        labels = visit.labels["instances"].array
        name = f"simulated {seed}" if path is None else f"simulated {seed}, from a tissue map"
        rows.append((name, scan.array, labels, scan.grid.spacing_mm))

    figure, axes = plt.subplots(len(rows), 4, figsize=(20, 5 * len(rows)), squeeze=False)
    for row, (name, array, labels, spacing) in zip(axes, rows, strict=True):
        _draw(row, name, np.asarray(array, dtype=float), labels, spacing)
    figure.tight_layout(pad=0.2)
    figure.savefig(a.output, dpi=50, facecolor="black")


def _draw(
    row: np.ndarray,
    name: str,
    array: np.ndarray,
    labels: np.ndarray | None,
    spacing: tuple[float, float, float],
) -> None:
    signal = array > 0.1 * array.max()
    top = np.percentile(array[signal], 99.3)
    planes = []
    for axis in range(3):
        extent = np.flatnonzero(signal.sum(axis=tuple({0, 1, 2} - {axis})) > 20)
        share = (0.56, 0.5, 0.62)[axis]
        planes.append(int(extent[0] + share * (extent[-1] - extent[0])))
    if labels is not None and labels.any():
        planes[2] = int((labels > 0).sum(axis=(0, 1)).argmax())
    views = [(0, spacing[2] / spacing[1]), (1, spacing[2] / spacing[0])] + [
        (2, spacing[1] / spacing[0])
    ] * 2
    for number, (axes, (axis, aspect)) in enumerate(zip(row, views, strict=True)):
        shown = {"origin": "lower", "aspect": aspect}
        axes.imshow(np.take(array, planes[axis], axis).T, cmap="gray", vmin=0, vmax=top, **shown)
        if number == 3 and labels is not None:
            over = np.take(labels, planes[axis], axis).T
            colors = np.ma.masked_equal(np.where(over > 0, over % 20 + 1, 0), 0)
            axes.imshow(colors, cmap="tab20", interpolation="nearest", alpha=0.75, **shown)
        axes.axis("off")
    row[0].set_title(name, color="white", fontsize=18)


if __name__ == "__main__":
    main()
