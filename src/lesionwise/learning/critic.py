"""A network that estimates a score, and its estimate as a part of another network's loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lesionwise.inference.window import call_network
from lesionwise.learning.objective import Supervised
from lesionwise.learning.samples import Sample
from lesionwise.learning.targets import Targets
from lesionwise.types import EMPTY, FloatArray


@dataclass(frozen=True)
class ScoreError:
    """The mean squared error of an estimated score.

    The samples bring ``image`` and ``score`` (B, 1), such as ``mask_pairs.MaskPairs``.
    """

    targets = None
    """The network estimates a score, it makes no map."""

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """Nothing: the score comes with the sample."""
        return EMPTY

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        estimated = network(batch["image"]).float()
        return {"total": functional.mse_loss(estimated, batch["score"])}


@dataclass(frozen=True)
class WithScore:
    """A supervised loss + ``weight`` · (1 - the score that a part estimates).

    The part ``critic`` takes the reference mask and the network's lesion probability, (B, 2, …),
    and returns (B, 1) (``networks.score_critic.ScoreCritic``). Gradients pass through it to the
    network. The mean of 1 - score is logged as ``critic``.

    Attributes:
        supervised: targets whose first map is the probability, and the loss.
        weight: of the estimated score.
        critic: name of the part.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `lesionwise-metric`, equations 1 to 3.
    """

    supervised: Supervised
    weight: float = 0.2
    critic: str = "critic"

    @property
    def targets(self) -> Targets:
        return self.supervised.targets

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """The targets' own arrays."""
        return self.supervised.make(sample)

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        output = call_network(network, batch["image"], batch)
        losses = self.supervised.loss(output, batch)
        found = self.targets.activate(output)[:, :1]
        estimated = parts[self.critic](torch.cat([batch["mask"].to(found), found], dim=1))
        missing = 1 - estimated.float().mean()
        return {**losses, "critic": missing, "total": losses["total"] + self.weight * missing}
