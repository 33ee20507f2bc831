"""Training speed and memory of this version beside an earlier one, in one run.

    git worktree add BEFORE e11fd06
    python benchmarks/bench_training.py --before BEFORE [--patch 64] [--steps 20] [--rounds 3]

The same network, patches, augmentation and batches of two, on the same simulated studies, one
thread.
Each version is measured in processes of its own, in turns; printed are seconds per step of the
training (an epoch after a first one that does not count), as median over the rounds, and the
peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
STUDIES = """
import json, resource, sys, time
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from lesionwise.networks.unet import UNet
from lesionwise.types import Grid, RunContext, Study, TrainingData, Visit, Volume

patch, steps, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])

def study(seed):
    rng = np.random.default_rng(seed)
    grid = Grid((128, 144, 120), np.eye(4))
    labels = np.zeros(grid.shape, dtype=np.int32)
    for n, corner in enumerate(rng.integers(20, 90, (12, 3)), 1):
        labels[tuple(slice(c, c + 6) for c in corner)] = n
    image = (labels > 0) * 2.0 + rng.standard_normal(grid.shape)
    visit = Visit({"flair": Volume(image.astype(np.float32), grid)},
                  {"instances": Volume(labels, grid)},
                  Volume(np.ones(grid.shape, dtype=bool), grid))
    return Study(f"s{seed}", (visit,))

data = TrainingData([study(n) for n in range(4)])
"""
BEFORE = """
from lesionwise.learning.losses import InstanceLoss
from lesionwise.learning.targets import CentersAndOffsets
from lesionwise.methods.network import NetworkMethod
method = NetworkMethod(
    network=partial(UNet, in_channels=1, out_channels=6, features=(16, 32, 64)),
    scans=("flair",), targets=CentersAndOffsets(), loss=InstanceLoss(heatmap=100.0),
    learning_rate=1e-3, epochs=2, patch_size_vox=(patch,) * 3, batch_size=2,
    patches_per_epoch=2 * steps)
"""
NOW = """
from lesionwise.learning.intensity_transforms import other_scanners
from lesionwise.learning.losses import InstanceLoss
from lesionwise.learning.objective import Supervised
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.samples import Augmentation, Patches
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import CentersAndOffsets
from lesionwise.methods.network import NetworkMethod
method = NetworkMethod(
    network=partial(UNet, in_channels=1, out_channels=6, features=(16, 32, 64), widening="first"),
    scans=("flair",),
    samples=Patches((patch,) * 3, batch_size=2, per_epoch=2 * steps,
                    augmentation=Augmentation(SpatialAugmentation(), other_scanners())),
    objective=Supervised(CentersAndOffsets(), InstanceLoss(heatmap=100.0)),
    optimization=Optimization(learning_rate=1e-3, epochs=2))
"""
MEASURE = """
ends = []
def note(stage, done, total):
    if stage == "training":
        ends.append((time.perf_counter(), time.process_time()))
method.fit(data, RunContext(folder, device="cpu", progress=note))
(wall_1, cpu_1), (wall_2, cpu_2) = ends
print(json.dumps({"wall": (wall_2 - wall_1) / steps, "cpu": (cpu_2 - cpu_1) / steps,
                  "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


def measured(source: Path, version: str, patch: int, steps: int) -> dict[str, float]:
    """Seconds per step (wall and processor) and peak memory of one version."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *(sys.executable, "-c", STUDIES + version + MEASURE),
                *(str(patch), str(steps), folder),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def main() -> None:
    """Print one line per version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    versions = {"before": (given.before, BEFORE), "now": (HERE, NOW)}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for _ in range(given.rounds):
        for name, (source, version) in versions.items():
            found[name].append(measured(source, version, given.patch, given.steps))
    for name, rows in found.items():
        values = {k: statistics.median(row[k] for row in rows) for k in rows[0]}
        print(
            f"{name:<7} {values['cpu']:.3f} processor s and {values['wall']:.3f} s a step, "
            f"{values['gib']:.2f} GiB"
        )


if __name__ == "__main__":
    main()
