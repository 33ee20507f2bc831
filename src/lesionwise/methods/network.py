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
from scipy.special import expit
from torch import nn

from lesionwise.inference.devices import device_of, devices_of, supports_bfloat16
from lesionwise.inference.openvino import OpenVinoNetwork, has_openvino
from lesionwise.inference.weights import INITIAL, WEIGHTS, read_weights, save_weights
from lesionwise.inference.window import SlidingWindow, sliding_window_inference
from lesionwise.learning.dataset import PatchDataset, channels, reference_of
from lesionwise.learning.intensity_transforms import (
    IntensityTransform,
    LesionContrast,
    other_scanners,
)
from lesionwise.learning.losses import Loss
from lesionwise.learning.normalization import WholeVolume
from lesionwise.learning.optimizers import AdamW, Optimizer
from lesionwise.learning.samplers import EpochSampler, PatchSampling, Sampling
from lesionwise.learning.schedules import CosineAnnealing, EarlyStopping, Schedule
from lesionwise.learning.spatial_transforms import SpatialAugmentation
from lesionwise.learning.targets import Targets
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
    silent,
)

Computes = Callable[[torch.Tensor], torch.Tensor]
UNSEEN_LOGIT = np.float32(-16.0)
"""A probability of 1e-7, where no window looked."""


@dataclass(frozen=True)
class NetworkMethod:
    """One network, one loss.

    Attributes:
        network: builds the untrained network.
        scans: channels of each visit, in order.
        targets: what the heads learn, and what they mean.
        loss: cost of the output against the targets.
        learning_rate: at the start.
        epochs: to train.
        patch_size_vox: along i, j, k; multiples of what the network's pooling asks for.
        batch_size: patches per step.
        patches_per_epoch: an epoch is this many patches.
        finds: what is learned: the last visit's lesions, or the new ones among them.
        sampling: where patches lie.
        spatial, intensity: augmentation; None leaves it out.
        lesion_contrast: how often and how far lesions are dimmed; by default never.
        weight_decay: as the optimizer takes it.
        warmup: share of the training over which the rate rises.
        optimizer: None is ``AdamW()``.
        schedule: of the learning rate; None is ``CosineAnnealing()``.
        stop: ends the training early; None never does.
        whole_volume: augments and normalizes volumes, not patches; prediction normalizes alike.
        sync_batch_norm: True takes a batch's statistics over all devices that train together.
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
    sampling: Sampling = field(default_factory=PatchSampling)
    spatial: SpatialAugmentation | None = field(default_factory=SpatialAugmentation)
    intensity: IntensityTransform | None = field(default_factory=other_scanners)
    lesion_contrast: LesionContrast = field(default_factory=LesionContrast)
    weight_decay: float = 0.0
    warmup: float = 0.0
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    stop: EarlyStopping | None = None
    whole_volume: WholeVolume | None = None
    sync_batch_norm: bool | None = None
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
        if not any(reference_of(study, self.finds).any() for study in data.training):
            raise InputError("no lesion lies in the training studies: there is nothing to learn")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            import lightning as L  # noqa: N812
            from lightning.pytorch.callbacks import ModelCheckpoint

            from lesionwise.learning import module

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        device, together = devices_of(run.device)
        run.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(run.seed)
        network = self.network().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        start_from(network, self.targets.first_guess)
        if (run.folder / INITIAL).is_file():
            read_weights(network, run.folder / INITIAL)
        loader = self._batches(data.training, run)
        course = module.Course(
            folder=run.folder,
            epochs=self.epochs,
            max_minutes=run.max_minutes,
            validate=Validation(self, data.validation) if len(data.validation) else None,
            validate_every=self.validate_every,
            keep=self.selection.top_k,
            progress=run.progress if len(together) == 1 else silent,
            ranked_by=self.selection.ranked_by,
            stop=self.stop,
        )
        checkpoints = run.folder / "checkpoints"
        last = checkpoints / "last.ckpt"
        low = self.precision == "bfloat16" and supports_bfloat16(device)
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=together if device.type == "cuda" else len(together),
            strategy="auto" if len(together) == 1 else "ddp_spawn",
            sync_batchnorm=bool(self.sync_batch_norm) and len(together) > 1,
            use_distributed_sampler=False,
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
        optimization = module.Optimization(
            self.learning_rate,
            self.weight_decay,
            self.warmup,
            self.optimizer or AdamW(),
            self.schedule or CosineAnnealing(),
        )
        learner = module.Learner(network, self.loss, optimization)
        resume_from = str(last) if run.resume and last.exists() else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            trainer.fit(learner, loader, ckpt_path=resume_from)
        if trainer.interrupted:
            raise KeyboardInterrupt
        if len(together) > 1:  # what the processes counted lies in their checkpoint alone
            course.load_state_dict(module.course_of(last))
        chosen = self._choose(course.candidates, data.validation, network, device, run)
        save_weights(network, run.folder / WEIGHTS)
        module.write_log_table(run.folder)
        summary = {
            "epochs": len(course.history),
            "steps": course.steps,
            "patches": course.steps * self.batch_size * len(together),
            "minutes": round(course.minutes, 2),
            "max_minutes": run.max_minutes,
            "training_studies": len(data.training),
            "validation_studies": len(data.validation),
            "device": str(device),
            "devices": len(together),
            "precision": "bfloat16" if low else "float32",
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in network.parameters()),
            "chosen": chosen,
        }
        (run.folder / "training.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")

    def _batches(
        self, studies: Sequence[Study], run: RunContext
    ) -> torch.utils.data.DataLoader[dict[str, torch.Tensor]]:
        patches = PatchDataset(
            studies,
            self.scans,
            self.targets,
            self.patch_size_vox,
            self.sampling,
            self.spatial,
            self.intensity,
            run.seed,
            self.lesion_contrast,
            self.finds,
            self.whole_volume,
        )
        return torch.utils.data.DataLoader(
            patches,
            batch_size=self.batch_size,
            sampler=EpochSampler(self.patches_per_epoch),
            num_workers=run.workers,
            persistent_workers=run.workers > 0,
        )

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
        computes: Computes = network
        if self.window.engine == "openvino" and chosen.type == "cpu" and has_openvino():
            low = self.window.precision == "bfloat16" and supports_bfloat16(chosen)
            computes = OpenVinoNetwork(network, use_bf16=low)
        return NetworkPredictor(self, network, chosen, self.window, progress, computes)

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
    """A trained network, ready for prepared studies.

    ``computes`` takes the network's place in computing; None is the network itself.
    """

    method: NetworkMethod
    network: nn.Module
    device: torch.device
    window: SlidingWindow
    progress: Progress = lambda stage, done, total: None
    computes: Computes | None = None

    def __call__(self, study: Study) -> LesionMaps:
        """Lesion maps on the grid of the study's last visit.

        Raises:
            InputError: If a visit lacks a scan that the method needs.
        """
        method = self.method
        images = channels(study, method.scans)
        if method.whole_volume is not None:
            images = [method.whole_volume.normalize(image) for image in images]
        visit = study.followup
        computes = self.computes or self.network
        maps = sliding_window_inference(
            lambda patches: method.targets.activate(computes(patches)),
            images,
            None if visit.brain is None else visit.brain.array,
            method.patch_size_vox,
            method.targets.maps,
            self.window,
            self.device,
            on_progress=lambda done, total: self.progress("windows", done, total),
        )
        named = dict(zip(method.targets.maps, maps, strict=True))
        extra = {}
        if "logit" in named:  # exactly 0 is what no window saw
            logit = np.where(named["logit"] == 0, UNSEEN_LOGIT, named["logit"])
            named["probability"] = expit(logit)
            extra = {"logits": logit}
        return LesionMaps(
            probability=named["probability"],
            grid=visit.scans[method.scans[0]].grid,
            center_heatmap=named.get("heatmap"),
            offsets_vox=maps[-3:] if "offset_i" in named else None,
            extra=extra,
        )


@dataclass(frozen=True, eq=False)
class Validation:
    """A network's scores on the validation studies, while it is trained.

    Processes that train together share the studies.
    """

    method: NetworkMethod
    studies: Sequence[Study]

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """The mean of each score that ranks weights, and ``dsc``.

        A study where a score is not defined is left out of its mean.
        """
        method = self.method
        device = next(network.parameters()).device
        predictor = NetworkPredictor(method, network, device, method.validation_window)
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if together else 0
        world = torch.distributed.get_world_size() if together else 1
        mine = [
            method.selection.scores_of_one(predictor, self.studies[n], method.finds)
            for n in range(rank, len(self.studies), world)
        ]
        all_of_them: list[list[dict[str, float]]] = [mine]
        if together:
            all_of_them = [[] for _ in range(world)]
            torch.distributed.all_gather_object(all_of_them, mine)
        rows = [row for part in all_of_them for row in part]
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: float(np.mean([r[name] for r in rows if name in r])) for name in names}


def _logger(folder: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")
