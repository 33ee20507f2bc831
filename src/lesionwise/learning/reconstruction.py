"""Learning without labels from two visits: rebuild both images, with features alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lesionwise.learning.samples import Sample
from lesionwise.types import EMPTY, FloatArray


@dataclass(frozen=True)
class ConsistentReconstruction:
    """The squared error of both rebuilt images, and that between the features of the visits.

    The network has ``rebuild(image)``, which returns both images rebuilt, (B, 2, …), and for each
    level of its encoder the features of the first and the second visit
    (``networks.dual_attention.DualAutoencoder``). Losses: ``reconstruction``, the sum over visits
    of the mean squared error; ``consistency``, the sum over levels of that between the visits'
    features; ``total``.

    Attributes:
        consistency: weight of the features' part.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `ssl-dual-attention`; the weight is not
    stated there.
    """

    consistency: float = 1.0

    targets = None
    """The network is trained for its encoder alone."""

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """Nothing: the image is its own target."""
        return EMPTY

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        image = batch["image"].float()
        rebuild: Any = network.rebuild
        rebuilt, features = rebuild(image)
        error = image.shape[1] * functional.mse_loss(rebuilt.float(), image)
        apart = torch.stack(
            [functional.mse_loss(one.float(), two.float()) for one, two in features]
        ).sum()
        return {
            "total": error + self.consistency * apart,
            "reconstruction": error,
            "consistency": apart,
        }
