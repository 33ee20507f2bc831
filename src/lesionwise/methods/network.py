"""A network trained with Lightning on random patches, applied window by window."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from lesionwise.learning.augment import IntensityAugmentation, LesionContrast, SpatialAugmentation
from lesionwise.learning.dataset import PatchDataset, channels, reference_of
from lesionwise.learning.losses import Loss
from lesionwise.learning.samplers import EpochSampler, PatchSampling
from lesionwise.learning.targets import Targets
from lesionwise.learning.window import SlidingWindow, computes_bfloat16, slide
from lesionwise.methods.selection import Selection
from lesionwise.networks.blocks import start_from
from lesionwise.types import (
    Finds,
    InputError,
    LesionMaps,
    Predictor,
    Progress,
    RunContext,
    Study,
    TrainingData,
)

WEIGHTS = "model.safetensors"
INITIAL = "initial.safetensors"
"""Weights to begin with, where they lie in the run folder; else the network's own start."""


@dataclass(frozen=True)
class NetworkMethod:
    """One network, one loss.

    Attributes:
        network: builds the untrained network.
        scans: channels of each visit, in order.
        targets: what the heads learn, and what they mean.
        loss: cost of the output against the targets.
        learning_rate: of Adam at the start; falls to 0 along half a cosine.
        epochs: to train.
        patch_size_vox: along i, j, k; multiples of what the network's pooling asks for.
        batch_size: patches per step.
        patches_per_epoch: an epoch is this many patches.
        finds: what is learned: the last visit's lesions, or the new ones among them.
        sampling: where patches lie.
        spatial, intensity: augmentation; None leaves it out.
        lesion_contrast: how often and how far lesions are dimmed; by default never.
        weight_decay: decoupled (AdamW).
        warmup: share of the training over which the rate rises.
        validate_every: epochs between validations.
        selection: which of the best weights by validation Dice becomes the model.
        window: how a volume is covered in prediction.
        validation_window: the same while training.
        precision: of the training's convolutions: "bfloat16" takes effect where the processor
            computes it natively. Weights and losses are float32 in any case.
    """

    network: Callable[[], nn.Module]
    scans: tuple[str, ...]
    targets: Targets
    loss: Loss
    learning_rate: float
    epochs: int
    patch_size_vox: tuple[int, int, int]
    batch_size: int
    patches_per_epoch: int
    finds: Finds = "lesions"
    sampling: PatchSampling = field(default_factory=PatchSampling)
    spatial: SpatialAugmentation | None = field(default_factory=SpatialAugmentation)
    intensity: IntensityAugmentation | None = field(default_factory=IntensityAugmentation)
    lesion_contrast: LesionContrast = field(default_factory=LesionContrast)
    weight_decay: float = 0.0
    warmup: float = 0.0
    validate_every: int = 5
    selection: Selection = field(default_factory=Selection)
    window: SlidingWindow = field(default_factory=SlidingWindow)
    validation_window: SlidingWindow = field(default_factory=lambda: SlidingWindow(overlap=0.25))
    precision: Literal["float32", "bfloat16"] = "bfloat16"

    def fit(self, data: TrainingData, run: RunContext) -> None:
        """Train, choose among the best weights, and leave ``model.safetensors``.

        ``run.folder`` also gets ``log.csv`` (a row per epoch), ``training.json`` (a summary),
        ``candidates/`` and ``checkpoints/``, from which a killed training goes on.

        Raises:
            InputError: If there is nothing to learn from, or a study lacks a scan or a mask.
        """
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            import lightning as L  # noqa: N812
            from lightning.pytorch.callbacks import ModelCheckpoint

            from lesionwise.learning import module

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        device = device_of(run.device)
        run.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(run.seed)
        network = self.network().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        start_from(network, self.targets.first_guess)
        if (run.folder / INITIAL).is_file():
            read_weights(network, run.folder / INITIAL)
        patches = PatchDataset(
            data.training,
            self.scans,
            self.targets,
            self.patch_size_vox,
            self.sampling,
            self.spatial,
            self.intensity,
            run.seed,
            self.lesion_contrast,
            self.finds,
        )
        loader = torch.utils.data.DataLoader(
            patches,
            batch_size=self.batch_size,
            sampler=EpochSampler(self.patches_per_epoch),
            num_workers=run.workers,
            persistent_workers=run.workers > 0,
        )

        def validate() -> Mapping[str, float]:
            predictor = NetworkPredictor(self, network, device, self.validation_window)
            return {"dsc": float(np.mean([_dsc(predictor, s) for s in data.validation]))}

        course = module.Course(
            folder=run.folder,
            epochs=self.epochs,
            max_minutes=run.max_minutes,
            validate=validate if len(data.validation) else None,
            validate_every=self.validate_every,
            keep=self.selection.top_k,
            progress=run.progress,
        )
        checkpoints = run.folder / "checkpoints"
        last = checkpoints / "last.ckpt"
        low = self.precision == "bfloat16" and computes_bfloat16(device)
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            max_epochs=self.epochs,
            min_epochs=0,
            precision="bf16-mixed" if low else "32-true",
            callbacks=[
                course,
                ModelCheckpoint(
                    checkpoints,
                    filename="last",
                    save_on_train_epoch_end=True,
                    enable_version_counter=False,
                ),
            ],
            logger=_logger(run.folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=10,
        )
        learner = module.Learner(
            network,
            self.loss,
            module.Optimization(self.learning_rate, self.weight_decay, self.warmup),
        )
        resume_from = str(last) if run.resume and last.exists() else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            trainer.fit(learner, loader, ckpt_path=resume_from)
        if trainer.interrupted:
            raise KeyboardInterrupt
        chosen = self._choose(course.candidates, data.validation, network, device, run)
        module.save_weights(network, run.folder / WEIGHTS)
        module.write_log_table(run.folder)
        summary = {
            "epochs": trainer.current_epoch,
            "steps": course.steps,
            "patches": course.steps * self.batch_size,
            "minutes": round(course.minutes, 2),
            "max_minutes": run.max_minutes,
            "training_studies": len(data.training),
            "validation_studies": len(data.validation),
            "device": str(device),
            "precision": "bfloat16" if low else "float32",
            "threads": torch.get_num_threads(),
            "chosen": chosen,
        }
        (run.folder / "training.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")

    def load(self, run: RunContext) -> Predictor:
        """The predictor of ``run.folder / "model.safetensors"``."""
        return self.with_weights(run.folder / WEIGHTS, run.device, run.progress)

    def with_weights(
        self, weights: Path, device: str = "auto", progress: Progress = lambda s, d, t: None
    ) -> NetworkPredictor:
        """A predictor with the weights of a safetensors file.

        Raises:
            InputError: If the file is missing, malformed, or of another network.
        """
        network = self.network()
        read_weights(network, weights)
        chosen = device_of(device)
        network = network.to(chosen, memory_format=torch.channels_last_3d).eval()  # type: ignore[call-overload]
        return NetworkPredictor(self, network, chosen, self.window, progress)

    def _choose(
        self,
        candidates: Sequence[Mapping[str, Any]],
        validation: Sequence[Study],
        network: nn.Module,
        device: torch.device,
        run: RunContext,
    ) -> dict[str, Any]:
        """Put the chosen weights into ``network``; the last ones where there was no validation."""
        if not candidates:
            return {"epoch": "last", "why": "no validation studies"}
        network.to(device).eval()
        scored: list[dict[str, float]] = []
        for done, candidate in enumerate(candidates):
            run.progress("selection", done, len(candidates))
            read_weights(network, run.folder / "candidates" / candidate["file"])
            predictor = NetworkPredictor(self, network, device, self.validation_window)
            scored.append(self.selection.score(predictor, validation, self.finds))
        best = self.selection.best(scored)
        read_weights(network, run.folder / "candidates" / candidates[best]["file"])
        return {
            "epoch": candidates[best]["epoch"],
            "why": self.selection.reason(len(candidates)),
            "candidates": [
                {"epoch": c["epoch"], **s} for c, s in zip(candidates, scored, strict=True)
            ],
        }


@dataclass(frozen=True, eq=False)
class NetworkPredictor:
    """A trained network, ready for prepared studies."""

    method: NetworkMethod
    network: nn.Module
    device: torch.device
    window: SlidingWindow
    progress: Progress = lambda stage, done, total: None

    def __call__(self, study: Study) -> LesionMaps:
        """Lesion maps on the grid of the study's last visit.

        Raises:
            InputError: If a visit lacks a scan that the method needs.
        """
        method = self.method
        images = channels(study, method.scans)
        visit = study.followup
        maps = slide(
            lambda patches: method.targets.activate(self.network(patches)),
            images,
            None if visit.brain is None else visit.brain.array,
            method.patch_size_vox,
            method.targets.maps,
            self.window,
            self.device,
            lambda done, total: self.progress("windows", done, total),
        )
        named = dict(zip(method.targets.maps, maps, strict=True))
        return LesionMaps(
            probability=named["probability"],
            grid=visit.scans[method.scans[0]].grid,
            center_heatmap=named.get("heatmap"),
            offsets_vox=maps[-3:] if "offset_i" in named else None,
        )


def read_weights(network: nn.Module, path: Path) -> None:
    """Put the weights of a safetensors file into ``network``.

    Raises:
        InputError: If the file is missing, malformed, or of another network.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        network.load_state_dict(load_file(str(path)))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a safetensors file ({_first_line(error)})") from error
    except RuntimeError as error:
        raise InputError(f"{path}: weights of another network ({_first_line(error)})") from error


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU, or the CPU where there is none.

    Raises:
        InputError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name}: no such device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name}: no GPU found here")
    return device


def _dsc(predictor: NetworkPredictor, study: Study) -> float:
    reference = reference_of(study, predictor.method.finds) > 0
    predicted = predictor(study).probability > predictor.method.selection.threshold
    both = int(reference.sum()) + int(predicted.sum())
    return 2 * int((reference & predicted).sum()) / both if both else 1.0


def _logger(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
