"""Times of a whole-brain prediction and of a training step, and how far precisions differ.

    python benchmarks/bench_window.py [--features 8,24,64] [--threads 2] [--weights RUN]

Without a run the weights are random, which costs the same time; how many mask voxels differ
between precisions is meaningful for a trained run alone.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from lesionwise.learning.losses import InstanceLoss
from lesionwise.learning.targets import CentersAndOffsets
from lesionwise.learning.window import SlidingWindow, slide
from lesionwise.methods.network import read_weights
from lesionwise.networks.blocks import start_from
from lesionwise.networks.unet import UNet
from lesionwise.run.predict import load_model

BRAIN_SHAPE = (150, 180, 150)


def phantom() -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid the size of a brain at 1 mm, smooth noise inside."""
    index = np.indices(BRAIN_SHAPE, dtype=np.float32)
    radii = [(n - 8) / 2 for n in BRAIN_SHAPE]
    away = sum(((index[a] - (n - 1) / 2) / radii[a]) ** 2 for a, n in enumerate(BRAIN_SHAPE))
    brain = np.asarray(away) <= 1
    noise = np.random.default_rng(0).standard_normal(BRAIN_SHAPE).astype(np.float32)
    image = ndimage.gaussian_filter(noise, 1.5)
    image = np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0)
    return image.astype(np.float32), brain


def best_of(times: int, work: Callable[[], object]) -> float:
    """Least wall time of several runs, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Print one table for prediction, one for training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", default="8,24,64")
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--weights", type=Path, help="a run folder; sets features and patch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    features = tuple(int(n) for n in arguments.features.split(","))
    size = (arguments.patch,) * 3
    network: torch.nn.Module = UNet(1, 6, features)
    targets = CentersAndOffsets()
    start_from(network, targets.first_guess)
    if arguments.weights is not None:
        method = load_model(arguments.weights).recipe.method
        network, size, targets = method.network(), method.patch_size_vox, method.targets
        read_weights(network, arguments.weights / "model.safetensors")
    network = network.to(memory_format=torch.channels_last_3d).eval()
    image, brain = phantom()
    masks = {}
    print("prediction       seconds  memory_gib")
    for precision in ("float32", "bfloat16"):
        window = SlidingWindow(overlap=arguments.overlap, precision=precision)

        def predict(window: SlidingWindow = window) -> np.ndarray:
            return slide(
                lambda patches: targets.activate(network(patches)),
                [image], brain, size, targets.maps, window, torch.device("cpu"),
            )  # fmt: skip

        masks[precision] = predict()[0] > 0.5
        seconds = best_of(arguments.repeat, predict)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{precision:<16} {seconds:7.1f}  {peak:10.2f}")
    differ = int((masks["float32"] != masks["bfloat16"]).sum())
    print(f"mask voxels that differ: {differ} of {int(masks['float32'].sum())}")

    print("\ntraining         seconds per patch")
    network.train()
    batch = torch.from_numpy(image[40 : 40 + size[0], 40 : 40 + size[1], 40 : 40 + size[2]])
    batch = batch.expand(2, 1, *size).contiguous(memory_format=torch.channels_last_3d)
    instances = np.zeros(size, dtype=np.int32)
    instances[20:26, 20:26, 20:26] = 1
    made = targets.make(instances, (1.0, 1.0, 1.0))
    reference = {name: torch.from_numpy(a).expand(2, *a.shape) for name, a in made.items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    for precision in ("float32", "bfloat16"):

        def step(low: bool = precision == "bfloat16") -> None:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                output = network(batch)
            InstanceLoss()(output, reference)["total"].backward()
            optimizer.step()

        step()
        print(f"{precision:<16} {best_of(2 * arguments.repeat, step) / 2:7.2f}")


if __name__ == "__main__":
    main()
