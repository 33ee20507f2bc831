"""The training loop: steps, learning rate, validation, log, and what survives a kill.

Imports Lightning, so nothing but a training imports this module.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", module=r"lightning\.")
    import lightning as L  # noqa: N812
    from lightning.pytorch.callbacks import ModelCheckpoint

from lesionwise.inference.weights import save_weights
from lesionwise.inference.window import call_network
from lesionwise.io.files import write_text
from lesionwise.learning.checkpoints import LAST, AtomicCheckpoints, checkpoint_to_resume
from lesionwise.learning.divergence import FiniteSteps
from lesionwise.learning.exact_gradients import with_exact_gradients
from lesionwise.learning.objective import Objective
from lesionwise.learning.optimization import Optimization
from lesionwise.learning.parts import Part
from lesionwise.learning.schedules import TrainingProgress
from lesionwise.types import InputError, Progress

CANDIDATES = "candidates"
"""Folder of a run with the best weights by validation."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What a training needs beside its data.

    Attributes:
        network: as it begins.
        parts: each with its module.
        objective: what is minimized.
        optimization: optimizer, learning rate, length.
        validate: gives scores by name of the network as it is; None where there is nothing to
            validate on.
        validation_loss: batches on which the losses are computed after each epoch; None: none.
        validate_every: epochs between validations; not used without ``validate``.
        keep: how many of the best weights are kept.
        ranked_by: names of the scores whose sum ranks weights.
        precision: "bf16-mixed" or "32-true", as Lightning calls it.
        sync_batch_norm: take a batch's statistics over all devices.
        accelerator, devices: what it runs on.
    """

    network: nn.Module
    parts: Sequence[tuple[Part, nn.Module]]
    objective: Objective
    optimization: Optimization
    validate: Callable[[nn.Module], Mapping[str, float]] | None
    validation_loss: torch.utils.data.DataLoader[Any] | None
    validate_every: int
    keep: int
    ranked_by: Sequence[str]
    precision: Any
    sync_batch_norm: bool
    accelerator: str
    devices: list[int]


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        epochs, steps: that were made.
        minutes: wall time, earlier attempts included.
        candidates: the best weights by validation, best first: ``file``, ``epoch`` and scores.
    """

    epochs: int
    steps: int
    minutes: float
    candidates: Sequence[Mapping[str, Any]]


def fit(
    setup: Setup,
    batches: torch.utils.data.DataLoader[Any],
    folder: Path,
    *,
    resume: bool,
    max_minutes: float | None,
    max_steps: int | None = None,
    on_progress: Progress,
) -> Outcome:
    """Train; ``setup.network`` holds the last weights afterwards.

    ``folder`` gets ``log.jsonl`` and ``log.csv`` (a row per epoch), ``candidates/`` and
    ``checkpoints/``, from which a killed training resumes. ``max_minutes`` and ``max_steps``
    may end it before its epochs; the schedule of the learning rate is fitted to them.

    Raises:
        InputError: If a checkpoint cannot be read or written, if the time limit ends the
            training within its first step, or if the training diverges (``FiniteSteps``).
        KeyboardInterrupt: If the training was interrupted.

    Example:
        >>> outcome = fit(
        ...     setup, batches, Path("run"), resume=False, max_minutes=10, on_progress=no_progress
        ... )  # doctest: +SKIP
        >>> outcome.epochs <= setup.optimization.epochs  # doctest: +SKIP
        True
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    alone = len(setup.devices) == 1
    callback = TrainingCallback(setup, folder, max_minutes, max_steps, on_progress)
    checkpoints = folder / "checkpoints"
    trainer = L.Trainer(
        accelerator=setup.accelerator,
        devices=setup.devices if setup.accelerator == "gpu" else len(setup.devices),
        strategy="auto" if alone else "ddp_spawn",
        plugins=[AtomicCheckpoints()],
        sync_batchnorm=setup.sync_batch_norm and not alone,
        use_distributed_sampler=False,
        max_epochs=setup.optimization.epochs,
        min_epochs=0,
        precision=setup.precision,
        callbacks=[
            callback,
            ModelCheckpoint(
                checkpoints,
                filename=LAST.removesuffix(".ckpt"),
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
        ],
        logger=_logger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    module = TrainingModule(setup)
    resume_from = checkpoint_to_resume(checkpoints) if resume else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        trainer.fit(module, batches, ckpt_path=resume_from)
    if trainer.interrupted:
        raise KeyboardInterrupt
    whole = callback.total_steps(len(batches))
    if max_minutes is not None and callback.steps == 1 < whole:
        raise InputError(
            f"the time limit of {max_minutes:.2g} minutes is shorter than one step of the training "
            f"({callback.minutes:.2g} minutes)"
        )
    if not alone:  # what the processes counted is in their checkpoint alone
        callback.load_state_dict(_state_of_callback(checkpoints / LAST))
    _write_log_table(folder, callback.history)
    return Outcome(len(callback.history), callback.steps, callback.minutes, callback.candidates)


class TrainingModule(L.LightningModule):
    """A network and its parts with their objective."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.network = setup.network
        self.parts = nn.ModuleDict({part.name: module for part, module in setup.parts})
        self.rules = tuple(part for part, _ in setup.parts)
        self.objective = setup.objective
        self.optimization = setup.optimization
        self.finite = FiniteSteps()
        if setup.precision == "bf16-mixed" and setup.accelerator == "cpu":
            with_exact_gradients(self)

    def training_step(self, batch: dict[str, Any], index: int) -> torch.Tensor:
        losses = self.losses(batch)
        values = {name: loss.detach() for name, loss in losses.items()}
        if torch.isfinite(values["total"]):  # one NaN would be the mean of the epoch
            self.log_dict(values, on_epoch=True, logger=False, batch_size=1)
        return losses["total"]

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """A step of the optimizer, unless the gradient is not finite.

        Processes that train together have the same gradient, so they leave out the same steps.
        """
        loss = optimizer_closure()
        norms = [p.grad.detach().norm() for p in self.parameters() if p.grad is not None]
        if self.finite.may_take(float(torch.stack(norms).sum()) if norms else 0.0):
            optimizer.step(closure=lambda: loss)

    def losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The objective of a batch.

        Raises:
            InputError: If the network cannot take patches of this size.
        """
        parts = cast(Mapping[str, nn.Module], self.parts)
        batch = channels_last(batch)
        try:
            return self.objective(self.network, parts, batch)
        except (RuntimeError, ValueError):
            if isinstance(batch.get("image"), torch.Tensor):
                self._check_takes(batch)
            raise

    def _check_takes(self, batch: Mapping[str, Any]) -> None:
        """Refuse patches that the network by itself fails on, whatever is made of its output."""
        image = batch["image"]
        try:
            with torch.no_grad():
                call_network(self.network, image, batch)
        except (RuntimeError, ValueError) as error:
            size = " x ".join(map(str, image.shape[2:]))
            why = " ".join(str(error).split())[:200]
            raise InputError(f"the network cannot take patches of {size} voxels ({why})") from error

    def train(self, mode: bool = True) -> TrainingModule:
        """Parts that do not learn stay in evaluation mode."""
        super().train(mode)
        for part in self.rules:
            if not part.learns:
                self.parts[part.name].eval()
        return self

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for part in self.rules:
            part.after_step(self.parts[part.name], self.network)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        learning = [self.parts[part.name] for part in self.rules if part.learns]
        return self.optimization.build(nn.ModuleList([self.network, *learning]))


def channels_last(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch with its images in the memory format in which convolutions are fast.

    Example:
        >>> batch = channels_last({"image": torch.zeros(1, 2, 4, 4, 4), "score": torch.zeros(1, 1)})
        >>> batch["image"].is_contiguous(memory_format=torch.channels_last_3d)
        True
    """
    changed: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, Mapping):
            changed[name] = channels_last(value)
        elif name == "image" and value.ndim == 5:
            changed[name] = value.contiguous(memory_format=torch.channels_last_3d)
        else:
            changed[name] = value
    return changed


REPORT_EVERY_S = 5.0
"""Seconds between words about a training of short epochs."""


class TrainingCallback(L.Callback):
    """Sets the learning rate, keeps the time limit, validates, logs, keeps the best weights.

    With limits the schedule follows whichever is further, the fraction of the steps or the
    fraction of the time, so a limited training still ends with a rate of 0. Time spent
    before a kill counts.
    """

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        max_minutes: float | None,
        max_steps: int | None,
        on_progress: Progress,
    ) -> None:
        self.plan = setup
        self.folder = folder
        self.max_minutes = max_minutes
        self.max_steps = max_steps
        self.on_progress = on_progress
        self.minutes_before = 0.0
        self.reported_at = -REPORT_EVERY_S
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
        self.candidates = state_dict["candidates"]
        self.history = state_dict["history"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.monotonic()
        if self._is_over():
            trainer.should_stop = True

    def _is_over(self) -> bool:
        if self.max_steps is not None and self.steps >= self.max_steps:
            return True
        stopping = self.plan.optimization.early_stopping
        return stopping is not None and stopping.should_stop(self.history)

    def total_steps(self, per_epoch: int) -> int:
        """Steps of the whole training if its time does not end."""
        steps = self.plan.optimization.epochs * max(1, per_epoch)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def fraction(self, trainer: L.Trainer) -> float:
        """How much of the training is over, 0 to 1."""
        fraction = self.steps / self.total_steps(int(trainer.num_training_batches))
        if self.max_minutes is not None:
            fraction = max(fraction, self.minutes / self.max_minutes)
        return min(1.0, float(fraction))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        optimization = self.plan.optimization
        at = TrainingProgress(self.fraction(trainer), optimization.epochs, self.history)
        rate = optimization.rate(at)
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
        if self.max_steps is not None and self.steps >= self.max_steps:
            trainer.should_stop = True
        if self.max_minutes is None:
            return
        # clocks differ between processes that train together: one is enough to end all
        if trainer.strategy.reduce_boolean_decision(self.minutes >= self.max_minutes, all=False):
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        epoch = trainer.current_epoch + 1
        last = epoch >= self.plan.optimization.epochs or trainer.should_stop
        row: dict[str, Any] = {"epoch": epoch, "steps": self.steps}
        row["minutes"] = round(self.minutes, 2)
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        for name, value in trainer.callback_metrics.items():
            if name.endswith("_epoch"):
                row[name.removesuffix("_epoch")] = float(value)
        if left_out := pl_module.finite.take_count():
            row["steps_left_out"] = left_out
        row |= self._validated(pl_module, epoch, last)
        scores = {
            name.removeprefix("validation_"): value
            for name, value in row.items()
            if name.startswith("validation_") and name != "validation_loss"
        }
        if scores:
            self._keep(epoch, scores, pl_module, trainer.is_global_zero)
        self.history.append(row)
        if self._is_over():
            trainer.should_stop = True
        if trainer.is_global_zero:
            lines = (json.dumps(row) for row in self.history)
            write_text(self.folder / "log.jsonl", "".join(f"{line}\n" for line in lines))
            for logger in trainer.loggers:
                logger.log_metrics({name: row[name] for name in row if name != "epoch"}, epoch)
            self._tell(row, self.fraction(trainer), last)

    def _tell(self, row: Mapping[str, Any], fraction: float, last: bool) -> None:
        """Say where the training is: at most every few seconds, and always what was validated."""
        now = time.monotonic()
        scored = any(name.startswith("validation_") for name in row)
        if now - self.reported_at < REPORT_EVERY_S and not scored and not last and row["epoch"] > 2:
            return
        self.reported_at = now
        epochs = self.plan.optimization.epochs
        limited = self.max_minutes is not None or self.max_steps is not None
        if limited and fraction > 0:
            epochs = max(row["epoch"], min(epochs, round(row["epoch"] / fraction)))
        self.on_progress(epoch_text(row, self.minutes, fraction), row["epoch"], epochs)

    def _validated(self, module: TrainingModule, epoch: int, last: bool) -> dict[str, float]:
        """``validation_loss`` of every epoch, and the scores of those that are validated."""
        row: dict[str, float] = {}
        module.eval()
        if self.plan.validation_loss is not None:
            row["validation_loss"] = _mean_loss(module, self.plan.validation_loss)
        validate = self.plan.validate
        if validate is not None and (last or epoch % self.plan.validate_every == 0):
            found = validate(module.network)
            row |= {f"validation_{name}": value for name, value in found.items()}
        module.train()
        return row

    def _keep(
        self, epoch: int, scores: Mapping[str, float], module: TrainingModule, write: bool
    ) -> None:
        name = f"epoch-{epoch:04d}.safetensors"
        folder = self.folder / CANDIDATES
        ranked = [c for c in self.candidates if c["file"] != name]
        ranked.append({"file": name, "epoch": epoch, **scores})
        by = self.plan.ranked_by
        ranked.sort(key=lambda c: (-sum(c.get(score, 0.0) for score in by), c["epoch"]))
        self.candidates = ranked[: self.plan.keep]
        if not write:
            return
        folder.mkdir(exist_ok=True)
        if any(c["file"] == name for c in self.candidates):
            parts = {part.name: module.parts[part.name] for part in module.rules}
            save_weights(module.network, folder / name, parts)
        kept = {c["file"] for c in self.candidates}
        for path in folder.glob("epoch-*.safetensors"):
            if path.name not in kept:
                path.unlink()


def epoch_text(row: Mapping[str, Any], minutes: float, fraction: float) -> str:
    """Where a training is, from a row of its log: epoch, steps, loss, Dice, minutes left.

    Args:
        minutes: spent so far.
        fraction: of the training that is over.

    Example:
        >>> epoch_text({"epoch": 3, "steps": 60, "total": 0.5, "validation_dsc": 0.25}, 2.0, 0.5)
        'training: epoch 3, step 60, loss 0.5, validation Dice 0.250, about 2 min left'
    """
    parts = [f"training: epoch {row['epoch']}", f"step {row['steps']}"]
    if "total" in row:
        parts.append(f"loss {row['total']:.4g}")
    if "steps_left_out" in row:
        parts.append(f"{row['steps_left_out']} steps left out (gradient not finite)")
    if "validation_dsc" in row:
        parts.append(f"validation Dice {row['validation_dsc']:.3f}")
    if 0 < fraction < 1:
        parts.append(f"about {minutes * (1 - fraction) / fraction:.0f} min left")
    return ", ".join(parts)


@torch.no_grad()
def _mean_loss(module: TrainingModule, batches: torch.utils.data.DataLoader[Any]) -> float:
    """The mean of the total over batches; processes that train together compute all of them."""
    total, count = 0.0, 0
    for batch in batches:
        on_device = module.transfer_batch_to_device(batch, module.device, 0)
        total += float(module.losses(on_device)["total"])
        count += 1
    return total / max(1, count)


def _state_of_callback(checkpoint: Path) -> dict[str, Any]:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["callbacks"]
    name = TrainingCallback.__name__
    return dict(next(value for key, value in state.items() if key.startswith(name)))


def _write_log_table(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """The rows of all epochs as the table ``log.csv``."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / "log.csv", table.getvalue())


def _logger(folder: Path) -> Any:
    import importlib.util

    if importlib.util.find_spec("tensorboard") is None:
        return False
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")
