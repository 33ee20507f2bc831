"""nnU-Net as a method against nnU-Net's own trainer and predictor, on one network.

    python benchmarks/bench_nnunet.py --patch 64 --features 16 --batches 4

Draws cases with box lesions in an ellipsoid brain, plans and preprocesses them once, and then
times, each in this process and without worker processes:

- training: patches per second, batch preparation and augmentation included, of nnU-Net's
  ``nnUNetTrainer``, of ``LesionTrainer`` in float32 and bfloat16 from the same plans, and of
  the recipe ``pre-unet``, its widths chosen so that it has about as many parameters, by
  ``NetworkMethod`` on the same cases with the same patch and batch;
- prediction: seconds for one case with the same weights and the same overlap, without mirroring,
  of nnU-Net's ``nnUNetPredictor`` and of ours, and how many voxels of the mask differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lesionwise.inference.devices import supports_bfloat16
from lesionwise.inference.window import SlidingWindow
from lesionwise.learning.samples import Patches
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.methods.nnunet import Augmentation, Learning, Plans
from lesionwise.methods.nnunet.cases import Case
from lesionwise.methods.nnunet.workspace import Workspace, environment, quiet
from lesionwise.run.recipes import find_recipe
from lesionwise.types import Grid, RunContext, Study, TrainingData, Visit, Volume, no_progress


def draw(seed: int, shape: tuple[int, int, int]) -> Case:
    """A case of 1 mm with twenty box lesions."""
    rng = np.random.default_rng(seed)
    middle = np.array(shape)[:, None, None, None] / 2
    brain = ((np.indices(shape) - middle) ** 2 / (middle * 0.9) ** 2).sum(axis=0) < 1
    labels = np.zeros(shape, np.int32)
    for label in range(1, 21):
        i, j, k = (rng.integers(n // 3, 2 * n // 3) for n in shape)
        labels[i : i + 5, j : j + 4, k : k + 4] = label
    image = (rng.normal(100, 10, shape) + 60 * (labels > 0)) * brain
    return Case(image.astype(np.float32)[None], labels, (1.0, 1.0, 1.0))


def train_speed(trainer: Any, batches: int) -> float:
    """Patches per second over ``batches`` batches, after one that does not count."""
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    trainer.network.train()
    trainer.train_step(next(loader))
    start = time.perf_counter()
    for _ in range(batches):
        trainer.train_step(next(loader))
    return batches * trainer.batch_size / (time.perf_counter() - start)


def study_of(number: int, shape: tuple[int, int, int]) -> Study:
    """The case of that number as one visit."""
    case = draw(number, shape)
    grid = Grid(shape, np.eye(4))
    brain = Volume(case.images[0] != 0, grid)
    labels = {"instances": Volume(case.labels, grid)}
    visit = Visit({"flair": Volume(case.images[0], grid)}, labels, brain)
    return Study(f"{number}", (visit,))


def pre_unet(parameters: int) -> tuple[NetworkMethod, int]:
    """The recipe's method for one visit at the widths nearest to so many parameters, and theirs."""
    published = find_recipe("pre-unet").method
    assert isinstance(published, NetworkMethod)
    options = []
    for width in range(8, 49, 8):
        wide = tuple(width * factor for factor in (1, 2, 4, 8))
        network = partial(
            published.network.func,
            **{**published.network.keywords, "in_channels": 1, "features": wide},
        )
        count = sum(p.numel() for p in network().parameters())
        options.append((abs(count - parameters), count, network))
    _, count, network = min(options, key=lambda option: option[0])
    inference = Inference(SlidingWindow())
    return replace(published, network=network, task="lesions", inference=inference), count


def own_train_speed(
    method: NetworkMethod, studies: list[Study], patch: int, batches: int, folder: Path
) -> float:
    """Patches per second over ``batches`` batches of two, after an epoch that does not count."""
    assert isinstance(method.samples, Patches)
    size = (patch, patch, patch)
    short = replace(
        method,
        samples=replace(method.samples, size_vox=size, batch_size=2, per_epoch=2 * batches),
        optimization=replace(method.optimization, epochs=2),
    )
    short.fit(TrainingData(studies), RunContext(folder, seed=0, device="cpu"))
    minutes = pd.read_csv(folder / "log.csv")["minutes"]
    return 2 * batches / (60 * float(minutes.iloc[1] - minutes.iloc[0]))


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 160, 120))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, quiet():
        rows = measure(Path(name), args)
    print(f"patch {args.patch}³, {args.features} features, {torch.get_num_threads()} threads")
    print(f"bfloat16 native: {supports_bfloat16(torch.device('cpu'))}")
    for row in rows:
        print(row)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory of everything above: {peak:.1f} GB")


def measure(folder: Path, args: argparse.Namespace) -> list[str]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock  # noqa: N813
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from lesionwise.methods.nnunet import arrays, plan
    from lesionwise.methods.nnunet.predictor import NnunetPredictor, computed_by
    from lesionwise.methods.nnunet.trainer import LesionTrainer

    rows = []
    space = Workspace(folder)
    shape = tuple(args.shape)
    plans = Plans(patch_size_vox=(args.patch,) * 3, base_features=args.features, batch_size=2)
    with space.in_use():
        plan.write_raw(space, [draw(n, shape) for n in range(2)], [], ["flair"], False)
        plan.make_plans(space, plans, "3d_fullres", no_progress)
        made = arrays.preprocess(space, "3d_fullres", False, no_progress)
    described = json.loads((space.raw / "dataset.json").read_text(encoding="utf-8"))
    (space.preprocessed / "splits_final.json").write_bytes(
        (space.raw / "splits_final.json").read_bytes()
    )
    device = torch.device("cpu")
    learning = Learning()
    with space.in_use(), environment({"nnUNet_n_proc_DA": "0"}):
        stock.infer_dataset_class = lambda folder: arrays.NumpyDataset
        own = stock.nnUNetTrainer(
            {**made, "continue_training": False}, "3d_fullres", 0, described, device
        )
        rows.append(f"nnU-Net's trainer: {train_speed(own, args.batches):.3f} patches/s")
        for precision in ("float32", "bfloat16"):
            ours = LesionTrainer(made, "3d_fullres", 0, described, device)
            ours.use(replace(learning, precision=precision), Augmentation(), None, (0,))
            speed = train_speed(ours, args.batches)
            rows.append(f"LesionTrainer, {precision}: {speed:.3f} patches/s")
        parameters = sum(p.numel() for p in ours.network.parameters())
        method, count = pre_unet(parameters)
        studies = [study_of(n, shape) for n in range(2)]
        for precision in ("float32", "bfloat16"):
            speed = own_train_speed(
                replace(method, precision=precision),
                studies,
                args.patch,
                args.batches,
                folder / f"pre-unet-{precision}",
            )
            rows.append(f"pre-unet, {count / 1e6:.2f} M, {precision}: {speed:.3f} patches/s")
        network = ours.network.eval()
        ours.set_deep_supervision_enabled(False)
        rows.append(f"parameters: {parameters / 1e6:.2f} M")
        manager = PlansManager(made)
        configuration = manager.get_configuration("3d_fullres")
        data, labels, _, _ = arrays.NumpyDataset(
            str(space.preprocessed / configuration.data_identifier)
        ).load_case("train_0000")
        image = np.array(data)
        reference = None
        brain = np.asarray(labels[0] >= 0)
        own = nnUNetPredictor(
            device=device,
            use_mirroring=False,
            perform_everything_on_device=False,
            allow_tqdm=False,
        )
        own.manual_initialization(network, manager, configuration, None, described, "", None)
        whole = torch.from_numpy(image)
        kinds: list[tuple[str, Callable[[], Any]]] = [
            ("nnU-Net's predictor", lambda: own.predict_sliding_window_return_logits(whole).numpy())
        ]
        patch = whole[None, :, : args.patch, : args.patch, : args.patch]
        label_manager = manager.get_label_manager(described)
        for engine in ("torch", "openvino"):
            for precision in ("float32", "bfloat16"):
                computes = computed_by(network, engine, precision, False, device)
                with torch.inference_mode():
                    computes(patch)  # compiles
                ours_too = NnunetPredictor(
                    plans=made,
                    dataset=described,
                    configuration="3d_fullres",
                    networks=(computes,),
                    scans=("flair",),
                    mirror_axes=(),
                    lesion_labels=(1,),
                    within_brain=True,
                    keep_voxels=False,
                    heads=False,
                    overlap=0.5,
                    device=device,
                    precision=precision,
                )
                predict = partial(
                    ours_too._logits, image, brain, configuration.patch_size, label_manager
                )
                kinds.append((f"ours, {engine} {precision}", predict))
        for name, run in kinds:
            seconds, logits = timed(run)
            mask = (logits[1] > logits[0]) & brain
            reference = mask if reference is None else reference
            differing = int((mask != reference).sum())
            rows.append(
                f"{name}: {seconds:.1f} s, {differing} of {int(reference.sum())} mask voxels differ"
            )
    return rows


if __name__ == "__main__":
    main()
