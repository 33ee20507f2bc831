"""Modules beside the network: on the device with it, and in its weights file.

``parts`` is one of the three things in which trainings differ (the others are the samples and the
objective, to which the parts are handed by name). A part may be trained first by a method of its
own, whose weights it takes over.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from lesionwise.types import Method


class Part(Protocol):
    """A named module beside the network.

    Attributes:
        name: the objective finds it under.
        first: the method that trains it before the network is trained; its ``model.safetensors``
            becomes the part's weights. None: it begins as it is built.
        learns: whether the optimizer moves it, and it is in training mode with the network.
    """

    @property
    def name(self) -> str: ...

    @property
    def first(self) -> Method | None: ...

    @property
    def learns(self) -> bool: ...

    def build(self, network: nn.Module) -> nn.Module:
        """The module as it is before any training of its own."""

    def after_step(self, module: nn.Module, network: nn.Module) -> None:
        """Called after every step of the optimizer."""


@dataclass(frozen=True)
class Trained:
    """A part that learns together with the network.

    Attributes:
        name: of the part.
        module: builds it.
        first: as of ``Part``.
    """

    name: str
    module: Callable[[], nn.Module]
    first: Method | None = None

    learns = True

    def build(self, network: nn.Module) -> nn.Module:
        return self.module()

    def after_step(self, module: nn.Module, network: nn.Module) -> None:
        """Nothing: the optimizer moves it."""


@dataclass(frozen=True)
class Frozen:
    """A part that does not change: no gradient reaches its weights, but gradients pass through it.

    It stays in evaluation mode.

    Attributes:
        name: of the part.
        module: builds it.
        first: as of ``Part``.
    """

    name: str
    module: Callable[[], nn.Module]
    first: Method | None = None

    learns = False

    def build(self, network: nn.Module) -> nn.Module:
        return self.module().requires_grad_(False)

    def after_step(self, module: nn.Module, network: nn.Module) -> None:
        """Nothing."""


class HasNetwork(Method, Protocol):
    """A method that trains one network."""

    @property
    def network(self) -> Callable[[], nn.Module]: ...


@dataclass(frozen=True)
class FrozenNetwork:
    """The network of a method, trained first by that method, then a part that does not change.

    As ``Frozen``, but the network stands in one place: where the method is made smaller, the part
    is too.

    Attributes:
        name: of the part.
        first: the method that trains it.
    """

    name: str
    first: HasNetwork

    learns = False

    def build(self, network: nn.Module) -> nn.Module:
        return self.first.network().requires_grad_(False)

    def after_step(self, module: nn.Module, network: nn.Module) -> None:
        """Nothing."""


@dataclass(frozen=True)
class MomentumCopy:
    """A copy of the network that follows it slowly: copy = decay · copy + (1 - decay) · network.

    Buffers (running averages of normalization) are taken over as they are. No gradient reaches it.

    Attributes:
        name: of the part.
        decay: share of the old weights that stays at each step.
    """

    name: str
    decay: float = 0.999

    first = None

    learns = False

    def build(self, network: nn.Module) -> nn.Module:
        return copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def after_step(self, module: nn.Module, network: nn.Module) -> None:
        for mine, theirs in zip(module.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs.detach().to(mine.dtype), 1 - self.decay)
        for own, other in zip(module.buffers(), network.buffers(), strict=True):
            own.copy_(other)
