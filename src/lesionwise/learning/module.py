"""How a network's weights are learned: steps, schedule, validation, what survives a kill.

Imports Lightning, so nothing but a training imports this module.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import nn

from lesionwise.inference.weights import save_weights
from lesionwise.learning.losses import Loss
from lesionwise.learning.optimizers import Optimizer
from lesionwise.learning.schedules import EarlyStopping, Schedule, TrainingProgress
from lesionwise.types import Progress


@dataclass(frozen=True)
class Optimization:
    """An optimizer and the course of its learning rate.

    Attributes:
        learning_rate: at the start.
        weight_decay: as the optimizer takes it.
        warmup: share of the training over which the rate rises from 0.
        optimizer, schedule: as they say.
    """

    learning_rate: float
    weight_decay: float
    warmup: float
    optimizer: Optimizer
    schedule: Schedule

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        return self.optimizer.build(network, self.learning_rate, self.weight_decay)

    def rate(self, at: TrainingProgress) -> float:
        """The learning rate at that point of the training."""
        if at.fraction < self.warmup:
            return self.learning_rate * at.fraction / self.warmup
        return self.learning_rate * self.schedule.factor(at)


class Learner(L.LightningModule):
    """A network with its loss."""

    def __init__(self, network: nn.Module, loss: Loss, optimization: Optimization) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.optimization = optimization

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last_3d)
        parts = self.loss(self.network(image), batch)
        values = {name: part.detach() for name, part in parts.items()}
        self.log_dict(values, on_epoch=True, logger=False)
        return parts["total"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimization.build(self.network)


class Course(L.Callback):
    """Leads a training to its end: learning rate, time limit, validation, log, best weights.

    With a time limit the schedule follows whichever is further, the share of the steps or
    the share of the time, so a limited training still ends with a rate of 0. Time spent
    before a kill counts.

    Args:
        folder: of the run; gets ``log.csv`` and ``candidates/``.
        epochs: to train, if time allows.
        max_minutes: None is no limit.
        validate: gives scores by name of the network as it is; None where there is nothing to
            validate on.
        validate_every: epochs.
        keep: how many of the best weights are kept.
        progress: told of each epoch.
        ranked_by: names of the scores whose sum ranks weights.
        stop: ends the training early; None never does.
    """

    def __init__(
        self,
        folder: Path,
        epochs: int,
        max_minutes: float | None,
        validate: Callable[[nn.Module], Mapping[str, float]] | None,
        validate_every: int,
        keep: int,
        progress: Progress,
        ranked_by: Sequence[str] = ("dsc",),
        stop: EarlyStopping | None = None,
    ) -> None:
        self.folder = folder
        self.epochs = epochs
        self.max_minutes = max_minutes
        self.validate = validate
        self.validate_every = validate_every
        self.keep = keep
        self.progress = progress
        self.ranked_by = tuple(ranked_by)
        self.stop = stop
        self.minutes_before = 0.0
        self.started = time.monotonic()
        self.steps = 0
        self.candidates: list[dict[str, Any]] = []
        self.history: list[dict[str, Any]] = []

    @property
    def minutes(self) -> float:
        """Wall time spent on this run, earlier attempts included."""
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def state_dict(self) -> dict[str, Any]:
        return {
            "minutes": self.minutes,
            "steps": self.steps,
            "candidates": self.candidates,
            "history": self.history,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.minutes_before = state_dict["minutes"]
        self.steps = state_dict["steps"]
        self.candidates = list(state_dict["candidates"])
        self.history = list(state_dict.get("history", ()))
        self.started = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.stop is not None and self.stop.should_stop(self.history):
            trainer.should_stop = True

    def share(self, trainer: L.Trainer) -> float:
        """How much of the training lies behind, 0 to 1."""
        batches = max(1, int(trainer.num_training_batches))
        share = self.steps / (self.epochs * batches)
        if self.max_minutes is not None:
            share = max(share, self.minutes / self.max_minutes)
        return min(1.0, share)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Learner)
        progress = TrainingProgress(self.share(trainer), self.epochs, self.history)
        rate = pl_module.optimization.rate(progress)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.steps += 1
        if self.max_minutes is None:
            return
        # clocks differ between processes that train together: one is enough to end all
        if trainer.strategy.reduce_boolean_decision(self.minutes >= self.max_minutes, all=False):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        epoch = trainer.current_epoch + 1
        last = epoch >= self.epochs or trainer.should_stop
        row: dict[str, Any] = {"epoch": epoch, "steps": self.steps}
        row["minutes"] = round(self.minutes, 2)
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        for name, value in trainer.callback_metrics.items():
            if name.endswith("_epoch"):
                row[name.removesuffix("_epoch")] = float(value)
        if self.validate is not None and (last or epoch % self.validate_every == 0):
            pl_module.network.eval()
            scores = self.validate(pl_module.network)
            pl_module.network.train()
            row |= {f"validation_{name}": value for name, value in scores.items()}
            self._keep(epoch, scores, pl_module.network, trainer.is_global_zero)
        self.history.append(row)
        if self.stop is not None and self.stop.should_stop(self.history):
            trainer.should_stop = True
        if trainer.is_global_zero:
            self._log(row)
            for logger in trainer.loggers:
                logger.log_metrics({name: row[name] for name in row if name != "epoch"}, epoch)
            self.progress("training", epoch, self.epochs)

    def _keep(
        self, epoch: int, scores: Mapping[str, float], network: nn.Module, write: bool
    ) -> None:
        name = f"epoch-{epoch:04d}.safetensors"
        folder = self.folder / "candidates"
        ranked = [c for c in self.candidates if c["file"] != name]
        ranked.append({"file": name, "epoch": epoch, **scores})
        ranked.sort(key=lambda c: (-sum(c.get(score, 0.0) for score in self.ranked_by), c["epoch"]))
        self.candidates = ranked[: self.keep]
        if not write:
            return
        folder.mkdir(exist_ok=True)
        if any(c["file"] == name for c in self.candidates):
            save_weights(network, folder / name)
        kept = {c["file"] for c in self.candidates}
        for path in folder.glob("epoch-*.safetensors"):
            if path.name not in kept:
                path.unlink()

    def _log(self, row: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def course_of(checkpoint: Path) -> dict[str, Any]:
    """The state of the ``Course`` in one of Lightning's checkpoints."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    return dict(next(value for name, value in state.items() if name.startswith("Course")))


def write_log_table(folder: Path) -> None:
    """``log.jsonl``, one line per epoch, as the table ``log.csv``.

    Where a resumed run repeated an epoch the later line counts.
    """
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["epoch"]: row for row in map(json.loads, lines)}
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    with (folder / "log.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows[epoch] for epoch in sorted(rows))
