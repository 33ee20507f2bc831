"""Time and memory of telling lesions apart on a volume of the usual brain size.

    python benchmarks/bench_instances.py [--repeats 5] [--timings ../shared/oracle/timings.json]

182 x 218 x 182 voxels, 100 centers, about 28 000 lesion voxels: the size on which the ConfLUNet
authors' post-processing was timed (its times are read from the reference vectors' timings.json).
Beside it, in the same run and on a smaller volume, a plain dense implementation of the same
grouping: the distance of every voxel to every center.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lesionwise.instances.components import ConnectedComponents
from lesionwise.instances.confluent import Acls
from lesionwise.instances.filters import DropSmall
from lesionwise.instances.offsets import OffsetVoting
from lesionwise.types import BoolArray, Grid, Instances, LesionMaps, ToInstances

SHAPE = (182, 218, 182)
SIGMA_VOX = 2.0


def lesions(
    shape: tuple[int, int, int], groups: int, seed: int = 0
) -> tuple[LesionMaps, BoolArray]:
    """Confluent pairs of balls with noisy probability, heatmap and offsets; two centers a group."""
    rng = np.random.default_rng(seed)
    grid = Grid(shape, np.eye(4))
    owner = np.zeros(shape, dtype=np.int32)
    heatmap = np.zeros(shape, dtype=np.float32)
    probability = np.full(shape, 0.01, dtype=np.float32)
    centers: list[np.ndarray] = []
    space = np.array(shape) - 42
    while len(centers) < 2 * groups:
        first = rng.integers(0, space) + 21
        if any(np.abs(first - other).max() < 16 for other in centers):
            continue
        direction = rng.normal(size=3)
        second = np.rint(first + 7 * direction / np.linalg.norm(direction)).astype(int)
        for center in (first, second):
            radius = rng.uniform(3.6, 4.6)
            box = tuple(slice(c - 12, c + 13) for c in center)
            apart = np.linalg.norm(np.indices((25, 25, 25)) - 12, axis=0)
            inside = (apart <= radius) & (owner[box] == 0)
            owner[box][inside] = len(centers) + 1
            level = 1 / (1 + np.exp(2 * (apart - radius)))
            probability[box] = np.maximum(probability[box], level)
            peak = np.exp(-(apart**2) / (2 * SIGMA_VOX**2))
            heatmap[box] = np.maximum(heatmap[box], peak)
            centers.append(center)
    mask = owner > 0
    probability = np.where(mask, np.maximum(probability, 0.51), np.minimum(probability, 0.49))
    offsets = np.zeros((3, *shape), dtype=np.float32)
    index = np.argwhere(mask)
    exact = np.array(centers)[owner[tuple(index.T)] - 1] - index
    offsets[(slice(None), *index.T)] = (exact + rng.normal(0, 0.5, exact.shape)).T
    return LesionMaps(probability.astype(np.float32), grid, heatmap, offsets), mask


def dense_offset_voting(maps: LesionMaps, mask: BoolArray, centers: np.ndarray) -> np.ndarray:
    """Group every voxel of the volume, then clear what lies outside the mask."""
    assert maps.offsets_vox is not None
    votes = np.indices(mask.shape).reshape(3, -1).T + maps.offsets_vox.reshape(3, -1).T
    apart = np.linalg.norm(votes[None] - centers[:, None].astype(np.float64), axis=2)
    return np.where(mask.reshape(-1), apart.argmin(axis=0) + 1, 0).reshape(mask.shape)


def separated(step: ToInstances, maps: LesionMaps, mask: BoolArray) -> Instances:
    """Separation with pieces split, then the published size filter."""
    return DropSmall(min_volume_mm3=14.0, min_extent_mm=3.0)(step(maps, mask))


def measured(work: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Least wall and median processor seconds, and peak MiB of NumPy memory in a further run.

    Where other programs share the machine the wall time says as much about them.
    """
    wall, processor = [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return min(wall), float(np.median(processor)), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    beside = Path(__file__).parents[2] / "shared" / "oracle" / "timings.json"
    parser.add_argument("--timings", type=Path, default=beside)
    arguments = parser.parse_args()
    peer: dict[str, float] = {}
    if arguments.timings.exists():
        peer = json.loads(arguments.timings.read_text())["postprocessing_seconds"]
    else:
        print(f"no peer times: {arguments.timings} is not there")

    maps, mask = lesions(SHAPE, 50)
    volume_mib = mask.size * 4 / 2**20
    print(
        f"{' x '.join(map(str, SHAPE))}, {int(mask.sum())} lesion voxels; "
        f"the label volume itself takes {volume_mib:.0f} MiB"
    )
    steps = {
        "offsets": (OffsetVoting(), peer.get("conflunet_grouping_total_float32_first_run")),
        "acls": (Acls(), peer.get("acls_total")),
        "cc": (ConnectedComponents(), None),
    }
    print(
        "with pieces split and DropSmall    lesions  least wall s  CPU s  peak MiB   peer s  ratio"
    )
    for name, (step, peer_seconds) in steps.items():
        least, processor, peak = measured(
            lambda step=step: separated(step, maps, mask), arguments.repeats
        )
        count = int(separated(step, maps, mask).labels.max())
        beside_peer = f"{peer_seconds:8.1f} {peer_seconds / least:6.0f}" if peer_seconds else ""
        print(f"{name:33s} {count:9d} {least:13.3f} {processor:6.3f} {peak:9.1f} {beside_peer}")

    small_maps, small_mask = lesions((96, 96, 96), 8)
    centers = np.argwhere(small_maps.center_heatmap == 1.0)
    dense = measured(lambda: dense_offset_voting(small_maps, small_mask, centers), 2)
    sparse = measured(
        lambda: OffsetVoting(reach_vox=None, connectivity=None)(small_maps, small_mask), 5
    )
    print(
        f"96 x 96 x 96, {len(centers)} centers, grouping alone: every voxel {dense[1]:.2f} s and "
        f"{dense[2]:.0f} MiB, lesion voxels {sparse[1]:.3f} s and {sparse[2]:.0f} MiB"
    )


if __name__ == "__main__":
    main()
