"""An optimizer, the course of its learning rate, and how long a training lasts."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from lesionwise.learning.optimizers import AdamW, Optimizer
from lesionwise.learning.schedules import CosineAnnealing, EarlyStopping, Schedule, TrainingProgress


@dataclass(frozen=True)
class Optimization:
    """How weights are learned.

    Attributes:
        learning_rate: at the start.
        epochs: to train.
        optimizer: the rule of descent.
        weight_decay: as the optimizer takes it.
        schedule: of the learning rate.
        warmup: fraction of the training over which the rate rises from 0.
        early_stopping: ends the training before its last epoch; None never does.
    """

    learning_rate: float
    epochs: int
    optimizer: Optimizer = field(default_factory=AdamW)
    weight_decay: float = 0.0
    schedule: Schedule = field(default_factory=CosineAnnealing)
    warmup: float = 0.0
    early_stopping: EarlyStopping | None = None

    def __post_init__(self) -> None:
        if not self.learning_rate >= 0:
            raise ValueError(f"learning_rate must be 0 or more, not {self.learning_rate:g}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be 1 or more, not {self.epochs}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be at least 0 and less than 1, not {self.warmup:g}")

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a module's weights."""
        return self.optimizer.build(module, self.learning_rate, self.weight_decay)

    def rate(self, at: TrainingProgress) -> float:
        """The learning rate at a point of the training."""
        if at.fraction < self.warmup:
            return self.learning_rate * at.fraction / self.warmup
        return self.learning_rate * self.schedule.factor(at)
