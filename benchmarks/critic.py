"""How well the critic of ``lesionwise-metric`` estimates the lesion-wise F1 of unseen pairs.

    lesionwise simulate -o PAIRS --patients 8 --visits 2 --seed 600 --lesion-change 4 \\
      --spacing 1.2 1.2 1.2
    python benchmarks/critic.py PAIRS --unseen sim0006 --unseen sim0007 --minutes 8

The critic of the recipe's reduced form learns from pairs of masks that are made of the new lesions
of all patients but the unseen ones. Then pairs are made of the unseen patients' new lesions, which
share no patient with them, and the estimates are compared with the true F1: Pearson's and
Spearman's correlation, the mean absolute error, and beside it that of a constant, the mean. For
patches with no, one, two, three to five, and more reference lesions it prints how the true F1 falls
into the fifths of [0, 1], and the error. The pairs are of simulated patients. With ``--published``
the critic has the widths, patch, batch and learning rate of the recipe itself.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from lesionwise.inference.weights import WEIGHTS, read_weights
from lesionwise.io.bids import read_dataset
from lesionwise.learning.mask_pairs import MaskPairs
from lesionwise.learning.samples import SampleRequest
from lesionwise.methods.network import NetworkMethod
from lesionwise.run.recipes import find_recipe
from lesionwise.types import RunContext, TrainingData

LESIONS = {"0": (0, 0), "1": (1, 1), "2": (2, 2), "3-5": (3, 5), "6+": (6, 10**6)}
"""Smallest and largest number of reference lesions of each row."""


def critic_method(published: bool, batch_size: int | None) -> tuple[NetworkMethod, MaskPairs]:
    """The method that trains the critic, and its pairs."""
    recipe = find_recipe("lesionwise-metric" if published else "lesionwise-metric:reduced")
    assert isinstance(recipe.method, NetworkMethod)
    (part,) = recipe.method.parts
    method = part.first
    assert isinstance(method, NetworkMethod)
    samples = method.samples
    assert isinstance(samples, MaskPairs)
    if batch_size is not None:
        samples = replace(samples, batch_size=batch_size)
    return replace(method, samples=samples), samples


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
    method, samples = critic_method(arguments.published, arguments.batch)
    with tempfile.TemporaryDirectory() as folder:
        run = RunContext(Path(folder), device="cpu", max_minutes=arguments.minutes)
        method.fit(TrainingData(seen), run)
        trained = json.loads((Path(folder) / "training.json").read_text())
        network = method.network()
        read_weights(network, Path(folder) / WEIGHTS)
    network.eval()
    pairs = replace(samples, per_epoch=arguments.pairs).open(
        TrainingData(unseen), SampleRequest(method.reading, method.objective, seed=1)
    )
    true, estimated, lesions = [], [], []
    for number in range(arguments.pairs):
        pair = pairs[number]
        with torch.no_grad():
            estimated.append(float(network(pair["image"][None])))
        true.append(float(pair["score"]))
        reference = pair["image"][0].numpy() > 0
        lesions.append(cc3d.connected_components(reference, connectivity=26, return_N=True)[1])
    a, b, existing = np.array(true), np.array(estimated), np.array(lesions)
    print(
        f"{len(seen)} patients learned from, {trained['steps']} steps "
        f"({trained['patches']} pairs), {trained['minutes']} minutes"
    )
    print(f"{len(a)} pairs of {len(unseen)} unseen patients; true F1 in fifths of [0, 1]:")
    for name, (fewest, most) in LESIONS.items():
        rows = (existing >= fewest) & (existing <= most)
        if rows.any():
            print(f"{name:>4} lesions  {fifths(a[rows])}  {errors(a[rows], b[rows])}")
    print(f"         all  {fifths(a)}")
    print(f"Pearson {pearsonr(a, b).statistic:.3f}  Spearman {spearmanr(a, b).statistic:.3f}")
    print(errors(a, b))


def fifths(true: NDArray[np.float64]) -> str:
    """How many scores lie in each fifth of [0, 1]."""
    counts, _ = np.histogram(true, bins=5, range=(0, 1))
    return " ".join(f"{count:3d}" for count in counts)


def errors(true: NDArray[np.float64], estimated: NDArray[np.float64]) -> str:
    """The mean absolute error of the critic, and that of the mean."""
    return (
        f"mean absolute error {np.abs(true - estimated).mean():.3f}, "
        f"of the constant {true.mean():.2f} {np.abs(true - true.mean()).mean():.3f}"
    )


if __name__ == "__main__":
    main()
