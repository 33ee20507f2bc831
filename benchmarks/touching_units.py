"""How well touching lesions are separated, against the distance between their centers.

    python benchmarks/touching_units.py TRUTH NAME=PREDICTIONS [NAME=PREDICTIONS …] [--figure PNG]

TRUTH and PREDICTIONS are folders of instance maps as ``lesionwise simulate`` and ``lesionwise
predict`` write them. For every true lesion that touches another: the distance from its center of
mass to the nearest one it touches, and the IoU with its match at IoU > 0.1 (0 without one). A row
is a range of distances. PQ of a range is the sum of matched IoU over TP + FN / 2: false positives
have no distance, so they are left out of it.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from lesionwise.instances.components import confluent_groups
from lesionwise.instances.describe import describe_lesions
from lesionwise.instances.filters import DropSmall
from lesionwise.io.nifti import read_labels
from lesionwise.metrics.case import evaluate_case
from lesionwise.run.pairing import pair_files
from lesionwise.types import Instances

EDGES_MM = (0.0, 6.0, 8.0, 10.0, 13.0, 200.0)


def units(reference: Path, prediction: Path) -> list[tuple[float, float]]:
    """(distance to the nearest touching unit in mm, matched IoU or 0) of each confluent unit."""
    small = DropSmall()
    truth, found = (
        small(Instances(v.array, v.grid)) for v in (read_labels(reference), read_labels(prediction))
    )
    table = describe_lesions(truth).set_index("label")
    centers = table[["center_x_mm", "center_y_mm", "center_z_mm"]]
    groups = pd.Series(confluent_groups(truth.labels, connectivity=6))
    scored = evaluate_case(truth, found).lesions
    iou = {row.id: row.iou or 0.0 for row in scored if row.side == "reference"}
    rows = []
    for label, group in groups[groups > 0].items():
        others = groups.index[(groups == group) & (groups.index != label)]
        apart = np.linalg.norm(centers.loc[others] - centers.loc[label], axis=1).min()
        rows.append((float(apart), float(iou.get(label, 0.0))))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path)
    parser.add_argument("predictions", nargs="+")
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    by_method: dict[str, pd.DataFrame] = {}
    for text in given.predictions:
        name, _, folder = text.partition("=")
        pairs = pair_files(given.truth, Path(folder), "instances").files
        rows = [row for files in pairs.values() for row in units(*files)]
        table = pd.DataFrame(rows, columns=["apart_mm", "iou"])
        table["range"] = pd.cut(table["apart_mm"], EDGES_MM)
        by_method[name] = table
    print(
        "| centers apart (mm) | units | "
        + " | ".join(f"{n} recall | {n} PQ" for n in by_method)
        + " |"
    )
    print("| --- | --- |" + " --- | --- |" * len(by_method))
    lines = {}
    for number, span in enumerate(next(iter(by_method.values()))["range"].cat.categories):
        cells = []
        for name, table in by_method.items():
            iou = table.loc[table["range"] == span, "iou"]
            hits = int((iou > 0).sum())
            recall = hits / len(iou) if len(iou) else np.nan
            quality = iou.sum() / (hits + (len(iou) - hits) / 2) if len(iou) else np.nan
            cells += [f"{recall:.2f}", f"{quality:.2f}"]
            lines.setdefault(name, []).append(quality)
        upper = "and more" if number == len(EDGES_MM) - 2 else f"to {span.right:g}"
        print(f"| {span.left:g} {upper} | {len(iou)} | " + " | ".join(cells) + " |")
    if given.figure:
        draw(lines, given.figure)


def draw(lines: dict[str, list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2))
    labels = [f"{a:g}–{b:g}" for a, b in itertools.pairwise(EDGES_MM[:-1])]  # noqa: RUF001
    labels.append(f"{EDGES_MM[-2]:g} +")
    for name, values in lines.items():
        axes.plot(labels, values, marker="o", label=name)
    axes.set(xlabel="distance between the centers of touching units (mm)", ylabel="PQ", ylim=(0, 1))
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
