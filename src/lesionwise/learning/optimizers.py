"""Optimizers: how gradients change the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn


class Optimizer(Protocol):
    """One rule of descent."""

    def build(
        self, network: nn.Module, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """The optimizer of a network's weights."""


@dataclass(frozen=True)
class AdamW:
    """Adam with a weight decay that the gradient's scale does not touch.

    Attributes:
        betas: decay of the averages of the gradient and of its square.
        decays: "all" weights, or the "kernels" of convolutions alone, not biases and norms.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    decays: Literal["all", "kernels"] = "all"

    def build(
        self, network: nn.Module, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        parameters: Iterable[Any] = network.parameters()
        if self.decays == "kernels":
            kernels = [p for p in network.parameters() if p.ndim > 1]
            others = [p for p in network.parameters() if p.ndim <= 1]
            parameters = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(
            parameters, lr=learning_rate, betas=self.betas, weight_decay=weight_decay
        )


@dataclass(frozen=True)
class Adam:
    """Adam; weight decay is added to the gradient (L2)."""

    betas: tuple[float, float] = (0.9, 0.999)

    def build(
        self, network: nn.Module, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            network.parameters(), lr=learning_rate, betas=self.betas, weight_decay=weight_decay
        )


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent; weight decay is added to the gradient (L2).

    Attributes:
        momentum: fraction of the last step that is added to the next.
        nesterov: take the gradient at the point that the momentum leads to.
    """

    momentum: float = 0.0
    nesterov: bool = False

    def build(
        self, network: nn.Module, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            network.parameters(),
            lr=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=weight_decay,
        )


@dataclass(frozen=True)
class RmsProp:
    """Gradients divided by the root of their running mean square; weight decay is L2.

    Attributes:
        decay: of the running mean.
        momentum: fraction of the last step that is added to the next.
        epsilon: added to the root.

    Source: Tieleman and Hinton, 2012.
    """

    decay: float = 0.99
    momentum: float = 0.0
    epsilon: float = 1e-8

    def build(
        self, network: nn.Module, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(
            network.parameters(),
            lr=learning_rate,
            alpha=self.decay,
            eps=self.epsilon,
            momentum=self.momentum,
            weight_decay=weight_decay,
        )
