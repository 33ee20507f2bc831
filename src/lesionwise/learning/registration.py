"""Objectives of networks that learn a displacement field, with or without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lesionwise.learning.losses import Loss
from lesionwise.learning.objective import Supervised
from lesionwise.learning.samples import Sample
from lesionwise.learning.targets import LesionMask, Reference
from lesionwise.networks.warp import squared_gradient, warp
from lesionwise.types import EMPTY, FloatArray

FIELD_MAPS = ("field_i", "field_j", "field_k")
"""Displacements in voxels, from a voxel of the last visit to its place in the first."""


@dataclass(frozen=True)
class MaskAndField:
    """Lesion or not and a displacement field: two logits, then three channels in voxels."""

    out_channels: int = 5
    initial_logits: tuple[float, ...] = (2.0, -2.0)
    maps: tuple[str, ...] = ("probability", *FIELD_MAPS)

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """The mask alone, as ``LesionMask`` makes it."""
        return LesionMask().make(reference)

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The softmax of the lesion channel and the field, (B, 4, …)."""
        return torch.cat([LesionMask().activate(output), output[:, 2:5].float()], dim=1)


@dataclass(frozen=True)
class MapAndField:
    """A non-correspondence map and a displacement field: a logit, then three channels in voxels."""

    out_channels: int = 4
    initial_logits: tuple[float, ...] = (-2.0, 0.0, 0.0, 0.0)
    maps: tuple[str, ...] = ("probability", *FIELD_MAPS)

    def make(self, reference: Reference) -> dict[str, FloatArray]:
        """Nothing: it is learned without labels."""
        return {}

    def activate(self, output: torch.Tensor) -> torch.Tensor:
        """The sigmoid of the map and the field, (B, 4, …)."""
        return torch.cat([torch.sigmoid(output[:, :1].float()), output[:, 1:].float()], dim=1)


@dataclass(frozen=True)
class NonCorrespondence:
    """Masked image distance + alpha · R(field) + beta · N + gamma · tanh(‖∇N‖²), without labels.

    The distance of a voxel is half the squared difference of both images, each with mean 0 and
    variance 1 over the voxels of the patch where one of them is not 0; its mean is 1 minus their
    normalized cross-correlation. It counts by 1 - N, so N pays where images differ by more
    than beta. R is the sum of squared steps of the field between neighbors. All are means over
    those voxels.

    Losses: ``distance``, ``smoothness``, ``size``, ``edges``, each before its weight; ``total``.

    Attributes:
        alpha, beta, gamma: the weights.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `ncr-net`, equation 1; it states neither
    weights nor R.
    """

    alpha: float = 0.05
    beta: float = 0.5
    gamma: float = 0.1

    targets = MapAndField()

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """Nothing: it is learned without labels."""
        return EMPTY

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        image = batch["image"].float()
        maps = self.targets.activate(network(image))
        unlike, field = maps[:, :1], maps[:, 1:]
        inside = (image != 0).any(dim=1, keepdim=True).float()
        moved = warp(image[:, :1], field)
        difference = _standardized(image[:, 1:2], inside) - _standardized(moved, inside)
        count = inside.sum().clamp(min=1)

        def mean(values: torch.Tensor) -> torch.Tensor:
            average: torch.Tensor = (values * inside).sum() / count
            return average

        losses = {
            "distance": mean((1 - unlike) * difference.square() / 2),
            "smoothness": mean(squared_gradient(field)),
            "size": mean(unlike),
            "edges": mean(torch.tanh(squared_gradient(unlike))),
        }
        total = (
            losses["distance"]
            + self.alpha * losses["smoothness"]
            + self.beta * losses["size"]
            + self.gamma * losses["edges"]
        )
        return {"total": total, **losses}


def _standardized(image: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean 0 and variance 1 over the voxels inside, for each sample."""
    axes = (1, 2, 3, 4)
    count = inside.sum(dim=axes, keepdim=True).clamp(min=1)
    mean = (image * inside).sum(dim=axes, keepdim=True) / count
    variance = ((image - mean).square() * inside).sum(dim=axes, keepdim=True) / count
    return (image - mean) * (variance + 1e-5).rsqrt()


@dataclass(frozen=True)
class SegmentAndRegister:
    """A loss of lesions + the squared error of the warped first visit + smooth · ‖∇field‖².

    The network returns two logits and the field (``MaskAndField``). Losses: those of ``loss``,
    ``similarity`` and ``smoothness`` before its weight, both means over voxels; ``total``.

    Attributes:
        loss: of the logits.
        smooth: weight of the field's squared steps between neighbors.

    Source: Proceedings of MSSEG-2, 2021, the chapter of `joint-registration`.
    """

    loss: Loss
    smooth: float = 0.01

    targets = MaskAndField()

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """The mask."""
        return Supervised(self.targets, self.loss).make(sample)

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        image = batch["image"].float()
        output = network(batch["image"])
        field = output[:, 2:5].float()
        losses = self.loss(output[:, :2], batch)
        similarity = (image[:, 1:2] - warp(image[:, :1], field)).square().mean()
        smoothness = squared_gradient(field).mean()
        total = losses["total"] + similarity + self.smooth * smoothness
        return {**losses, "similarity": similarity, "smoothness": smoothness, "total": total}


def displacement_mm(
    field_vox: Mapping[str, NDArray[Any]], spacing_mm: tuple[float, float, float]
) -> NDArray[np.float32]:
    """(3, I, J, K) mm along the voxel axes, from the maps ``field_i``, ``field_j``, ``field_k``.

    It points from a voxel of the last visit to where the same tissue lay at the first.

    Example:
        >>> field_vox = {name: np.ones((1, 1, 1)) for name in FIELD_MAPS}
        >>> displacement_mm(field_vox, (1.0, 1.0, 3.0)).ravel().tolist()
        [1.0, 1.0, 3.0]
    """
    along = [
        np.asarray(field_vox[name], np.float32) * np.float32(mm)
        for name, mm in zip(FIELD_MAPS, spacing_mm, strict=True)
    ]
    return np.stack(along)
