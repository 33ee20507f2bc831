"""Seconds a head for recipes whose networks see slices: batches and engines side by side.

    OMP_NUM_THREADS=1 python benchmarks/bench_planes.py [ROW …] [--slices 6] [--published]

A head is a phantom of 180 x 216 x 180 voxels of 1 mm, after the recipe's steps. Each line computes
the windows of a few slices in every plane that the recipe asks for, and multiplies by the number of
windows that hold brain in the whole head. The last network of the row is timed, once; ensembles
take as many times as long as they have members. Compiling for OpenVINO is not counted. Weights are
random, which costs the same time. ``ROW`` may be any recipe of the network engine, also one in 3D.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from lesionwise.inference.openvino import OpenVinoNetwork
from lesionwise.inference.window import SlidingWindow
from lesionwise.methods.network import NetworkMethod, NetworkPredictor
from lesionwise.run.recipes import find_recipe
from lesionwise.types import Grid, Study, Visit, Volume, all_methods

CPU = torch.device("cpu")
SHAPE = (180, 216, 180)
ROWS = (
    "subtraction-2d",
    "sc-unet",
    "att-res-unet-triplane",
    "triplanar-unet",
    "tiramisu-25d",
    "deepscan",
    "iqda",
)


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """Noise within an ellipsoid, and that ellipsoid."""
    i, j, k = (np.linspace(-1, 1, n) ** 2 for n in SHAPE)
    brain = i[:, None, None] + j[:, None] + k <= 1
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    return noise * brain, brain


class Nothing(nn.Module):
    """Zeros of the network's output, for counting windows."""

    def __init__(self, channels: int, slices: int) -> None:
        super().__init__()
        self.channels, self.slices = channels, slices

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        b, _, i, j, _ = image.shape
        return torch.zeros(b, self.channels, i, j, self.slices)


def pair(method: NetworkMethod, image: np.ndarray, brain: np.ndarray) -> Study:
    """Two equal visits with every scan that the method reads."""
    grid = Grid(SHAPE, np.eye(4))
    names = [scan.partition("@")[0] for scan in method.scans]
    scans = {name: Volume(image, grid) for name in names}
    visit = Visit(scans, brain=Volume(brain, grid))
    return Study("phantom", (visit, visit))


def windows_of(method: NetworkMethod, study: Study, window: SlidingWindow) -> int:
    """How many windows hold brain, over all views."""
    size = method.inference.size_vox or method.samples.size_vox
    slices = size[2] if size[2] > 5 else 1
    empty = Nothing(method.objective.targets.out_channels, slices)
    return windows_computed(method, study, empty, window)[0]


def windows_computed(
    method: NetworkMethod,
    study: Study,
    network: nn.Module,
    window: SlidingWindow,
    infer: Any = None,
) -> tuple[int, float]:
    """The number of windows computed and the seconds it took."""
    count = 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal count
        count += total if done == total else 0

    predictor = NetworkPredictor(
        method, method.objective.targets, network, CPU, window, progress, infer
    )
    start = time.perf_counter()
    predictor(study)
    return count, time.perf_counter() - start


def main() -> None:
    """Print one line for each row and way of computing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", default=ROWS, metavar="ROW")
    parser.add_argument("--slices", type=int, default=6, help="timed in each plane")
    parser.add_argument("--published", action="store_true", help="published widths, not reduced")
    arguments = parser.parse_args()
    image, brain = phantom()
    few = np.zeros_like(brain)
    half = arguments.slices // 2
    few[tuple(slice(n // 2 - half, n // 2 - half + arguments.slices) for n in SHAPE)] = True
    print(f"threads {torch.get_num_threads()}; head of {SHAPE}", flush=True)
    for row in arguments.rows:
        name = row if arguments.published else f"{row}:reduced"
        networks = [
            m for m in all_methods(find_recipe(name).method) if isinstance(m, NetworkMethod)
        ]
        method = networks[-1]
        method = replace(method, inference=replace(method.inference, dropout=None))
        network = method.network().eval()
        base = replace(method.inference.window, engine="torch", mirror_axes=())
        whole = windows_of(method, pair(method, image, brain), base)
        part = pair(method, image, few & brain)
        batch = base.windows_per_batch
        for label, window, openvino in (
            ("torch float32, batch 1", replace(base, windows_per_batch=1, precision="float32"), 0),
            (f"torch float32, batch {batch}", replace(base, precision="float32"), 0),
            (f"torch bfloat16, batch {batch}", base, 0),
            (f"openvino bfloat16, batch {batch}", base, 1),
        ):
            infer = OpenVinoNetwork(network, use_bf16=True) if openvino else None
            if infer is not None:
                windows_computed(method, part, network, window, infer)  # compiles
            count, seconds = windows_computed(method, part, network, window, infer)
            print(
                f"{name:<32} {label:<28} {count:4d} windows {1e3 * seconds / count:8.1f} ms each, "
                f"{whole:5d} in the head: {whole * seconds / count:7.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
