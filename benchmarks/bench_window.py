"""Times of a whole prediction and of a training step; engines and sliding windows side by side.

    python benchmarks/bench_window.py [--features 16,32,64] [--patch 64] [--threads 2] [--run RUN]

Every line of the first table applies the same weights, windows of the same size and overlap and
Gaussian weights to the same volume, without mirroring: this project's window with torch and with
OpenVINO, MONAI's ``sliding_window_inference`` and nnU-Net's predictor, where those are installed.
``whole`` covers every voxel, as the others do; ``brain`` leaves out windows without brain. Masks
are compared with those of torch in float32. Peak memory is that of the process so far. Without a
run the weights are random, which costs the same time; how many voxels differ is meaningful for
a trained run alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.inference.window import SlidingWindow, sliding_window_inference
from lesionwise.learning.losses import InstanceLoss
from lesionwise.learning.targets import CentersAndOffsets, Reference, Targets
from lesionwise.networks.blocks import init_head_bias
from lesionwise.networks.unet import UNet
from lesionwise.run.load_model import load_model

CPU = torch.device("cpu")


def phantom(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of brain with smooth noise and some bright balls; 0 outside."""
    index = np.indices(shape, dtype=np.float32)
    radii = [(n - 8) / 2 for n in shape]
    away = sum(((index[a] - (n - 1) / 2) / radii[a]) ** 2 for a, n in enumerate(shape))
    brain = np.asarray(away) <= 1
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), 1.5)
    image = (image - image[brain].mean()) / image[brain].std() / 2
    for center in np.argwhere(brain)[rng.integers(0, int(brain.sum()), 40)]:
        apart = sum((index[a] - center[a]) ** 2 for a in range(3))
        image += 3 * np.exp(-np.asarray(apart) / (2 * rng.uniform(1, 4) ** 2))
    return np.where(brain, image, 0).astype(np.float32), brain


def best_of(times: int, work: Callable[[], object]) -> float:
    """Least wall time of several runs, in seconds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def ours(
    computes: Callable[[torch.Tensor], torch.Tensor],
    targets: Targets,
    image: np.ndarray,
    brain: np.ndarray | None,
    size: tuple[int, int, int],
    window: SlidingWindow,
) -> np.ndarray:
    """The mask by this project's sliding window."""
    maps = sliding_window_inference(
        lambda patches: targets.activate(computes(patches)),
        [image], brain, size, targets.maps, window, CPU,
    )  # fmt: skip
    return maps[0] > 0.5


def monai_mask(
    network: nn.Module,
    targets: Targets,
    image: np.ndarray,
    size: tuple[int, int, int],
    overlap: float,
) -> np.ndarray:
    """The mask by MONAI's sliding window."""
    from monai.inferers.utils import sliding_window_inference

    with torch.inference_mode():
        maps = sliding_window_inference(
            torch.from_numpy(image)[None, None],
            size,
            1,
            lambda patches: targets.activate(network(patches)),
            overlap=overlap,
            mode="gaussian",
        )
    return np.asarray(maps[0, 0].numpy() > 0.5)


def nnunet_mask(
    network: nn.Module, image: np.ndarray, size: tuple[int, int, int], overlap: float, heads: int
) -> np.ndarray:
    """The mask by nnU-Net's predictor, which averages logits."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=1 - overlap,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=CPU,
        verbose=False,
        allow_tqdm=False,
    )
    settings: Any = predictor
    settings.network = network
    settings.configuration_manager = SimpleNamespace(patch_size=size)
    settings.label_manager = SimpleNamespace(num_segmentation_heads=heads)
    settings.allowed_mirroring_axes = None
    logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image)[None])
    return np.asarray((logits[1] > logits[0]).numpy())


def main() -> None:
    """Print one table for prediction, one for training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", default="16,32,64")
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--shape", default="128,160,128")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--run", help="a shipped model or a run folder; sets network and patch")
    parser.add_argument("--no-training", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    size: tuple[int, int, int] = (arguments.patch,) * 3
    targets: Targets = CentersAndOffsets()
    network: nn.Module = UNet(1, 6, [int(n) for n in arguments.features.split(",")])
    init_head_bias(network, targets.initial_logits)
    if arguments.run is not None:
        model = load_model(arguments.run, "cpu")
        network, size = model.predictor.network, model.recipe.method.samples.size_vox
        targets = model.recipe.method.objective.targets
    contiguous = network.to(memory_format=torch.contiguous_format).eval()
    i, j, k = (int(n) for n in arguments.shape.split(","))
    image, brain = phantom((i, j, k))
    overlap, heads = arguments.overlap, targets.out_channels
    full, low = (SlidingWindow(overlap=overlap, precision=p) for p in ("float32", "bfloat16"))
    ways: dict[str, Callable[[], np.ndarray]] = {
        "torch float32, whole": lambda: ours(contiguous, targets, image, None, size, full),
    }
    if importlib.util.find_spec("monai"):
        ways["MONAI, whole"] = lambda: monai_mask(contiguous, targets, image, size, overlap)
    if importlib.util.find_spec("nnunetv2"):
        ways["nnU-Net, whole"] = lambda: nnunet_mask(contiguous, image, size, overlap, heads)
    if has_openvino():
        exact, short = (OpenVinoNetwork(network, use_bf16=precision) for precision in (False, True))
        ways["OpenVINO float32, whole"] = lambda: ours(exact, targets, image, None, size, full)
        ways["OpenVINO bfloat16, whole"] = lambda: ours(short, targets, image, None, size, full)
        ways["OpenVINO bfloat16, brain"] = lambda: ours(short, targets, image, brain, size, full)
    masks: dict[str, np.ndarray] = {}
    print(f"{arguments.threads} threads, window {size}, volume {image.shape}")
    print(f"{'prediction':<26} seconds  memory_gib  differing voxels (of the reference's lesions)")
    for name, way in ways.items():
        masks[name] = way()  # compiles where something is to be compiled
        seconds = best_of(arguments.repeat, way)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        reference = masks["torch float32, whole"]
        inside = brain if name.endswith("brain") else np.ones_like(brain)
        differ = int(((masks[name] != reference) & inside).sum())
        print(
            f"{name:<26} {seconds:7.2f}  {peak:10.2f}  {differ} ({int(reference.sum())})",
            flush=True,
        )
    channels_last = network.to(memory_format=torch.channels_last_3d)
    seconds = best_of(
        arguments.repeat, lambda: ours(channels_last, targets, image, None, size, low)
    )
    print(f"{'torch bfloat16, whole':<26} {seconds:7.2f}")
    if not arguments.no_training:
        time_training(channels_last, targets, image, size, arguments.repeat)


def time_training(
    network: nn.Module,
    targets: Targets,
    image: np.ndarray,
    size: tuple[int, int, int],
    repeat: int,
) -> None:
    """Print seconds per patch, forward and backward, batches of two."""
    print("\ntraining         seconds per patch")
    network.train()
    part = tuple(slice(20, 20 + n) for n in size)
    batch = torch.from_numpy(image[part])
    batch = batch.expand(2, 1, *size).contiguous(memory_format=torch.channels_last_3d)
    instances = np.zeros(size, dtype=np.int32)
    instances[20:26, 20:26, 20:26] = 1
    made = targets.make(Reference(instances, (1.0, 1.0, 1.0)))
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
        print(f"{precision:<16} {best_of(2 * repeat, step) / 2:7.2f}", flush=True)


if __name__ == "__main__":
    main()
