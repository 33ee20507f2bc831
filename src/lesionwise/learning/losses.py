"""Costs of a network's output against its targets.

Every loss takes the output (B, C, I, J, K) float32 and the targets by name, each
(B, C, I, J, K), and returns its parts by name; ``total`` is what is minimized. The output's first
two channels are the logits of background and lesion, unless a loss says otherwise.

Outputs smaller than their targets (valid convolutions; a stack of slices in, the middle one out)
are compared with the targets' central part.

``sample_weight`` (B,) among the targets multiplies the costs of each sample; divisors stay as
they are, so a weight of 1 changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch.nn import functional

SAMPLE_WEIGHT = "sample_weight"
Parts = dict[str, torch.Tensor]
TensorsByName = Mapping[str, torch.Tensor]


class Loss(Protocol):
    """A cost of the output against the targets."""

    def __call__(self, output: Any, targets: TensorsByName) -> Parts:
        """The parts by name, each a scalar, ``total`` among them.

        ``output`` is what the network returns: a tensor (B, C, …), or a tuple of them.
        """


def center_crop_to(target: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The central part of (B, C, …) with the spatial size ``size``; a view, no copy.

    Where an odd number of voxels is left out, one more is left out at the end than at the start.

    Raises:
        ValueError: If the target is smaller than that.

    Example:
        >>> target = torch.arange(5.0).view(1, 1, 5, 1, 1)
        >>> center_crop_to(target, (2, 1, 1)).flatten().tolist()
        [1.0, 2.0]
    """
    present = tuple(target.shape[2:])
    if present == tuple(size):
        return target
    if len(present) != len(size) or any(n < s for n, s in zip(present, size, strict=True)):
        raise ValueError(f"an output of {tuple(size)} voxels, a target of only {present}")
    starts = [(n - s) // 2 for n, s in zip(present, size, strict=True)]
    inner = tuple(slice(start, start + s) for start, s in zip(starts, size, strict=True))
    return target[(slice(None), slice(None), *inner)]


@dataclass(frozen=True)
class Dice:
    """1 - (2 I + s) / (P + R + s), softly, with I = Σ p r, P = Σ p, R = Σ r.

    Targets: ``mask`` (B, 1, …), 0 or 1, or a soft label between them. With soft labels take
    ``squared``: its smallest value is at p = r, that of plain sums is not.

    Attributes:
        background: True averages the loss of the lesion class and that of the background.
        squared: True sums squares, P = Σ p² and R = Σ r².
        smooth: s; makes 0 of empty against empty.
        over: "sample" takes the sums of each sample and then the mean; "batch" takes them over
            the batch, with sample weights inside all three sums.
        activated: True reads the output's first channel as the probability itself, for networks
            that end in an activation of their own.
    """

    background: bool = False
    squared: bool = False
    smooth: float = 1e-5
    over: Literal["sample", "batch"] = "sample"
    activated: bool = False

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        mask = _target(targets, "mask", output)
        probability = output[:, 0:1] if self.activated else torch.sigmoid(_margin(output))
        weight = _sample_weight(targets, mask)
        loss = self._one(probability, mask, weight)
        if self.background:
            loss = (loss + self._one(1 - probability, 1 - mask, weight)) / 2
        return {"total": loss}

    def _one(
        self, probability: torch.Tensor, mask: torch.Tensor, weight: torch.Tensor | None
    ) -> torch.Tensor:
        shared = _sum_of_samples(probability * mask)
        if self.squared:
            probability, mask = probability**2, mask**2
        both = _sum_of_samples(probability) + _sum_of_samples(mask)
        if self.over == "batch":
            if weight is not None:
                shared, both = weight * shared, weight * both
            return 1 - (2 * shared.sum() + self.smooth) / (both.sum() + self.smooth)
        return _mean(1 - (2 * shared + self.smooth) / (both + self.smooth), weight)


@dataclass(frozen=True)
class GeneralizedDice:
    """1 - 2 Σ w I / Σ w (P + R) over background and lesion, w = 1 / R² of each class and sample.

    A class that a sample lacks has the weight of the other one, so that a patch without lesion
    costs its mean lesion probability.

    Source: Sudre and others, 2017, doi:10.1007/978-3-319-67558-9_28.
    """

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        mask = _target(targets, "mask", output)
        lesion = torch.sigmoid(_margin(output))
        volumes = torch.stack([_sum_of_samples(1 - mask), _sum_of_samples(mask)])
        present = volumes > 0
        smallest = torch.where(present, volumes, torch.inf).amin(dim=0)
        weights = torch.where(present, volumes, smallest) ** -2
        shared = torch.stack(
            [_sum_of_samples((1 - lesion) * (1 - mask)), _sum_of_samples(lesion * mask)]
        )
        both = volumes + torch.stack([_sum_of_samples(1 - lesion), _sum_of_samples(lesion)])
        each = 1 - 2 * (weights * shared).sum(dim=0) / (weights * both).sum(dim=0)
        return {"total": _mean(each, _sample_weight(targets, mask))}


@dataclass(frozen=True)
class CrossEntropy:
    """The mean over voxels of -log p of the true class.

    Attributes:
        lesion_weight: multiplies the voxels of the lesion class; the divisor stays the number
            of voxels.
    """

    lesion_weight: float = 1.0

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        mask = _target(targets, "mask", output)
        entropy = _cross_entropy(output, mask)
        if self.lesion_weight != 1.0:
            entropy = torch.where(mask > 0, self.lesion_weight, 1.0) * entropy
        return {"total": _mean(entropy, _sample_weight(targets, mask))}


@dataclass(frozen=True)
class TopKCrossEntropy:
    """The mean of -log p of the true class over the voxels where it is largest.

    Attributes:
        fraction: of the batch's voxels that count, rounded down, at least one. Sample weights
            multiply afterwards: they do not change which voxels count.
    """

    fraction: float = 0.1

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        mask = _target(targets, "mask", output)
        entropy = _cross_entropy(output, mask)
        count = max(1, int(entropy.numel() * self.fraction))
        hardest, index = entropy.flatten().topk(count, sorted=False)
        weight = _sample_weight(targets, mask)
        if weight is not None:
            hardest = hardest * weight[index // entropy[0].numel()]
        return {"total": hardest.mean()}


@dataclass(frozen=True)
class Focal:
    """The mean over voxels of -(1 - p)^gamma · log p of the true class.

    Source: Lin and others, 2017, doi:10.1109/ICCV.2017.324, whose default is gamma 2.
    """

    gamma: float = 2.0

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        mask = _target(targets, "mask", output)
        entropy = _cross_entropy(output, mask)
        focal = (-torch.expm1(-entropy)) ** self.gamma * entropy
        return {"total": _mean(focal, _sample_weight(targets, mask))}


@dataclass(frozen=True)
class SquaredError:
    """The mean over voxels of (output - target)², the output taken as it is.

    For networks that end in an activation of their own; the output has one channel.

    Attributes:
        target: name of the target (B, 1, …).
        values: of the output that stand for a target of 0 and of 1; (-1, 1) goes with a tanh.
    """

    target: str = "mask"
    values: tuple[float, float] = (0.0, 1.0)

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        target = _target(targets, self.target, output)
        low, high = self.values
        squared = (output - (low + (high - low) * target)) ** 2
        return {"total": _mean(squared, _sample_weight(targets, target))}


@dataclass(frozen=True)
class WeightedSum:
    """Weight · loss, added up.

    Each loss is a part by its class's name in small letters; of several of one class the second is
    ``dice_2`` and so on.
    """

    terms: tuple[tuple[float, Loss], ...]

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        each = [loss(output, targets)["total"] for _, loss in self.terms]
        parts: dict[str, torch.Tensor] = {}
        names = [type(loss).__name__.lower() for _, loss in self.terms]
        for number, (name, value) in enumerate(zip(names, each, strict=True)):
            before = names[:number].count(name)
            parts[f"{name}_{before + 1}" if before else name] = value
        total = sum(
            (weight * value for (weight, _), value in zip(self.terms, each, strict=True)),
            start=torch.zeros((), device=output.device),
        )
        return {"total": total, **parts}


@dataclass(frozen=True)
class PerChannel:
    """The mean of a loss over the channels of the output, each against its own mask.

    For networks with an activation of their own: the loss reads one channel, such as
    ``Dice(activated=True)``. Target: ``mask`` with as many channels as the output.

    Attributes:
        loss: of one channel.
    """

    loss: Loss

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        mask = targets["mask"]
        if mask.shape[1] != output.shape[1]:
            raise ValueError(f"{output.shape[1]} channels, {mask.shape[1]} masks")
        each = [
            self.loss(output[:, n : n + 1], {**targets, "mask": mask[:, n : n + 1]})["total"]
            for n in range(output.shape[1])
        ]
        return {"total": torch.stack(each).mean(), "first": each[0]}


@dataclass(frozen=True)
class InstanceLoss:
    """Segmentation + ``heatmap`` · squared error + ``offsets`` · L1 on reference voxels.

    Channels of the output: two logits, center heatmap, offsets along i, j, k. The heatmap's error
    is the mean over all voxels. The offsets' error is the sum over reference lesion voxels and the
    three components, divided by 3 × their number, and 0 without any.

    Targets: ``mask`` and ``heatmap`` (B, 1, …), ``offsets`` (B, 3, …).
    """

    segmentation: Loss = WeightedSum(((1.0, Focal()), (0.5, Dice())))
    heatmap: float = 2000.0
    offsets: float = 0.5

    def __call__(self, output: torch.Tensor, targets: TensorsByName) -> Parts:
        mask = _target(targets, "mask", output)
        weight = _sample_weight(targets, mask)
        parts = self.segmentation(output, targets)
        squared = (output[:, 2:3] - _target(targets, "heatmap", output)) ** 2
        error = (output[:, 3:6] - _target(targets, "offsets", output)).abs() * mask
        if weight is not None:
            error = error * weight.reshape(-1, *(1,) * (error.ndim - 1))
        parts["heatmap"] = _mean(squared, weight)
        parts["offsets"] = error.sum() / (3 * mask.sum()).clamp(min=1)
        parts["total"] = (
            parts["total"] + self.heatmap * parts["heatmap"] + self.offsets * parts["offsets"]
        )
        return parts


@dataclass(frozen=True)
class DeepSupervision:
    """A loss at several resolutions, with targets brought down by nearest neighbor.

    The network returns one output in prediction and, in training, a tuple: the full resolution
    first, each next one at most as large. Where the first one is smaller than the targets, their
    central part counts for all.

    Attributes:
        loss: at every resolution.
        weights: of the resolutions, in that order.
        mean: divide by the sum of the weights.
    """

    loss: Loss
    weights: tuple[float, ...] = (1.0, 0.5, 0.25)
    mean: bool = True

    def __call__(
        self, output: torch.Tensor | Sequence[torch.Tensor], targets: TensorsByName
    ) -> Parts:
        """The parts of the full resolution, and the ``total`` over all."""
        outputs = (output,) if isinstance(output, torch.Tensor) else tuple(output)
        weights = self.weights[: len(outputs)]
        if len(weights) != len(outputs):
            raise ValueError(f"{len(outputs)} outputs, {len(weights)} weights")
        full = {
            name: center_crop_to(target, outputs[0].shape[2:])
            if _is_map(target, outputs[0])
            else target
            for name, target in targets.items()
            if name != "image"
        }
        first: Parts = {}
        total = torch.zeros((), device=outputs[0].device)
        for weight, each in zip(weights, outputs, strict=True):
            size = each.shape[2:]
            smaller = {
                name: functional.interpolate(target, size=size, mode="nearest-exact")
                if _is_map(target, each) and target.shape[2:] != size
                else target
                for name, target in full.items()
            }
            parts = self.loss(each, smaller)
            first = first or parts
            total = total + weight * parts["total"]
        return {**first, "total": total / sum(weights) if self.mean else total}


def _is_map(target: object, output: torch.Tensor) -> bool:
    return isinstance(target, torch.Tensor) and target.ndim == output.ndim


def _target(targets: TensorsByName, name: str, output: torch.Tensor) -> torch.Tensor:
    return center_crop_to(targets[name], output.shape[2:])


def _sample_weight(targets: TensorsByName, mask: torch.Tensor) -> torch.Tensor | None:
    if SAMPLE_WEIGHT not in targets:
        return None
    return targets[SAMPLE_WEIGHT].to(mask).reshape(-1)


def _mean(values: torch.Tensor, sample_weight: torch.Tensor | None) -> torch.Tensor:
    """The mean of (B, …), each sample multiplied by its weight."""
    if sample_weight is None:
        return values.mean()
    return (values * sample_weight.reshape(-1, *(1,) * (values.ndim - 1))).mean()


def _sum_of_samples(values: torch.Tensor) -> torch.Tensor:
    return values.sum(dim=tuple(range(1, values.ndim)))


def _margin(output: torch.Tensor) -> torch.Tensor:
    return output[:, 1:2] - output[:, 0:1]


def _cross_entropy(output: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    margin = _margin(output)
    return functional.softplus(torch.where(mask > 0, -margin, margin))
