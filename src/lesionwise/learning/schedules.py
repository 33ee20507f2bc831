"""How the learning rate runs through a training, and when the training ends early.

A schedule is a pure function of where the training stands, so a resumed training needs no state
of it, and a training with a time limit runs through the same schedule faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Moment:
    """Where a training stands.

    Attributes:
        share: how much of it lies behind, 0 to 1; with a time limit, of the time where that
            is further.
        epochs: of the whole training.
        history: a row of the log for each epoch that has ended: ``epoch``, ``steps``, the mean
            of each part of the loss, and ``validation_…`` where the epoch was validated.
    """

    share: float
    epochs: int
    history: Sequence[Mapping[str, float]] = ()

    @property
    def epoch(self) -> float:
        """Epochs behind, a fraction within one."""
        return self.share * self.epochs


class Schedule(Protocol):
    """The course of the learning rate."""

    def factor(self, at: Moment) -> float:
        """What the first learning rate is multiplied by."""


@dataclass(frozen=True)
class HalfCosine:
    """From 1 to ``end`` along half a cosine."""

    end: float = 0.0

    def factor(self, at: Moment) -> float:
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * min(1.0, at.share)))


@dataclass(frozen=True)
class CosineRestarts:
    """Half a cosine from 1 to ``end``, begun again every ``period`` epochs."""

    period: float
    end: float = 0.0

    def factor(self, at: Moment) -> float:
        within = (at.epoch % self.period) / self.period
        return self.end + (1 - self.end) * 0.5 * (1 + math.cos(math.pi * within))


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    def factor(self, at: Moment) -> float:
        return 1.0


@dataclass(frozen=True)
class Polynomial:
    """(1 - share) ** power, the share taken at the start of each epoch as nnU-Net does."""

    power: float = 0.9

    def factor(self, at: Moment) -> float:
        epoch = min(math.floor(at.epoch + 1e-9), at.epochs)
        return float((1 - epoch / at.epochs) ** self.power)


@dataclass(frozen=True)
class StepDecay:
    """``factor_each`` more after every ``every`` epochs; 1 epoch is an exponential decay."""

    factor_each: float
    every: int = 1

    def factor(self, at: Moment) -> float:
        return float(self.factor_each ** math.floor((at.epoch + 1e-9) / self.every))


@dataclass(frozen=True)
class Piecewise:
    """1 until the first share of the training, then the factor that stands beside each share.

    ``Piecewise(((0.5, 0.1), (0.8, 0.01)))`` is 0.1 from half the training on and 0.01 from
    four fifths on.
    """

    steps: tuple[tuple[float, float], ...]

    def factor(self, at: Moment) -> float:
        reached = [factor for share, factor in self.steps if at.share >= share - 1e-9]
        return reached[-1] if reached else 1.0


@dataclass(frozen=True)
class LinearDecay:
    """1 for ``constant`` epochs, then a straight line to 0 at the end of the training."""

    constant: float = 0.0

    def factor(self, at: Moment) -> float:
        falling = at.epochs - self.constant
        return min(1.0, max(0.0, (at.epochs - at.epoch) / falling)) if falling > 0 else 1.0


@dataclass(frozen=True)
class Plateau:
    """``factor_each`` more whenever a value has not improved for ``patience`` epochs.

    Each reduction starts the count again; the best value so far stays the one to beat.

    Attributes:
        metric: a column of the log, such as ``total`` or ``validation_dsc``. Epochs without
            it count as waiting.
        factor_each: of each reduction.
        patience: epochs.
        least_gain: a smaller improvement is none.
        larger_is_better: the direction of improvement.
    """

    metric: str = "total"
    factor_each: float = 0.1
    patience: int = 10
    least_gain: float = 0.0
    larger_is_better: bool = False

    def factor(self, at: Moment) -> float:
        best, waited, reductions = -math.inf, 0, 0
        for row in at.history:
            waited += 1
            if self.metric in row:
                value = row[self.metric] if self.larger_is_better else -row[self.metric]
                if value > best + self.least_gain:
                    best, waited = value, 0
            if waited >= self.patience:
                reductions, waited = reductions + 1, 0
        return float(self.factor_each**reductions)


@dataclass(frozen=True)
class Patience:
    """A training ends when a value has not improved for a number of steps.

    Attributes:
        steps: of the optimizer, since the epoch with the best value.
        metric: a column of the log.
        larger_is_better: the direction of improvement.
    """

    steps: int
    metric: str = "validation_dsc"
    larger_is_better: bool = True

    def is_over(self, history: Sequence[Mapping[str, float]]) -> bool:
        """True after ``steps`` without gain; never before the value was there once."""
        rows = [row for row in history if self.metric in row]
        if not rows:
            return False
        sign = 1 if self.larger_is_better else -1
        best = max(rows, key=lambda row: (sign * row[self.metric], -row["steps"]))
        return history[-1]["steps"] - best["steps"] >= self.steps
