"""Pictures of pairs that ``synthetic-new-lesions`` makes from single scans while it learns.

    python benchmarks/synthetic_pairs.py DATASET OUT.png --work FOLDER --minutes 10

Prepares the single scans of DATASET (FLAIR and a mask of all lesions) by the recipe's steps, trains
the inpainter and the generator of its reduced form, each for so many minutes, and draws twelve
pairs of patches as the network that finds new lesions would see them: first visit, second visit,
and the second one with what is new (red) and what went (blue) outlined. The slice is the one in
which most changed. With FOLDER kept, the same call again draws without learning.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch

from lesionwise.inference.weights import WEIGHTS, read_weights
from lesionwise.learning.samples import CombinedSamples, SampleRequest
from lesionwise.learning.synthetic import SyntheticPairs, painted_pair
from lesionwise.methods.members import fit_once
from lesionwise.methods.network import NetworkMethod
from lesionwise.run.prepare import prepare
from lesionwise.run.recipes import auxiliary_sets, find_recipe
from lesionwise.types import RunContext, TrainingData

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROW = "synthetic-new-lesions:reduced"


def main() -> None:
    """Train what paints, and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each network")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    recipe = find_recipe(ROW)
    method = recipe.method
    assert isinstance(method, NetworkMethod)
    assert isinstance(method.samples, CombinedSamples)
    (single,) = auxiliary_sets(recipe).values()
    prepared = prepare(
        ROW, arguments.dataset, arguments.work / "prepared", auxiliary=single,
        progress=lambda stage, done, total: print(stage, done, total, flush=True),
    )  # fmt: skip
    print(f"{len(prepared.names)} scans; left out: {dict(prepared.left_out)}", flush=True)
    data = TrainingData([], auxiliary={single.name: prepared.studies(prepared.subjects)})
    painters = {}
    for part in method.parts:
        assert isinstance(part.first, NetworkMethod)
        run = RunContext(
            arguments.work / part.name, device="cpu", resume=True, max_minutes=arguments.minutes
        )
        fit_once(part.first, data, run)
        network = part.first.network()
        read_weights(network, run.folder / WEIGHTS)
        painters[part.name] = network.eval()
    samples = dict(method.samples.sources)["synthetic-1"]
    assert isinstance(samples, SyntheticPairs)
    samples = replace(samples, added=2)
    source = samples.open(
        data, SampleRequest(method.reading, method.objective.of("synthetic-1"), arguments.seed)
    )
    rows = []
    number = 0
    while len(rows) < arguments.pairs:  # pairs in which nothing changes are passed over
        batch = {name: value[None] for name, value in source[number].items()}
        number += 1
        if not bool(batch["mask"].any()):
            continue
        pair = painted_pair(painters["inpainter"], painters["generator"], batch)[0].numpy()
        seen = (batch["remove"][0].numpy() > 0, batch["add"][0].numpy() > 0)
        new = batch["mask"][0, 0].numpy() > 0
        gone = (seen[0][1] & ~seen[0][0]) | (seen[1][0] & ~seen[1][1])
        rows.append((pair, new, gone))
    draw(rows, arguments.output)
    print(f"{len(rows)} of {number} pairs, in which something is new: {arguments.output}")


def draw(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], output: Path) -> None:
    """Three pictures of each pair, two pairs beside each other."""
    height = -(-len(rows) // 2)
    figure, axes = plt.subplots(height, 6, figsize=(12, 2 * height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for number, (pair, new, gone) in enumerate(rows):
        row, first = divmod(number, 2)
        k = int(np.argmax((new | gone).sum(axis=(0, 1))))
        inside = pair[pair != 0]
        low, high = np.percentile(inside, (1, 99.5))
        for place in range(3):
            axis = axes[row, 3 * first + place]
            axis.imshow(pair[min(place, 1), :, :, k].T, cmap="gray", vmin=low, vmax=high,
                        origin="lower")  # fmt: skip
            if place == 2:
                for mask, color in ((new, "red"), (gone, "deepskyblue")):
                    if mask[:, :, k].any():
                        axis.contour(mask[:, :, k].T, [0.5], colors=color, linewidths=0.8)
    for column, title in enumerate(("first visit", "second visit", "what changed") * 2):
        axes[0, column].set_title(title, fontsize=8)
    figure.tight_layout(pad=0.3)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=80)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
