"""What a training minimizes.

``Objective`` is one of the three things in which trainings differ (the others are the samples and
the parts beside the network): it makes the targets of a sample and turns a batch into named losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from lesionwise.inference.window import call_network
from lesionwise.learning.losses import Loss
from lesionwise.learning.samples import Sample
from lesionwise.learning.targets import Reference, Targets
from lesionwise.types import FloatArray


class Objective(Protocol):
    """Targets and losses.

    Attributes:
        targets: what the network's output means, so that it can predict; None for a network that
            is trained for its weights alone.
    """

    @property
    def targets(self) -> Targets | None: ...

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """The arrays that a sample is compared with, by name, each (C, I, J, K).

        They are made by the processes that load samples, after every spatial transform.
        """

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        """The losses by name, each a scalar; ``total`` is what is minimized.

        Args:
            network: what is trained.
            parts: the modules beside it, by name.
            batch: tensors by name: ``image`` (B, C, I, J, K), ``spacing_mm`` (B, 3), the targets.
                Of several sources, such a batch for each by its name.
        """


@dataclass(frozen=True)
class Supervised:
    """The network's output against targets made of the reference.

    Attributes:
        targets: what the output means, and what it is compared with.
        loss: of the output against the targets. Where the output is smaller than the patch the
            middle of the targets counts.
    """

    targets: Targets
    loss: Loss

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """The targets' own arrays."""
        return self.targets.make(Reference(sample.instances, sample.spacing_mm, sample.labels))

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        return self.loss(call_network(network, batch["image"], batch), batch)


@dataclass(frozen=True)
class HardExamples:
    """A supervised objective on the samples of a batch that another network gets most wrong.

    The part named ``judge``, such as a ``MomentumCopy``, answers for every sample without
    gradients; the ``fraction`` of the batch with the largest error is learned from. Of equally
    wrong samples the first count. The mean error of all samples by the judge is logged as
    ``judged``.

    Attributes:
        supervised: targets and loss of the samples that are learned from.
        fraction: of a batch that is learned from, rounded, at least one sample.
        error: of one sample alone ranks it; None takes the loss. A Dice loss ranks every sample
            without a lesion above all others, since it is near 1 for any false voxel.
        judge: name of the part.

    Source: online hard example mining, Shrivastava and others, 2016,
    doi:10.1109/CVPR.2016.89, there judged by the network itself.

    Example:
        ``HardExamples(Supervised(LesionMask(), Dice()), 0.25, SquaredError())`` with
        ``parts=(MomentumCopy("judge"),)``
    """

    supervised: Supervised
    fraction: float
    error: Loss | None = None
    judge: str = "judge"

    @property
    def targets(self) -> Targets:
        return self.supervised.targets

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """The targets' own arrays."""
        return self.supervised.make(sample)

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        size = len(batch["image"])
        kept = max(1, round(self.fraction * size))
        errors = self._errors(parts[self.judge], batch, kept)
        worst = torch.sort(errors, descending=True, stable=True).indices[:kept]
        chosen = {name: value[worst] for name, value in batch.items()}
        return {**self.supervised(network, parts, chosen), "judged": errors.mean()}

    @torch.no_grad()
    def _errors(self, judge: nn.Module, batch: Mapping[str, Any], at_once: int) -> torch.Tensor:
        """(B,): the judge's error of each sample; no more are computed at once than learned."""
        error = self.error or self.supervised.loss
        errors = []
        for first in range(0, len(batch["image"]), at_once):
            some = {name: value[first : first + at_once] for name, value in batch.items()}
            output = call_network(judge, some["image"], some)
            for n in range(len(output)):
                one = {name: value[n : n + 1] for name, value in some.items()}
                errors.append(error(output[n : n + 1], one)["total"])
        return torch.stack(errors)


@dataclass(frozen=True)
class BySource:
    """An objective for each of several sources of samples; the total is their weighted sum.

    Its losses are named ``source.loss``.

    Attributes:
        objectives: name of the source, weight, objective. The targets of the first that has some
            are those of the network.
    """

    objectives: tuple[tuple[str, float, Objective], ...]

    @property
    def targets(self) -> Targets | None:
        found = (objective.targets for _, _, objective in self.objectives)
        return next((targets for targets in found if targets is not None), None)

    def of(self, source: str) -> Objective:
        """The objective of one source."""
        return next(o for name, _, o in self.objectives if name == source)

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """Refuse: each source has targets of its own."""
        raise TypeError("samples of several sources are needed (learning.samples.CombinedSamples)")

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = {}
        total: torch.Tensor | None = None
        for name, weight, objective in self.objectives:
            losses = objective(network, parts, batch[name])
            values |= {f"{name}.{key}": value for key, value in losses.items()}
            weighted = weight * losses["total"]
            total = weighted if total is None else total + weighted
        assert total is not None
        return {"total": total, **values}


@dataclass(frozen=True)
class MeanOverCrops:
    """An objective of crops of unequal size (``learning.candidate_crops.UnequalCrops``).

    The loss is the mean of theirs: one step of the optimizer sees them all. Where the network has
    a ``forward_crops``, it gets all crops at once, so that normalization over a batch is over all
    of them; otherwise they pass one at a time, and each is a batch of its own.

    Attributes:
        each: the objective of one crop.
    """

    each: Objective

    @property
    def targets(self) -> Targets | None:
        return self.each.targets

    def make(self, sample: Sample) -> Mapping[str, FloatArray]:
        """The targets of one crop."""
        return self.each.make(sample)

    def __call__(
        self, network: nn.Module, parts: Mapping[str, nn.Module], batch: Mapping[str, Any]
    ) -> dict[str, torch.Tensor]:
        """The mean of each loss over the crops of ``batch``, by the crop's name."""
        crops = list(batch.values())
        networks: list[nn.Module] = [network] * len(crops)
        together = getattr(network, "forward_crops", None)
        if together is not None:
            networks = [_Answer(output) for output in together([crop["image"] for crop in crops])]
        losses = [self.each(one, parts, crop) for one, crop in zip(networks, crops, strict=True)]
        return {name: torch.stack([one[name] for one in losses]).mean() for name in losses[0]}


class _Answer(nn.Module):
    """In place of a network: what it said already."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.output
