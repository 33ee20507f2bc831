"""How well the critic of ``lesionwise-metric`` estimates the lesion-wise F1 of unseen pairs.

    lesionwise simulate -o PAIRS --patients 8 --visits 2 --seed 600 --lesion-change 4 \\
      --spacing 1.2 1.2 1.2
    python benchmarks/critic.py PAIRS --unseen sim0006 --unseen sim0007 --minutes 5

The critic of the recipe's reduced form learns from pairs of masks that are made of the new lesions
of all patients but the unseen ones. Then pairs are made of the unseen patients' new lesions, which
share no patient with them, and the estimates are compared with the true F1: Pearson's and
Spearman's correlation, the mean absolute error, and beside it that of a constant, the mean. With
``--published`` the critic has the widths, patch, batch and learning rate of the recipe itself.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr

from lesionwise.inference.weights import WEIGHTS, read_weights
from lesionwise.io.bids import read_dataset
from lesionwise.learning.samples import SampleRequest
from lesionwise.methods.network import NetworkMethod
from lesionwise.run.recipes import find_recipe
from lesionwise.types import RunContext, TrainingData


def critic_method(published: bool, batch_size: int | None) -> NetworkMethod:
    """The method that trains the critic."""
    recipe = find_recipe("lesionwise-metric" if published else "lesionwise-metric:reduced")
    assert isinstance(recipe.method, NetworkMethod)
    (part,) = recipe.method.parts
    method = part.first
    assert isinstance(method, NetworkMethod)
    if batch_size is not None:
        method = replace(method, samples=replace(method.samples, batch_size=batch_size))
    return method


def main() -> None:
    """Train the critic, and print how its estimates agree with the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--unseen", action="append", required=True, metavar="SUBJECT")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--batch", type=int, default=None, help="of the training")
    parser.add_argument("--published", action="store_true")
    arguments = parser.parse_args()
    studies = list(read_dataset(arguments.dataset, scans=("flair",)))
    seen = [study for study in studies if study.subject not in arguments.unseen]
    unseen = [study for study in studies if study.subject in arguments.unseen]
    method = critic_method(arguments.published, arguments.batch)
    with tempfile.TemporaryDirectory() as folder:
        run = RunContext(Path(folder), device="cpu", max_minutes=arguments.minutes)
        method.fit(TrainingData(seen), run)
        steps = int((Path(folder) / "log.jsonl").read_text().count("\n"))
        network = method.network()
        read_weights(network, Path(folder) / WEIGHTS)
    network.eval()
    samples = replace(method.samples, per_epoch=arguments.pairs)
    pairs = samples.open(
        TrainingData(unseen), SampleRequest(method.reading, method.objective, seed=1)
    )
    true, estimated = [], []
    for number in range(arguments.pairs):
        pair = pairs[number]
        with torch.no_grad():
            estimated.append(float(network(pair["image"][None])))
        true.append(float(pair["score"]))
    a, b = np.array(true), np.array(estimated)
    counts, _ = np.histogram(a, bins=5, range=(0, 1))
    print(f"{len(seen)} patients learned from, {steps} epochs of {method.samples.per_epoch} pairs")
    print(f"{len(a)} pairs of {len(unseen)} unseen patients; true F1 in fifths of [0, 1]: {counts}")
    print(f"Pearson {pearsonr(a, b).statistic:.3f}  Spearman {spearmanr(a, b).statistic:.3f}")
    print(
        f"mean absolute error {np.abs(a - b).mean():.3f}, "
        f"of the constant {a.mean():.2f} {np.abs(a - a.mean()).mean():.3f}"
    )


if __name__ == "__main__":
    main()
