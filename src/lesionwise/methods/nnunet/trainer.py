"""nnU-Net's trainer, with its numbers read from the recipe's settings. Imports nnunetv2."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.dice import get_tp_fp_fn_tn
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from lesionwise.inference.devices import supports_bfloat16
from lesionwise.io.files import atomic_path
from lesionwise.learning.divergence import FiniteSteps
from lesionwise.learning.exact_gradients import with_exact_gradients
from lesionwise.learning.schedules import TrainingProgress
from lesionwise.methods.nnunet.arrays import NumpyDataset
from lesionwise.methods.nnunet.batches import SeededBatches, batches, set_seed
from lesionwise.methods.nnunet.cases import AXES
from lesionwise.methods.nnunet.checkpoints import set_weights
from lesionwise.methods.nnunet.losses import SEGMENTATION, HeadsLoss
from lesionwise.methods.nnunet.networks import network_of
from lesionwise.methods.nnunet.settings import Augmentation, InstanceHeads, Learning
from lesionwise.methods.nnunet.transforms import adapt
from lesionwise.processes import environment
from lesionwise.types import Progress, no_progress

HEADS = 4
"""Channels beyond the segmentation: a heatmap and three offsets."""
MINUTES_BETWEEN_CHECKPOINTS = 10.0
DROPOUT = 2
"""Tells what the network draws from what batches of training (0) and validation (1) draw."""


class LesionTrainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's trainer with a recipe's settings (``use``); everything else is nnU-Net's own.

    Attributes:
        seed: every batch draws from it and its own number, and dropout from it and the epoch's;
            so trainings with and without workers are alike, and so is a resumed one.
        workers: processes that prepare batches of training; 0 prepares them in this one.
        max_minutes, max_steps: limits of the training; the schedule is fitted into them.
        steps: optimizer steps so far.
        progress: called with each epoch.
    """

    dataloader_train: Any
    dataloader_val: Any
    seed = 0
    workers = 0
    max_minutes: float | None = None
    max_steps: int | None = None
    steps = 0
    progress: Progress = staticmethod(no_progress)

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cpu"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__({**plans, "continue_training": False}, configuration, fold,
                         dataset_json, device)  # fmt: skip
        self.device = device
        self.my_init_kwargs["plans"] = plans
        self.minutes_before = 0.0
        self.started = self.saved = time.monotonic()
        self.finite = FiniteSteps()
        self.logger.plot_progress_png = lambda folder: None
        self.use(Learning(), Augmentation(), None, ())

    def use(
        self,
        learning: Learning,
        augmentation: Augmentation,
        heads: InstanceHeads | None,
        last_visit: Sequence[int],
    ) -> None:
        """Train by these settings; call it before ``initialize``.

        nnU-Net's own signature, which checkpoints are read back by, has no place for them.

        Args:
            last_visit: channels of the last visit, for lesion enhancement.
        """
        self.learning, self.augmentation, self.heads = learning, augmentation, heads
        self.last_visit = tuple(last_visit)
        self.initial_lr = learning.learning_rate
        self.weight_decay = learning.weight_decay
        self.oversample_foreground_percent = learning.oversample_lesions
        self.num_iterations_per_epoch = learning.batches_per_epoch
        self.num_val_iterations_per_epoch = learning.validation_batches
        self.num_epochs = learning.epochs
        self.save_every = learning.save_every

    @property
    def minutes(self) -> float:
        """Wall time spent on this training, earlier attempts included."""
        return self.minutes_before + (time.monotonic() - self.started) / 60

    @property
    def fraction(self) -> float:
        """How much of the training is done, 0 to 1."""
        fraction: float = self.current_epoch / self.num_epochs
        if self.max_steps is not None:
            fraction = max(fraction, self.steps / self.max_steps)
        if self.max_minutes is not None:
            fraction = max(fraction, self.minutes / self.max_minutes)
        return min(1.0, fraction)

    @property
    def _use_bf16(self) -> bool:
        """In bfloat16 on a CPU that computes it natively; on a GPU nnU-Net decides."""
        asked = self.learning.precision == "bfloat16" and self.device.type == "cpu"
        return asked and supports_bfloat16(self.device)

    def print_to_log_file(
        self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True
    ) -> None:
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)

    def _save_debug_information(self) -> None:
        """Nothing: it would name the machine."""

    def plot_network_architecture(self) -> None:
        """Nothing."""

    def initialize(self) -> None:
        self._set_batch_size_and_oversample()
        self.num_input_channels = len(self.dataset_json["channel_names"])
        network = network_of(
            self.configuration_manager,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads + (HEADS if self.heads else 0),
            deep_supervision=self.enable_deep_supervision,
        ).to(self.device)
        if self._use_bf16:
            with_exact_gradients(network)
        self.network: Any = torch.compile(network) if self._do_i_compile() else network
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.loss = self._build_loss()
        self.dataset_class = NumpyDataset
        self.was_initialized = True

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        learning = self.learning
        optimizer = learning.optimizer.build(
            self.network, learning.learning_rate, learning.weight_decay
        )
        return optimizer, _Schedule(self)

    def _build_loss(self) -> Any:
        loss = super()._build_loss()
        return loss if self.heads is None else HeadsLoss(loss, self.heads)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:  # noqa: N802
        rotation, flat, first_patch, mirror = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        augmentation = self.augmentation
        if augmentation.rotation_deg is not None:
            radians = float(np.deg2rad(augmentation.rotation_deg))
            rotation = (-radians, radians)
        if augmentation.mirror is not None:
            # arrays lie as k, j, i before nnU-Net's own transposition
            order = self.plans_manager.transpose_forward
            places = [order.index(2 - AXES.index(axis)) for axis in augmentation.mirror]
            missing = 3 - len(self.configuration_manager.patch_size)
            mirror = tuple(sorted(place - missing for place in places if place >= missing))
        self.inference_allowed_mirroring_axes = mirror or None
        return rotation, flat, first_patch, mirror

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        return self._adapted(nnUNetTrainer.get_training_transforms(*args, **kwargs))

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> Any:
        return self._adapted(nnUNetTrainer.get_validation_transforms(*args, **kwargs))

    def _adapted(self, stock: Any) -> Any:
        spacing_mm = self.configuration_manager.spacing
        return adapt(stock, self.augmentation, self.heads, spacing_mm, self.last_visit)

    def run_training(self) -> None:
        """nnU-Net's loop, which also ends at the limits of time and steps."""
        self.on_train_start()
        while self.current_epoch < self.num_epochs and self.fraction < 1:
            self.on_epoch_start()
            self.on_train_epoch_start()
            losses = []
            for _ in range(self.num_iterations_per_epoch):
                losses.append(self.train_step(next(self.dataloader_train)))
                self.steps += 1
                self.finite.may_take(float(losses[-1]["loss"]))
                if self._at_limit():
                    break
            self.on_train_epoch_end(losses)
            with torch.no_grad():
                self.on_validation_epoch_start()
                seen = [
                    self.validation_step(next(self.dataloader_val))
                    for _ in range(self.num_val_iterations_per_epoch)
                ]
                self.on_validation_epoch_end(seen)
            self.on_epoch_end()
        self.on_train_end()

    def _at_limit(self) -> bool:
        out_of_time = self.max_minutes is not None and self.minutes >= self.max_minutes
        return out_of_time or (self.max_steps is not None and self.steps >= self.max_steps)

    def get_dataloaders(self) -> tuple[Iterator[Any], Iterator[Any]]:
        """Endless batches of training and validation, from the epoch that is next on.

        nnU-Net's own worker processes would draw without a seed.
        """
        with environment({"nnUNet_n_proc_DA": "0"}):
            loaders = super().get_dataloaders()
        training, validation = (
            SeededBatches(each.data_loader, self.seed, kind) for kind, each in enumerate(loaders)
        )
        pin = self.device.type == "cuda"
        done = self.current_epoch
        return (
            batches(training, done * self.num_iterations_per_epoch, self.workers, pin_memory=pin),
            batches(
                validation,
                done * self.num_val_iterations_per_epoch,
                min(1, self.workers),
                pin_memory=pin,
            ),
        )

    def on_train_end(self) -> None:
        super().on_train_end()
        self.dataloader_train = self.dataloader_val = None  # ends the worker processes

    def on_epoch_start(self) -> None:
        set_seed(self.seed, DROPOUT, self.current_epoch)
        super().on_epoch_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if not self._use_bf16:
            return super().train_step(batch)  # type: ignore[no-any-return]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            output = self.network(batch["data"])
        loss = self.loss(_as_float(output), batch["target"])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        if torch.isfinite(norm):  # else every weight would be NaN
            self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy()}

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.heads is None:
            return super().validation_step(batch)  # type: ignore[no-any-return]
        data = batch["data"].to(self.device)
        target = [part.to(self.device) for part in batch["target"]]
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            output = self.network(data)
            loss = self.loss(output, target)
        found = output[0][:, :SEGMENTATION].argmax(1, keepdim=True)
        one_hot = torch.cat([found == 0, found == 1], dim=1).float()
        axes = [0, *range(2, one_hot.ndim)]
        tp, fp, fn, _ = get_tp_fp_fn_tn(one_hot, target[0].long(), axes=axes)
        counts = {"tp_hard": tp, "fp_hard": fp, "fn_hard": fn}
        return {
            "loss": loss.cpu().numpy(),
            **{name: count[1:].cpu().numpy() for name, count in counts.items()},
        }

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        tp, fp, fn = (
            np.sum([part[name] for part in val_outputs], axis=0).astype(float)
            for name in ("tp_hard", "fp_hard", "fn_hard")
        )
        both = 2 * tp + fp + fn
        # nothing to find and nothing found is right
        dice = np.where(both > 0, 2 * tp / np.maximum(both, 1), 1.0)
        epoch = self.current_epoch
        self.logger.log("mean_fg_dice", float(dice.mean()), epoch)
        self.logger.log("dice_per_class_or_region", [float(d) for d in dice], epoch)
        losses = [float(part["loss"]) for part in val_outputs]
        self.logger.log("val_losses", float(np.mean(losses)), epoch)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        done = self.current_epoch
        waited = (time.monotonic() - self.saved) / 60
        if waited > MINUTES_BETWEEN_CHECKPOINTS and done < self.num_epochs:
            self.current_epoch -= 1
            self.save_checkpoint(str(Path(self.output_folder) / "checkpoint_latest.pth"))
            self.current_epoch += 1
        self.progress("training", done, self.num_epochs)

    def save_checkpoint(self, filename: str) -> None:
        """A checkpoint that nnU-Net reads too; the file appears complete or not at all."""
        network = getattr(self.network, "_orig_mod", self.network)
        init = {name: self.my_init_kwargs[name] for name in ("plans", "configuration", "fold")}
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None
            if self.grad_scaler is None
            else self.grad_scaler.state_dict(),
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": {**init, "dataset_json": self.dataset_json},
            "trainer_name": "LesionTrainer" if self.heads else "nnUNetTrainer",
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "minutes": self.minutes,
            "steps": self.steps,
        }
        path = Path(filename)
        buffer = io.BytesIO()  # torch names no reason when the disk does not take a file
        torch.save(checkpoint, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        if path.name == "checkpoint_latest.pth":
            self.saved = time.monotonic()

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Go on from what ``read_checkpoint`` returned (nnU-Net's own would unpickle a file)."""
        held = filename_or_checkpoint
        network = getattr(self.network, "_orig_mod", self.network)
        set_weights(network, held["network_weights"], "checkpoint")
        self.optimizer.load_state_dict(held["optimizer_state"])
        if self.grad_scaler is not None and held["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(held["grad_scaler_state"])
        self.logger.load_checkpoint(held["logging"])
        self.current_epoch = held["current_epoch"]
        self._best_ema = held["_best_ema"]
        self.inference_allowed_mirroring_axes = held["inference_allowed_mirroring_axes"]
        self.minutes_before = float(held["minutes"])
        whole = self.current_epoch * self.num_iterations_per_epoch
        self.steps = int(held.get("steps", whole))  # of earlier versions: whole epochs
        self.started = time.monotonic()

    def history(self) -> list[dict[str, float]]:
        """The log, a row for each epoch that has ended."""
        columns = {
            "learning_rate": "lrs",
            "total": "train_losses",
            "validation_loss": "val_losses",
            "validation_dsc": "mean_fg_dice",
        }
        values = {name: self.logger.get_value(own, None) for name, own in columns.items()}
        ended = min(len(column) for column in values.values())
        return [
            {
                "epoch": epoch + 1,
                "steps": (epoch + 1) * self.num_iterations_per_epoch,
                **{name: float(column[epoch]) for name, column in values.items()},
            }
            for epoch in range(ended)
        ]


class _Schedule:
    """Sets the learning rate of each epoch as the settings say."""

    def __init__(self, trainer: LesionTrainer) -> None:
        self.trainer = trainer

    def step(self, epoch: int) -> None:
        trainer = self.trainer
        progress = TrainingProgress(trainer.fraction, trainer.num_epochs, trainer.history()[:epoch])
        factor = trainer.learning.schedule.factor(progress)
        for group in trainer.optimizer.param_groups:
            group["lr"] = factor * trainer.initial_lr


def _as_float(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.float()
    return [part.float() for part in output]
