"""How the learning rate runs through a training, and when the training ends early.

A schedule is a pure function of the training's progress, so a resumed training needs no state of
it, and a training with a time limit runs through the same schedule faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

History = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        fraction: of the training that is done, 0 to 1; with a time limit, of the time where that
            is further.
        epochs: of the whole training.
        history: a row of the log for each epoch that has ended: ``epoch``, ``steps``, the mean
            of each part of the loss, and ``validation_…`` where the epoch was validated.
    """

    fraction: float
    epochs: int
    history: History = ()

    @property
    def epoch(self) -> float:
        """Epochs done, a fraction within one."""
        return self.fraction * self.epochs


class Schedule(Protocol):
    """The learning rate over a training."""

    def factor(self, at: TrainingProgress) -> float:
        """What the first learning rate is multiplied by."""


@dataclass(frozen=True)
class CosineAnnealing:
    """From 1 to ``end`` along half a cosine."""

    end: float = 0.0

    def factor(self, at: TrainingProgress) -> float:
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(1.0, at.fraction)))


@dataclass(frozen=True)
class CosineRestarts:
    """Half a cosine from 1 to ``end``, restarted every ``period`` epochs."""

    period: float
    end: float = 0.0

    def factor(self, at: TrainingProgress) -> float:
        within = (at.epoch % self.period) / self.period
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * within))


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    def factor(self, at: TrainingProgress) -> float:
        return 1.0


@dataclass(frozen=True)
class Polynomial:
    """From 1 to ``end`` as (1 - fraction) ** power.

    The fraction is taken at the start of each epoch, as nnU-Net does.
    """

    power: float = 0.9
    end: float = 0.0

    def factor(self, at: TrainingProgress) -> float:
        epoch = min(math.floor(at.epoch + 1e-9), at.epochs)
        return float(self.end + (1 - self.end) * (1 - epoch / at.epochs) ** self.power)


@dataclass(frozen=True)
class StepDecay:
    """``gamma`` times the rate after every ``every`` epochs; 1 epoch is an exponential decay."""

    gamma: float
    every: float = 1

    def factor(self, at: TrainingProgress) -> float:
        return float(self.gamma ** math.floor((at.epoch + 1e-9) / self.every))


@dataclass(frozen=True)
class Piecewise:
    """1 until the first fraction of the training, then the factor given for each fraction.

    ``Piecewise(((0.5, 0.1), (0.8, 0.01)))`` is 0.1 from half the training on and 0.01 from
    four fifths on.
    """

    steps: tuple[tuple[float, float], ...]

    def factor(self, at: TrainingProgress) -> float:
        reached = [factor for fraction, factor in self.steps if at.fraction >= fraction - 1e-9]
        return reached[-1] if reached else 1.0


@dataclass(frozen=True)
class LinearDecay:
    """1 for ``constant_epochs``, then a straight line to 0 at the end of the training."""

    constant_epochs: float = 0.0

    def factor(self, at: TrainingProgress) -> float:
        falling = at.epochs - self.constant_epochs
        return min(1.0, max(0.0, (at.epochs - at.epoch) / falling)) if falling > 0 else 1.0


def stretched(schedule: Schedule, by: float) -> Schedule:
    """The same course over ``by`` times as many epochs.

    Of schedules that count epochs from the start of the training, the number of epochs changes.
    Those that follow the fraction of the training, or wait for values of the log, stay as they
    are.

    Example:
        >>> stretched(StepDecay(0.9, every=2), 250)
        StepDecay(gamma=0.9, every=500)
    """
    if isinstance(schedule, StepDecay):
        return replace(schedule, every=schedule.every * by)
    if isinstance(schedule, CosineRestarts):
        return replace(schedule, period=schedule.period * by)
    if isinstance(schedule, LinearDecay):
        return replace(schedule, constant_epochs=schedule.constant_epochs * by)
    return schedule


@dataclass(frozen=True)
class Plateau:
    """``gamma`` times the rate whenever a value has not improved for ``patience`` epochs.

    Each reduction starts the count again; the best value so far stays the one to beat. A value
    that is not a number is no improvement.

    Attributes:
        metric: a column of the log, such as ``total``, ``validation_loss`` or
            ``validation_dsc``. Epochs without it count as waiting.
        gamma: of each reduction.
        patience: epochs.
        min_improvement: a smaller one is none.
        larger_is_better: the direction of improvement.
    """

    metric: str = "total"
    gamma: float = 0.1
    patience: int = 10
    min_improvement: float = 0.0
    larger_is_better: bool = False

    def factor(self, at: TrainingProgress) -> float:
        best, waited, reductions = -math.inf, 0, 0
        for row in at.history:
            waited += 1
            value = _signed(row, self.metric, self.larger_is_better)
            if value > best + self.min_improvement:
                best, waited = value, 0
            if waited >= self.patience:
                reductions, waited = reductions + 1, 0
        return float(self.gamma**reductions)


@dataclass(frozen=True)
class JointPlateau:
    """``gamma`` times the rate whenever none of several values has fallen for ``patience`` epochs.

    A value falls when it is at least ``min_drop`` below the lowest one that counted as a fall, or
    the first; a fall of exactly that counts. As long as one of them falls, the rate stays. Each
    reduction starts the count again.

    Attributes:
        metrics: columns of the log; the lower the better. A value that is missing or not a
            number does not fall.
        gamma: of each reduction.
        patience: epochs.
        min_drop: a smaller one is none.

    Example:
        ``JointPlateau(("total", "validation_loss"), gamma=0.2, patience=30, min_drop=0.005)``
    """

    metrics: tuple[str, ...]
    gamma: float = 0.1
    patience: int = 10
    min_drop: float = 0.0

    def factor(self, at: TrainingProgress) -> float:
        lowest = dict.fromkeys(self.metrics, math.inf)
        waited, reductions = 0, 0
        for row in at.history:
            waited += 1
            for metric in self.metrics:
                value = row.get(metric, math.nan)
                # however the difference is rounded
                if value < lowest[metric] and value <= lowest[metric] - self.min_drop + 1e-9:
                    lowest[metric], waited = value, 0
            if waited >= self.patience:
                reductions, waited = reductions + 1, 0
        return float(self.gamma**reductions)


@dataclass(frozen=True)
class EarlyStopping:
    """A training ends when a value has not improved for a number of steps or epochs.

    Attributes:
        patience: since the epoch with the best value.
        unit: of ``patience``: "steps" of the optimizer, or "epochs".
        metric: a column of the log.
        min_improvement: a smaller one is none.
        larger_is_better: the direction of improvement.

    Example:
        ``EarlyStopping(20, unit="epochs", metric="validation_loss", larger_is_better=False)``
    """

    patience: int
    unit: Literal["steps", "epochs"] = "steps"
    metric: str = "validation_dsc"
    min_improvement: float = 0.0
    larger_is_better: bool = True

    def should_stop(self, history: History) -> bool:
        """True after ``patience`` without improvement; never before the first value."""
        column = "steps" if self.unit == "steps" else "epoch"
        best, best_at = -math.inf, None
        for row in history:
            value = _signed(row, self.metric, self.larger_is_better)
            if value > best + self.min_improvement:
                best, best_at = value, row[column]
        return best_at is not None and history[-1][column] - best_at >= self.patience


def _signed(row: Mapping[str, float], metric: str, larger_is_better: bool) -> float:
    """The row's value, the larger the better; -inf where it is missing."""
    value = row.get(metric, math.nan)
    if math.isnan(value):
        return -math.inf
    return value if larger_is_better else -value
